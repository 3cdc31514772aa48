// A token bucket over bytes: the limit a relay asks its clients to keep, and the limits a relay
// keeps its clients to.
#ifndef RINGSOCK_DERP_TOKEN_BUCKET_H_
#define RINGSOCK_DERP_TOKEN_BUCKET_H_

#include <algorithm>
#include <chrono>
#include <cstdint>

#include "base/clock.h"

namespace ringsock::derp {

// Holds up to `burst` tokens and gains `rate` of them a second. Starts full. Not thread safe.
class TokenBucket {
 public:
  // No limit.
  TokenBucket() = default;
  // A rate of 0 is no limit. A burst of 0 stands for one second's worth: a bucket that holds
  // nothing would let nothing pass.
  TokenBucket(uint64_t rate, uint64_t burst, Instant now)
      : rate_(static_cast<double>(rate)),
        burst_(static_cast<double>(burst == 0 ? rate : burst)),
        tokens_(burst_),
        filled_(now) {}

  bool limited() const { return rate_ > 0; }

  // Takes `count` tokens, or none and returns false if there are fewer. A count over the burst
  // never passes. Time that goes backwards adds nothing.
  bool TryTake(uint64_t count, Instant now) {
    if (!limited()) return true;
    if (now > filled_) {
      const double seconds = std::chrono::duration<double>(now - filled_).count();
      tokens_ = std::min(burst_, tokens_ + seconds * rate_);
      filled_ = now;
    }
    const auto wanted = static_cast<double>(count);
    if (wanted > tokens_) return false;
    tokens_ -= wanted;
    return true;
  }

 private:
  double rate_ = 0;  // tokens per second
  double burst_ = 0;
  double tokens_ = 0;
  Instant filled_{};
};

}  // namespace ringsock::derp

#endif  // RINGSOCK_DERP_TOKEN_BUCKET_H_
