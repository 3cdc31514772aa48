// After the first packets, shards take no lock, and no more does a Sender: every lock that their
// threads take is counted.
#include <mutex>
#include <shared_mutex>

#include "core/engine.h"
#include "gtest/gtest.h"
#include "tests/core/lock_counter.h"
#include "tests/core/packet_path_exercise.h"

namespace ringsock {
namespace {

class LockTest : public testing::TestWithParam<io::Backend> {
 protected:
  void SetUp() override {
    if (const auto loop = io::CreateLoop({.backend = GetParam()}); !loop.ok()) {
      GTEST_SKIP() << loop.status().ToString();
    }
  }
};

TEST(LockCounterTest, SeesTheLocksOfWatchedThreads) {
  std::mutex mutex;
  std::shared_mutex shared;
  const auto take = [&] {
    { std::lock_guard lock(mutex); }
    if (mutex.try_lock()) mutex.unlock();
    { std::shared_lock lock(shared); }
    { std::unique_lock lock(shared); }
  };
  take();
  EXPECT_EQ(LocksTaken(), 0u) << "nobody asked";
  CountLocks(true);
  take();
  CountLocks(false);
  EXPECT_EQ(LocksTaken(), 4u);
}

TEST_P(LockTest, NoneOnThePacketPath) {
  DirectExercise exercise(GetParam(), CountLocks);
  for (int i = 0; i < 20; ++i) exercise.Run();
  const uint64_t before = LocksTaken();
  for (int i = 0; i < 200; ++i) exercise.Run();
  EXPECT_EQ(LocksTaken() - before, 0u);
}

TEST_P(LockTest, NoneForRelayedPackets) {
  RelayedExercise exercise(GetParam(), CountLocks);
  for (int i = 0; i < 20; ++i) exercise.Run();
  const uint64_t before = LocksTaken();
  for (int i = 0; i < 50; ++i) exercise.Run();
  EXPECT_EQ(LocksTaken() - before, 0u);
}

INSTANTIATE_TEST_SUITE_P(All, LockTest, testing::Values(io::Backend::kMmsg, io::Backend::kUring),
                         [](const testing::TestParamInfo<io::Backend>& info) {
                           return info.param == io::Backend::kUring ? "Uring" : "Mmsg";
                         });

}  // namespace
}  // namespace ringsock
