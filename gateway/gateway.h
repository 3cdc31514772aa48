// The gateway: an engine towards the peers, a WireGuard implementation of the same host on the
// loopback device, and between them the addresses that tell WireGuard's paths apart.
//
// Reading order: path_addresses.h (what an address means), gateway_shard.h (the packet path),
// mac1.h and session_index.h (whose an address is).
#ifndef RINGSOCK_GATEWAY_GATEWAY_H_
#define RINGSOCK_GATEWAY_GATEWAY_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "core/engine.h"
#include "gateway/config.h"
#include "gateway/counters.h"
#include "gateway/gateway_shard.h"
#include "gateway/path_watch.h"
#include "gateway/peer_finder.h"

namespace ringsock::gateway {

class Gateway final : private Handler {
 public:
  // Opens all sockets and starts to move packets. Errors name the cure.
  static absl::StatusOr<std::unique_ptr<Gateway>> Start(const Config& config);
  ~Gateway() override;

  // Stops the threads and closes the sockets. Counters stay readable.
  void Stop();

  // The UDP port towards the peers.
  uint16_t port() const { return engine_->port(); }
  // What the user has to tell WireGuard: one `wg set` command a peer.
  std::vector<std::string> WgSetLines() const;
  GatewaySnapshot Counters() const;
  CounterSnapshot EngineCounters() const { return engine_->Counters(); }
  // For people: every peer with its address and path, the relays, and the counters. One item a
  // line.
  std::vector<std::string> Status() const;

  // To be called every kWatchInterval, by one thread: logs which peers have come to be reached
  // directly or over a relay, and gives up roaming addresses that died (path_watch.h). Does nothing
  // without a relay map.
  void Watch();
  static constexpr Duration kWatchInterval = std::chrono::seconds(1);

 private:
  explicit Gateway(const Config& config, std::unique_ptr<PathAddresses> addresses);
  absl::Status StartEngine();
  absl::Status CreatePeers();
  absl::StatusOr<PeerId> CreatePeer(PeerIndex peer);
  absl::Status StartRelays();

  absl::Status OnShardStart(Shard& shard) override;
  void OnShardStop(Shard& shard) override;
  void OnReceive(Shard& shard, std::span<const ReceivedTrain> trains) override;

  const Config config_;
  GatewayTables tables_;
  PathWatch watch_;
  Instant next_watch_{};
  std::vector<std::unique_ptr<GatewayShard>> shards_;
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<PeerFinder> finder_;  // with very many peers; sends through the engine
};

// The lines without a running gateway: addresses follow from the configuration alone.
std::vector<std::string> WgSetLines(const Config& config, const PathAddresses& addresses);

}  // namespace ringsock::gateway

#endif  // RINGSOCK_GATEWAY_GATEWAY_H_
