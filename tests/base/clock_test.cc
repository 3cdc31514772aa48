// The two clocks: one that never goes back, one that obeys.
#include "base/clock.h"

#include <gtest/gtest.h>

#include <chrono>

namespace ringsock {
namespace {

TEST(SystemClockTest, NeverGoesBack) {
  const Clock& clock = SystemClock();
  Instant last = clock.Now();
  for (int i = 0; i < 10000; ++i) {
    const Instant now = clock.Now();
    ASSERT_GE(now, last);
    last = now;
  }
}

TEST(SystemClockTest, IsTheMonotonicClockOfTheHost) {
  const auto before = std::chrono::steady_clock::now().time_since_epoch();
  const Duration now = SystemClock().Now().time_since_epoch();
  const auto after = std::chrono::steady_clock::now().time_since_epoch();
  EXPECT_GE(now, before);
  EXPECT_LE(now, after);
  EXPECT_EQ(&SystemClock(), &SystemClock());
}

TEST(ManualClockTest, MovesOnlyWhenTold) {
  ManualClock clock;
  const Instant start = clock.Now();
  EXPECT_EQ(clock.Now(), start);
  clock.Advance(std::chrono::milliseconds(250));
  EXPECT_EQ(clock.Now() - start, std::chrono::milliseconds(250));
  clock.Set(start);
  EXPECT_EQ(clock.Now(), start);
}

TEST(ManualClockTest, StartLeavesRoomBeforeIt) {
  // Logic subtracts from "now"; a clock that starts at zero would hide or cause underflow.
  EXPECT_GT(ManualClock().Now().time_since_epoch(), std::chrono::minutes(30));
}

}  // namespace
}  // namespace ringsock
