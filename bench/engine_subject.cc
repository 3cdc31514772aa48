// Runs the engine as a subject, as an embedder would: peers come from CreateEndpoint(), every train
// confirms its path (as WireGuard does with each packet it authenticates) and goes on by PeerId.
#include <array>
#include <cstring>
#include <memory>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "base/key.h"
#include "base/log.h"
#include "bench/subject.h"
#include "core/engine.h"

namespace ringsock::bench {
namespace {

class Forwarder final : public Handler {
 public:
  Forwarder(Mode mode, std::atomic<uint64_t>* feedback) : mode_(mode), feedback_(feedback) {}

  // Before there is any load.
  void AddRoute(PeerId from, PeerId to) { routes_[from] = to; }
  void Open() { open_.store(true, std::memory_order_release); }

  void OnReceive(Shard& shard, std::span<const ReceivedTrain> trains) override {
    if (!open_.load(std::memory_order_acquire)) return;
    for (const ReceivedTrain& train : trains) {
      if (mode_ == Mode::kReceive) {
        const uint32_t segment = train.packets.segment_size;
        feedback_->fetch_add(segment == 0 ? 1 : (train.packets.size + segment - 1) / segment,
                             std::memory_order_relaxed);
        continue;
      }
      const auto route = routes_.find(train.peer);
      if (route == routes_.end()) continue;  // unknown source: the engine counted it
      shard.ConfirmPath(train.peer, train.from);
      shard.Send(route->second, train.packets);
    }
  }

 private:
  const Mode mode_;
  std::atomic<uint64_t>* const feedback_;
  std::atomic<bool> open_{false};
  absl::flat_hash_map<PeerId, PeerId> routes_;
};

// Any 32 bytes are a public key; these name peer `index`.
PublicKey KeyOf(uint64_t index) {
  PublicKey key;
  ++index;
  std::memcpy(key.bytes.data(), &index, sizeof(index));
  return key;
}

absl::Status AddPeers(const SubjectConfig& config, Engine* engine, Forwarder* forwarder) {
  std::vector<PeerId> ids;
  for (size_t i = 0; i < config.peers.size(); ++i) {
    const auto id = engine->CreateEndpoint(KeyOf(i), config.peers[i].ToString());
    if (!id.ok()) return id.status();
    ids.push_back(*id);
  }
  for (size_t i = 0; i < ids.size(); ++i) {
    forwarder->AddRoute(ids[i], ids[config.mode == Mode::kForward ? i ^ 1 : i]);
  }
  return absl::OkStatus();
}

EngineOptions OptionsOf(const SubjectConfig& config) {
  EngineOptions options;
  options.ipv6 = false;
  options.bind_v4 = config.address;
  options.shards = static_cast<uint32_t>(config.cores.size());
  options.socket_buffer = config.socket_buffer;
  options.io = config.engine;
  options.io.backend =
      config.spec.kind == SubjectKind::kRingsockMmsg ? io::Backend::kMmsg : io::Backend::kUring;
  return options;
}

void Account(const Engine& engine, SubjectTotals* totals) {
  const CounterSnapshot counters = engine.Counters();
  for (const CounterSnapshot::Path& path : counters.paths) {
    totals->received += path.rx_packets;
    totals->sent += path.tx_packets;
  }
  for (size_t i = 0; i < kDrops; ++i) {
    totals->AddReason(DropName(static_cast<Drop>(i)), counters.drops[i]);
  }
  totals->AddReason("rx_unknown_source", counters.rx_unknown_source);
}

}  // namespace

absl::Status RunEngineSubject(const SubjectConfig& config, SubjectShared* shared,
                              const SubjectHooks& hooks) {
  Log().set_level(spdlog::level::warn);
  Forwarder forwarder(config.mode, &shared->received);
  auto engine = Engine::Start(OptionsOf(config), &forwarder);
  if (!engine.ok()) return engine.status();
  const absl::Status status = AddPeers(config, engine->get(), &forwarder);
  if (!status.ok()) return status;
  forwarder.Open();
  shared->port = (*engine)->port();
  const std::string backend = (*engine)->Status().backend;
  std::strncpy(shared->totals.note.data(), backend.c_str(), shared->totals.note.size() - 1);
  hooks.ready(hooks.context);
  hooks.wait(hooks.context);
  (*engine)->Close();
  Account(**engine, &shared->totals);
  return absl::OkStatus();
}

}  // namespace ringsock::bench
