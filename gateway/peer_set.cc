#include "gateway/peer_set.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace ringsock::gateway {

namespace {

// As the engine takes them.
std::string EndpointList(const PeerConfig& peer) {
  return absl::StrJoin(peer.endpoints, ",", [](std::string* out, const Endpoint& endpoint) {
    absl::StrAppend(out, endpoint.ToString());
  });
}

}  // namespace

absl::StatusOr<PeerId> PeerSet::Create(PeerIndex index) {
  const PeerConfig& peer = roster_->peers[index];
  absl::StatusOr<PeerId> id = engine_->CreateEndpoint(peer.key, EndpointList(peer));
  if (id.ok()) return id;
  return absl::Status(id.status().code(),
                      absl::StrCat("peer ", peer.Label(), ": ", id.status().message()));
}

absl::Status PeerSet::Start(const std::optional<PublicKey>& own_key) {
  std::vector<std::string> lists;
  std::vector<PeerEndpoints> peers;
  lists.reserve(roster_->peers.size());
  peers.reserve(roster_->peers.size());
  for (const PeerConfig& peer : roster_->peers) {
    lists.push_back(EndpointList(peer));
    peers.push_back({peer.key, lists.back()});
  }
  absl::StatusOr<std::vector<PeerId>> ids = engine_->CreateEndpoints(peers);
  if (!ids.ok()) {
    // Once more one by one: that error says the peer's name.
    for (PeerIndex i = 0; i < peers.size(); ++i) {
      if (absl::Status status = Create(i).status(); !status.ok()) return status;
    }
    return ids.status();
  }
  ids_ = *std::move(ids);
  if (absl::Status finder = StartFinder(); !finder.ok()) return finder;
  Publish(own_key);
  return absl::OkStatus();
}

absl::Status PeerSet::StartFinder() {
  if (finder_ != nullptr || roster_->count <= PeerFinder::kFewPeers) return absl::OkStatus();
  absl::StatusOr<std::unique_ptr<Sender>> sender = engine_->NewSender();
  if (!sender.ok()) return sender.status();
  absl::StatusOr<Quiescence::Reader> reader = tables_->NewReader();
  if (!reader.ok()) return reader.status();
  finder_ = std::make_unique<PeerFinder>(tables_, shards_, *std::move(reader), *std::move(sender));
  return absl::OkStatus();
}

void PeerSet::Publish(const std::optional<PublicKey>& own_key) {
  auto view = std::make_unique<PeerView>();
  view->ids = ids_;
  view->indices.reserve(roster_->count);
  std::vector<std::optional<Mac1Key>> keys(ids_.size());
  for (PeerIndex i = 0; i < ids_.size(); ++i) {
    if (!view->Has(i)) continue;
    view->indices.emplace(ids_[i], i);
    const bool made = i < mac1_keys_.size() && mac1_keys_[i].has_value();
    keys[i] = made ? *mac1_keys_[i] : Mac1Key(roster_->peers[i].key);
  }
  mac1_keys_ = Mac1Keys(std::move(keys));
  view->mac1_keys = mac1_keys_;
  if (own_key.has_value()) view->own_mac1_key.emplace(*own_key);
  view->finder = finder_.get();
  tables_->Publish(std::move(view));
}

absl::Status PeerSet::Place(const std::vector<size_t>& added, const std::vector<PeerConfig>& peers,
                            Instant now) {
  PathAddresses& addresses = *tables_->addresses;
  size_t fresh = 0;
  for (const size_t i : added) fresh += roster_->indices.contains(peers[i].key) ? 0 : 1;
  if (roster_->peers.size() + fresh > kMaxPeerIndices) {
    return absl::ResourceExhaustedError(
        absl::StrCat("peers: more than ", kMaxPeerIndices,
                     " different ones since the start; a restart is needed"));
  }
  for (size_t n = 0; n < added.size(); ++n) {
    const PeerConfig& peer = peers[added[n]];
    const auto next = static_cast<PeerIndex>(roster_->peers.size());
    const PeerIndex index = roster_->indices.try_emplace(peer.key, next).first->second;
    if (index == next) {
      roster_->peers.push_back(peer);
      roster_->there.push_back(false);
      ids_.push_back(PeerId::kNone);
    }
    if (addresses.AddPeer(index, peer.key, now)) continue;
    for (size_t back = 0; back < n; ++back) {
      const PublicKey& key = peers[added[back]].key;
      addresses.RemovePeer(roster_->indices[key], key, {}, now);
    }
    return absl::ResourceExhaustedError(
        "loopback_range: has no free address for a new peer; a larger range needs a restart");
  }
  return absl::OkStatus();
}

