// Watches the networks this host is in (rtnetlink(7)) and tells real changes (an address, a default
// route, a link up or down) from noise, once they have settled. A thread of its own, since it
// sleeps nearly always and what it reads can take the kernel a while.
#ifndef RINGSOCK_CORE_LINK_MONITOR_H_
#define RINGSOCK_CORE_LINK_MONITOR_H_

#include <algorithm>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/clock.h"
#include "core/network_state.h"

namespace ringsock {

// When a burst of events is over: it has been quiet for `quiet`, or it has gone on for `longest`.
class Settle {
 public:
  Settle(Duration quiet, Duration longest) : quiet_(quiet), longest_(longest) {}
  void OnEvent(Instant now) {
    if (first_ == Instant::max()) first_ = now;
    deadline_ = std::min(now + quiet_, first_ + longest_);
  }
  // Instant::max() if nothing has happened.
  Instant deadline() const { return deadline_; }
  // As if it had just begun, and would be over then.
  void Delay(Instant until) { first_ = deadline_ = until; }
  void Reset() { first_ = deadline_ = Instant::max(); }

 private:
  const Duration quiet_;
  const Duration longest_;
  Instant first_ = Instant::max();
  Instant deadline_ = Instant::max();
};

struct LinkMonitorOptions {
  // Interfaces that do not matter: the tunnel's own.
  std::vector<std::string> ignored;
  // A DHCP renewal or an interface that comes up is a dozen events within some 100 ms.
  Duration quiet = std::chrono::milliseconds(250);
  Duration longest = std::chrono::seconds(1);
};

struct LinkMonitorStats {
  uint64_t events = 0;   // datagrams from the kernel
  uint64_t changes = 0;  // that were told
  uint64_t noise = 0;    // bursts after which nothing was different
  uint64_t errors = 0;   // the state could not be read; tried again
};

class LinkMonitor {
 public:
  // On the monitor's thread. `change` says what is different, for the log.
  using Callback = std::function<void(const NetworkState& state, const std::string& change)>;

  // Watches the network namespace of the calling thread. Errors are the kernel's, and those of
  // starting a thread.
  static absl::StatusOr<std::unique_ptr<LinkMonitor>> Start(const LinkMonitorOptions& options,
                                                            Callback callback);
  // No callback is running or will come when it returns. Not from inside one.
  virtual ~LinkMonitor() = default;
  // Any thread: what was last read.
  virtual NetworkState state() const = 0;
  virtual LinkMonitorStats stats() const = 0;
};

}  // namespace ringsock

#endif  // RINGSOCK_CORE_LINK_MONITOR_H_
