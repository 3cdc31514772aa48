// What happened in a simulated network: a counter per kind of event, a hash over all of them, by
// which two runs are compared, and the last few in words, for the message of a failing test.
#ifndef RINGSOCK_IO_SIM_TRACE_H_
#define RINGSOCK_IO_SIM_TRACE_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <string>

#include "base/clock.h"
#include "base/endpoint.h"
#include "io/sim_types.h"

namespace ringsock::io {

class SimTrace {
 public:
  static constexpr size_t kKept = 64;

  void Record(SimEvent event, const Datagram& datagram, Instant now);
  uint64_t count(SimEvent event) const { return counts_[static_cast<size_t>(event)]; }
  // Of time, kind, addresses and bytes of every event so far, in order.
  uint64_t hash() const { return hash_; }
  // Counters that are not zero, then the last kKept events, one a line.
  std::string ToString() const;

 private:
  struct Line {
    Instant at;
    SimEvent event;
    Endpoint from;
    Endpoint to;
    size_t size;
  };

  std::array<uint64_t, kSimEvents> counts_{};
  uint64_t hash_ = 0;
  std::deque<Line> last_;
};

}  // namespace ringsock::io

#endif  // RINGSOCK_IO_SIM_TRACE_H_