void PeerSet::Remove(const std::vector<PeerIndex>& removed, Instant now) {
  for (const PeerIndex index : removed) {
    const PeerConfig& peer = roster_->peers[index];
    tables_->addresses->RemovePeer(index, peer.key, peer.endpoints, now);
    ids_[index] = PeerId::kNone;
    roster_->there[index] = false;
    --roster_->count;
  }
}

absl::Status PeerSet::RemoveFromEngine(const std::vector<PeerIndex>& removed) {
  if (removed.empty()) return absl::OkStatus();
  std::vector<PublicKey> keys;
  keys.reserve(removed.size());
  for (const PeerIndex index : removed) keys.push_back(roster_->peers[index].key);
  return engine_->RemovePeers(keys);
}

absl::Status PeerSet::Move(PeerIndex index, const PeerConfig& to, Instant now) {
  PeerConfig& peer = roster_->peers[index];
  // The engine begins anew with another list of addresses. The path in use is good all the same.
  Endpoint in_use;
  const AddressOffset current = tables_->addresses->Current(index);
  if (current != kNoAddress) {
    const PathAddress address = tables_->addresses->Read(current);
    if (address.kind == AddressKind::kPath && address.owner == index) in_use = address.path;
  }
  const std::vector<Endpoint> before = std::exchange(peer.endpoints, to.endpoints);
  peer.name = to.name;
  tables_->addresses->SetEndpoints(index, peer.key, before, peer.endpoints, now);
  const absl::StatusOr<PeerId> id = Create(index);
  if (!id.ok()) {
    peer.endpoints.clear();  // so that the next call sees a difference
    return id.status();
  }
  ids_[index] = *id;
  // Unless it is one that was taken from the list: an address that the peer roamed to never was.
  const auto in = [&in_use](const std::vector<Endpoint>& list) {
    return std::find(list.begin(), list.end(), in_use) != list.end();
  };
  if (!in_use.IsNone() && (in(peer.endpoints) || !in(before))) engine_->ConfirmPath(*id, in_use);
  return absl::OkStatus();
}

absl::Status PeerSet::Add(const PeerConfig& peer, Instant now) {
  const PeerIndex index = roster_->indices[peer.key];
  roster_->peers[index] = peer;
  const absl::StatusOr<PeerId> id = Create(index);
  if (!id.ok()) {
    tables_->addresses->RemovePeer(index, peer.key, {}, now);
    return id.status();
  }
  tables_->addresses->SetEndpoints(index, peer.key, {}, peer.endpoints, now);
  ids_[index] = *id;
  roster_->there[index] = true;
  ++roster_->count;
  return absl::OkStatus();
}

absl::Status PeerSet::Reserve(const PeerChanges& changes, const std::vector<PeerConfig>& peers,
                              Instant now) {
  tables_->addresses->FreeRetired(now);
  return Place(changes.added, peers, now);
}

void PeerSet::Release(const PeerChanges& changes, const std::vector<PeerConfig>& peers,
                      Instant now) {
  for (const size_t at : changes.added) {
    const PublicKey& key = peers[at].key;
    tables_->addresses->RemovePeer(roster_->indices[key], key, {}, now);
  }
}

void PeerSet::Apply(const PeerChanges& changes, const std::vector<PeerConfig>& peers,
                    const std::optional<PublicKey>& own_key, Instant now,
                    std::vector<std::string>* refused) {
  const auto note = [refused](const absl::Status& status) {
    if (!status.ok()) refused->emplace_back(status.message());
  };
  Remove(changes.removed, now);
  note(RemoveFromEngine(changes.removed));
  for (const auto& [index, at] : changes.renamed) roster_->peers[index].name = peers[at].name;
  for (const auto& [index, at] : changes.moved) note(Move(index, peers[at], now));
  for (const size_t at : changes.added) note(Add(peers[at], now));
  note(StartFinder());
  Publish(own_key);
}

absl::Status PeerSet::Renew(PeerIndex peer) { return Create(peer).status(); }

void PeerSet::Stop() {
  if (finder_ != nullptr) finder_->Stop();
}

GatewaySnapshot PeerSet::FinderCounters() const {
  return finder_ == nullptr ? GatewaySnapshot() : finder_->Counters();
}

}  // namespace ringsock::gateway
