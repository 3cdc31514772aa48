#include "core/engine.h"

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/log.h"
#include "base/random.h"
#include "core/engine_internal.h"
#include "core/new_thread.h"

namespace ringsock {

absl::Status Handler::OnShardStart(Shard&) { return absl::OkStatus(); }
void Handler::OnShardStop(Shard&) {}

namespace {

// The shard's core, from those of the thread that starts it (children inherit them).
void PinThisThread(uint32_t shard) {
  const std::vector<int> cores = internal::AllowedCores();
  if (cores.empty()) return;
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cores[shard % cores.size()], &set);
  const int error = pthread_setaffinity_np(pthread_self(), sizeof(set), &set);
  if (error != 0) Log().warn("shard {} is not pinned to a core: {}", shard, std::strerror(error));
}

}  // namespace

absl::StatusOr<std::unique_ptr<Engine>> Engine::Start(const EngineOptions& options,
                                                      Handler* handler, NetworkObserver* observer) {
  return internal::EngineImpl::Start(options, handler, nullptr, observer);
}

namespace internal {
namespace {

// Picks a home where nothing else does: the same for all engines of a process (spec: EP-6).
uint64_t ProcessRandom() {
  static const uint64_t random = SystemRandom().Next();
  return random;
}

// The engine whose shard this thread runs.
thread_local const EngineImpl* running_shard_of = nullptr;

}  // namespace

class EngineImpl::OnShard {
 public:
  explicit OnShard(const EngineImpl* engine) : outer_(std::exchange(running_shard_of, engine)) {}
  ~OnShard() { running_shard_of = outer_; }
  OnShard(const OnShard&) = delete;
  OnShard& operator=(const OnShard&) = delete;

