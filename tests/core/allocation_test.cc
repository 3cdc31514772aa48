// After the first packets, shards allocate nothing, and no more does a Sender: every operator new
// on their threads is counted.
#include "core/engine.h"
#include "gtest/gtest.h"
#include "tests/core/allocation_counter.h"
#include "tests/core/packet_path_exercise.h"

namespace ringsock {
namespace {

class AllocationTest : public testing::TestWithParam<io::Backend> {
 protected:
  void SetUp() override {
    if (const auto loop = io::CreateLoop({.backend = GetParam()}); !loop.ok()) {
      GTEST_SKIP() << loop.status().ToString();
    }
  }
};

TEST_P(AllocationTest, NoneOnThePacketPath) {
  DirectExercise exercise(GetParam(), CountAllocations);
  for (int i = 0; i < 20; ++i) exercise.Run();
  const uint64_t before = Allocations();
  for (int i = 0; i < 200; ++i) exercise.Run();
  EXPECT_EQ(Allocations() - before, 0u);
  const CounterSnapshot counters = exercise.engine().Counters();
  EXPECT_EQ(counters.drops[static_cast<size_t>(Drop::kTxUnknownPeer)],
            220u * DirectExercise::kToNobody);
  // All of them were taken by the ring.
  EXPECT_EQ(counters.drops[static_cast<size_t>(Drop::kTxQueueFull)], 0u);
}

TEST_P(AllocationTest, NoneForRelayedPackets) {
  RelayedExercise exercise(GetParam(), CountAllocations);
  for (int i = 0; i < 20; ++i) exercise.Run();
  const uint64_t before = Allocations();
  for (int i = 0; i < 50; ++i) exercise.Run();
  EXPECT_EQ(Allocations() - before, 0u);
}

INSTANTIATE_TEST_SUITE_P(All, AllocationTest,
                         testing::Values(io::Backend::kMmsg, io::Backend::kUring),
                         [](const testing::TestParamInfo<io::Backend>& info) {
                           return info.param == io::Backend::kUring ? "Uring" : "Mmsg";
                         });

}  // namespace
}  // namespace ringsock
