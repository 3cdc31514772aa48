// What a socket does when receiving fails for another reason than that nothing is there: count it,
// say so now and then, and, if it fails again and again, pause instead of spinning.
#ifndef RINGSOCK_IO_RECEIVE_ERRORS_H_
#define RINGSOCK_IO_RECEIVE_ERRORS_H_

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "base/clock.h"
#include "base/endpoint.h"
#include "base/log.h"

namespace ringsock::io {

// One per socket, for the loop's thread. Time goes in, no I/O but the log.
class ReceiveErrors {
 public:
  // Errors in a row after which each further one is followed by a pause. Errors that come one at a
  // time (ICMP told to the socket) are gone once they have been read.
  static constexpr uint32_t kPatience = 3;
  static constexpr Duration kFirstPause = std::chrono::milliseconds(1);
  static constexpr Duration kLastPause = std::chrono::milliseconds(10);
  static constexpr Duration kLogInterval = std::chrono::minutes(1);

  void Received() { in_a_row_ = 0; }

  // A receive on `local` failed with `error`, a positive errno. Returns when to try again: now, or
  // after a pause.
  Instant Failed(int error, const Endpoint& local, Instant now) {
    ++in_a_row_;
    if (log_.Allow(now)) {
      Log().warn("receiving on {}: {} ({} in a row)", local.ToString(), strerror(error), in_a_row_);
    }
    if (in_a_row_ <= kPatience) return now;
    return now + std::min(kLastPause, kFirstPause * (in_a_row_ - kPatience));
  }

 private:
  uint32_t in_a_row_ = 0;
  RateLimit log_{kLogInterval};
};

}  // namespace ringsock::io

#endif  // RINGSOCK_IO_RECEIVE_ERRORS_H_
