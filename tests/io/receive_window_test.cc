// How many buffers are in use: few of long trains, all of short ones.
#include "io/receive_window.h"

#include <gtest/gtest.h>

namespace ringsock::io {
namespace {

constexpr uint32_t kLong = 46 * 1400;

void AddBatches(ReceiveWindow* window, int batches, uint32_t train_bytes) {
  for (int i = 0; i < batches; ++i) {
    for (int n = 0; n < 8; ++n) window->Add(train_bytes);
    const uint32_t next = window->EndBatch();
    EXPECT_EQ(next, window->size());
  }
}

TEST(ReceiveWindowTest, BeginsWithFew) {
  EXPECT_EQ(ReceiveWindow(64).size(), ReceiveWindow::kFewest);
  EXPECT_EQ(ReceiveWindow(2).size(), 2u);
}

TEST(ReceiveWindowTest, FollowsTheLengthOfTrains) {
  ReceiveWindow window(64);
  AddBatches(&window, 20, 1400);
  EXPECT_EQ(window.size(), 64u);
  AddBatches(&window, 20, kLong);
  EXPECT_EQ(window.size(), ReceiveWindow::kBytes / kLong);
  AddBatches(&window, 20, 16 * 1400);
  EXPECT_EQ(window.size(), ReceiveWindow::kBytes / (16 * 1400));
}

TEST(ReceiveWindowTest, OneOddBatchDoesNotUpsetIt) {
  ReceiveWindow window(64);
  AddBatches(&window, 20, 1400);
  window.Add(kLong);
  window.EndBatch();
  EXPECT_GE(window.size(), 48u);
}

TEST(ReceiveWindowTest, TakesAnything) {
  ReceiveWindow window(7);
  window.EndBatch();
  EXPECT_EQ(window.size(), ReceiveWindow::kFewest);
  AddBatches(&window, 40, 0);  // empty datagrams
  EXPECT_EQ(window.size(), 7u);
  ReceiveWindow one(1);
  AddBatches(&one, 40, 0);
  EXPECT_EQ(one.size(), 1u);
  AddBatches(&one, 40, kLong);
  EXPECT_EQ(one.size(), 1u);
}

}  // namespace
}  // namespace ringsock::io
