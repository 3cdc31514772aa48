#include "core/relay_routes.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "core/packet_train.h"

namespace ringsock {
namespace {

// What DERP puts before a packet: type, length, key.
constexpr uint64_t kFrameOverhead = 5 + kKeySize;

// How the region a packet goes over relates to ours and the peer's (spec: DERP-8).
const char* DescribeRelay(RegionId used, RegionId home, RegionId theirs) {
  if (used == theirs) return used == home ? "shared home" : "their home";
  return used == home ? "our home" : "alt";
}

bool HasRelayNode(const derp::RelayRegion& region) {
  return std::any_of(region.nodes.begin(), region.nodes.end(),
                     [](const derp::RelayNode& node) { return !node.stun_only; });
}

}  // namespace

// The keys are those of peers, which the embedder chose: no seed.
size_t RelayRoutes::KeyHash::operator()(const PublicKey& key) const {
  uint64_t words[2];
  std::memcpy(words, key.bytes.data(), sizeof(words));
  return words[0] ^ (words[1] * 0x9e3779b97f4a7c15u);
}

RelayRoutes::RelayRoutes(const RelayRoutesOptions& options, const Clock* clock, Connector connector,
                         RelayReceiver* receiver, ShardCounters* counters)
    : options_(options),
      clock_(*clock),
      connector_(std::move(connector)),
      receiver_(*receiver),
      counters_(*counters) {}

RelayRoutes::~RelayRoutes() { CloseAll("end"); }

bool RelayRoutes::SetMap(std::optional<derp::RelayMap> map) {
  if (map.has_value() && map->regions.empty()) map.reset();
  if (map == map_) return false;
  std::vector<RegionId> changed;
  for (const auto& [id, connection] : connections_) {
    const derp::RelayRegion* before = map_.has_value() ? map_->Find(id) : nullptr;
    const derp::RelayRegion* now = map.has_value() ? map->Find(id) : nullptr;
    if (before == nullptr || now == nullptr || *before != *now) changed.push_back(id);
  }
  for (const RegionId id : changed) Close(id, "the relay map changed");
  map_ = std::move(map);
  UpdateHome();
  return true;
}

RelayRoutes::KeyChange RelayRoutes::SetPrivateKey(PrivateKey key) {
  if (key == key_) return KeyChange::kSame;
  const bool first = key_.IsZero();
  CloseAll("the private key changed");
  key_ = std::move(key);
  public_key_ = key_.Public();
  UpdateHome();
  return first ? KeyChange::kFirst : KeyChange::kChanged;
}

// --- Home ---

void RelayRoutes::AddPeerOf(RegionId region) {
  if (region == 0) return;
  ++peers_of_[region];
  PeersChanged();
}

void RelayRoutes::RemovePeerOf(RegionId region) {
  const auto found = peers_of_.find(region);
  if (found == peers_of_.end()) return;
  if (--found->second == 0) peers_of_.erase(found);
  PeersChanged();
}

void RelayRoutes::PeersChanged() {
  if (map_.has_value() && settle_at_ == Instant::max()) settle_at_ = clock_.Now() + kHomeSettle;
}

// Null if no relay of that region can be had.
const derp::RelayRegion* RelayRoutes::Usable(RegionId region) const {
  const derp::RelayRegion* found = map_.has_value() ? map_->Find(region) : nullptr;
  return found != nullptr && HasRelayNode(*found) ? found : nullptr;
}

bool RelayRoutes::MayBeHome(RegionId region) const {
  const derp::RelayRegion* found = Usable(region);
  return found != nullptr && !found->avoid;
}

// Spec: EP-6.
RegionId RelayRoutes::DecideHome() const {
  if (options_.home != 0 && Usable(options_.home) != nullptr) return options_.home;
  if (preferred_.has_value() && MayBeHome(*preferred_)) return *preferred_;
  RegionId most = 0;
  size_t count = 0;
  for (const auto& [region, peers] : peers_of_) {
    if (peers > count && MayBeHome(region)) {
      most = region;
      count = peers;
    }
  }
  if (MayBeHome(home_) && (most == 0 || peers_of_.contains(home_))) return home_;
  if (most != 0) return most;
  std::vector<RegionId> all;
  if (map_.has_value()) {
    for (const auto& [id, region] : map_->regions) {
      if (MayBeHome(id)) all.push_back(id);
    }
  }
  return all.empty() ? 0 : all[options_.random % all.size()];
}

// Spec: EP-7.
void RelayRoutes::UpdateHome() {
  settle_at_ = Instant::max();
  const RegionId before = std::exchange(home_, DecideHome());
  if (home_ != before) {
    if (home_ == 0) {
      Log().info("relay: no home region");
    } else {
      Log().info("relay: home is region {} ({})", home_, map_->Find(home_)->region_code);
    }
    for (auto& [region, connection] : connections_) {
      connection.connection->SetPreferred(region == home_);
    }
  }
  if (home_ != 0 && Find(home_) == nullptr) Open(home_);
}

RegionId RelayRoutes::OnPreferredRegion(std::optional<RegionId> preferred) {
  preferred_ = preferred;
  UpdateHome();
  return home_;
}

void RelayRoutes::OnLinkChange(absl::string_view reason) {
  for (auto& [region, connection] : connections_) {
    connection.generation = 0;
    connection.connection->Reconnect(reason);
  }
}

// --- Connections ---

RelayRoutes::Connection* RelayRoutes::Find(RegionId region) {
  const auto found = connections_.find(region);
  return found == connections_.end() ? nullptr : &found->second;
}

// Spec: DERP-1.
RelayRoutes::Connection* RelayRoutes::Open(RegionId region) {
  const derp::RelayRegion* place = Usable(region);
  if (place == nullptr || key_.IsZero()) return nullptr;
  if (connections_.size() >= options_.max_connections && region != home_) return nullptr;
  std::unique_ptr<derp::RegionConnection> connection = connector_(*place, key_, this);
  if (clean_at_ == Instant::max()) clean_at_ = clock_.Now() + kRelayCleanInterval;
  if (connection == nullptr) return nullptr;
  connection->SetPreferred(region == home_);
  Connection& opened = connections_[region];
  opened.connection = std::move(connection);
  opened.last_write = clock_.Now();
  return &opened;
}

void RelayRoutes::Close(RegionId region, absl::string_view reason) {
  const auto found = connections_.find(region);
  if (found == connections_.end()) return;
  Connection& connection = found->second;
  connection.connection->Flush();  // as far as its stream takes it
  CountDropsOf(&connection);
  const derp::RegionConnectionStatus status = connection.connection->Status();
  const uint64_t overhead = status.queued_packets * kFrameOverhead;
  Lose(Drop::kTxRelayBroken, status.queued_packets,
       status.queued_bytes - std::min<uint64_t>(overhead, status.queued_bytes));
  Log().info("relay: region {} closed: {}", region, Fmt(reason));
  connections_.erase(found);
}

void RelayRoutes::CloseAll(absl::string_view reason) {
  while (!connections_.empty()) Close(connections_.begin()->first, reason);
}

Instant RelayRoutes::NextDeadline() const { return std::min(clean_at_, settle_at_); }

void RelayRoutes::Advance() {
  const Instant now = clock_.Now();
  if (now >= settle_at_) UpdateHome();
  if (now < clean_at_) return;
  std::vector<RegionId> idle;
  for (const auto& [region, connection] : connections_) {
    if (region != home_ && now - connection.last_write > options_.idle_timeout) {
      idle.push_back(region);
    }
  }
  for (const RegionId region : idle) Close(region, "idle");  // spec: DERP-6
  clean_at_ = connections_.empty() ? Instant::max() : now + kRelayCleanInterval;
  if (home_ != 0 && Find(home_) == nullptr) Open(home_);  // it could not be made at that time
}

// --- Packets ---

RelayRoutes::PeerState* RelayRoutes::StateOf(const PublicKey& peer) {
  const auto found = peers_.find(peer);
  if (found != peers_.end()) return &found->second;
  return peers_.size() < options_.max_routes ? &peers_[peer] : nullptr;
}

void RelayRoutes::ForgetPeer(const PublicKey& peer) {
  peers_.erase(peer);
  if (learned_ == peer) learned_generation_ = 0;
}

// The connection the peer was heard on, if it is the same one and still up (spec: DERP-2).
RelayRoutes::Connection* RelayRoutes::FindRoute(PeerState* peer) {
  if (peer->generation == 0) return nullptr;
  Connection* connection = Find(peer->heard);
  if (connection != nullptr && connection->generation == peer->generation) return connection;
  peer->generation = 0;
  return nullptr;
}

void RelayRoutes::Send(RegionId region, const PublicKey& peer, const PacketTrain& packets) {
  PeerState* const state = StateOf(peer);
  Connection* connection = Find(region);
  const bool up = connection != nullptr && connection->generation != 0;
  if (!up && state != nullptr && options_.reverse_routes) {
    if (Connection* route = FindRoute(state)) connection = route;
  }
  if (connection == nullptr) connection = Open(region);
  if (connection == nullptr) {
    Lose(Drop::kTxNoRelay, PacketCount(packets), packets.size);
    return;
  }
  if (state != nullptr) LogRelayOf(peer, state, region, connection->connection->region());
  connection->last_write = clock_.Now();
  connection->unflushed = true;
  ForEachPiece(packets, 1, [&](const PacketTrain& packet) {
    if (!connection->connection->Send(peer, {packet.data, packet.size})) {
      Lose(Drop::kTxTooLarge, 1, packet.size);
    }
  });
}

void RelayRoutes::Flush() {
  for (auto& [region, connection] : connections_) {
    if (std::exchange(connection.unflushed, false)) connection.connection->Flush();
  }
}

// Spec: DERP-8.
void RelayRoutes::LogRelayOf(const PublicKey& peer, PeerState* state, RegionId region,
                             RegionId used) const {
  if (state->last == used) return;
  const RegionId before = std::exchange(state->last, used);
  const Instant now = clock_.Now();
  if (now < state->quiet_until) return;
  state->quiet_until = now + kRelayLogInterval;
  const char* what = DescribeRelay(used, home_, region);
  if (before == 0) {
    Log().info("peer {}: over relay region {} ({})", peer.ToShortString(), used, what);
  } else {
    Log().info("peer {}: over relay region {} ({}), before over {}", peer.ToShortString(), used,
               what, before);
  }
}

void RelayRoutes::Lose(Drop drop, uint64_t packets, uint64_t bytes) {
  if (packets == 0) return;
  counters_.TakeBackTx(PathKind::kRelay, packets, bytes);
  counters_.AddDrop(drop, packets);
}

void RelayRoutes::CountDrops() {
  for (auto& [region, connection] : connections_) CountDropsOf(&connection);
}

void RelayRoutes::CountDropsOf(Connection* connection) {
  const derp::RegionCounters& now = connection->connection->counters();
  derp::RegionCounters& before = connection->counted;
  if (now.tx_dropped_bytes == before.tx_dropped_bytes) return;
  const std::pair<Drop, uint64_t> reasons[] = {
      {Drop::kTxRelayFull, now.tx_dropped_full - before.tx_dropped_full},
      {Drop::kTxRelayAged, now.tx_dropped_aged - before.tx_dropped_aged},
      {Drop::kTxRelayRate, now.tx_dropped_rate - before.tx_dropped_rate},
      {Drop::kTxRelayBroken, now.tx_dropped_broken - before.tx_dropped_broken},
  };
  uint64_t all = 0;
  for (const auto& [drop, packets] : reasons) {
    counters_.AddDrop(drop, packets);
    all += packets;
  }
  counters_.TakeBackTx(PathKind::kRelay, all, now.tx_dropped_bytes - before.tx_dropped_bytes);
  before = now;
}

// --- Events of connections ---

void RelayRoutes::OnUp(derp::RegionConnection& connection) {
  Connection* up = Find(connection.region());
  if (up == nullptr) return;
  up->generation = ++generations_;
  up->last_heard = clock_.Now();
  up->health.clear();
  const derp::RegionConnectionStatus status = connection.Status();
  Log().info("relay: region {} is up: {} at {}, {}", connection.region(), status.node,
             status.remote.ToString(), status.description);
}

// Spec: DERP-3. The last connection a peer was heard on is the route.
void RelayRoutes::OnPacket(derp::RegionConnection& connection, const PublicKey& source,
                           std::span<const std::byte> packet) {
  const bool known = receiver_.OnRelayed(connection.region(), source, packet);
  Connection* from = Find(connection.region());
  if (from == nullptr) return;
  from->last_heard = clock_.Now();
  if (!known || (learned_generation_ == from->generation && learned_ == source)) return;
  learned_ = source;
  learned_generation_ = from->generation;
  if (PeerState* state = StateOf(source)) {
    state->heard = connection.region();
    state->generation = from->generation;
  }
}

void RelayRoutes::OnPacketsEnd(derp::RegionConnection&) { receiver_.OnRelayedEnd(); }

void RelayRoutes::OnPeerGone(derp::RegionConnection& connection, const PublicKey& peer) {
  const auto found = peers_.find(peer);
  if (found == peers_.end() || found->second.heard != connection.region()) return;
  found->second.generation = 0;
  if (learned_ == peer) learned_generation_ = 0;
}

void RelayRoutes::OnHealth(derp::RegionConnection& connection, absl::string_view problem) {
  Connection* of = Find(connection.region());
  if (of == nullptr || of->health == problem) return;
  of->health = std::string(problem);
  if (problem.empty()) {
    Log().info("relay: region {} is well again", connection.region());
  } else {
    Log().warn("relay: region {} reports: {}", connection.region(), Fmt(problem));
  }
}

void RelayRoutes::OnDown(derp::RegionConnection& connection, const absl::Status& why) {
  Connection* down = Find(connection.region());
  if (down == nullptr) return;
  const bool was_up = std::exchange(down->generation, 0) != 0;
  if (down->failure_log.Allow(clock_.Now()) || was_up) {
    Log().warn("relay: region {} is {}: {}", connection.region(),
               was_up ? "down" : "not to be reached", Fmt(why.message()));
  }
}

// --- Status ---

std::vector<RelayStatus> RelayRoutes::Status() const {
  const Instant now = clock_.Now();
  std::vector<RelayStatus> all;
  for (const auto& [region, connection] : connections_) {
    const derp::RegionConnectionStatus from = connection.connection->Status();
    RelayStatus status;
    status.region = region;
    status.home = region == home_;
    status.up = from.up;
    status.node = from.node;
    status.remote = from.remote;
    status.age = now - from.since;
    status.idle = now - connection.last_write;
    status.description = from.description;
    status.last_error = from.up ? "" : from.last_error;
    status.health = connection.health;
    status.tx_packets = from.counters.tx_packets;
    status.rx_packets = from.counters.rx_packets;
    status.rx_ignored = from.counters.rx_ignored;
    status.tx_dropped = from.counters.tx_dropped_full + from.counters.tx_dropped_aged +
                        from.counters.tx_dropped_rate + from.counters.tx_dropped_broken;
    status.queued_bytes = from.queued_bytes;
    all.push_back(std::move(status));
  }
  return all;
}

Instant RelayRoutes::LastHeard(RegionId region) const {
  const auto found = connections_.find(region);
  if (found == connections_.end() || found->second.generation == 0) return Instant::min();
  return found->second.last_heard;
}

}  // namespace ringsock
