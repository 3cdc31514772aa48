#include "core/relay_hub.h"

#include <algorithm>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "core/packet_train.h"
#include "core/shard_of.h"
#include "core/wireguard.h"

namespace ringsock {
namespace {

// The region of a peer: that of the first relay among its addresses.
RegionId RegionOf(const Peer* peer) {
  if (peer == nullptr) return 0;
  for (const Endpoint& address : peer->addresses().endpoints()) {
    if (IsRelay(address)) return RelayRegion(address);
  }
  return 0;
}

RelayRoutesOptions RoutesOptions(const RelayOptions& options, uint64_t random) {
  RelayRoutesOptions routes;
  routes.idle_timeout = options.idle_timeout;
  routes.reverse_routes = options.reverse_routes;
  routes.home = options.home;
  routes.random = random;
  return routes;
}

}  // namespace

RelayHub::RelayHub(const RelayOptions& options, const Environment& environment)
    : env_(environment),
      home_(options.home),
      rings_(environment.shard_loops.size(), options.ring_packets),
      routes_(
          RoutesOptions(options, environment.random), environment.clock,
          [this](const derp::RelayRegion& region, const PrivateKey& key,
                 derp::RegionEvents* events) {
            return env_.connector->Connect(region, key, events);
          },
          this, &counters_),
      unwoken_(environment.shard_loops.size()) {
  env_.peers->ForEach([this](const Peer& peer) { OnPeerChange(nullptr, &peer); });
}

RelayHub::~RelayHub() { Close(); }

absl::Status RelayHub::SetMap(std::optional<derp::RelayMap> map) {
  if (closed_) return absl::FailedPreconditionError("the engine is closed");
  if (map.has_value() && !map->regions.empty()) {
    if (home_ != 0 && map->Find(home_) == nullptr) {
      return absl::InvalidArgumentError(
          absl::StrCat("relay map: no region ", home_, ", which relay.home names"));
    }
    if (absl::Status status = env_.connector->Prepare(); !status.ok()) return status;
  }
  const bool changed = routes_.SetMap(std::move(map));
  OpenOrCloseRings();
  if (changed && routes_.has_map() && update_wanted_) update_wanted_("relay map");
  return absl::OkStatus();
}

void RelayHub::SetPrivateKey(PrivateKey key) {
  if (closed_) return;
  const RelayRoutes::KeyChange change = routes_.SetPrivateKey(std::move(key));
  OpenOrCloseRings();
  if (change == RelayRoutes::KeyChange::kFirst && update_wanted_) update_wanted_("private key");
}

void RelayHub::OpenOrCloseRings() {
  if (routes_.enabled()) {
    rings_.Open();
  } else {
    rings_.Close();
  }
}

void RelayHub::AddStatus(EngineStatus* status) const {
  status->home = routes_.home();
  status->relays = routes_.Status();
}

RegionId RelayHub::OnPreferredRegion(std::optional<RegionId> preferred) {
  return closed_ ? 0 : routes_.OnPreferredRegion(preferred);
}

void RelayHub::OnLinkChange(absl::string_view reason) {
  if (closed_) return;
  env_.connector->OnLinkChange();
  routes_.OnLinkChange(reason);
}

void RelayHub::OnPeerChange(const Peer* before, const Peer* now) {
  found_ = nullptr;
  const RegionId from = RegionOf(before);
  const RegionId to = RegionOf(now);
  if (from != to) {
    routes_.RemovePeerOf(from);
    routes_.AddPeerOf(to);
  }
  if (now == nullptr) routes_.ForgetPeer(before->key());
}

// --- Shards to relays ---

bool RelayHub::Run() {
  if (closed_) return false;  // control goes on for a moment; connections must not
  OnRelayedEnd();
  routes_.Advance();
  bool more = false;
  for (uint32_t shard = 0; shard < rings_.shards(); ++shard) {
    RelayRing* ring = rings_.ToRelays(shard);
    if (ring != nullptr && ring->HasNext()) more |= Drain(ring);
  }
  routes_.Flush();
  routes_.CountDrops();
  return more;
}

Instant RelayHub::NextDeadline() const {
  if (closed_) return Instant::max();
  for (uint32_t shard = 0; shard < rings_.shards(); ++shard) {
    const RelayRing* ring = rings_.ToRelays(shard);
    if (ring != nullptr && ring->HasNext()) return Instant::min();
  }
  return routes_.NextDeadline();
}

bool RelayHub::Drain(RelayRing* ring) {
  size_t bytes = 0;
  for (size_t trains = 0; trains < kTrainsPerTurn && bytes < kBytesPerTurn; ++trains) {
    const RelayRecord* record = ring->Next();
    if (record == nullptr) break;
    bytes += record->packets.size;
    if (FindPeer(record->peer) == nullptr) {  // removed since (spec: PEER-2)
      const uint32_t packets = PacketCount(record->packets);
      counters_.TakeBackTx(PathKind::kRelay, packets, record->packets.size);
      counters_.AddDrop(Drop::kTxUnknownPeer, packets);
      continue;
    }
    routes_.Send(record->region, record->peer, record->packets);
  }
  ring->Release();
  return ring->HasNext();
}

const Peer* RelayHub::FindPeer(const PublicKey& key) {
  if (found_ == nullptr || found_key_ != key) {
    found_ = env_.peers->FindByKey(key);
    found_key_ = key;
  }
  return found_;
}

// --- Relays to shards ---

// Spec: RECV-3.
bool RelayHub::OnRelayed(RegionId region, const PublicKey& source,
                         std::span<const std::byte> packet) {
  const auto drop = [this](Drop reason) {
    counters_.AddDrop(reason, 1);
    return false;
  };
  if (packet.empty()) return drop(Drop::kRxEmpty);
  if (packet.size() > io::kMaxDatagram) return drop(Drop::kRxTruncated);
  if (IsStun(packet.data(), packet.size())) return drop(Drop::kRxStun);
  if (source == routes_.public_key()) return drop(Drop::kRxRelaySelf);
  const Endpoint from = RelayEndpoint(region);
  const Peer* peer = FindPeer(source);
  PeerId id = PeerId::kNone;
  if (peer != nullptr) {
    id = peer->id();
  } else if (unknown_log_.Allow(env_.clock->Now())) {
    Log().warn(
        "relay: region {} brought a packet of {}, which is no peer's key; more in the next "
        "minute are only counted",
        region, source.ToShortString());
  }
  const size_t shards = rings_.shards();
  const uint32_t shard = peer != nullptr ? ShardOf(id, shards) : ShardOf(from, shards);
  const auto size = static_cast<uint32_t>(packet.size());
  PacketRing* ring = rings_.FromRelays(shard);
  if (ring == nullptr || !ring->Append({id, from, {packet.data(), size, size}})) {
    counters_.AddDrop(Drop::kRxRelayFull, 1);
  } else {
    unwoken_[shard] = true;
  }
  return peer != nullptr;
}

void RelayHub::OnRelayedEnd() {
  for (uint32_t shard = 0; shard < unwoken_.size(); ++shard) {
    if (!unwoken_[shard]) continue;
    unwoken_[shard] = false;
    rings_.FromRelays(shard)->Publish();
    env_.shard_loops[shard]->Wake();
  }
}

// --- The end ---

void RelayHub::Close() {
  if (std::exchange(closed_, true)) return;
  routes_.CloseAll("the engine is closed");
  env_.connector->Close();
  rings_.Close();
  OnRelayedEnd();
  for (uint32_t shard = 0; shard < rings_.shards(); ++shard) DropAll(shard);
}

void RelayHub::DropAll(uint32_t shard) {
  RelayRing* sent = rings_.ToRelays(shard);
  if (sent == nullptr) return;
  while (const RelayRecord* record = sent->Next()) {
    const uint32_t packets = PacketCount(record->packets);
    counters_.TakeBackTx(PathKind::kRelay, packets, record->packets.size);
    counters_.AddDrop(Drop::kClosed, packets);
  }
  sent->Release();
  PacketRing* received = rings_.FromRelays(shard);
  while (const PacketRecord* record = received->Next()) {
    counters_.AddDrop(Drop::kClosed, PacketCount(record->packets));
  }
  received->Release();
}

absl::Status CheckRelayMap(const derp::RelayMap& map) {
  // One set of rules: what the reader of JSON would not take is no map.
  const absl::StatusOr<derp::RelayMap> same = derp::ParseRelayMap(derp::ToJson(map), nullptr);
  if (!same.ok()) return same.status();
  if (*same == map) return absl::OkStatus();
  return absl::InvalidArgumentError(
      "relay map: a region or node whose RegionID is not that of its place in the map");
}

}  // namespace ringsock
