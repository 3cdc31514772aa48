// The peers of a running gateway: brings those of a configuration to the engine, to the loopback
// addresses and to the shards, first all of them, later what is different.
#ifndef RINGSOCK_GATEWAY_PEER_SET_H_
#define RINGSOCK_GATEWAY_PEER_SET_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/clock.h"
#include "core/engine.h"
#include "gateway/config_changes.h"
#include "gateway/gateway_tables.h"
#include "gateway/peer_finder.h"

namespace ringsock::gateway {

// For one thread, the one that controls the gateway.
class PeerSet {
 public:
  // All outlive this but for Stop(); `roster` is what the configuration at the start has.
  PeerSet(Engine* engine, GatewayTables* tables, PeerRoster* roster, uint32_t shards)
      : engine_(engine), tables_(tables), roster_(roster), shards_(shards) {}

  // Creates all peers of the roster, and lets packets flow. `own_key` as in the configuration.
  absl::Status Start(const std::optional<PublicKey>& own_key);
  // Sets addresses aside for the peers that are added, the one thing that can run out. To be
  // followed by Apply(), or by Release() if the configuration is refused. An error changes nothing.
  absl::Status Reserve(const PeerChanges& changes, const std::vector<PeerConfig>& peers,
                       Instant now);
  void Release(const PeerChanges& changes, const std::vector<PeerConfig>& peers, Instant now);
  // Brings the roster to what `peers` says, which `changes` were made from. A peer that is not
  // among the changes is not touched. A path in use stays in use unless it was configured and is no
  // longer. What the engine refuses is added to `refused`, and is a change again when peers are
  // next compared.
  void Apply(const PeerChanges& changes, const std::vector<PeerConfig>& peers,
             const std::optional<PublicKey>& own_key, Instant now,
             std::vector<std::string>* refused);
  // Gives the engine the peer's addresses again, which forgets the one it had roamed to.
  absl::Status Renew(PeerIndex peer);
  // Before the engine is closed.
  void Stop();

  GatewaySnapshot FinderCounters() const;

 private:
  absl::StatusOr<PeerId> Create(PeerIndex peer);
  // The addresses of those that are added, before anything else is changed: they may run out.
  absl::Status Place(const std::vector<size_t>& added, const std::vector<PeerConfig>& peers,
                     Instant now);
  void Remove(const std::vector<PeerIndex>& removed, Instant now);
  absl::Status RemoveFromEngine(const std::vector<PeerIndex>& removed);
  absl::Status Move(PeerIndex peer, const PeerConfig& to, Instant now);
  absl::Status Add(const PeerConfig& peer, Instant now);
  absl::Status StartFinder();
  // Shards see the peers as they are now.
  void Publish(const std::optional<PublicKey>& own_key);

  Engine* const engine_;
  GatewayTables* const tables_;
  PeerRoster* const roster_;
  const uint32_t shards_;
  std::vector<PeerId> ids_;             // by PeerIndex
  Mac1Keys mac1_keys_;                  // as last published
  std::unique_ptr<PeerFinder> finder_;  // once there were very many peers
};

}  // namespace ringsock::gateway

#endif  // RINGSOCK_GATEWAY_PEER_SET_H_
