// The open-loop schedule, with a clock that moves only when told to.
#include "bench/pacer.h"

#include <gtest/gtest.h>

namespace ringsock::bench {
namespace {

using std::chrono::microseconds;
using std::chrono::seconds;

TEST(PacerTest, FirstTrainIsDueAtTheStart) {
  ManualClock clock;
  const Pacer pacer(clock.Now(), 1000, 1);
  EXPECT_EQ(pacer.Due(clock.Now()), 1u);
  EXPECT_EQ(pacer.Due(clock.Now() - microseconds(1)), 0u);
  EXPECT_EQ(pacer.Next(), clock.Now());
}

TEST(PacerTest, TrainsAreSpacedByTheirPackets) {
  ManualClock clock;
  Pacer pacer(clock.Now(), 1000, 4);  // a train each 4 ms
  pacer.Issue(1);
  clock.Advance(microseconds(3999));
  EXPECT_EQ(pacer.Due(clock.Now()), 0u);
  clock.Advance(microseconds(1));
  EXPECT_EQ(pacer.Due(clock.Now()), 1u);
}

// A stall must not move the schedule: what was due during it is still due, with its own time.
TEST(PacerTest, AStallIsCaughtUpWithTheTimesThatWereDue) {
  ManualClock clock;
  const Instant start = clock.Now();
  Pacer pacer(start, 1000, 1);
  pacer.Issue(1);
  clock.Advance(microseconds(10'500));
  ASSERT_EQ(pacer.Due(clock.Now()), 10u);
  for (int i = 1; i <= 10; ++i) {
    EXPECT_EQ(pacer.Next(), start + microseconds(1000 * i));
    pacer.Issue(1);
  }
  EXPECT_EQ(pacer.Due(clock.Now()), 0u);
  EXPECT_GT(pacer.Next(), clock.Now());
}

TEST(PacerTest, RoundingDoesNotAddUp) {
  ManualClock clock;
  const Instant start = clock.Now();
  Pacer pacer(start, 3'000'000, 1);  // 333.33 ns
  clock.Advance(seconds(100));
  EXPECT_NEAR(static_cast<double>(pacer.Due(clock.Now())), 300'000'001, 1);
  EXPECT_EQ(pacer.DueTime(300'000'000), start + seconds(100));
}

TEST(PacerTest, DueAndDueTimeAgree) {
  ManualClock clock;
  Pacer pacer(clock.Now(), 777'777, 7);
  for (int i = 0; i < 10'000; ++i) {
    clock.Advance(Duration(i * 13 % 20'000));
    const uint64_t due = pacer.Due(clock.Now());
    if (due > 0) {
      pacer.Issue(due - 1);
      EXPECT_LE(pacer.Next(), clock.Now());
      pacer.Issue(1);
    }
    EXPECT_GT(pacer.Next(), clock.Now());
  }
}

}  // namespace
}  // namespace ringsock::bench
