#include "core/control.h"

#include <pthread.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <optional>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "core/new_thread.h"

namespace ringsock {
namespace {

// How long what was unlinked may wait to be freed while shards run.
constexpr Duration kReclaimInterval = std::chrono::milliseconds(10);

// Whether `after` has an address that `before` has not.
bool ListsMore(const AddressSet& after, const AddressSet& before) {
  const auto list = after.endpoints();
  return std::any_of(list.begin(), list.end(),
                     [&](const Endpoint& endpoint) { return before.IndexOf(endpoint) < 0; });
}

PeerStatus StatusOf(const Peer& peer) {
  PeerStatus status;
  status.id = peer.id();
  status.key = peer.key();
  const auto endpoints = peer.addresses().endpoints();
  status.addresses.assign(endpoints.begin(), endpoints.end());
  const PathState path = peer.addresses().Snapshot();
  status.roaming = path.roaming;
  if (path.roaming) {
    status.current = path.roam;
  } else if (path.current >= 0) {
    status.current = endpoints[static_cast<size_t>(path.current)];
  }
  return status;
}

absl::Status Closed() { return absl::FailedPreconditionError("the engine is closed"); }

}  // namespace

Control::Control(io::Loop* loop, PeerTable* peers, Quiescence* quiescence,
                 PathReports* path_reports, std::vector<io::Loop*> shard_loops,
                 std::vector<ShardLink*> links)
    : loop_(*loop),
      peers_(*peers),
      quiescence_(*quiescence),
      path_reports_(*path_reports),
      shard_loops_(std::move(shard_loops)),
      links_(std::move(links)) {}

Control::~Control() { Stop(); }

absl::Status Control::StartThread() {
  // Held until the thread exists, so that nobody waits for one that does not.
  std::lock_guard lock(mutex_);
  absl::StatusOr<std::thread> thread = NewThread([this] { ThreadMain(); });
  if (!thread.ok()) return thread.status();
  thread_ = *std::move(thread);
  threaded_ = true;
  return absl::OkStatus();
}

void Control::ThreadMain() {
  pthread_setname_np(pthread_self(), "rs-control");
  for (;;) {
    {
      std::lock_guard lock(mutex_);
      if (stopping_ && tasks_.empty()) {
        threaded_ = false;
        return;
      }
    }
    Step(Instant::max());
  }
}

void Control::Stop() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  if (!thread_.joinable()) return;
  loop_.Wake();
  thread_.join();
}

bool Control::OnThread() const {
  std::lock_guard lock(mutex_);
  return threaded_ && thread_.get_id() == std::this_thread::get_id();
}

bool Control::Execute(const std::function<void()>& task) {
  if (OnThread()) {
    task();
    return true;
  }
  std::unique_lock lock(mutex_);
  if (!threaded_) {
    if (stopping_) return false;
    task();
    return true;
  }
  Task queued{&task};
  tasks_.push_back(&queued);
  loop_.Wake();
  done_.wait(lock, [&queued] { return queued.done; });
  return true;
}

void Control::Step(Instant deadline) {
  RunTasks();
  RunReports();
  timers_.RunDue(now());
  const bool more = RunParts();
  if (quiescence_.pending() > 0) quiescence_.Reclaim();
  loop_.Poll(more ? Instant::min() : std::min(deadline, NextDeadline()));
  RunReports();
}

Instant Control::NextDeadline() const {
  Instant next = timers_.NextDeadline();
  for (const ControlPart* part : parts_) next = std::min(next, part->NextDeadline());
  return quiescence_.pending() == 0 ? next : std::min(next, now() + kReclaimInterval);
}

bool Control::RunParts() {
  bool more = false;
  for (ControlPart* part : parts_) more |= part->Run();
  return more;
}

void Control::TellPeerChange(const Peer* before, const Peer* now) {
  for (ControlPart* part : parts_) part->OnPeerChange(before, now);
}

