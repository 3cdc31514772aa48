// Which relay connections there are and which one carries a packet: our home, connections opened on
// need and closed when idle, and routes back to peers that were heard (spec: magicsock.md, DERP-1
// to DERP-8, EP-6, EP-7). A state machine over standing connections (derp/region_connection.h) that
// somebody else makes: no I/O, and the time is what the clock says.
#ifndef RINGSOCK_CORE_RELAY_ROUTES_H_
#define RINGSOCK_CORE_RELAY_ROUTES_H_

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "absl/strings/string_view.h"
#include "base/clock.h"
#include "base/endpoint.h"
#include "base/key.h"
#include "base/log.h"
#include "core/counters.h"
#include "core/engine.h"
#include "derp/region_connection.h"
#include "derp/relay_map.h"

namespace ringsock {

// How often idle connections are looked for (spec: DERP-6).
inline constexpr Duration kRelayCleanInterval = std::chrono::seconds(15);
// A peer that is heard here and there by turns has one line of the log in this time.
inline constexpr Duration kRelayLogInterval = std::chrono::seconds(1);
// After a change of peers, until it may change the home: a list of peers is set one by one.
inline constexpr Duration kHomeSettle = std::chrono::seconds(1);

// Takes what the relays bring.
class RelayReceiver {
 public:
  virtual ~RelayReceiver() = default;
  // A view that ends with the call. True if `source` is the key of a peer.
  virtual bool OnRelayed(RegionId region, const PublicKey& source,
                         std::span<const std::byte> packet) = 0;
  // Those that came in one go have been delivered.
  virtual void OnRelayedEnd() = 0;
};

struct RelayRoutesOptions {
  Duration idle_timeout = std::chrono::seconds(60);
  bool reverse_routes = true;
  RegionId home = 0;    // always this one; 0: chosen
  uint64_t random = 0;  // picks a home where nothing else does; the same for the whole process
  // Connections at one time. One more is not made: its packets are counted as tx_no_relay.
  size_t max_connections = 1024;
  // Peers of which is remembered where they were heard. Of others, packets go to their own region.
  size_t max_routes = 1 << 20;
};

// For one thread, the control thread. What it is given outlives it.
class RelayRoutes final : private derp::RegionEvents {
 public:
  // Makes the connection, which dials by itself. Null if that cannot be: it has said why.
  using Connector = std::function<std::unique_ptr<derp::RegionConnection>(
      const derp::RelayRegion& region, const PrivateKey& key, derp::RegionEvents* events)>;
  enum class KeyChange : uint8_t { kSame, kFirst, kChanged };

  // `counters`: shards count a packet for a relay as sent; what becomes lost here is taken back and
  // counted by reason.
  RelayRoutes(const RelayRoutesOptions& options, const Clock* clock, Connector connector,
              RelayReceiver* receiver, ShardCounters* counters);
  ~RelayRoutes() override;

  // False if it is equal to the one there was. Connections to regions that are as they were stay
  // (spec: DERP-7).
  bool SetMap(std::optional<derp::RelayMap> map);
  // Spec: PEER-3.
  KeyChange SetPrivateKey(PrivateKey key);
  // There are a map with regions, and a key (spec: DERP-1).
  bool enabled() const { return map_.has_value() && !key_.IsZero(); }
  bool has_map() const { return map_.has_value(); }
  // With at least one region, or none.
  const std::optional<derp::RelayMap>& map() const { return map_; }
  const PublicKey& public_key() const { return public_key_; }

  // A peer has this region among its addresses, or no longer (spec: EP-6). 0 is none.
  void AddPeerOf(RegionId region);
  void RemovePeerOf(RegionId region);
  // The peer is gone (spec: PEER-2).
  void ForgetPeer(const PublicKey& peer);

  // A netcheck says which region is nearest; none if it could not tell (spec: EP-6). Returns our
  // home, 0 for none.
  RegionId OnPreferredRegion(std::optional<RegionId> preferred);
  RegionId home() const { return home_; }
  // Every connection is closed and dialed again at once.
  void OnLinkChange(absl::string_view reason);

