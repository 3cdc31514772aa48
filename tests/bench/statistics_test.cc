// Medians, spreads and percentiles against values computed by hand.
#include "bench/statistics.h"

#include <gtest/gtest.h>

#include <limits>

namespace ringsock::bench {
namespace {

TEST(SummarizeTest, NothingIsNoCount) {
  EXPECT_EQ(Summarize({}).count, 0u);
  const std::vector<double> values = {std::numeric_limits<double>::infinity()};
  EXPECT_EQ(Summarize(values).count, 0u);
}

TEST(SummarizeTest, OddCountTakesTheMiddle) {
  const std::vector<double> values = {9, 1, 4};
  const Summary summary = Summarize(values);
  EXPECT_EQ(summary.median, 4);
  EXPECT_EQ(summary.min, 1);
  EXPECT_EQ(summary.max, 9);
  EXPECT_EQ(summary.count, 3u);
}

TEST(SummarizeTest, EvenCountTakesTheMean) {
  const std::vector<double> values = {8, 2, 4, 100};
  EXPECT_EQ(Summarize(values).median, 6);
}

TEST(SummarizeTest, LeavesOutWhatIsNotFinite) {
  const std::vector<double> values = {std::numeric_limits<double>::quiet_NaN(), 5,
                                      std::numeric_limits<double>::infinity()};
  const Summary summary = Summarize(values);
  EXPECT_EQ(summary.count, 1u);
  EXPECT_EQ(summary.median, 5);
}

TEST(HistogramTest, EmptyGivesZero) { EXPECT_EQ(Histogram().Percentile(99), 0u); }

TEST(HistogramTest, SmallValuesAreExact) {
  Histogram histogram;
  for (uint64_t value = 1; value <= 60; ++value) histogram.Record(value);
  EXPECT_EQ(histogram.Percentile(50), 30u);
  EXPECT_EQ(histogram.Percentile(100), 60u);
  EXPECT_EQ(histogram.Percentile(0.1), 1u);
}

TEST(HistogramTest, NeverBelowAndAtMostOneBucketAbove) {
  for (uint64_t value = 1; value < uint64_t{1} << 39; value = value * 3 / 2 + 1) {
    Histogram histogram;
    histogram.Record(value);
    EXPECT_GE(histogram.Percentile(50), value);
    EXPECT_LE(static_cast<double>(histogram.Percentile(50)), static_cast<double>(value) * 1.016);
  }
}

TEST(HistogramTest, PercentilesOfALargeRange) {
  Histogram histogram;
  for (uint64_t value = 1; value <= 100'000; ++value) histogram.Record(value);
  EXPECT_NEAR(static_cast<double>(histogram.Percentile(50)), 50'000, 800);
  EXPECT_NEAR(static_cast<double>(histogram.Percentile(99)), 99'000, 1600);
  EXPECT_NEAR(static_cast<double>(histogram.Percentile(99.9)), 99'900, 1600);
}

TEST(HistogramTest, HugeValuesCountAsTheLargest) {
  Histogram histogram;
  histogram.Record(std::numeric_limits<uint64_t>::max());
  EXPECT_EQ(histogram.total(), 1u);
  EXPECT_EQ(histogram.Percentile(50), (uint64_t{1} << 40) - 1);
}

TEST(HistogramTest, MergeAndClear) {
  Histogram a;
  Histogram b;
  a.Record(1);
  b.Record(3);
  b.Record(3);
  a.Merge(b);
  EXPECT_EQ(a.total(), 3u);
  EXPECT_EQ(a.Percentile(50), 3u);
  a.Clear();
  EXPECT_EQ(a.total(), 0u);
  EXPECT_EQ(a.Percentile(50), 0u);
}

// A train's packets share one time stamp, and each counts.
TEST(HistogramTest, Weights) {
  Histogram histogram;
  histogram.Record(10, 98);
  histogram.Record(1000);
  histogram.Record(2000);
  EXPECT_EQ(histogram.total(), 100u);
  EXPECT_EQ(histogram.Percentile(98), 10u);
  EXPECT_GE(histogram.Percentile(99), 1000u);
}

}  // namespace
}  // namespace ringsock::bench
