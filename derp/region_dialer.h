// Finds a relay of a region that can be talked to: nodes in order, STUN-only ones skipped, 1.5 s
// for each to connect, 10 s for all of it, login included (spec: derp.md, Transport). TLS and login
// are the owner's, who comes back for the next node when they fail.
#ifndef RINGSOCK_DERP_REGION_DIALER_H_
#define RINGSOCK_DERP_REGION_DIALER_H_

#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "derp/node_dialer.h"
#include "derp/relay_map.h"

namespace ringsock::derp {

inline constexpr Duration kNodeTimeout = std::chrono::milliseconds(1500);
inline constexpr Duration kRegionTimeout = std::chrono::seconds(10);

// Called from timers and the loop's turn, never from inside a call to the dialer. May call it; must
// not destroy it.
class DialerEvents {
 public:
  virtual ~DialerEvents() = default;
  // A TCP connection to dialer.node(); login has until dialer.login_deadline().
  virtual void OnDialed(std::unique_ptr<RelayTransport> transport) = 0;
  // No node is left, or no time. The error says what failed at each.
  virtual void OnDialFailed(const absl::Status& why) = 0;
};

// Not thread safe.
class RegionDialer {
 public:
  // All outlive it.
  RegionDialer(const DialContext* context, const RelayRegion* region, DialerEvents* events);

  // From the first node on, whatever was under way before.
  void Start();
  // What OnDialed() gave could not log in: goes on with the next node, or once more with the same.
  void Next(const absl::Status& why);
  void Again(const absl::Status& why);
  void Stop();

  // That was dialed, or is being dialed. Null before Start().
  const RelayNode* node() const { return index_ < nodes().size() ? &nodes()[index_] : nullptr; }
  // Of the region's first node with a relay, if node() is another; else empty.
  std::string ideal_node() const;
  // Of the connection at hand. While there are more nodes, one may not use up all the time.
  Instant login_deadline() const;

 private:
  const std::vector<RelayNode>& nodes() const { return region_->nodes; }
  // The first node from `index` on that has a relay.
  size_t Skip(size_t index) const;
  void Dial();
  void AddError(const absl::Status& why);
  void OnNode(absl::StatusOr<std::unique_ptr<RelayTransport>> result);
  void Fail();

  const DialContext* const context_;
  const RelayRegion* const region_;
  DialerEvents* const events_;
  size_t index_ = SIZE_MAX;
  Instant deadline_{};
  std::string errors_;
  std::optional<NodeDialer> dialer_;
  Timer step_;  // dials the node at index_
};

}  // namespace ringsock::derp

#endif  // RINGSOCK_DERP_REGION_DIALER_H_
