// A TCP connection to one relay: its names resolved, IPv4 and IPv6 raced, the first connection wins
// (spec: derp.md, Transport). Part of the region dialer.
#ifndef RINGSOCK_DERP_NODE_DIALER_H_
#define RINGSOCK_DERP_NODE_DIALER_H_

#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/clock.h"
#include "base/timer_queue.h"
#include "derp/relay_map.h"
#include "derp/relay_transport.h"
#include "derp/resolver.h"
#include "io/stream.h"

namespace ringsock::derp {

// Where IPv6 is preferred, IPv4 waits so long for it (as the reference does).
inline constexpr Duration kPreferredHeadStart = std::chrono::milliseconds(200);
// An address that neither answers nor refuses holds up the next one of its family so long (RFC 8305
// section 5).
inline constexpr Duration kNextAddressDelay = std::chrono::milliseconds(250);
// Of one family; more in an answer are not tried.
inline constexpr size_t kMaxDialAddresses = 4;

// What all dialing needs; everything outlives the dialers.
struct DialContext {
  io::StreamLoop* streams = nullptr;
  const Clock* clock = nullptr;
  TimerQueue* timers = nullptr;
  Resolver* resolver = nullptr;
  bool prefer_ipv6 = false;  // give it a head start
  std::string device;        // SO_BINDTODEVICE; "": any
};

// Not thread safe. Destroying it ends the attempt without a word.
class NodeDialer {
 public:
  // The winner, connected, its events still to be set; or the error of each family.
  using Done = std::function<void(absl::StatusOr<std::unique_ptr<RelayTransport>>)>;

  // `done` is called once, from a timer or the loop's turn, and may destroy the dialer. `context`
  // and `node` outlive it.
  NodeDialer(const DialContext* context, const RelayNode* node, Instant deadline, Done done);
  ~NodeDialer();
  NodeDialer(const NodeDialer&) = delete;
  NodeDialer& operator=(const NodeDialer&) = delete;

 private:
  struct Leg;

  // One connection under way.
  struct Attempt final : TransportEvents {
    Attempt(Leg* leg, io::StreamLoop* streams);
    void OnTransportConnected() override;
    void OnTransportClosed(const absl::Status& why) override;
    void OnTransportReady() override {}
    absl::Status OnTransportBytes(std::span<std::byte>) override { return absl::OkStatus(); }
    void OnTransportBytesEnd() override {}
    void OnTransportWritable() override {}

    Leg* const leg;
    std::unique_ptr<RelayTransport> transport;
  };

  // One family.
  struct Leg {
    Leg(NodeDialer* dialer, AddressFamily family);
    bool over() const { return !resolving && waiting.empty() && attempts.empty(); }

    NodeDialer* const dialer;
    const AddressFamily family;
    bool resolving = false;
    Resolver::RequestId request = 0;
    Instant not_before{};
    std::deque<IpAddress> waiting;  // addresses not tried yet
    std::vector<std::unique_ptr<Attempt>> attempts;
    absl::Status error;  // the last
    Timer next;          // tries the next address
  };

  void Start(Leg* leg, const RelayNode::Family& family);
  void OnResolved(Leg* leg, const absl::StatusOr<Resolved>& resolved);
  void TryNext(Leg* leg);
  void OnAttemptOver(Leg* leg, Attempt* attempt, const absl::Status& why);
  void CheckOver();
  absl::Status Error(absl::StatusCode code) const;
  void Finish(absl::StatusOr<std::unique_ptr<RelayTransport>> result);

  const DialContext* const context_;
  const RelayNode* const node_;
  const Instant deadline_;
  Done done_;
  Leg v4_;
  Leg v6_;
  Timer timeout_;
};

}  // namespace ringsock::derp

#endif  // RINGSOCK_DERP_NODE_DIALER_H_
