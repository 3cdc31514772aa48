// What reaches the control thread from the threads that watch the network (core/link_monitor.h) and
// ask the router for a port (core/port_mapper.h), and from an embedder that knows of a change:
// gathered under a lock, acted upon in control's turn.
#ifndef RINGSOCK_CORE_NETWORK_WATCH_H_
#define RINGSOCK_CORE_NETWORK_WATCH_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "base/endpoint.h"
#include "core/control_part.h"
#include "core/link_monitor.h"
#include "core/network_state.h"
#include "core/port_mapper.h"
#include "io/loop.h"

namespace ringsock {

// A change of the network.
struct NetworkChange {
  std::string reason;
  bool told = false;  // by the embedder, who knows best
  // The state before and now, if they are known.
  std::optional<NetworkState> before;
  std::optional<NetworkState> now;

  // Whether a path that was there may be gone: an address, a default route. What is only new costs
  // none. True if it is not known, and if
  // the embedder told of the change.
  bool LostSomething() const;
  // `address` was not there before, and is now.
  bool Got(const IpAddress& address) const;
};

// For the control thread, but for what says otherwise.
class NetworkWatch final : public ControlPart {
 public:
  struct Options {
    bool watch_links = true;
    std::vector<std::string> ignored_interfaces;
    bool port_mapping = false;
    uint16_t port = 0;  // ours
  };
  struct Environment {
    io::Loop* loop = nullptr;  // control's, to wake
    std::function<void(const NetworkChange&)> changed;
    std::function<void(const Endpoint&)> mapped;  // none: there is no mapping (any more)
    // Makes the port mapper; null: the real one.
    std::function<std::unique_ptr<PortMapper>(PortMapper::Callback)> make_mapper = nullptr;
  };

  NetworkWatch(Options options, Environment environment);
  ~NetworkWatch() override;

  // Starts the threads, which watch the network namespace of the caller. What cannot be watched is
  // logged, and how to do without.
  void Start();
  // Any thread but those: ends them; what they say from here on is not heard. Takes a mapping back
  // from the router, which may take a few seconds.
  void Stop();

  // Any thread, without waiting.
  void LinkChanged(absl::string_view reason);
  // Our port is another one.
  void SetPort(uint16_t port);
  // state() follows the network by itself.
  bool watching() const { return watching_; }
  // What was last seen of the network; none: it was not looked at.
  const std::optional<NetworkState>& state() const { return state_; }
  // "198.51.100.9:41641 (NAT-PMP)", or why there is no mapping; "" if none is asked for.
  std::string MappingStatus() const;
  uint64_t changes() const { return changes_; }

  bool Run() override;
  Instant NextDeadline() const override { return Instant::max(); }

 private:
  struct Posted {
    bool changed = false;
    bool told = false;  // NetworkChange::told
    std::string reason;
    std::optional<NetworkState> state;
    std::optional<Endpoint> mapped;
  };

  void StartMapper();
  void Post(const std::function<void(Posted*)>& write);
  void Changed(Posted posted);
  void TellMapper();

  const Options options_;
  const Environment env_;
  uint16_t port_;
  bool watching_ = false;
  std::optional<NetworkState> state_;
  uint64_t changes_ = 0;

  std::mutex mutex_;
  Posted posted_;         // guarded by mutex_
  bool stopped_ = false;  // guarded by mutex_
  std::atomic<bool> any_posted_{false};

  mutable std::mutex threads_mutex_;  // never held by what the threads call; guards the next two
  std::unique_ptr<LinkMonitor> monitor_;
  std::unique_ptr<PortMapper> mapper_;
};

}  // namespace ringsock

#endif  // RINGSOCK_CORE_NETWORK_WATCH_H_
