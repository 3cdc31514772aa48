#include "core/engine.h"

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/log.h"
#include "core/engine_internal.h"

namespace ringsock {

namespace {

// The cores this process may run on.
std::vector<int> AllowedCores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  std::vector<int> cores;
  if (sched_getaffinity(0, sizeof(set), &set) == 0) {
    for (int core = 0; core < CPU_SETSIZE; ++core) {
      if (CPU_ISSET(core, &set)) cores.push_back(core);
    }
  }
  return cores;
}

}  // namespace

absl::Status Handler::OnShardStart(Shard&) { return absl::OkStatus(); }
void Handler::OnShardStop(Shard&) {}

uint32_t EngineOptions::ShardCount() const {
  if (shards != 0) return shards;
  return std::max<uint32_t>(1, static_cast<uint32_t>(AllowedCores().size()));
}

std::string EngineOptions::ToString() const {
  const char* backend = io.backend == io::Backend::kAuto    ? "auto"
                        : io.backend == io::Backend::kUring ? "io_uring"
                                                            : "mmsg";
  return absl::StrCat(
      "port=", port, " ipv4=", ipv4 ? bind_v4.ToString() : "off",
      " ipv6=", ipv6 ? bind_v6.ToString() : "off", " shards=", shards, " pin_threads=", pin_threads,
      " socket_buffer=", socket_buffer, " max_peers=", max_peers,
      " sender_ring_packets=", sender_ring_packets, " max_senders=", max_senders,
      " backend=", backend, " gso=", io.gso, " gro=", io.gro, " zero_copy=", io.zero_copy,
      " rx_buffers=", io.rx_buffers, " rx_batch=", io.rx_batch, " tx_queue=", io.tx_queue,
      " tx_slabs=", io.tx_slabs,
      " spin_us=", std::chrono::duration_cast<std::chrono::microseconds>(io.spin).count());
}

namespace {

// The shard's core, from those of the thread that starts it (children inherit them).
void PinThisThread(uint32_t shard) {
  const std::vector<int> cores = AllowedCores();
  if (cores.empty()) return;
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cores[shard % cores.size()], &set);
  const int error = pthread_setaffinity_np(pthread_self(), sizeof(set), &set);
  if (error != 0) Log().warn("shard {} is not pinned to a core: {}", shard, std::strerror(error));
}

