// Logging: spdlog behind one name, so that the sink is chosen in one place. For the control plane
// and for start and stop; the packet path counts instead. Secrets have no ToString().
#ifndef RINGSOCK_BASE_LOG_H_
#define RINGSOCK_BASE_LOG_H_

#include <cstdint>

#include <spdlog/spdlog.h>

#include "absl/strings/string_view.h"
#include "base/clock.h"

namespace ringsock {

// The project's logger: standard error, thread safe, level info unless changed with
// Log().set_level(). A failing sink never throws out of a call.
spdlog::logger& Log();

// absl's view as one that fmt prints.
inline fmt::string_view Fmt(absl::string_view text) { return {text.data(), text.size()}; }

// Lets one event through per interval. Not thread safe: one per thread and message.
class RateLimit {
 public:
  explicit RateLimit(Duration interval) : interval_(interval) {}
  bool Allow(Instant now) {
    if (now < next_) return false;
    // An interval that reaches past the end of time lets nothing more through.
    const bool for_ever = now > Instant{} && interval_ > Instant::max() - now;
    next_ = for_ever ? Instant::max() : now + interval_;
    return true;
  }

 private:
  const Duration interval_;
  Instant next_ = Instant::min();
};

}  // namespace ringsock

#endif  // RINGSOCK_BASE_LOG_H_
