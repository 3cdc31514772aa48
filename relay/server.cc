#include <pthread.h>
#include <sched.h>

#include <condition_variable>
#include <mutex>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/log.h"
#include "core/new_thread.h"
#include "relay/server_impl.h"

namespace ringsock::relay {
namespace {

constexpr Duration kAskTimeout = std::chrono::seconds(2);

absl::Status Bad(absl::string_view option, absl::string_view why) {
  return absl::InvalidArgumentError(absl::StrCat("relay: ", option, ": ", why));
}

absl::Status Check(const Options& options) {
  if (options.identity == nullptr) return Bad("identity", "missing");
  if (options.listen.empty()) return Bad("listen", "no address");
  for (const ListenAddress& address : options.listen) {
    if (address.tls && options.tls == nullptr) {
      return Bad("listen", absl::StrCat(address.endpoint.ToString(), " wants TLS, none is set up"));
    }
  }
  if (options.workers < 1 || options.workers > Options::kMaxWorkers) {
    return Bad("workers", absl::StrCat(options.workers, " is not 1 to ", Options::kMaxWorkers));
  }
  const QueueLimits& queues = options.queues;
  if (queues.max_bytes < QueueLimits::kMinBytes) {
    return Bad("queues.max_bytes", "the largest packet does not fit");
  }
  if (queues.worker_bytes < 2 * queues.max_bytes) {
    return Bad("queues.worker_bytes", "less than two full queues");
  }
  if (queues.stream_bytes < Connection::kMinStreamBytes) {
    return Bad("queues.stream_bytes", "less than 64 KiB");
  }
  if (queues.max_age <= Duration::zero() || queues.write_timeout <= Duration::zero()) {
    return Bad("queues", "max_age and write_timeout must be positive");
  }
  if (options.limits.max_connections_per_key == 0) {
    return Bad("limits.max_connections_per_key", "0 lets nobody in");
  }
  if (!options.mesh.empty() && options.mesh_key.IsZero()) return Bad("mesh", "no mesh key");
  for (const MeshPeer& peer : options.mesh) {
    if (peer.tls && options.mesh_tls == nullptr) {
      return Bad("mesh", absl::StrCat(peer.address.ToString(), " wants TLS, none is set up"));
    }
  }
  return absl::OkStatus();
}

void Pin(int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  if (const int error = pthread_setaffinity_np(pthread_self(), sizeof set, &set); error != 0) {
    Log().warn("relay: cannot pin a worker to CPU {}: error {}", cpu, error);
  }
}

}  // namespace

absl::StatusOr<std::unique_ptr<Server>> Server::Create(Options options) {
  if (auto status = Check(options); !status.ok()) return status;
  return std::unique_ptr<Server>(std::make_unique<ServerImpl>(std::move(options)));
}

ServerImpl::ServerImpl(Options options) : options_(std::move(options)) {
  shared_.options = &options_;
  shared_.random = options_.random != nullptr ? options_.random : &SystemRandom();
  shared_.session.identity = options_.identity;
  if (!options_.mesh_key.IsZero()) shared_.session.mesh_key = &options_.mesh_key;
  shared_.session.info.token_bucket_bytes_per_second = options_.limits.client_bytes_per_second;
  shared_.session.info.token_bucket_bytes_burst = options_.limits.client_bytes_burst;
  shared_.session.random = shared_.random;
}

ServerImpl::~ServerImpl() {
  Stop(Duration::zero());
  // Without threads nobody has ended them. What one closes is told to all.
  for (const auto& worker : workers_) worker->End();
}

// ---- Start ----

absl::Status ServerImpl::OpenWorkers() {
  if (std::exchange(started_, true)) return absl::FailedPreconditionError("relay: started twice");
  for (int i = 0; i < options_.workers; ++i) {
    auto loop = options_.make_loop ? options_.make_loop(i) : io::CreateLoop(options_.loop);
    if (!loop.ok()) return loop.status();
    const auto index = static_cast<uint32_t>(i);
    workers_.push_back(std::make_unique<Worker>(&shared_, index, std::move(loop).value()));
    shared_.workers.push_back(workers_.back().get());
  }
  std::vector<Mailbox*> mailboxes;
  for (const auto& worker : workers_) mailboxes.push_back(&worker->mailbox());
  registry_ = std::make_unique<Registry>(options_.limits, std::move(mailboxes));
  registry_->SetAllowList(options_.allow);
  shared_.registry = registry_.get();
  std::vector<ListenAddress> addresses = options_.listen;
  for (const auto& worker : workers_) {
    worker->OpenRings();
    std::vector<Endpoint> endpoints;
    if (auto status = worker->Listen(addresses, &endpoints); !status.ok()) return status;
    if (endpoints_.empty()) endpoints_ = endpoints;
    // Where the kernel chose a port for the first, the others share it.
    for (size_t i = 0; i < addresses.size(); ++i) {
      addresses[i].endpoint.port = endpoints[i].port;
    }
  }
  workers_.front()->OpenMesh(options_.mesh, &mesh_login_);
  return absl::OkStatus();
}

absl::Status ServerImpl::Open() {
  auto status = OpenWorkers();
  if (!status.ok()) {
    for (const auto& worker : workers_) worker->End();
    workers_.clear();
    endpoints_.clear();
  }
  return status;
}

absl::Status ServerImpl::Start() {
  if (auto status = Open(); !status.ok()) return status;
  all_ended_ = std::make_unique<std::latch>(static_cast<ptrdiff_t>(workers_.size()));
  for (uint32_t i = 0; i < workers_.size(); ++i) {
    absl::StatusOr<std::thread> thread = NewThread([this, i] { RunThread(i); });
    if (!thread.ok()) {
      // Those that run wait for all; the others never come.
      all_ended_->count_down(static_cast<ptrdiff_t>(workers_.size() - i));
      Stop(Duration::zero());
      return thread.status();
    }
    threads_.push_back(std::move(*thread));
  }
  return absl::OkStatus();
}

void ServerImpl::RunThread(uint32_t index) {
  if (!options_.cpus.empty()) Pin(options_.cpus[index % options_.cpus.size()]);
  workers_[index]->Run();
  // Until then another worker may wake this one.
  all_ended_->arrive_and_wait();
  workers_[index]->End();
}

void ServerImpl::Stop(Duration grace) {
  for (const auto& worker : workers_) {
    worker->mailbox().Post([grace](Worker& w) { w.BeginStop(w.now() + grace); });
  }
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
}

// ---- While it runs ----

void ServerImpl::SetAllowList(std::shared_ptr<const AllowList> allow) {
  if (registry_ == nullptr) {
    options_.allow = std::move(allow);
    return;
  }
  registry_->SetAllowList(std::move(allow));
  for (const auto& worker : workers_) {
    worker->mailbox().Post([](Worker& w) { w.CloseDenied(); });
  }
}

Stats ServerImpl::GetStats() const {
  Stats stats;
  for (const auto& worker : workers_) {
    stats.Add(std::as_const(*worker).counters());
    stats.queued_bytes += worker->queued_bytes();
  }
  stats.workers = workers_.size();
  if (registry_ == nullptr) return stats;
  const Registry::Totals totals = registry_->totals();
  stats.clients = totals.clients;
  stats.connections = totals.connections;
  stats.keys = totals.keys;
  stats.mesh_keys = totals.mesh_keys;
  return stats;
}

bool ServerImpl::AskAll(const Mailbox::Call& call, Duration within) {
  struct Answers {
    std::mutex mutex;
    std::condition_variable changed;
    size_t waiting = 0;
  };
  const auto answers = std::make_shared<Answers>();
  size_t asked = 0;
  for (const auto& worker : workers_) {
    {
      const std::lock_guard lock(answers->mutex);
      ++answers->waiting;
    }
    const bool posted = worker->mailbox().Post([call, answers](Worker& w) {
      const std::lock_guard lock(answers->mutex);
      if (call) call(w);
      --answers->waiting;
      answers->changed.notify_one();
    });
    asked += posted ? 1 : 0;
    const std::lock_guard lock(answers->mutex);
    answers->waiting -= posted ? 0 : 1;
  }
  std::unique_lock lock(answers->mutex);
  return asked == workers_.size() &&
         answers->changed.wait_for(lock, within, [&] { return answers->waiting == 0; });
}

std::vector<ClientStatus> ServerImpl::Clients(size_t max) {
  // Outlives this call: a worker that is late fills it for nobody.
  const auto clients = std::make_shared<std::vector<ClientStatus>>();
  const auto guard = std::make_shared<std::mutex>();
  AskAll(
      [clients, guard, max](Worker& w) {
        const std::lock_guard lock(*guard);
        w.AppendStatus(max, clients.get());
      },
      kAskTimeout);
  const std::lock_guard lock(*guard);
  return *clients;
}

bool ServerImpl::Responsive(Duration within) {
  return !threads_.empty() && AskAll(nullptr, within);
}

}  // namespace ringsock::relay
