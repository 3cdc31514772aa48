// The engine behind core/engine.h, with its parts in reach. A test gives it simulated loops and
// steps it by hand: the same code then runs in virtual time, without threads.
#ifndef RINGSOCK_CORE_ENGINE_INTERNAL_H_
#define RINGSOCK_CORE_ENGINE_INTERNAL_H_

#include <atomic>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "base/random.h"
#include "core/control.h"
#include "core/engine.h"
#include "core/net_checker.h"
#include "core/network_watch.h"
#include "core/path_learner.h"
#include "core/peer_table.h"
#include "core/quiescence.h"
#include "core/rebinder.h"
#include "core/relay_connector.h"
#include "core/relay_hub.h"
#include "core/relay_queue.h"
#include "core/sender.h"
#include "core/shard.h"
#include "core/shard_link.h"

namespace ringsock::internal {

// The loops an engine works with: one for each shard, and control's.
struct EngineLoops {
  std::vector<std::unique_ptr<io::Loop>> shards;
  std::unique_ptr<io::Loop> control;
};

// The peers of an engine, and what it knows of relays. They outlive it, so that the next one can go
// on with them: it is then the owner, and the one before must be closed.
struct PeerState {
  explicit PeerState(uint32_t max_peers) : peers({.max_peers = max_peers}, &quiescence) {}

  Quiescence quiescence;
  PeerTable peers;
  std::mutex mutex;
  const Engine* owner = nullptr;  // guarded by mutex
  // What the engine was told of relays, for the next one. The mutex is never held for long.
  std::mutex relay_mutex;  // guards the next two
  std::optional<derp::RelayMap> relay_map;
  PrivateKey private_key;
};

// What an engine can be given instead of making it.
struct EngineParts {
  std::shared_ptr<PeerState> peers = nullptr;
  // Makes what makes connections to relays, on control's loop and with its timers.
  std::function<std::unique_ptr<RelayConnector>(io::Loop*, TimerQueue*)> connector = nullptr;
  // In place of all relaying; outlives the engine.
  RelayQueue* relay = nullptr;
  // Outlives the engine.
  NetworkObserver* observer = nullptr;
  // The addresses of this host. Null: the kernel's, or none with Threads::kCaller.
  NetChecker::ReadNetwork network = nullptr;
  // For netchecks; outlives the engine. Null: the system's.
  Random* random = nullptr;
  // NetworkWatch::Environment::make_mapper.
  std::function<std::unique_ptr<PortMapper>(PortMapper::Callback)> make_mapper = nullptr;
};

// Readers of the peers beside shards and Senders: Engine::ConfirmPath() and a Bind's queues.
inline constexpr size_t kOtherReaders = 8;

// InvalidArgument that names the option and what it may be.
absl::Status CheckOptions(const EngineOptions& options, const Handler* handler);
// The cores this process may run on.
std::vector<int> AllowedCores();

class EngineImpl final : public Engine {
 public:
  enum class Threads {
    kOwn,     // one for each shard, one for control
    kCaller,  // none: the caller's Step() is all that runs, and Execute() runs at once
  };

  // Opens the sockets and, with Threads::kOwn, starts the threads. `options.shards` is taken from
  // the loops. Goes on with `parts` where they are given.
  static absl::StatusOr<std::unique_ptr<EngineImpl>> Create(const EngineOptions& options,
                                                            Handler* handler, EngineLoops loops,
                                                            Threads threads,
                                                            EngineParts parts = {});
  // Engine::Start(), going on with `peers` if given.
  static absl::StatusOr<std::unique_ptr<EngineImpl>> Start(const EngineOptions& options,
                                                           Handler* handler,
                                                           std::shared_ptr<PeerState> peers,
                                                           NetworkObserver* observer = nullptr);
  ~EngineImpl() override;

