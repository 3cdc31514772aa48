// The gateway: an engine towards the peers, a WireGuard implementation of the same host on the
// loopback device, and between them the addresses that tell WireGuard's paths apart.
//
// Reading order: path_addresses.h (what an address means), gateway_shard.h (the packet path),
// mac1.h and session_index.h (whose an address is), gateway_tables.h and peer_set.h (how peers come
// and go while packets flow).
#ifndef RINGSOCK_GATEWAY_GATEWAY_H_
#define RINGSOCK_GATEWAY_GATEWAY_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "core/engine.h"
#include "gateway/config.h"
#include "gateway/config_changes.h"
#include "gateway/counters.h"
#include "gateway/gateway_shard.h"
#include "gateway/gateway_tables.h"
#include "gateway/path_watch.h"
#include "gateway/peer_set.h"

namespace ringsock::gateway {

// Packets flow on threads of its own. All calls here are for one thread, but Counters() and
// EngineCounters().
class Gateway final : private Handler {
 public:
  // Opens all sockets and starts to move packets. Errors name the cure. `observer`, if there is
  // one, outlives the gateway.
  static absl::StatusOr<std::unique_ptr<Gateway>> Start(const Config& config,
                                                        NetworkObserver* observer = nullptr);
  ~Gateway() override;

  struct ReloadResult {
    std::vector<std::string> changes;  // one a line; empty for none
    std::vector<std::string> wg_set;   // what the user has to tell WireGuard of peers that came
    std::vector<std::string> refused;  // by the engine, peer by peer; tried again by the next call
  };
  // Changes to another configuration by what is different. Packets flow on; a peer, a relay and a
  // path that are as they were see nothing of it. On an error, which names what is wrong, the old
  // configuration stays in force as a whole.
  absl::StatusOr<ReloadResult> Reload(const Config& next);
  // The configuration in force.
  const Config& config() const { return config_; }

  // Stops the threads and closes the sockets. Counters stay readable.
  void Stop();

  // The UDP port towards the peers.
  uint16_t port() const { return engine_->port(); }
  // What the user has to tell WireGuard: one `wg set` command a peer, in the order of the
  // configuration.
  std::vector<std::string> WgSetLines() const;
  GatewaySnapshot Counters() const;
  CounterSnapshot EngineCounters() const { return engine_->Counters(); }
  // For people: every peer with its address and path, the relays, our own endpoints, and the
  // counters. One item a line.
  std::vector<std::string> Status() const;

  // To be called every kWatchInterval: logs which peers have come to be reached
  // directly or over a relay, and gives up roaming addresses that died (path_watch.h). Does nothing
  // without a relay map.
  void Watch();
  // Our home region as of the last Watch(); 0: none.
  RegionId home() const { return home_; }
  static constexpr Duration kWatchInterval = std::chrono::seconds(1);

 private:
  explicit Gateway(const Config& config, std::unique_ptr<PathAddresses> addresses);
  absl::Status StartEngine(NetworkObserver* observer);
  // Sets or takes away relays as `config` has them.
  absl::Status SetRelays(const Config& config);

  absl::Status OnShardStart(Shard& shard) override;
  void OnShardStop(Shard& shard) override;
  void OnReceive(Shard& shard, std::span<const ReceivedTrain> trains) override;

  Config config_;
  PeerRoster roster_;
  GatewayTables tables_;
  PathWatch watch_;
  Instant next_watch_{};
  RegionId home_ = 0;
  std::vector<std::unique_ptr<GatewayShard>> shards_;
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<PeerSet> peers_;  // of the engine
};

// The lines without a running gateway: addresses follow from the configuration alone.
std::vector<std::string> WgSetLines(const Config& config, const PeerRoster& roster,
                                    const PathAddresses& addresses);

}  // namespace ringsock::gateway

#endif  // RINGSOCK_GATEWAY_GATEWAY_H_