absl::Status CheckOptions(const EngineOptions& options, const Handler* handler) {
  if (handler == nullptr) return absl::InvalidArgumentError("handler is null");
  if (!options.ipv4 && !options.ipv6) {
    return absl::InvalidArgumentError("ipv4 and ipv6 are both off: nothing to listen on");
  }
  if (options.ipv4 && !options.bind_v4.IsV4()) {
    return absl::InvalidArgumentError(
        absl::StrCat("bind_v4 ", options.bind_v4.ToString(), " is not an IPv4 address"));
  }
  if (options.ipv6 && options.bind_v6.IsV4()) {
    return absl::InvalidArgumentError(
        absl::StrCat("bind_v6 ", options.bind_v6.ToString(), " is not an IPv6 address"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<Engine>> Engine::Start(const EngineOptions& options,
                                                      Handler* handler) {
  if (absl::Status status = CheckOptions(options, handler); !status.ok()) return status;
  const uint32_t shards = options.ShardCount();
  internal::EngineLoops loops;
  io::LoopOptions loop_options = options.io;
  for (size_t i = 0; i < shards; ++i) {
    io::BackendChoice choice;
    absl::StatusOr<std::unique_ptr<io::Loop>> loop = io::CreateLoop(loop_options, &choice);
    if (!loop.ok()) return loop.status();
    if (i == 0) io::LogBackend(choice);
    loop_options.backend = choice.backend;  // the same for all
    loops.shards.push_back(*std::move(loop));
  }
  // Control moves few bytes: the least that works.
  loop_options.rx_buffers = 2;
  loop_options.tx_slabs = 1;
  loop_options.spin = Duration::zero();
  io::BackendChoice choice;
  absl::StatusOr<std::unique_ptr<io::Loop>> loop = io::CreateLoop(loop_options, &choice);
  if (!loop.ok()) return loop.status();
  loops.control = *std::move(loop);
  return internal::EngineImpl::Create(options, handler, std::move(loops),
                                      internal::EngineImpl::Threads::kOwn);
}

namespace internal {

EngineImpl::EngineImpl(const EngineOptions& options, EngineLoops loops, Threads threads)
    : options_(options), threads_(threads), loops_(std::move(loops)) {
  options_.shards = static_cast<uint32_t>(loops_.shards.size());
}

EngineImpl::~EngineImpl() { Close(); }

absl::StatusOr<std::unique_ptr<EngineImpl>> EngineImpl::Create(const EngineOptions& options,
                                                               Handler* handler, EngineLoops loops,
                                                               Threads threads, RelayQueue* relay) {
  if (absl::Status status = CheckOptions(options, handler); !status.ok()) return status;
  auto engine = std::unique_ptr<EngineImpl>(new EngineImpl(options, std::move(loops), threads));
  absl::Status status = engine->MakeShards(handler, relay);
  if (status.ok()) status = engine->OpenSockets();
  if (status.ok()) {
    Log().info("engine: {} on port {}: {}", engine->loops_.control->name(), engine->port_,
               engine->options_.ToString());
    status = engine->StartShards();
  }
  if (!status.ok()) {
    engine->Close();
    return status;
  }
  return engine;
}

absl::Status EngineImpl::MakeShards(Handler* handler, RelayQueue* relay) {
  peers_ =
      std::make_unique<PeerTable>(PeerTableOptions{.max_peers = options_.max_peers}, &quiescence_);
  std::vector<io::Loop*> loops;
  std::vector<ShardLink*> links;
  for (const auto& loop : loops_.shards) {
    loops.push_back(loop.get());
    links_.push_back(std::make_unique<ShardLink>());
    links.push_back(links_.back().get());
  }
  senders_ =
      std::make_unique<SenderQueues>(loops, options_.max_senders, options_.sender_ring_packets);
  for (uint32_t i = 0; i < loops.size(); ++i) {
    absl::StatusOr<Quiescence::Reader> reader = quiescence_.Register();
    if (!reader.ok()) return reader.status();
    shards_.push_back(
        std::make_unique<EngineShard>(ShardEnvironment{.index = i,
                                                       .loop = loops[i],
                                                       .handler = handler,
                                                       .peers = peers_.get(),
                                                       .senders = senders_.get(),
                                                       .link = links[i],
                                                       .control_loop = loops_.control.get(),
                                                       .relay = relay,
                                                       .gso = options_.io.gso},
                                      *std::move(reader)));
  }
  absl::StatusOr<Quiescence::Reader> reader = quiescence_.Register();
  if (!reader.ok()) return reader.status();
  reader_ = *std::move(reader);
  control_ =
      std::make_unique<Control>(loops_.control.get(), peers_.get(), &quiescence_, loops, links);
  return absl::OkStatus();
}

absl::Status EngineImpl::StartShards() {
  if (threads_ == Threads::kCaller) {
    for (auto& shard : shards_) {
      if (absl::Status status = shard->Start(); !status.ok()) return status;
      ++started_;
    }
    return absl::OkStatus();
  }
  control_->StartThread();
  for (uint32_t i = 0; i < shards_.size(); ++i) {
    shard_threads_.emplace_back([this, i] { ShardMain(i); });
  }
  std::unique_lock lock(start_mutex_);
  start_reported_.wait(lock, [this] { return start_reports_ == shards_.size(); });
  return start_status_;
}

void EngineImpl::ShardMain(uint32_t index) {
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
  if (closed_.exchange(true)) return;  // spec: RECV-7
  stop_.store(true, std::memory_order_release);
  if (threads_ == Threads::kCaller) {
    for (size_t i = 0; i < shards_.size(); ++i) shards_[i]->Stop(/*tell_handler=*/i < started_);
  } else if (shard_threads_.empty()) {
    for (auto& shard : shards_) shard->CloseSockets();  // it never came to start
  } else {
    for (auto& loop : loops_.shards) loop->Wake();
    for (auto& thread : shard_threads_) thread.join();
  }
  if (senders_ != nullptr) senders_->Close();
  if (control_ != nullptr) control_->Stop();
}

absl::StatusOr<PeerId> EngineImpl::CreateEndpoint(const PublicKey& key,
                                                  absl::string_view endpoints) {
  if (Closed()) return absl::FailedPreconditionError("the engine is closed");
  absl::StatusOr<std::vector<Endpoint>> list = Endpoint::ParseList(endpoints);
  if (!list.ok()) return list.status();
  return control_->CreateEndpoint(key, *list);
}

absl::Status EngineImpl::UpdatePeers(std::span<const PublicKey> keys) {
  if (Closed()) return absl::FailedPreconditionError("the engine is closed");
  control_->UpdatePeers(keys);
  return absl::OkStatus();
}

void EngineImpl::ConfirmPath(PeerId id, const Endpoint& from) {
  std::lock_guard lock(reader_mutex_);
  Quiescence::Section section(&reader_);
  Peer* peer = peers_->FindById(id);
  if (peer != nullptr && !peer->addresses().IsCurrent(from)) peer->addresses().Confirm(from);
}

absl::StatusOr<std::unique_ptr<Sender>> EngineImpl::NewSender() { return senders_->NewSender(); }

EngineStatus EngineImpl::Status() const {
  return {.backend = loops_.control->name(),
          .port = port_,
          .shards = options_.shards,
          .peers = control_->Peers()};
}

CounterSnapshot EngineImpl::Counters() const {
  CounterSnapshot sum = senders_->Counters();
  for (const auto& shard : shards_) sum += shard->Counters();
  return sum;
}

size_t EngineImpl::Step() {
  control_->Step(Instant::min());
  size_t trains = 0;
  for (auto& shard : shards_) trains += shard->Step(Instant::min());
  return trains;
}

}  // namespace internal
}  // namespace ringsock
