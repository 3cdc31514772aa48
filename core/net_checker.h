// An engine's view of the network it is in: runs netchecks (stun/netcheck.h) and endpoint updates
// (core/endpoint_updates.h) on the control thread, and gives them what they ask for: the shards'
// data sockets, names, HTTPS, the addresses of this host, the relays' signs of life.
//
//   NetChecker ──Control::SendTo──▶ shard ──▶ STUN server      (spec: NC-1)
//   NetChecker ◀──StunPacket── any shard ◀── STUN server       (with the time it was received)
//   NetChecker ──home──▶ RelayHub, ──endpoints, net-info──▶ NetworkObserver
#ifndef RINGSOCK_CORE_NET_CHECKER_H_
#define RINGSOCK_CORE_NET_CHECKER_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/clock.h"
#include "base/endpoint.h"
#include "base/log.h"
#include "base/random.h"
#include "core/control.h"
#include "core/control_part.h"
#include "core/counters.h"
#include "core/endpoint_updates.h"
#include "core/engine.h"
#include "core/hairpin_socket.h"
#include "core/network_state.h"
#include "core/peer_table.h"
#include "core/relay_hub.h"
#include "derp/relay_map.h"
#include "derp/resolver.h"
#include "io/loop.h"
#include "stun/netcheck.h"

namespace ringsock {

// For the control thread, but for what says otherwise. What it is given outlives it.
class NetChecker final : public ControlPart,
                         private stun::NetcheckEnvironment,
                         private EndpointUpdatesEnvironment {
 public:
  // Probes that found the rings to all shards full and wait for room; what is over is counted as
  // Drop::kTxQueueFull. More than any relay map has nodes.
  static constexpr size_t kMaxUnsent = 1024;

  // Reads the addresses of this host, on the control thread: must be quick.
  using ReadNetwork = std::function<absl::StatusOr<NetworkState>()>;

  struct Environment {
    io::Loop* loop = nullptr;  // control's
    Control* control = nullptr;
    uint32_t shards = 0;
    const PeerTable* peers = nullptr;
    RelayHub* relays = nullptr;
    RelayConnector* connector = nullptr;
    Random* random = nullptr;
    NetworkObserver* observer = nullptr;  // may be null
    ReadNetwork network = nullptr;        // null: nothing is known of this host
  };

  NetChecker(const EngineOptions& options, const Environment& environment);
  ~NetChecker() override;

  // The first update. Nothing happens before.
  void Start();
  // Nothing happens any more, and the observer is not called.
  void Close();

  // Any thread, without waiting: asks for an update (spec: EP-2).
  void Request(absl::string_view reason);

  // Where the data sockets are bound, with their real port. For the next update.
  void SetBound(std::optional<Endpoint> v4, std::optional<Endpoint> v6);
  // What is known of this host, by whoever watches it; from then on it is not read here.
  void SetNetworkState(NetworkState state);
  // The address the router gives us; none: it gives none. A change asks for an update.
  void SetPortMapping(const Endpoint& mapped);
  // The host has lost an address or a route: what was measured before says nothing any more.
  void OnNetworkChange() { netcheck_.OnNetworkChange(); }
  // The relay hub may have another map.
  void SyncMap();

  // Sets `endpoints`, `net_info`, `last_report` and `netcheck`.
  void AddStatus(EngineStatus* status) const;
  // Any thread.
  CounterSnapshot Counters() const { return counters_.Snapshot(); }

  bool Run() override;
  Instant NextDeadline() const override;
  void OnPeerChange(const Peer* before, const Peer* now) override;

 private:
  // What others have answered, on its way to the netcheck: they may answer from anywhere.
  struct ResolvedName {
    std::string name;
    stun::Family family;
    std::vector<IpAddress> addresses;  // none: it has none
  };
  struct HttpsLatency {
    RegionId region;
    std::optional<Duration> latency;
  };
  using Answer = std::variant<ResolvedName, HttpsLatency, stun::Report>;
  struct Unsent {
    Endpoint to;
    std::vector<std::byte> packet;
  };

  // NetcheckEnvironment
  void SendProbe(const Endpoint& to, std::span<const std::byte> packet) override;
  bool SendHairpin(const Endpoint& to, std::span<const std::byte> packet) override;
  void Resolve(const std::string& host_name, stun::Family family) override;
  void MeasureHttps(RegionId region, const stun::ProbeNode& node) override;
  void OnReport(const stun::Report& report) override;

  // EndpointUpdatesEnvironment
  bool StartNetcheck(Duration timeout) override;
  RegionId ChooseHome(RegionId preferred) override;
  EndpointInputs Inputs(const stun::Report& report) override;
  void OnEndpoints(const std::vector<OwnEndpoint>& endpoints) override;
  void OnNetInfo(const NetInfo& info) override;

  Instant Now() const { return env_.loop->clock().Now(); }
  void SetStunWanted(bool wanted);
  void OnStun(const StunPacket& packet);
  void Remember(absl::string_view reason);
  std::optional<std::string> TakeRequest();
  void TakeAnswers(Instant now);
  bool TrySend(const Endpoint& to, std::span<const std::byte> packet);
  void SendUnsent(Instant now);
  void NoteRelayFrame(Instant now);
  void UpdateNetworkState();
  stun::HostFamilies Families() const;
  void CancelNames();

  const NetworkOptions options_;
  const Environment env_;
  ShardCounters counters_;
  HairpinSocket hairpin_;
  stun::Netcheck netcheck_;
  EndpointUpdates updates_;
  bool started_ = false;
  bool closed_ = false;

  std::atomic<bool> requested_{false};
  std::mutex request_mutex_;
  std::string reason_;  // the latest; guarded by request_mutex_

  size_t peers_ = 0;
  bool had_peers_ = false;  // as the updates know it
  std::optional<derp::RelayMap> map_;
  bool stun_wanted_ = false;
  bool asked_ = false;              // the running update has a netcheck
  RegionId measured_home_ = 0;      // the home, if a report chose it (spec: NC-10)
  Instant heard_ = Instant::min();  // when NoteRelayFrame() last looked

  std::optional<Endpoint> bound_v4_;
  std::optional<Endpoint> bound_v6_;
  Endpoint port_mapping_;
  std::optional<NetworkState> network_;
  bool watched_ = false;  // network_ is kept up to date by SetNetworkState()

  std::deque<Answer> answers_;
  std::set<derp::Resolver::RequestId> names_;  // asked for and not answered
  std::deque<Unsent> unsent_;
  Instant send_again_ = Instant::max();
  RateLimit network_log_{std::chrono::minutes(10)};
  RateLimit hairpin_log_{std::chrono::minutes(10)};
};

}  // namespace ringsock

#endif  // RINGSOCK_CORE_NET_CHECKER_H_
