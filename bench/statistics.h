// Statistics of a benchmark: what is reported of several rounds, and a histogram of latencies that
// never allocates while it records.
#ifndef RINGSOCK_BENCH_STATISTICS_H_
#define RINGSOCK_BENCH_STATISTICS_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace ringsock::bench {

// Median and spread of the rounds of one figure.
struct Summary {
  double median = 0;
  double min = 0;
  double max = 0;
  size_t count = 0;  // 0: no rounds, and the other fields mean nothing
};
// The median of an even number of values is the mean of the two in the middle. Values that are not
// finite (a round that moved nothing) are left out.
Summary Summarize(std::span<const double> values);

// Counts of values from 0 to 2^40 (18 minutes in nanoseconds; larger ones count as that) in
// logarithmic buckets of 64 linear steps each: a percentile is at most 1.6 % above the true value.
class Histogram {
 public:
  Histogram() : counts_(kBuckets, 0) {}

  void Record(uint64_t value, uint64_t times = 1) {
    counts_[BucketOf(value)] += times;
    total_ += times;
  }
  void Merge(const Histogram& other);
  void Clear();

  uint64_t total() const { return total_; }
  // The smallest recorded value that at least `percent` of all are no larger than, rounded up to
  // the end of its bucket. `percent` is in (0, 100]. 0 if nothing was recorded.
  uint64_t Percentile(double percent) const;

 private:
  static constexpr int kStepBits = 6;
  static constexpr int kMaxBits = 40;
  static constexpr size_t kBuckets = (kMaxBits - kStepBits + 1) << kStepBits;

  static size_t BucketOf(uint64_t value);
  static uint64_t UpperEnd(size_t bucket);

  std::vector<uint64_t> counts_;
  uint64_t total_ = 0;
};

}  // namespace ringsock::bench

#endif  // RINGSOCK_BENCH_STATISTICS_H_
