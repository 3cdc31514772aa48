// Verdicts about zero copy: one trial, remembered, taken back, tried again.
#include "io/zero_copy_memory.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace ringsock::io {
namespace {

using Memory = ZeroCopyMemory;
const IpAddress kA = IpAddress::V4(192, 0, 2, 1);

TEST(ZeroCopyMemoryTest, OneTrialThenTheVerdict) {
  ManualClock clock;
  Memory memory(true);
  EXPECT_TRUE(memory.Use(kA, clock.Now()));
  EXPECT_FALSE(memory.Use(kA, clock.Now())) << "the trial is under way";
  memory.Learn(kA, /*copied=*/false, clock.Now());
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(memory.Use(kA, clock.Now()));
}

TEST(ZeroCopyMemoryTest, CopiedIsOffForLongerAndLonger) {
  ManualClock clock;
  Memory memory(true);
  Duration pause = Memory::kFirstRetry;
  for (int i = 0; i < 12; ++i) {
    EXPECT_TRUE(memory.Use(kA, clock.Now()));
    memory.Learn(kA, /*copied=*/true, clock.Now());
    clock.Advance(pause - Duration(1));
    EXPECT_FALSE(memory.Use(kA, clock.Now()));
    clock.Advance(Duration(1));
    pause = std::min(2 * pause, Memory::kLastRetry);
  }
}

TEST(ZeroCopyMemoryTest, AGoodWayMayTurnBad) {
  ManualClock clock;
  Memory memory(true);
  memory.Use(kA, clock.Now());
  memory.Learn(kA, false, clock.Now());
  memory.Learn(kA, true, clock.Now());
  EXPECT_FALSE(memory.Use(kA, clock.Now()));
  memory.Learn(kA, false, clock.Now());  // a straggler from before
  EXPECT_FALSE(memory.Use(kA, clock.Now()));
}

TEST(ZeroCopyMemoryTest, ALostVerdictIsNotWaitedForForEver) {
  ManualClock clock;
  Memory memory(true);
  EXPECT_TRUE(memory.Use(kA, clock.Now()));
  clock.Advance(Memory::kTrialTimeout);
  EXPECT_TRUE(memory.Use(kA, clock.Now()));
}

TEST(ZeroCopyMemoryTest, ManyDestinationsStayBoundedAndApart) {
  ManualClock clock;
  Memory memory(true);
  for (uint32_t i = 0; i < 10'000; ++i) {
    const IpAddress to = IpAddress::V4(0x0a000000 + i);
    EXPECT_TRUE(memory.Use(to, clock.Now())) << "a stranger's verdict must not count";
    memory.Learn(to, i % 2 == 0, clock.Now());
    EXPECT_EQ(memory.Use(to, clock.Now()), i % 2 != 0);
  }
  memory.Learn(kA, true, clock.Now());  // never tried: nothing to learn
}

TEST(ZeroCopyMemoryTest, OffIsOff) {
  Memory memory(false);
  EXPECT_FALSE(memory.Use(kA, Instant{}));
  Memory on(true);
  on.Disable();
  EXPECT_FALSE(on.Use(kA, Instant{}));
}

}  // namespace
}  // namespace ringsock::io
