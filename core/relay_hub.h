// The control thread's side of relaying: takes packets from the shards' rings to the relay
// connections, and what these bring to the shard that serves its peer. Which connection carries a
// packet is decided in core/relay_routes.h.
//
//   shard ──RelayRing──▶ Run() ──▶ RelayRoutes::Send ──▶ RegionConnection ──▶ relay
//   shard ◀─PacketRing── OnRelayed ◀── RelayRoutes ◀──── RegionConnection ◀── relay
#ifndef RINGSOCK_CORE_RELAY_HUB_H_
#define RINGSOCK_CORE_RELAY_HUB_H_

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/key.h"
#include "base/log.h"
#include "core/control_part.h"
#include "core/counters.h"
#include "core/engine.h"
#include "core/peer_table.h"
#include "core/relay_rings.h"
#include "core/relay_routes.h"
#include "derp/region_connection.h"
#include "derp/relay_map.h"
#include "io/loop.h"

namespace ringsock {

namespace derp {
class Resolver;
}  // namespace derp

// Makes connections to relays. For the control thread.
class RelayConnector {
 public:
  virtual ~RelayConnector() = default;
  // Before the first Connect(): gets ready what all connections share. Errors name the cure.
  virtual absl::Status Prepare() = 0;
  // Null if it cannot be made, which it has logged.
  virtual std::unique_ptr<derp::RegionConnection> Connect(const derp::RelayRegion& region,
                                                          const PrivateKey& key,
                                                          derp::RegionEvents* events) = 0;
  virtual void OnLinkChange() {}
  // What netchecks need beside connections, from Prepare() until Close(). Null: no names.
  virtual derp::Resolver* resolver() { return nullptr; }
  // How long a relay takes to answer over HTTPS (spec: NC-9); an error is none. Calls `done` once
  // at most, from wherever it likes, and not after Close().
  using LatencyDone = std::function<void(absl::StatusOr<Duration>)>;
  virtual void MeasureLatency(const derp::RelayNode& /*node*/, LatencyDone done) {
    done(absl::UnimplementedError("no HTTPS here"));
  }
  // Ends those that run; their `done` is not called.
  virtual void CancelLatency() {}
  // After the last connection has gone: gives back what is the control thread's.
  virtual void Close() {}
};

// For the control thread, but for what says otherwise. What it is given outlives it.
class RelayHub final : public ControlPart, private RelayReceiver {
 public:
  struct Environment {
    const Clock* clock = nullptr;
    const PeerTable* peers = nullptr;
    std::vector<io::Loop*> shard_loops;  // to wake
    RelayConnector* connector = nullptr;
    uint64_t random = 0;  // RelayRoutesOptions::random
  };

  RelayHub(const RelayOptions& options, const Environment& environment);
  ~RelayHub() override;

  // Spec: DERP-7, PEER-3. The map has been checked. Errors leave what there was.
  absl::Status SetMap(std::optional<derp::RelayMap> map);
  void SetPrivateKey(PrivateKey key);
  // Called when our own endpoints are to be looked at again: another map, the first key (spec:
  // DERP-7, PEER-3).
  using UpdateWanted = std::function<void(absl::string_view reason)>;
  void SetUpdateWanted(UpdateWanted wanted) { update_wanted_ = std::move(wanted); }
  // Sets `home` and `relays`.
  void AddStatus(EngineStatus* status) const;
  // What a netcheck says, and the home that follows (spec: EP-6, EP-7).
  RegionId OnPreferredRegion(std::optional<RegionId> preferred);
  // Every relay connection is closed and dialed again at once.
  void OnLinkChange(absl::string_view reason);
  const RelayRoutes& routes() const { return routes_; }

  bool Run() override;
  Instant NextDeadline() const override;
  void OnPeerChange(const Peer* before, const Peer* now) override;

  // After the shards have stopped: closes all connections. What still waits in the rings is counted
  // as Drop::kClosed.
  void Close();

  // For the shards.
  RelayQueue* queue() { return &rings_; }
  // Any thread.
  CounterSnapshot Counters() const { return counters_.Snapshot(); }

 private:
  // Taken from one shard in one turn, so that a busy one holds up neither the others, nor timers,
  // nor what relays send.
  static constexpr size_t kTrainsPerTurn = 256;
  static constexpr size_t kBytesPerTurn = 256 << 10;

  bool OnRelayed(RegionId region, const PublicKey& source,
                 std::span<const std::byte> packet) override;
  void OnRelayedEnd() override;
  const Peer* FindPeer(const PublicKey& key);
  bool Drain(RelayRing* ring);
  void OpenOrCloseRings();
  void DropAll(uint32_t shard);

  const Environment env_;
  const RegionId home_;  // RelayOptions::home
  ShardCounters counters_;
  RelayRings rings_;
  RelayRoutes routes_;
  std::vector<bool> unwoken_;  // shards that have got packets
  // The peer last looked up, until peers change: packets of a peer come in runs.
  PublicKey found_key_;
  const Peer* found_ = nullptr;
  bool closed_ = false;
  UpdateWanted update_wanted_;
  RateLimit unknown_log_{std::chrono::minutes(1)};
};

// InvalidArgument that names the field, as ParseRelayMap() does: a map may also be made by hand.
absl::Status CheckRelayMap(const derp::RelayMap& map);

}  // namespace ringsock

#endif  // RINGSOCK_CORE_RELAY_HUB_H_
