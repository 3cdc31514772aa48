#include "relay/worker.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "base/log.h"

namespace ringsock::relay {
namespace {

// However quiet it is, a worker comes round this often.
constexpr Duration kLongestTurn = std::chrono::seconds(10);
// While it stops: closed streams are gone only turns later, and nobody wakes the loop for that.
constexpr Duration kStoppingTurn = std::chrono::milliseconds(10);
constexpr Route kNoRoute{};
// Pairs of a client of a meshed server and one of ours, of which the latter is told when the former
// goes. 3 MB.
constexpr size_t kMaxForwardedPairs = 1 << 16;
constexpr size_t kMaxForwardedTo = 64;  // of one source

}  // namespace

Worker::Worker(WorkerShared* shared, uint32_t index, std::unique_ptr<io::Loop> loop)
    : shared_(shared),
      index_(index),
      queue_limits_{shared->options->queues.max_bytes, shared->options->queues.max_age},
      pool_(shared->options->queues.worker_bytes),
      loop_(std::move(loop)),
      streams_(loop_->streams()),
      now_(loop_->clock().Now()) {
  mailbox_.SetLoop(loop_.get());
}

Worker::~Worker() { End(); }

absl::Status Worker::Listen(const std::vector<ListenAddress>& addresses,
                            std::vector<Endpoint>* endpoints) {
  for (const ListenAddress& address : addresses) {
    io::ListenConfig config;
    config.bind = address.endpoint;
    config.reuse_port = options().workers > 1;
    config.max_streams = options().loop.max_streams;
    config.options.send_queue = options().queues.stream_bytes + Connection::kHandshakeRoom;
    const auto id = streams_->Listen(config, this);
    if (!id.ok()) return id.status();
    listeners_.push_back({*id, address.tls});
    endpoints->push_back(streams_->LocalEndpoint(*id));
  }
  return absl::OkStatus();
}

void Worker::OpenRings() {
  rings_in_.resize(shared_->workers.size());
  const size_t others = std::max<size_t>(rings_in_.size(), 2) - 1;
  const size_t bytes = std::bit_floor(options().queues.between_workers_bytes / others);
  for (uint32_t from = 0; from < rings_in_.size(); ++from) {
    if (from == index_) continue;
    rings_in_[from] = std::make_unique<FrameRing>(bytes);
  }
}

// ---- Turns ----

void Worker::Turn(Instant deadline) {
  loop_->Poll(std::min(deadline, NextDeadline()));
  now_ = loop_->clock().Now();
  if (mailbox_.pending()) ReadMail();
  DrainRings();
  timers_.RunDue(now_);
  FlushDirty();
  PublishRings();
  CheckStop();
  CollectDead();
  queued_bytes_.store(pool_.used_bytes(), std::memory_order_relaxed);
}

void Worker::Run() {
  while (!stopped_) Turn(loop_->clock().Now() + (stopping_ ? kStoppingTurn : kLongestTurn));
}

void Worker::End() {
  if (loop_ == nullptr) return;
  mailbox_.SetLoop(nullptr);
  for (const auto& dialer : dialers_) dialer->Stop();
  for (Slot& slot : slots_) {
    if (slot.connection != nullptr) slot.connection->Close(&Counters::closed_stopping, false);
  }
  CollectDead();
  loop_.reset();
}

Instant Worker::BeginReceive() {
  if (mailbox_.pending()) ReadMail();
  now_ = loop_->clock().Now();
  return now_;
}

void Worker::FlushDirty() {
  // What a flush makes dirty is for the next turn, which does not wait.
  flushing_.swap(dirty_);
  for (Connection* connection : flushing_) connection->Flush(now_);
  flushing_.clear();
}

void Worker::CollectDead() {
  if (dead_.empty()) return;
  std::erase_if(dirty_, [](const Connection* connection) { return connection->closed(); });
  dead_.clear();
}

// ---- Connections ----

bool Worker::Admit() {
  ++counters_.accepts;
  if (stopping_) return ++counters_.refused_stopping, false;
  switch (registry().Admit(now_)) {
    case Registry::Admission::kYes:
      return true;
    case Registry::Admission::kRate:
      return ++counters_.refused_rate, false;
    case Registry::Admission::kFull:
      return ++counters_.refused_clients, false;
    case Registry::Admission::kLogins:
      return ++counters_.refused_pending, false;
  }
  return false;
}

ConnectionRef Worker::NewRef() {
  uint32_t slot = static_cast<uint32_t>(slots_.size());
  if (free_slots_.empty()) {
    slots_.emplace_back();
  } else {
    slot = free_slots_.back();
    free_slots_.pop_back();
  }
  return {index_, slot, slots_[slot].generation};
}

io::StreamHandler* Worker::OnAccept(io::StreamId listener, io::StreamId stream,
                                    const Endpoint& from) {
  now_ = loop_->clock().Now();
  if (!Admit()) return nullptr;
  const ConnectionRef ref = NewRef();
  auto owned = std::make_unique<Client>(this, ref, from);
  Client* client = owned.get();
  client->SetStream(stream);
  slots_[ref.slot].connection = std::move(owned);
  slots_[ref.slot].client = client;
  const auto at = std::find_if(listeners_.begin(), listeners_.end(),
                               [listener](const Listener& l) { return l.id == listener; });
  if (at->tls && !client->StartTls(options().tls).ok()) {
    client->Close(&Counters::login_failed, /*gracefully=*/false);
    return nullptr;
  }
  return client;
}

MeshLink* Worker::AddMeshLink(MeshDialer* dialer) {
  const ConnectionRef ref = NewRef();
  auto owned = std::make_unique<MeshLink>(dialer, ref);
  MeshLink* link = owned.get();
  slots_[ref.slot].connection = std::move(owned);
  return link;
}

void Worker::Bury(Connection* connection) {
  const uint32_t slot = connection->ref().slot;
  ++slots_[slot].generation;
  slots_[slot].client = nullptr;
  dead_.push_back(std::move(slots_[slot].connection));
  free_slots_.push_back(slot);
}

Connection* Worker::Find(const ConnectionRef& ref) const {
  if (ref.slot >= slots_.size() || slots_[ref.slot].generation != ref.generation) return nullptr;
  return slots_[ref.slot].connection.get();
}

Client* Worker::FindClient(const ConnectionRef& ref) const {
  return Find(ref) == nullptr ? nullptr : slots_[ref.slot].client;
}

void Worker::AppendStatus(size_t max, std::vector<ClientStatus>* out) const {
  for (const Slot& slot : slots_) {
    if (out->size() >= max) return;
    if (slot.client != nullptr && slot.client->logged_in()) out->push_back(slot.client->Status());
  }
}

// ---- Routes ----

const Route& Worker::FindRoute(const PublicKey& key) const {
  const auto found = routes_.find(key);
  return found == routes_.end() ? kNoRoute : found->second;
}

void Worker::SetRoute(const PublicKey& key, const Route& route) {
  ++routes_version_;
  const bool was_here = FindRoute(key).kind == Route::Kind::kClient;
  const bool is_here = route.kind == Route::Kind::kClient;
  if (route.kind == Route::Kind::kNone) {
    routes_.erase(key);
    TellForwardedGone(key);
  } else {
    routes_[key] = route;
  }
  if (was_here == is_here) return;
  for (Client* watcher : watchers_) watcher->Watch(key, is_here);
}

// ---- Mesh ----

void Worker::OpenMesh(const std::vector<MeshPeer>& peers, const PrivateKey* key) {
  for (const MeshPeer& peer : peers) {
    dialers_.push_back(std::make_unique<MeshDialer>(this, &peer, key));
    dialers_.back()->Dial();
  }
}

void Worker::NoteForwarded(const PublicKey& source, const ConnectionRef& to) {
  std::vector<ConnectionRef>& known = forwarded_[source];
  if (std::find(known.begin(), known.end(), to) != known.end()) return;
  if (known.size() >= kMaxForwardedTo || (forwarded_pairs_ >= kMaxForwardedPairs)) {
    ++counters_.peers_forgotten;
    if (known.empty()) return forwarded_.erase(source), void();
    // The oldest, which is the likeliest to have gone.
    known.erase(known.begin());
    --forwarded_pairs_;
  }
  known.push_back(to);
  ++forwarded_pairs_;
}

void Worker::TellForwardedGone(const PublicKey& source) {
  const auto found = forwarded_.find(source);
  if (found == forwarded_.end()) return;
  for (const ConnectionRef& to : found->second) {
    registry().Post(to.worker, {Notice::Kind::kPeerGone, source, {Route::Kind::kClient, to}});
  }
  forwarded_pairs_ -= found->second.size();
  forwarded_.erase(found);
}

void Worker::AddWatcher(Client* client) {
  watchers_.push_back(client);
  for (const auto& [key, route] : routes_) {
    if (route.kind == Route::Kind::kClient) client->Watch(key, true);
  }
}

bool Worker::Deliver(const ConnectionRef& to, derp::Bytes first, derp::Bytes second, Instant now) {
  if (to.worker == index_) {
    Connection* connection = Find(to);
    if (connection == nullptr) return false;
    connection->Queue(first, second, now);
    return true;
  }
  FrameRing& ring = *shared_->workers[to.worker]->rings_in_[index_];
  if (!ring.Write({to.slot, to.generation}, first, second)) ++counters_.dropped_between_workers;
  return true;
}

bool Worker::Forward(const ConnectionRef& link, const PublicKey& source,
                     const PublicKey& destination, derp::Bytes packet, Instant now) {
  std::array<std::byte, derp::kForwardHeaderSize> header;
  derp::EncodeForwardPacketHeader(source, destination, packet.size(), header);
  return Deliver(link, header, packet, now);
}

void Worker::DrainRings() {
  for (const auto& ring : rings_in_) {
    if (ring == nullptr) continue;
    ring->Drain([this](const FrameRing::Target& target, derp::MutableBytes frame) {
      Connection* connection = Find({index_, target.slot, target.generation});
      if (connection == nullptr) {
        ++counters_.dropped_unknown;
      } else {
        connection->Queue(frame, {}, now_);
      }
    });
  }
}

// Also for what timers and notices have sent, so once, at the end.
void Worker::PublishRings() {
  for (Worker* other : shared_->workers) {
    if (other != this && other->rings_in_[index_]->Publish()) other->Wake();
  }
}

// ---- Mail ----

void Worker::ReadMail() {
  const Mailbox::Mail mail = mailbox_.Take();
  for (const Notice& notice : mail.notices) OnNotice(notice);
  for (const Mailbox::Call& call : mail.calls) call(*this);
}

void Worker::OnNotice(const Notice& notice) {
  if (notice.kind == Notice::Kind::kRoute) return SetRoute(notice.key, notice.route);
  Client* client = FindClient(notice.route.ref);
  if (client == nullptr) return;
  switch (notice.kind) {
    case Notice::Kind::kRoute:
      return;
    case Notice::Kind::kPeerGone:
      return client->TellGone(notice.key);
    case Notice::Kind::kDuplicate:
      return client->SetDuplicate(true);
    case Notice::Kind::kNotDuplicate:
      return client->SetDuplicate(false);
    case Notice::Kind::kCloseOldest:
      return client->Close(&Counters::closed_duplicate, /*gracefully=*/true);
    case Notice::Kind::kClosePeer:
      return client->Close(&Counters::closed_by_mesh, /*gracefully=*/true);
  }
}

void Worker::CloseDenied() {
  for (const Slot& slot : slots_) {
    Client* client = slot.client;
    if (client == nullptr || !client->logged_in() || client->is_mesh()) continue;
    if (!registry().Allowed(client->key())) client->Close(&Counters::closed_denied, true);
  }
}

// ---- The end ----

void Worker::BeginStop(Instant deadline) {
  stopping_ = true;
  stop_deadline_ = std::min(stop_deadline_, deadline);
  for (const Listener& listener : listeners_) streams_->Close(listener.id);
  listeners_.clear();
  for (const auto& dialer : dialers_) dialer->Stop();
  for (const Slot& slot : slots_) {
    if (slot.client != nullptr) slot.client->Stop(now_);
  }
}

void Worker::CheckStop() {
  if (!stopping_ || stopped_) return;
  const bool all_gone = free_slots_.size() == slots_.size() && streams_->totals().open == 0;
  stopped_ = all_gone || now_ >= stop_deadline_;
}

}  // namespace ringsock::relay