  void Close() override;
  uint16_t port() const override { return port_.load(std::memory_order_relaxed); }
  const EngineOptions& options() const override { return options_; }
  absl::StatusOr<PeerId> CreateEndpoint(const PublicKey& key, absl::string_view endpoints) override;
  absl::StatusOr<std::vector<PeerId>> CreateEndpoints(
      std::span<const PeerEndpoints> peers) override;
  absl::Status RemovePeers(std::span<const PublicKey> keys) override;
  absl::Status UpdatePeers(std::span<const PublicKey> keys) override;
  void ConfirmPath(PeerId peer, const Endpoint& from) override;
  absl::Status SetRelayMap(std::optional<derp::RelayMap> map) override;
  absl::Status SetPrivateKey(const PrivateKey& key) override;
  void ReStun(absl::string_view reason) override;
  void LinkChanged(absl::string_view reason) override;
  absl::Status Rebind(absl::string_view reason) override;
  absl::StatusOr<std::unique_ptr<Sender>> NewSender() override;
  EngineStatus Status() const override;
  CounterSnapshot Counters() const override;

  // With Threads::kCaller: runs control and every shard once, without waiting. Returns how many
  // trains the shards handled.
  size_t Step();
  // When Step() is due even if no packet comes.
  Instant NextDeadline() const;

  EngineShard& shard(size_t index) { return *shards_[index]; }
  Control& control() { return *control_; }
  RelayHub& relay_hub() { return *relay_hub_; }
  NetChecker& net_checker() { return *net_checker_; }

 private:
  // While it lives, this thread runs a shard of the engine.
  class OnShard;

  EngineImpl(const EngineOptions& options, EngineLoops loops, Threads threads,
             std::shared_ptr<PeerState> peers);
  absl::Status MakeParts(Handler* handler, const EngineParts& parts);
  void MakeNetChecker(const EngineParts& parts);
  absl::Status MakeShard(Handler* handler, RelayQueue* relay);
  absl::Status OpenSockets();
  absl::Status OpenAllSockets(uint16_t port);
  // core/engine_network.cc
  void StartNetwork(const EngineParts& parts);
  void OnNetworkChange(const NetworkChange& change);
  void OnRebound(const RebindResult& result);
  void CloseNetwork();
  absl::Status StartShards();
  void ResumeRelays();
  void ShardMain(uint32_t index);
  bool Closed() const { return closed_.load(std::memory_order_acquire); }
  // Why nothing can be changed now, or on this thread.
  absl::Status CheckMayWait() const;

  EngineOptions options_;
  const Threads threads_;
  std::atomic<uint16_t> port_{0};

  // In the order of dependence: each is used by what follows.
  EngineLoops loops_;
  const std::shared_ptr<PeerState> state_;
  PathReports path_reports_;
  std::vector<std::unique_ptr<ShardLink>> links_;
  std::unique_ptr<SenderQueues> senders_;
  std::unique_ptr<Control> control_;
  std::unique_ptr<RelayConnector> connector_;
  std::unique_ptr<RelayHub> relay_hub_;
  std::unique_ptr<NetChecker> net_checker_;
  std::vector<std::unique_ptr<EngineShard>> shards_;
  std::unique_ptr<Rebinder> rebinder_;
  std::unique_ptr<NetworkWatch> watch_;

  std::mutex reader_mutex_;  // of ConfirmPath(); guards the next two
  Quiescence::Reader reader_;
  PathLearner learner_;

  size_t started_ = 0;  // shards, with Threads::kCaller
  std::vector<std::thread> shard_threads_;
  std::atomic<bool> stop_{false};
  std::atomic<bool> closed_{false};
  std::mutex start_mutex_;
  std::condition_variable start_reported_;
  size_t start_reports_ = 0;   // guarded by start_mutex_
  absl::Status start_status_;  // the first failure; guarded by start_mutex_
};

}  // namespace ringsock::internal

#endif  // RINGSOCK_CORE_ENGINE_INTERNAL_H_