// No more than were there: callers that always have one more must not keep us here. Those that come
// meanwhile have woken the loop. A task that waits may run others (WaitForShards()), so that there
// may be fewer left than there were.
void Control::RunTasks() {
  std::unique_lock lock(mutex_);
  for (size_t left = tasks_.size(); left > 0 && !tasks_.empty(); --left) {
    Task* task = tasks_.front();
    tasks_.pop_front();
    lock.unlock();
    (*task->run)();
    lock.lock();
    task->done = true;
    done_.notify_all();
  }
}

void Control::RunReports() {
  for (PathReport report; path_reports_.Pop(&report);) LogPath(report);
  for (uint32_t shard = 0; shard < links_.size(); ++shard) {
    ShardLink& link = *links_[shard];
    // No more than were there: whoever floods us with STUN must not keep us here. For those that
    // come meanwhile this thread has been woken.
    for (size_t left = link.stun.capacity(); left > 0; --left) {
      const StunPacket* const packet = link.stun.Front();
      if (packet == nullptr) break;
      if (stun_handler_) stun_handler_(shard, *packet);
      link.stun.Pop();
    }
    while (const PathReport* report = link.paths.Front()) {
      LogPath(*report);
      link.paths.Pop();
    }
    while (const SendFailureReport* failure = link.failures.Front()) {
      if (failure_log_.Allow(now())) {
        Log().warn("send to {} failed: {}; more in the next minute are only counted",
                   failure->to.ToString(), std::strerror(failure->error));
      }
      link.failures.Pop();
    }
  }
}

void Control::LogPath(const PathReport& report) {
  if (report.change == PathChange::kLowerKept && !lower_path_log_.Allow(now())) return;
  Log().info("peer {}: {}: {} (was {})", report.key.ToShortString(), PathChangeName(report.change),
             report.from.ToString(),
             report.previous.IsNone() ? std::string("none") : report.previous.ToString());
  if (report.left_out > 0) {
    Log().info("{} more changes of roaming addresses were not logged", report.left_out);
  }
}

absl::StatusOr<PeerId> Control::CreateEndpoint(const PublicKey& key,
                                               std::span<const Endpoint> endpoints) {
  absl::StatusOr<PeerId> id = Closed();
  Execute([&] { id = Create(key, endpoints); });
  return id;
}

absl::StatusOr<PeerId> Control::Create(const PublicKey& key, std::span<const Endpoint> endpoints) {
  // What is replaced is not freed before this thread reclaims.
  const Peer* before = peers_.FindByKey(key);
  absl::StatusOr<PeerId> id = peers_.Create(key, endpoints);
  if (!id.ok()) return id;
  Peer* peer = peers_.FindById(*id);
  // Whoever tells where a peer is now should not have to wait for WireGuard's next handshake, up to
  // two minutes: what is new is tried with the next packets, as after PATH-6.
  if (before != nullptr && ListsMore(peer->addresses(), before->addresses())) {
    peer->addresses().Reset(now());
  }
  TellPeerChange(before, peer);
  return id;
}

absl::Status Control::CreateEndpoints(std::span<const NewPeer> peers, std::vector<PeerId>* ids) {
  absl::Status status;
  while (status.ok() && !peers.empty()) {
    const auto group = peers.first(std::min(peers.size(), kPeersAtOnce));
    status = Closed();
    Execute([&] {
      status = absl::OkStatus();
      for (const NewPeer& peer : group) {
        absl::StatusOr<PeerId> id = Create(peer.key, peer.endpoints);
        status = id.status();
        if (!status.ok()) return;
        ids->push_back(*id);
      }
    });
    peers = peers.subspan(group.size());
  }
  return status;
}

