// The embedder that benchmarks put on an engine: every train confirms its path (as WireGuard does
// with each packet it authenticates) and goes on by PeerId.
#ifndef RINGSOCK_BENCH_FORWARDER_H_
#define RINGSOCK_BENCH_FORWARDER_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "bench/options.h"
#include "bench/subject.h"
#include "core/engine.h"

namespace ringsock::bench {

class Forwarder final : public Handler {
 public:
  // Mode::kReceive counts packets into `feedback`, which outlives this.
  Forwarder(const Traffic& traffic, std::atomic<uint64_t>* feedback);

  // Before there is any load.
  void AddRoute(PeerId from, PeerId to) {
    routes_[from] = to;
    targets_.push_back(to);
  }
  // Until then all that comes is ignored.
  void Open() { open_.store(true, std::memory_order_release); }

  void OnReceive(Shard& shard, std::span<const ReceivedTrain> trains) override;

 private:
  void Forward(Shard& shard, const ReceivedTrain& train, PeerId to);
  void Answer(Shard& shard, uint32_t trains);

  const Traffic traffic_;
  std::atomic<uint64_t>* const feedback_;
  std::atomic<bool> open_{false};
  absl::flat_hash_map<PeerId, PeerId> routes_;
  std::vector<PeerId> targets_;
  std::vector<std::byte> bytes_;
};

// Creates the peers of `config`, with the idle ones, and the forwarder's routes among them.
absl::Status AddPeers(const SubjectConfig& config, Engine* engine, Forwarder* forwarder);
// A shard for each core.
EngineOptions EngineOptionsOf(const SubjectConfig& config);

}  // namespace ringsock::bench

#endif  // RINGSOCK_BENCH_FORWARDER_H_