  // Hands packets to the connection that leads to `peer`, whose region is `region` (spec: DERP-1,
  // DERP-2). Each is at most io::kMaxDatagram bytes.
  void Send(RegionId region, const PublicKey& peer, const PacketTrain& packets);
  // After a run of Send().
  void Flush();

  // When Advance() has something to do.
  Instant NextDeadline() const;
  void Advance();
  // Counts what connections have dropped since the last call.
  void CountDrops();
  // In the order of regions (spec: PEER-4).
  std::vector<RelayStatus> Status() const;
  // When a packet last came from that region, or it came up; Instant::min() if it is not up.
  Instant LastHeard(RegionId region) const;
  size_t connections() const { return connections_.size(); }
  size_t routes() const { return peers_.size(); }

  // Closes all connections; what waits in them is lost, and counted.
  void CloseAll(absl::string_view reason);

 private:
  struct Connection {
    std::unique_ptr<derp::RegionConnection> connection;
    uint64_t generation = 0;  // of this time up, 0 while it is not (spec: DERP-3)
    Instant last_write;
    Instant last_heard = Instant::min();
    std::string health;
    derp::RegionCounters counted;
    bool unflushed = false;
    RateLimit failure_log{std::chrono::minutes(1)};
  };
  // What is known of a peer.
  struct PeerState {
    RegionId heard = 0;                    // the reverse route: the region, and
    uint64_t generation = 0;               // which time it was up
    RegionId last = 0;                     // the region last sent to, for the log (spec: DERP-8)
    Instant quiet_until = Instant::min();  // so much for the log
  };
  struct KeyHash {
    size_t operator()(const PublicKey& key) const;
  };

  void OnUp(derp::RegionConnection& connection) override;
  void OnPacket(derp::RegionConnection& connection, const PublicKey& source,
                std::span<const std::byte> packet) override;
  void OnPacketsEnd(derp::RegionConnection& connection) override;
  void OnPeerGone(derp::RegionConnection& connection, const PublicKey& peer) override;
  void OnHealth(derp::RegionConnection& connection, absl::string_view problem) override;
  void OnDown(derp::RegionConnection& connection, const absl::Status& why) override;

  Connection* Find(RegionId region);
  Connection* FindRoute(PeerState* peer);
  Connection* Open(RegionId region);
  void Close(RegionId region, absl::string_view reason);
  // Gives back the state of `peer`, made if there is room; else null.
  PeerState* StateOf(const PublicKey& peer);
  void LogRelayOf(const PublicKey& peer, PeerState* state, RegionId region, RegionId used) const;
  void Lose(Drop drop, uint64_t packets, uint64_t bytes);
  void CountDropsOf(Connection* connection);

  const derp::RelayRegion* Usable(RegionId region) const;
  bool MayBeHome(RegionId region) const;
  RegionId DecideHome() const;
  void UpdateHome();
  void PeersChanged();

  const RelayRoutesOptions options_;
  const Clock& clock_;
  const Connector connector_;
  RelayReceiver& receiver_;
  ShardCounters& counters_;

  std::optional<derp::RelayMap> map_;  // with at least one region
  PrivateKey key_;
  PublicKey public_key_;
  RegionId home_ = 0;
  std::optional<RegionId> preferred_;
  std::map<RegionId, Connection> connections_;
  uint64_t generations_ = 0;
  std::unordered_map<PublicKey, PeerState, KeyHash> peers_;
  std::map<RegionId, size_t> peers_of_;  // how many peers have that region
  Instant clean_at_ = Instant::max();
  Instant settle_at_ = Instant::max();
  // The last one whose route was learned: packets of a peer come in runs.
  PublicKey learned_;
  uint64_t learned_generation_ = 0;
};

}  // namespace ringsock

#endif  // RINGSOCK_CORE_RELAY_ROUTES_H_