absl::Status Control::RemovePeers(std::span<const PublicKey> keys) {
  uint64_t epoch = 0;
  while (!keys.empty()) {
    const auto group = keys.first(std::min(keys.size(), kPeersAtOnce));
    const bool ran = Execute([&] {
      size_t removed = 0;
      for (const PublicKey& key : group) {
        const Peer* peer = peers_.FindByKey(key);
        if (peer == nullptr) continue;
        TellPeerChange(peer, nullptr);
        removed += peers_.Remove(peer->id());
      }
      epoch = NoteRemoved(removed);
    });
    if (!ran) return Closed();
    keys = keys.subspan(group.size());
  }
  WaitForShards(epoch);
  return absl::OkStatus();
}

// Who stays is looked up by key: between two groups an id may come to mean another peer.
absl::Status Control::UpdatePeers(std::span<const PublicKey> keys) {
  const absl::flat_hash_set<PublicKey> keep(keys.begin(), keys.end());
  std::vector<PublicKey> gone;
  uint64_t epoch = 0;
  std::optional<uint32_t> next = 0;
  while (next.has_value()) {
    const bool ran = Execute([&] {
      next = peers_.ForSome(*next, kPeersAtOnce, [&](const Peer& peer) {
        if (!keep.contains(peer.key())) gone.push_back(peer.key());
      });
      epoch = removal_epoch_;  // also if nobody is left to remove
    });
    if (!ran) return Closed();
  }
  if (absl::Status status = RemovePeers(gone); !status.ok()) return status;
  WaitForShards(epoch);
  return absl::OkStatus();
}

// Also if another call removed them a moment ago: the promise is that they are gone.
uint64_t Control::NoteRemoved(size_t removed) {
  if (removed > 0) removal_epoch_ = quiescence_.Advance();
  return removal_epoch_;
}

// On the caller's thread, so that control goes on. A shard that sleeps counts as passed, one that
// runs passes at the end of its loop, microseconds from now. If the caller is an observer, this is
// control's thread, and a shard may be waiting for it: its handler asks for Status(), or wants a
// lock that another thread holds while it asks. So what is asked for meanwhile is done here.
void Control::WaitForShards(uint64_t epoch) {
  const bool on_thread = OnThread();
  for (int tries = 0; !quiescence_.Passed(epoch); ++tries) {
    if (on_thread) RunTasks();
    if (tries < 100) {
      std::this_thread::yield();
    } else {
      std::this_thread::sleep_for(std::chrono::microseconds(50));
    }
  }
}

bool Control::AddPeers(std::vector<PeerStatus>* out) {
  out->reserve(peers_.size());
  std::optional<uint32_t> next = 0;
  while (next.has_value()) {
    const bool ran = Execute([&] {
      next = peers_.ForSome(*next, kPeersAtOnce,
                            [&](const Peer& peer) { out->push_back(StatusOf(peer)); });
    });
    if (!ran) return false;
  }
  return true;
}

void Control::AddPeersNow(std::vector<PeerStatus>* out) const {
  out->reserve(peers_.size());
  peers_.ForEach([&](const Peer& peer) { out->push_back(StatusOf(peer)); });
}

void Control::SetStunHandler(StunHandler handler) {
  stun_handler_ = std::move(handler);
  for (ShardLink* link : links_) {
    link->stun_wanted.store(static_cast<bool>(stun_handler_), std::memory_order_relaxed);
  }
}

bool Control::SendTo(uint32_t shard, const Endpoint& to, std::span<const std::byte> datagram) {
  const auto size = static_cast<uint32_t>(datagram.size());
  if (datagram.size() > io::kMaxDatagram) return false;
  if (!links_[shard]->sends.Push(PeerId::kNone, to, {datagram.data(), size, size})) return false;
  shard_loops_[shard]->Wake();
  return true;
}

bool Control::RunOnShard(uint32_t shard, ShardCommand command) {
  if (!links_[shard]->commands.TryPush(std::move(command))) return false;
  shard_loops_[shard]->Wake();
  return true;
}

}  // namespace ringsock
