// Counts of loss, duplicates and reordering, also against a plain model with random input.
#include "bench/sequence_tracker.h"

#include <gtest/gtest.h>

#include <random>
#include <set>

namespace ringsock::bench {
namespace {

TEST(SequenceTrackerTest, InOrder) {
  SequenceTracker tracker;
  for (uint64_t n = 0; n < 5000; n += 46) tracker.OnPackets(n, 46);
  EXPECT_EQ(tracker.distinct(), 5014u);
  EXPECT_EQ(tracker.duplicates(), 0u);
  EXPECT_EQ(tracker.reordered(), 0u);
}

TEST(SequenceTrackerTest, AGapIsNotDistinct) {
  SequenceTracker tracker;
  tracker.OnPackets(0, 10);
  tracker.OnPackets(13, 10);
  EXPECT_EQ(tracker.distinct(), 20u);
  EXPECT_EQ(tracker.reordered(), 0u);
}

TEST(SequenceTrackerTest, ALatePacketIsReorderedOnceAndThenADuplicate) {
  SequenceTracker tracker;
  tracker.OnPackets(0, 1);
  tracker.OnPackets(2, 1);
  tracker.OnPackets(1, 1);
  EXPECT_EQ(tracker.distinct(), 3u);
  EXPECT_EQ(tracker.reordered(), 1u);
  tracker.OnPackets(1, 1);
  EXPECT_EQ(tracker.duplicates(), 1u);
  EXPECT_EQ(tracker.distinct(), 3u);
}

TEST(SequenceTrackerTest, ATrainThatOverlapsTheEnd) {
  SequenceTracker tracker;
  tracker.OnPackets(0, 10);
  tracker.OnPackets(8, 4);
  EXPECT_EQ(tracker.duplicates(), 2u);
  EXPECT_EQ(tracker.distinct(), 12u);
}

TEST(SequenceTrackerTest, AJumpOfMoreThanTheWindowForgetsAll) {
  SequenceTracker tracker;
  tracker.OnPackets(0, 100);
  tracker.OnPackets(1'000'000, 1);
  tracker.OnPackets(1'000'000 - 1, 1);
  EXPECT_EQ(tracker.distinct(), 102u);
  EXPECT_EQ(tracker.reordered(), 1u);
  EXPECT_EQ(tracker.duplicates(), 0u);
}

TEST(SequenceTrackerTest, BehindTheWindowCountsAsDistinct) {
  SequenceTracker tracker;
  tracker.OnPackets(0, SequenceTracker::kWindow + 10);
  tracker.OnPackets(5, 1);
  EXPECT_EQ(tracker.duplicates(), 0u);
  EXPECT_EQ(tracker.reordered(), 1u);
  tracker.OnPackets(10, 1);  // the oldest that is remembered
  EXPECT_EQ(tracker.duplicates(), 1u);
}

TEST(SequenceTrackerTest, AgreesWithAModel) {
  std::mt19937_64 random(1);
  for (int round = 0; round < 20; ++round) {
    SequenceTracker tracker;
    std::set<uint64_t> seen;
    uint64_t duplicates = 0;
    uint64_t reordered = 0;
    uint64_t base = 0;
    for (int i = 0; i < 3000; ++i) {
      base += random() % 40;
      const uint64_t first = base + random() % 500;  // at most 1000 below the newest
      const uint64_t count = 1 + random() % 64;
      for (uint64_t n = first; n < first + count; ++n) {
        const bool late = !seen.empty() && n < *seen.rbegin();
        if (!seen.insert(n).second) {
          ++duplicates;
        } else if (late) {
          ++reordered;
        }
      }
      tracker.OnPackets(first, count);
    }
    EXPECT_EQ(tracker.distinct(), seen.size());
    EXPECT_EQ(tracker.duplicates(), duplicates);
    EXPECT_EQ(tracker.reordered(), reordered);
  }
}

}  // namespace
}  // namespace ringsock::bench
