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

// A way that is good for some seconds and then bad again, as while somebody taps the device now and
// then, is trusted less and less; one that was good for long starts anew.
TEST(ZeroCopyMemoryTest, AWayThatChangesOftenIsTriedLessOften) {
  ManualClock clock;
  Memory memory(true);
  const auto good_for = [&](Duration time) {
    ASSERT_TRUE(memory.Use(kA, clock.Now()));
    memory.Learn(kA, /*copied=*/false, clock.Now());
    clock.Advance(time);
    ASSERT_TRUE(memory.Use(kA, clock.Now()));
    memory.Learn(kA, /*copied=*/true, clock.Now());
  };
  const auto off_for = [&](Duration time) {
    clock.Advance(time - Duration(1));
    EXPECT_FALSE(memory.Use(kA, clock.Now()));
    clock.Advance(Duration(1));
  };
  good_for(std::chrono::seconds(1));
  off_for(Memory::kFirstRetry);
  good_for(std::chrono::seconds(1));
  off_for(2 * Memory::kFirstRetry);
  good_for(Memory::kLastRetry - Duration(1));
  off_for(4 * Memory::kFirstRetry);
  good_for(Memory::kLastRetry);
  off_for(Memory::kFirstRetry);
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
    clock.Advance(std::chrono::seconds(1));  // nobody is busy any more
    const IpAddress to = IpAddress::V4(0x0a000000 + i);
    EXPECT_TRUE(memory.Use(to, clock.Now())) << "a stranger's verdict must not count";
    memory.Learn(to, i % 2 == 0, clock.Now());
    EXPECT_EQ(memory.Use(to, clock.Now()), i % 2 != 0);
  }
  memory.Learn(kA, true, clock.Now());  // never tried: nothing to learn
}

// On a way that copies, each trial is a loss.
TEST(ZeroCopyMemoryTest, TrialsAreFewHoweverManyTheDestinations) {
  ManualClock clock;
  Memory memory(true);
  uint32_t trials = 0;
  constexpr uint32_t kSends = 100'000;
  for (uint32_t i = 0; i < kSends; ++i) {
    const IpAddress to = IpAddress::V4(0x0a000000 + i % 10'000);
    if (memory.Use(to, clock.Now())) {
      ++trials;
      memory.Learn(to, /*copied=*/true, clock.Now());
    }
    clock.Advance(std::chrono::microseconds(10));
  }
  EXPECT_GT(trials, 0u);
  EXPECT_LE(trials, kSends * std::chrono::microseconds(10) / Memory::kTrialGap + 1);
}

TEST(ZeroCopyMemoryTest, ADestinationInUseKeepsItsPlace) {
  ManualClock clock;
  Memory memory(true);
  const auto try_all_others = [&] {
    uint32_t tried = 0;
    for (uint32_t i = 0; i < 20'000; ++i) {
      clock.Advance(Memory::kTrialGap);
      if (memory.Use(IpAddress::V4(0x0a000000 + i), clock.Now())) ++tried;
      if (i % 50 == 0 && !memory.Use(kA, clock.Now())) return 0u;
    }
    return tried;
  };
  ASSERT_TRUE(memory.Use(kA, clock.Now()));
  memory.Learn(kA, false, clock.Now());
  EXPECT_GT(try_all_others(), 0u) << "it lost its place, or nobody else got one";
  clock.Advance(Memory::kIdle);
  for (uint32_t i = 0; i < 20'000; ++i) {
    clock.Advance(Memory::kTrialGap);
    memory.Use(IpAddress::V4(0x0a000000 + i), clock.Now());
  }
  clock.Advance(Memory::kTrialGap);
  EXPECT_TRUE(memory.Use(kA, clock.Now()));
  EXPECT_FALSE(memory.Use(kA, clock.Now())) << "its verdict outlived its place";
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
