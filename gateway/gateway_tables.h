// What all shards of the gateway read: which peers there are. A change of configuration makes a new
// PeerView, which takes the old one's place as a whole while packets flow; the old one is freed
// when no thread can hold it any more (core/quiescence.h).
#ifndef RINGSOCK_GATEWAY_GATEWAY_TABLES_H_
#define RINGSOCK_GATEWAY_GATEWAY_TABLES_H_

#include <atomic>
#include <memory>
#include <optional>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "core/peer_id.h"
#include "core/quiescence.h"
#include "gateway/config.h"
#include "gateway/mac1.h"
#include "gateway/path_addresses.h"
#include "gateway/session_index.h"

namespace ringsock::gateway {

class PeerFinder;

// The peers at one time. Never changed once it is published.
struct PeerView {
  std::vector<PeerId> ids;  // the engine's names, by PeerIndex; kNone for a peer that has gone
  absl::flat_hash_map<PeerId, PeerIndex> indices;
  Mac1Keys mac1_keys;
  std::optional<Mac1Key> own_mac1_key;
  PeerFinder* finder = nullptr;  // null with few peers

  bool Has(PeerIndex peer) const { return peer < ids.size() && ids[peer] != PeerId::kNone; }
  // `peer`, or kNoPeer if it has gone: addresses and session indices keep its name, as it may come
  // back.
  PeerIndex IfThere(PeerIndex peer) const { return Has(peer) ? peer : kNoPeer; }
  // kNoPeer if the engine's peer is none that is configured.
  PeerIndex IndexOf(PeerId id) const {
    const auto it = id == PeerId::kNone ? indices.end() : indices.find(id);
    return it == indices.end() ? kNoPeer : it->second;
  }
};

class GatewayTables {
 public:
  GatewayTables(const Config& config, std::unique_ptr<PathAddresses> path_addresses);
  ~GatewayTables();
  GatewayTables(const GatewayTables&) = delete;
  GatewayTables& operator=(const GatewayTables&) = delete;

  const Config& config;  // for what cannot change while we run
  const Endpoint wireguard;
  const std::unique_ptr<PathAddresses> addresses;
  SessionIndex sessions;

  // One for each thread that reads. Fails only with too many of them.
  absl::StatusOr<Quiescence::Reader> NewReader() { return readers_.Register(); }
  // Inside a Quiescence::Section of the thread's reader, and good until its end. Null while peers
  // are still being set up.
  const PeerView* view() const { return view_.load(std::memory_order_seq_cst); }

  // Makes `view` the one in force, and the endpoints that `addresses` was given with it. Waits,
  // microseconds, until no reader has the old ones. For the control thread.
  void Publish(std::unique_ptr<const PeerView> view);

 private:
  std::atomic<const PeerView*> view_{nullptr};  // owned
  Quiescence readers_;
};

}  // namespace ringsock::gateway

#endif  // RINGSOCK_GATEWAY_GATEWAY_TABLES_H_