 private:
  const EngineImpl* outer_;
};

absl::StatusOr<std::unique_ptr<EngineImpl>> EngineImpl::Start(const EngineOptions& options,
                                                              Handler* handler,
                                                              std::shared_ptr<PeerState> peers,
                                                              NetworkObserver* observer) {
  if (absl::Status status = CheckOptions(options, handler); !status.ok()) return status;
  const uint32_t shards = options.ShardCount();
  EngineLoops loops;
  for (uint32_t i = 0; i < shards; ++i) {
    absl::StatusOr<std::unique_ptr<io::Loop>> loop = io::CreateLoop(options.io);
    if (!loop.ok()) return loop.status();
    loops.shards.push_back(*std::move(loop));
  }
  // Control moves few bytes: the least that works.
  io::LoopOptions control = options.io;
  control.rx_buffers = 2;
  control.tx_slabs = 1;
  control.zero_copy = false;
  control.spin = Duration::zero();
  absl::StatusOr<std::unique_ptr<io::Loop>> loop = io::CreateLoop(control);
  if (!loop.ok()) return loop.status();
  loops.control = *std::move(loop);
  EngineParts parts;
  parts.peers = std::move(peers);
  parts.observer = observer;
  return Create(options, handler, std::move(loops), Threads::kOwn, std::move(parts));
}

EngineImpl::EngineImpl(const EngineOptions& options, EngineLoops loops, Threads threads,
                       std::shared_ptr<PeerState> peers)
    : options_(options),
      threads_(threads),
      loops_(std::move(loops)),
      state_(std::move(peers)),
      path_reports_(loops_.control.get()),
      learner_(&state_->peers) {
  options_.shards = static_cast<uint32_t>(loops_.shards.size());
}

EngineImpl::~EngineImpl() { Close(); }

absl::StatusOr<std::unique_ptr<EngineImpl>> EngineImpl::Create(const EngineOptions& options,
                                                               Handler* handler, EngineLoops loops,
                                                               Threads threads, EngineParts parts) {
  if (absl::Status status = CheckOptions(options, handler); !status.ok()) return status;
  if (parts.peers == nullptr) parts.peers = std::make_shared<PeerState>(options.max_peers);
  auto engine =
      std::unique_ptr<EngineImpl>(new EngineImpl(options, std::move(loops), threads, parts.peers));
  absl::Status status = engine->MakeParts(handler, parts);
  if (status.ok()) status = engine->OpenSockets();
  if (status.ok()) {
    Log().info("engine: {} on port {}: {}", engine->loops_.control->name(), engine->port(),
               engine->options_.ToString());
    engine->net_checker_->SetBound(engine->shards_[0]->BoundTo(/*v6=*/false),
                                   engine->shards_[0]->BoundTo(/*v6=*/true));
    engine->StartNetwork(parts);
    status = engine->StartShards();
  }
  if (status.ok()) {
    engine->ResumeRelays();
    engine->control_->Execute([&] { engine->net_checker_->Start(); });
  }
  if (!status.ok()) {
    engine->Close();
    return status;
  }
  return engine;
}

absl::Status EngineImpl::MakeParts(Handler* handler, const EngineParts& parts) {
  {
    std::lock_guard lock(state_->mutex);
    state_->owner = this;
  }
  Quiescence& quiescence = state_->quiescence;
  std::vector<io::Loop*> loops;
  std::vector<ShardLink*> links;
  for (const auto& loop : loops_.shards) {
    loops.push_back(loop.get());
    links_.push_back(std::make_unique<ShardLink>());
    links.push_back(links_.back().get());
  }
  senders_ = std::make_unique<SenderQueues>(
      loops,
      SenderQueues::Paths{
          .peers = &state_->peers, .quiescence = &quiescence, .reports = &path_reports_},
      options_.max_senders, options_.sender_ring_packets);
  control_ = std::make_unique<Control>(loops_.control.get(), &state_->peers, &quiescence,
                                       &path_reports_, loops, links);
  connector_ = parts.connector
                   ? parts.connector(loops_.control.get(), &control_->timers())
                   : NewRelayConnector(loops_.control.get(), &control_->timers(), options_.relay);
  relay_hub_ = std::make_unique<RelayHub>(options_.relay,
                                          RelayHub::Environment{.clock = &loops_.control->clock(),
                                                                .peers = &state_->peers,
                                                                .shard_loops = loops,
                                                                .connector = connector_.get(),
                                                                .random = ProcessRandom()});
  control_->AddPart(relay_hub_.get());
  MakeNetChecker(parts);
  absl::StatusOr<Quiescence::Reader> reader = quiescence.Register();
  if (!reader.ok()) return reader.status();
  reader_ = *std::move(reader);
  RelayQueue* const relay = parts.relay != nullptr ? parts.relay : relay_hub_->queue();
  while (shards_.size() < loops_.shards.size()) {
    if (absl::Status status = MakeShard(handler, relay); !status.ok()) return status;
  }
  return absl::OkStatus();
}

void EngineImpl::MakeNetChecker(const EngineParts& parts) {
  NetChecker::ReadNetwork network = parts.network;
  if (!network && threads_ == Threads::kOwn) {
    network = [this] { return ReadAddresses(options_.network.ignored_interfaces); };
  }
  net_checker_ = std::make_unique<NetChecker>(
      options_,
      NetChecker::Environment{.loop = loops_.control.get(),
                              .control = control_.get(),
                              .shards = options_.shards,
                              .peers = &state_->peers,
                              .relays = relay_hub_.get(),
                              .connector = connector_.get(),
                              .random = parts.random != nullptr ? parts.random : &SystemRandom(),
                              .observer = parts.observer,
                              .network = std::move(network)});
  control_->AddPart(net_checker_.get());
  relay_hub_->SetUpdateWanted([this](absl::string_view reason) { net_checker_->Request(reason); });
}

// The next one.
absl::Status EngineImpl::MakeShard(Handler* handler, RelayQueue* relay) {
  absl::StatusOr<Quiescence::Reader> reader = state_->quiescence.Register();
  if (!reader.ok()) return reader.status();
  const size_t index = shards_.size();
  const ShardEnvironment environment{.index = static_cast<uint32_t>(index),
                                     .loop = loops_.shards[index].get(),
                                     .handler = handler,
                                     .peers = &state_->peers,
                                     .senders = senders_.get(),
                                     .link = links_[index].get(),
                                     .control_loop = loops_.control.get(),
                                     .relay = relay,
                                     .gso = options_.io.gso};
  shards_.push_back(std::make_unique<EngineShard>(environment, *std::move(reader)));
  return absl::OkStatus();
}

absl::Status EngineImpl::StartShards() {
  if (threads_ == Threads::kCaller) {
    const OnShard scope(this);
    for (auto& shard : shards_) {
      if (absl::Status status = shard->Start(); !status.ok()) return status;
      ++started_;
    }
    return absl::OkStatus();
  }
  if (absl::Status status = control_->StartThread(); !status.ok()) return status;
  for (uint32_t i = 0; i < shards_.size(); ++i) {
    absl::StatusOr<std::thread> thread = NewThread([this, i] { ShardMain(i); });
    if (!thread.ok()) return thread.status();
    shard_threads_.push_back(*std::move(thread));
  }
  std::unique_lock lock(start_mutex_);
  start_reported_.wait(lock, [this] { return start_reports_ == shards_.size(); });
  return start_status_;
}

void EngineImpl::ShardMain(uint32_t index) {
  const OnShard scope(this);
  pthread_setname_np(pthread_self(), absl::StrCat("rs-shard-", index).c_str());
  if (options_.pin_threads) PinThisThread(index);
  EngineShard& shard = *shards_[index];
  const absl::Status status = shard.Start();
  {
    std::lock_guard lock(start_mutex_);
    if (start_status_.ok()) start_status_ = status;
    ++start_reports_;
  }
  start_reported_.notify_one();
  if (status.ok()) {
    while (!stop_.load(std::memory_order_acquire)) shard.Step(Instant::max());
  }
  shard.Stop(/*tell_handler=*/status.ok());
}

void EngineImpl::Close() {
  if (running_shard_of == this) {
    Log().error("Close() was called on a shard's thread, which it would have to wait for: ignored");
    return;
  }
  if (control_ != nullptr && control_->OnThread()) {
    Log().error("Close() was called by an observer, which it would have to wait for: ignored");
    return;
  }
  if (closed_.exchange(true)) return;  // spec: RECV-7
  CloseNetwork();
  stop_.store(true, std::memory_order_release);
  if (threads_ == Threads::kCaller) {
    const OnShard scope(this);
    for (size_t i = 0; i < shards_.size(); ++i) shards_[i]->Stop(/*tell_handler=*/i < started_);
  } else {
    for (auto& loop : loops_.shards) loop->Wake();
    for (auto& thread : shard_threads_) thread.join();
    // Those that never came to start.
    for (size_t i = shard_threads_.size(); i < shards_.size(); ++i) shards_[i]->CloseSockets();
  }
  if (senders_ != nullptr) senders_->Close();
  if (control_ == nullptr) return;
  // On the thread that its connections belong to.
  control_->Execute([this] {
    if (net_checker_ != nullptr) net_checker_->Close();
    if (relay_hub_ != nullptr) relay_hub_->Close();
  });
  control_->Stop();
}

absl::Status EngineImpl::CheckMayWait() const {
  if (running_shard_of == this) {
    return absl::FailedPreconditionError("not from a Handler: it might wait for its own shard");
  }
  if (Closed()) return absl::FailedPreconditionError("the engine is closed");
  return absl::OkStatus();
}

absl::StatusOr<PeerId> EngineImpl::CreateEndpoint(const PublicKey& key,
                                                  absl::string_view endpoints) {
  if (absl::Status status = CheckMayWait(); !status.ok()) return status;
  absl::StatusOr<std::vector<Endpoint>> list = Endpoint::ParseList(endpoints);
  if (!list.ok()) return list.status();
  return control_->CreateEndpoint(key, *list);
}

absl::StatusOr<std::vector<PeerId>> EngineImpl::CreateEndpoints(
    std::span<const PeerEndpoints> peers) {
  if (absl::Status status = CheckMayWait(); !status.ok()) return status;
  std::vector<PeerId> ids;
  ids.reserve(peers.size());
  std::vector<Control::NewPeer> group;
  absl::Status status;
  while (status.ok() && ids.size() < peers.size()) {
    group.clear();
    for (size_t i = ids.size(); i < peers.size() && group.size() < Control::kPeersAtOnce; ++i) {
      absl::StatusOr<std::vector<Endpoint>> list = Endpoint::ParseList(peers[i].endpoints);
      status = list.status();
      if (!status.ok()) break;
      group.push_back({peers[i].key, *std::move(list)});
    }
    absl::Status created = control_->CreateEndpoints(group, &ids);
    if (!created.ok()) status = std::move(created);  // it is of a peer before the malformed one
  }
  if (status.ok()) return ids;
  if (Closed()) return status;
  return absl::Status(status.code(),
                      absl::StrCat("peer ", ids.size(), " of the list: ", status.message()));
}

absl::Status EngineImpl::RemovePeers(std::span<const PublicKey> keys) {
  if (absl::Status status = CheckMayWait(); !status.ok()) return status;
  return control_->RemovePeers(keys);
}

absl::Status EngineImpl::UpdatePeers(std::span<const PublicKey> keys) {
  if (absl::Status status = CheckMayWait(); !status.ok()) return status;
  return control_->UpdatePeers(keys);
}

void EngineImpl::ConfirmPath(PeerId id, const Endpoint& from) {
  if (Closed()) return;
  std::lock_guard lock(reader_mutex_);
  Quiescence::Section section(&reader_);
  Peer* peer = learner_.News(id, from);
  if (peer == nullptr) return;
  PathReport report;
  if (learner_.Learn(peer, from, loops_.control->clock().Now(), &report)) {
    path_reports_.Push(report);
  }
}

absl::Status EngineImpl::SetRelayMap(std::optional<derp::RelayMap> map) {
  if (absl::Status status = CheckMayWait(); !status.ok()) return status;
  if (map.has_value()) {
    if (absl::Status status = CheckRelayMap(*map); !status.ok()) return status;
  }
  absl::Status status = absl::FailedPreconditionError("the engine is closed");
  control_->Execute([&] {
    status = relay_hub_->SetMap(map);
    if (!status.ok()) return;
    net_checker_->SyncMap();
    std::lock_guard lock(state_->relay_mutex);
    state_->relay_map = std::move(map);
  });
  return status;
}

absl::Status EngineImpl::SetPrivateKey(const PrivateKey& key) {
  if (absl::Status status = CheckMayWait(); !status.ok()) return status;
  if (key.IsZero()) return absl::InvalidArgumentError("the all-zero key is no private key");
  const bool ran = control_->Execute([&] {
    relay_hub_->SetPrivateKey(key.Clone());
    std::lock_guard lock(state_->relay_mutex);
    state_->private_key = key.Clone();
  });
  return ran ? absl::OkStatus() : absl::FailedPreconditionError("the engine is closed");
}

// What the engine before us, with the same peers, was told.
void EngineImpl::ResumeRelays() {
  std::optional<derp::RelayMap> map;
  PrivateKey key;
  {
    std::lock_guard lock(state_->relay_mutex);
    map = state_->relay_map;
    key = state_->private_key.Clone();
  }
  if (!map.has_value() && key.IsZero()) return;
  control_->Execute([&] {
    if (!key.IsZero()) relay_hub_->SetPrivateKey(std::move(key));
    if (const absl::Status status = relay_hub_->SetMap(std::move(map)); !status.ok()) {
      Log().error("relay: the map that was set before: {}", Fmt(status.message()));
    }
  });
}

void EngineImpl::ReStun(absl::string_view reason) {
  if (!Closed()) net_checker_->Request(reason);
}

absl::StatusOr<std::unique_ptr<Sender>> EngineImpl::NewSender() { return senders_->NewSender(); }

EngineStatus EngineImpl::Status() const {
  EngineStatus status;
  status.backend = loops_.control->name();
  status.port = port();
  status.shards = options_.shards;
  const bool ran = control_->Execute([&] {
    relay_hub_->AddStatus(&status);
    net_checker_->AddStatus(&status);
    status.rebinds = rebinder_->rebinds();
    status.last_rebind = rebinder_->last();
    status.link_changes = watch_->changes();
  });
  status.port_mapping = watch_->MappingStatus();
  if (ran && control_->AddPeers(&status.peers)) return status;
  // Not while control runs: an observer that asks on its thread would wait for who waits for it.
  std::lock_guard lock(state_->mutex);
  status.peers.clear();
  if (state_->owner == this) control_->AddPeersNow(&status.peers);
  return status;
}

CounterSnapshot EngineImpl::Counters() const {
  CounterSnapshot sum = senders_->Counters();
  sum += relay_hub_->Counters();
  sum += net_checker_->Counters();
  for (const auto& shard : shards_) sum += shard->Counters();
  return sum;
}

Instant EngineImpl::NextDeadline() const {
  for (const auto& shard : shards_) {
    if (shard->has_more()) return Instant::min();
  }
  return control_->NextDeadline();
}

size_t EngineImpl::Step() {
  control_->Step(Instant::min());
  size_t trains = 0;
  const OnShard scope(this);
  for (auto& shard : shards_) trains += shard->Step(Instant::min());
  return trains;
}

}  // namespace internal
}  // namespace ringsock
