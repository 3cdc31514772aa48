// The rings by themselves, so small that they are always full: everything that goes in comes out
// once.
#include "io/uring.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <chrono>
#include <string>
#include <thread>
#include <vector>

namespace ringsock::io {
namespace {

class UringTest : public testing::Test {
 protected:
  void SetUp() override {
    if (const auto status = ProbeUring(); !status.ok()) {
      GTEST_SKIP() << std::string(status.message());
    }
  }
  void Open(uint32_t sq_entries, uint32_t cq_entries) {
    const auto status = ring_.Open(sq_entries, cq_entries);
    ASSERT_TRUE(status.ok()) << status;
    ring_.Enable();
  }
  void QueueNop(uint32_t id) {
    io_uring_prep_nop(ring_.NextSqe({CompletionTag::kSend, id % 7, id}));
  }
  // Takes what there is, counting each number.
  void Drain() {
    ring_.Drain([this](CompletionTag tag, const io_uring_cqe& cqe) {
      ASSERT_EQ(tag.kind(), CompletionTag::kSend);
      ASSERT_LT(tag.id(), seen_.size());
      EXPECT_EQ(tag.slab(), tag.id() % 7);
      EXPECT_EQ(cqe.res, 0);
      ++seen_[tag.id()];
      ++drained_;
    });
  }
  void ExpectAllOnce() {
    // Each turn empties a queue's worth of what the kernel kept aside.
    for (size_t turn = 0; drained_ < seen_.size() && turn < 10 * seen_.size(); ++turn) {
      ring_.SubmitAndRun();
      Drain();
    }
    ring_.SubmitAndRun();
    Drain();
    EXPECT_FALSE(ring_.HasWork());
    EXPECT_EQ(ring_.queued(), 0u);
    EXPECT_EQ(seen_, std::vector<uint32_t>(seen_.size(), 1));
  }

  Uring ring_;
  std::vector<uint32_t> seen_;
  size_t drained_ = 0;
};

TEST_F(UringTest, AFullSubmissionQueueSubmitsItself) {
  Open(4, 1024);
  seen_.resize(1000);
  for (uint32_t i = 0; i < 1000; ++i) {
    QueueNop(i);
    EXPECT_LE(ring_.queued(), 4u);
  }
  ExpectAllOnce();
}

TEST_F(UringTest, CompletionsThatDoNotFitAreKept) {
  Open(4, 4);
  seen_.resize(1000);
  for (uint32_t i = 0; i < 1000; ++i) QueueNop(i);
  ExpectAllOnce();
}

TEST_F(UringTest, QueuesOfOneWrapAround) {
  Open(1, 1);
  seen_.resize(300);
  for (uint32_t i = 0; i < 300; ++i) {
    QueueNop(i);
    if (i % 5 == 0) ring_.Submit();
    if (i % 11 == 0) Drain();
  }
  ExpectAllOnce();
}

TEST_F(UringTest, WaitingEndsWithACompletionOrTheTime) {
  Open(4, 4);
  ring_.SubmitAndWait(std::chrono::milliseconds(1));
  EXPECT_FALSE(ring_.HasCompletions());
  seen_.resize(1);
  QueueNop(0);
  ring_.SubmitAndWait(std::chrono::hours(1));
  EXPECT_TRUE(ring_.HasCompletions());
  ExpectAllOnce();
}

TEST_F(UringTest, KnowsTheThreadThatMayEnter) {
  Open(4, 4);
  EXPECT_TRUE(ring_.MayEnter());
  std::thread([this] { EXPECT_FALSE(ring_.MayEnter()); }).join();
}

TEST(CompletionTagTest, ComesOutAsItWentIn) {
  for (const CompletionTag tag :
       {CompletionTag{}, CompletionTag{CompletionTag::kCancel, 0xffffff, 0xffffffff},
        CompletionTag{CompletionTag::kZeroCopy, 3, 0x80000001}}) {
    const CompletionTag back = CompletionTag::Unpack(tag.Pack());
    EXPECT_EQ(back.kind(), tag.kind());
    EXPECT_EQ(back.slab(), tag.slab());
    EXPECT_EQ(back.id(), tag.id());
  }
}

}  // namespace
}  // namespace ringsock::io
