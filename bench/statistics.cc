// Statistics of a benchmark.
#include "bench/statistics.h"

#include <algorithm>
#include <bit>
#include <cmath>

namespace ringsock::bench {

Summary Summarize(std::span<const double> values) {
  std::vector<double> sorted;
  for (const double value : values) {
    if (std::isfinite(value)) sorted.push_back(value);
  }
  if (sorted.empty()) return {};
  std::sort(sorted.begin(), sorted.end());
  const size_t n = sorted.size();
  const double median = n % 2 == 1 ? sorted[n / 2] : (sorted[n / 2 - 1] + sorted[n / 2]) / 2;
  return {.median = median, .min = sorted.front(), .max = sorted.back(), .count = n};
}

// Values below 2^kStepBits have a bucket each. Above, the highest bit chooses a group and the
// kStepBits bits after it the bucket in the group.
size_t Histogram::BucketOf(uint64_t value) {
  value = std::min(value, (uint64_t{1} << kMaxBits) - 1);
  const int bits = std::bit_width(value);
  if (bits <= kStepBits) return value;
  const int shift = bits - kStepBits - 1;
  const size_t group = shift + 1;
  return (group << kStepBits) + ((value >> shift) & ((1u << kStepBits) - 1));
}

uint64_t Histogram::UpperEnd(size_t bucket) {
  const size_t group = bucket >> kStepBits;
  if (group == 0) return bucket;
  const uint64_t step = bucket & ((1u << kStepBits) - 1);
  return (((uint64_t{1} << kStepBits) + step + 1) << (group - 1)) - 1;
}

void Histogram::Merge(const Histogram& other) {
  for (size_t i = 0; i < kBuckets; ++i) counts_[i] += other.counts_[i];
  total_ += other.total_;
}

void Histogram::Clear() {
  std::fill(counts_.begin(), counts_.end(), 0);
  total_ = 0;
}

uint64_t Histogram::Percentile(double percent) const {
  if (total_ == 0) return 0;
  const auto rank = static_cast<uint64_t>(std::ceil(percent / 100 * static_cast<double>(total_)));
  const uint64_t wanted = std::clamp<uint64_t>(rank, 1, total_);
  uint64_t seen = 0;
  for (size_t i = 0; i < kBuckets; ++i) {
    seen += counts_[i];
    if (seen >= wanted) return UpperEnd(i);
  }
  return UpperEnd(kBuckets - 1);
}

}  // namespace ringsock::bench
