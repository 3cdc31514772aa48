// The waker's states, and its promise between threads.
#include "io/waker.h"

#include <gtest/gtest.h>
#include <poll.h>

#include <atomic>
#include <chrono>
#include <thread>

namespace ringsock::io {
namespace {

bool Readable(const Waker& waker, int timeout_ms = 0) {
  pollfd item{waker.fd(), POLLIN, 0};
  return poll(&item, 1, timeout_ms) == 1;
}

TEST(WakerTest, CostsNoSystemCallWhileAwake) {
  Waker waker;
  ASSERT_TRUE(waker.Open().ok());
  EXPECT_FALSE(waker.TakePending());
  waker.Wake();
  waker.Wake();
  EXPECT_FALSE(Readable(waker)) << "the eventfd was written";
  EXPECT_TRUE(waker.TakePending());
  EXPECT_FALSE(waker.TakePending());
}

TEST(WakerTest, APendingWakeUpForbidsSleep) {
  Waker waker;
  ASSERT_TRUE(waker.Open().ok());
  waker.Wake();
  EXPECT_FALSE(waker.PrepareSleep());
  EXPECT_TRUE(waker.PrepareSleep()) << "it was taken";
  EXPECT_FALSE(waker.FinishSleep());
}

TEST(WakerTest, WakesASleeperOnceAndIsEmptyAfterwards) {
  Waker waker;
  ASSERT_TRUE(waker.Open().ok());
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(waker.PrepareSleep());
    waker.Wake();
    waker.Wake();
    EXPECT_TRUE(Readable(waker));
    EXPECT_TRUE(waker.FinishSleep());
    EXPECT_FALSE(Readable(waker));
    EXPECT_FALSE(waker.TakePending());
  }
}

// A loop that wakes for other reasons while threads call Wake(): in the end every write to the
// eventfd has been read, or every later sleep would end at once.
TEST(WakerTest, LateWritesDoNotKeepItAwake) {
  Waker waker;
  ASSERT_TRUE(waker.Open().ok());
  std::atomic<bool> stop{false};
  std::thread thread([&] {
    for (int i = 0; i < 200'000; ++i) waker.Wake();
    stop = true;
  });
  while (!stop) {
    if (waker.PrepareSleep()) waker.FinishSleep();
  }
  thread.join();
  waker.TakePending();
  ASSERT_TRUE(waker.PrepareSleep());
  waker.FinishSleep();
  EXPECT_FALSE(Readable(waker));
}

// Plain memory written before Wake() is visible after the wake-up has been taken (under the thread
// sanitizer this test is about that).
TEST(WakerTest, CarriesWhatWasWrittenBefore) {
  Waker waker;
  ASSERT_TRUE(waker.Open().ok());
  constexpr int kRounds = 50'000;
  // Where others run too, each round may take some milliseconds: then as many as this allows.
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  int value = 0;
  std::atomic<int> seen{0};
  std::atomic<bool> stop{false};
  std::thread thread([&] {
    for (int i = 1; i <= kRounds; ++i) {
      while (seen.load(std::memory_order_acquire) != i - 1) {
        if (stop.load()) return;
        std::this_thread::yield();
      }
      value = i;
      waker.Wake();
    }
  });
  for (int i = 1; i <= kRounds && std::chrono::steady_clock::now() < end; ++i) {
    bool woken = waker.TakePending() || !waker.PrepareSleep();
    while (!woken) {
      ASSERT_TRUE(Readable(waker, 60'000)) << "lost in round " << i;
      woken = waker.FinishSleep() || !waker.PrepareSleep();
    }
    ASSERT_EQ(value, i);
    seen.store(i, std::memory_order_release);
  }
  stop = true;
  thread.join();
}

}  // namespace
}  // namespace ringsock::io
