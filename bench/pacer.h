// The schedule of an open-loop load: train k is due at start + k * train / rate, whatever became of
// the trains before it. A train that leaves late still carries the time it was due, so a stall of
// the measured side shows in the latencies of all packets it delayed and not in one alone
// ("coordinated omission").
#ifndef RINGSOCK_BENCH_PACER_H_
#define RINGSOCK_BENCH_PACER_H_

#include <cstdint>

#include "base/clock.h"

namespace ringsock::bench {

class Pacer {
 public:
  // `rate` in packets a second, over 0; `train` packets leave together.
  Pacer(Instant start, double rate, uint32_t train)
      : start_(start), interval_(1e9 * train / rate) {}

  // When train `index` is due, computed from the start so that no rounding adds up.
  Instant DueTime(uint64_t index) const {
    return start_ + Duration(static_cast<int64_t>(static_cast<double>(index) * interval_));
  }
  // How many trains are due and not issued yet.
  uint64_t Due(Instant now) const;
  // The due time of the next train that was not issued.
  Instant Next() const { return DueTime(issued_); }
  // Moves on by `trains`, sent or not: the schedule does not wait for anybody.
  void Issue(uint64_t trains) { issued_ += trains; }

 private:
  Instant start_;
  double interval_;  // nanoseconds between trains
  uint64_t issued_ = 0;
};

}  // namespace ringsock::bench

#endif  // RINGSOCK_BENCH_PACER_H_
