#include "core/shard.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "core/packet_train.h"
#include "core/wireguard.h"

namespace ringsock {
namespace {

// How often the sockets' own counters are looked at while packets come without a pause.
constexpr Duration kCountInterval = std::chrono::milliseconds(10);

PathKind DirectPath(const Endpoint& endpoint) {
  return endpoint.IsV4() ? PathKind::kDirectV4 : PathKind::kDirectV6;
}

Drop DropForError(int error) {
  switch (error) {
    case EMSGSIZE:
      return Drop::kTxMessageSize;
    case EAGAIN:
    case ENOBUFS:
    case ENOMEM:
      return Drop::kTxBufferFull;
    case ENETUNREACH:
    case EHOSTUNREACH:
    case ENETDOWN:
    case EHOSTDOWN:
    case ECONNREFUSED:
    case EADDRNOTAVAIL:
      return Drop::kTxUnreachable;
    case EPERM:
    case EACCES:
      return Drop::kTxRefused;
    default:
      return Drop::kTxError;
  }
}

// Packets [first, first + count) of a train.
PacketTrain Slice(const PacketTrain& train, uint32_t first, uint32_t count) {
  const uint32_t begin = first * train.segment_size;
  const uint64_t end = std::min<uint64_t>(train.size, uint64_t{first + count} * train.segment_size);
  const auto size = static_cast<uint32_t>(end - begin);
  return {train.data + begin, size, std::min(size, train.segment_size)};
}

}  // namespace

EngineShard::EngineShard(const ShardEnvironment& environment, Quiescence::Reader reader)
    : env_(environment),
      loop_(*environment.loop),
      reader_(std::move(reader)),
      embedder_loop_(environment.loop, this),
      builder_(environment.loop, environment.gso ? TrainBuilder::kCopyLimit : 0),
      learner_(environment.peers),
      now_(environment.loop->clock().Now()),
      counted_(now_) {}

absl::StatusOr<Endpoint> EngineShard::OpenSocket(const io::UdpConfig& config) {
  absl::StatusOr<io::SocketId> socket = loop_.OpenUdp(config, this);
  if (!socket.ok()) return socket.status();
  (config.bind.IsV4() ? v4_ : v6_) =
      Socket{.id = *socket, .bound = !config.bind.ip.IsUnspecified()};
  return loop_.LocalEndpoint(*socket);
}

void EngineShard::CloseSockets() {
  CountSocketDrops();
  CloseSocket(/*v6=*/false);
  CloseSocket(/*v6=*/true);
}

void EngineShard::CloseSocket(bool v6) {
  std::optional<Socket>& socket = v6 ? v6_ : v4_;
  if (socket.has_value()) loop_.CloseUdp(socket->id);
  socket.reset();
}

std::optional<Endpoint> EngineShard::BoundTo(bool v6) const {
  const std::optional<Socket>& socket = v6 ? v6_ : v4_;
  if (!socket.has_value()) return std::nullopt;
  return loop_.LocalEndpoint(socket->id);
}

RebindOutcome EngineShard::Rebind(uint16_t port) {
  RebindOutcome outcome{.status = absl::OkStatus(), .port = port};
  for (const bool v6 : {false, true}) {
    const std::optional<Socket>& socket = v6 ? v6_ : v4_;
    if (!socket.has_value()) continue;
    const absl::StatusOr<io::Reopened> reopened = loop_.ReopenUdp(socket->id, outcome.port);
    if (!reopened.ok()) {
      outcome.status.Update(reopened.status());
      continue;
    }
    outcome.replaced = true;
    outcome.port = reopened->local.port;
    outcome.lost += reopened->lost;
    outcome.exact &= reopened->exact;
    env_.link->health[v6].Reset(loop_.Stats(socket->id).tx_packets);
  }
  counters_.AddDrop(Drop::kRxRebind, outcome.lost);
  return outcome;
}

absl::Status EngineShard::Start() {
  BeginBatch();
  absl::Status status = env_.handler->OnShardStart(*this);
  EndBatch();
  loop_.Flush();
  reader_.Offline();
  return status;
}

void EngineShard::Stop(bool tell_handler) {
  BeginBatch();
  if (tell_handler) env_.handler->OnShardStop(*this);
  EndBatch();
  loop_.Flush();
  stopping_ = true;
  embedder_loop_.CloseAll();
  CloseSockets();
  reader_.Offline();
}

size_t EngineShard::Step(Instant deadline) {
  has_more_ = RunQueues();
  // Offline while it may sleep, so that nobody waits for a sleeper; the first batch comes back.
  if (reader_.online()) reader_.Offline();
  WakeControl();
  // What the sockets dropped is counted before a long sleep.
  if (uncounted_) deadline = std::min(deadline, counted_ + kCountInterval);
  const size_t trains = loop_.Poll(has_more_ ? Instant::min() : deadline);
  WakeControl();
  // A system call per socket, so not for every turn. A turn without trains has not set the time.
  if (trains == 0) now_ = loop_.clock().Now();
  uncounted_ = now_ - counted_ < kCountInterval;
  if (!uncounted_) CountSocketDrops();
  return trains;
}

// Control has reports to read. Before each sleep, since what makes them may be long over then.
void EngineShard::WakeControl() {
  if (std::exchange(wake_control_, false)) env_.control_loop->Wake();
}

// What other threads have queued for this one. True if some of it is left for the next time.
bool EngineShard::RunQueues() {
  const bool senders = env_.senders->Pending(env_.index);
  PacketRing* relayed = env_.relay == nullptr ? nullptr : env_.relay->Received(env_.index);
  if (relayed != nullptr && !relayed->HasNext()) relayed = nullptr;
  if (!senders && relayed == nullptr && !env_.link->sends.HasNext() &&
      env_.link->commands.Front() == nullptr) {
    return false;
  }
  BeginBatch();
  while (ShardCommand* command = env_.link->commands.Front()) {
    (*command)(*this);
    *command = nullptr;
    env_.link->commands.Pop();
  }
  while (const PacketRecord* record = env_.link->sends.Next()) {
    SendTo(record->address, record->packets);
  }
  if (senders) {
    env_.senders->Drain(env_.index, kSenderBudget, [this](const PacketRecord& record) {
      if (record.peer != PeerId::kNone) {
        Send(record.peer, record.packets);
      } else {
        SendTo(record.address, record.packets);
      }
    });
  }
  if (relayed != nullptr) ReceiveRelayed(relayed);
  EndBatch();
  // The bytes are in the rings until the loop has sent them.
  loop_.Flush();
  env_.link->sends.Release();
  env_.senders->Release(env_.index);
  if (relayed != nullptr) relayed->Release();
  return env_.senders->Pending(env_.index) || (relayed != nullptr && relayed->HasNext());
}

// Spec: RECV-3. Packets that lie one behind the other are shown as one train. Control looked up
// whose they are; a peer that went since is not shown any more (spec: PEER-2).
void EngineShard::ReceiveRelayed(PacketRing* ring) {
  PeerId peer = PeerId::kNone;
  Endpoint from;
  PacketTrain train;
  const auto show = [&] {
    if (train.size == 0) return;
    if (peer != PeerId::kNone && env_.peers->FindById(peer) == nullptr) {
      counters_.AddDrop(Drop::kRxPeerGone, PacketCount(train));
    } else {
      AddView(peer, from, PathKind::kRelay, train);
    }
  };
  size_t bytes = 0;
  for (size_t i = 0; i < kRelayTrains && bytes < kRelayBytes; ++i) {
    const PacketRecord* record = ring->Next();
    if (record == nullptr) break;
    const PacketTrain& next = record->packets;
    bytes += next.size;
    const bool alike = next.segment_size == train.segment_size ||
                       (next.size == next.segment_size && next.size < train.segment_size);
    if (train.size != 0 && alike && train.size % train.segment_size == 0 &&
        next.data == train.data + train.size && record->peer == peer && record->address == from &&
        train.size + next.size <= io::kMaxDatagram) {
      train.size += next.size;
      continue;
    }
    show();
    peer = record->peer;
    from = record->address;
    train = next;
  }
  show();
  DeliverViews();
}

void EngineShard::BeginBatch() {
  if (!reader_.online()) reader_.Online();
  now_ = loop_.clock().Now();
}

void EngineShard::EndBatch() {
  builder_.Flush();
  if (std::exchange(relay_unflushed_, false)) env_.relay->Flush(env_.index);
}

void EngineShard::OnReceive(io::SocketId, std::span<const io::RxTrain> trains) {
  BeginBatch();
  // A table that does not fit the cache costs a miss per train; started together they overlap.
  std::array<const Endpoint*, kLookups> from;
  std::array<PeerId, kLookups> owners;
  while (!trains.empty()) {
    const size_t count = std::min(trains.size(), kLookups);
    for (size_t i = 0; i < count; ++i) from[i] = &trains[i].from;
    env_.peers->OwnersOf({from.data(), count}, owners.data());
    // What ConfirmPath() and Send() will read, when the handler has seen the packets.
    env_.peers->PrefetchPeers({owners.data(), count});
    for (size_t i = 0; i < count; ++i) ReceiveTrain(trains[i], owners[i]);
    trains = trains.subspan(count);
  }
  DeliverViews();
  EndBatch();
}

// Spec: RECV-1, RECV-2, RECV-4. All packets of a train have one source, so one lookup is enough.
void EngineShard::ReceiveTrain(const io::RxTrain& train, PeerId owner) {
  if (train.size == 0) {
    counters_.AddDrop(Drop::kRxEmpty, 1);
    return;
  }
  const PacketTrain all{train.data, train.size, std::min(train.segment_size, train.size)};
  const uint32_t count = PacketCount(all);
  const PathKind path = DirectPath(train.from);
  // STUN is taken out; what is before and behind it stays in order.
  uint32_t first = 0;
  while (first < count) {
    const uint32_t stun = FindStun(all.data, all.size, all.segment_size, first);
    if (stun == kNoPacket) break;
    if (stun > first) AddView(owner, train.from, path, Slice(all, first, stun - first));
    TakeStun(train, Slice(all, stun, 1));
    first = stun + 1;
  }
  if (first == 0) {
    AddView(owner, train.from, path, all);
  } else if (first < count) {
    AddView(owner, train.from, path, Slice(all, first, count - first));
  }
}

void EngineShard::AddView(PeerId peer, const Endpoint& from, PathKind path,
                          const PacketTrain& packets) {
  const uint32_t count = PacketCount(packets);
  counters_.AddRx(path, count, packets.size);
  if (peer == PeerId::kNone) counters_.AddUnknownSource(count);
  if (view_count_ == kMaxViews) {
    // Between two calls of the handler what it sent leaves: the bytes may be its own.
    DeliverViews();
    EndBatch();
    loop_.Flush();
  }
  views_[view_count_++] = {peer, from, path, packets};
}

void EngineShard::DeliverViews() {
  if (view_count_ == 0) return;
  env_.handler->OnReceive(*this, {views_.data(), view_count_});
  view_count_ = 0;
}

// Spec: RECV-1.
void EngineShard::TakeStun(const io::RxTrain& train, const PacketTrain& packet) {
  StunPacket* slot = nullptr;
  if (env_.link->stun_wanted.load(std::memory_order_relaxed) &&
      packet.size <= StunPacket::kMaxSize) {
    slot = env_.link->stun.Reserve();
  }
  if (slot == nullptr) {
    counters_.AddDrop(Drop::kRxStun, 1);
    return;
  }
  slot->from = train.from;
  slot->received = now_;
  slot->size = packet.size;
  std::memcpy(slot->data.data(), packet.data, packet.size);
  env_.link->stun.Publish();
  wake_control_ = true;
}

SendResult EngineShard::Fail(Drop drop, const PacketTrain& packets, SendResult result) {
  counters_.AddDrop(drop, PacketCount(packets));
  return result;
}

SendResult EngineShard::Send(PeerId id, const PacketTrain& packets) {
  if (packets.size == 0) return SendResult::kOk;
  Peer* peer = env_.peers->FindById(id);
  if (peer == nullptr) return Fail(Drop::kTxUnknownPeer, packets, SendResult::kUnknownPeer);
  if (SegmentSize(packets) > io::kMaxDatagram) {
    return Fail(Drop::kTxTooLarge, packets, SendResult::kTooLarge);
  }
  return SendToPeer(*peer, {packets.data, packets.size, SegmentSize(packets)});
}

// One decision for all packets up to the next handshake, except that the first of them may have to
// be sprayed by itself: then the others, at the same instant, have not (spec: SEND-3).
SendResult EngineShard::SendToPeer(Peer& peer, const PacketTrain& packets) {
  const uint32_t count = PacketCount(packets);
  SendResult first_error = SendResult::kOk;
  bool any_sent = false;
  const auto note = [&](SendResult result) {
    any_sent |= result == SendResult::kOk;
    if (first_error == SendResult::kOk) first_error = result;
  };
  uint32_t next = 0;
  while (next < count) {
    uint32_t handshake = FindHandshake(packets.data, packets.size, packets.segment_size, next);
    if (handshake == kNoPacket) handshake = count;
    const bool is_handshake = handshake == next;
    peer.addresses().Choose(is_handshake, now_, &destinations_);
    if (is_handshake || destinations_.spray) {
      note(Spray(peer, Slice(packets, next, 1)));
      ++next;
      continue;
    }
    const PacketTrain run =
        handshake - next == count ? packets : Slice(packets, next, handshake - next);
    if (destinations_.count == 0) {
      note(Fail(Drop::kTxNoDestination, run, SendResult::kNoDestination));  // spec: SEND-4
    } else {
      const SendResult result = Route(&peer, destinations_.endpoints[0], run);
      if (result == SendResult::kNoSocket) Fail(Drop::kTxNoSocket, run, result);
      note(result);
    }
    next = handshake;
  }
  return any_sent ? SendResult::kOk : first_error;
}

// To all of destinations_. Succeeds if any of them took it (spec: SEND-5); a family that is off is
// skipped and counts only if nothing else was there (spec: SEND-6).
SendResult EngineShard::Spray(Peer& peer, const PacketTrain& packet) {
  if (destinations_.count == 0) {
    return Fail(Drop::kTxNoDestination, packet, SendResult::kNoDestination);
  }
  counters_.AddSpray();
  bool any_sent = false;
  SendResult first_error = SendResult::kNoSocket;
  for (const Endpoint& to : destinations_.view()) {
    const SendResult result = Route(&peer, to, packet);
    if (result == SendResult::kOk) {
      any_sent = true;
    } else if (first_error == SendResult::kNoSocket) {
      first_error = result;
    }
  }
  if (any_sent) return SendResult::kOk;
  if (first_error == SendResult::kNoSocket) {
    return Fail(Drop::kTxNoSocket, packet, SendResult::kNoSocket);
  }
  return first_error;
}

// One destination. All failures but kNoSocket, which may be none, have been counted.
SendResult EngineShard::Route(const Peer* peer, const Endpoint& to, const PacketTrain& packets) {
  if (IsRelay(to)) [[unlikely]] {
    if (env_.relay == nullptr || !env_.relay->open()) {
      return Fail(Drop::kTxNoRelay, packets, SendResult::kNoRelay);
    }
    const uint32_t count = PacketCount(packets);
    const uint32_t taken = env_.relay->Push(env_.index, RelayRegion(to), peer->key(), packets);
    relay_unflushed_ = wake_control_ = true;
    // Control takes back what becomes lost on its side.
    if (taken > 0) counters_.AddTx(PathKind::kRelay, taken, Slice(packets, 0, taken).size);
    if (taken < count) counters_.AddDrop(Drop::kTxQueueFull, count - taken);
    return taken > 0 ? SendResult::kOk : SendResult::kQueueFull;
  }
  const bool v4 = to.IsV4();
  const std::optional<Socket>& socket = v4 ? v4_ : v6_;
  if (!socket.has_value()) {
    return stopping_ ? Fail(Drop::kClosed, packets, SendResult::kClosed) : SendResult::kNoSocket;
  }
  // Taken back in OnSendFailure() if the kernel refuses it.
  counters_.AddTx(v4 ? PathKind::kDirectV4 : PathKind::kDirectV6, PacketCount(packets),
                  packets.size);
  builder_.Add(socket->id, to, packets);
  return SendResult::kOk;
}

// Spec: SEND-8.
SendResult EngineShard::SendTo(const Endpoint& to, const PacketTrain& packets) {
  if (packets.size == 0) return SendResult::kOk;
  if (IsRelay(to)) return Fail(Drop::kTxRelayNotAllowed, packets, SendResult::kRelayNotAllowed);
  if (!IsDestination(to)) {
    return Fail(Drop::kTxNoDestination, packets, SendResult::kNoDestination);
  }
  const uint32_t segment = SegmentSize(packets);
  if (segment > io::kMaxDatagram) return Fail(Drop::kTxTooLarge, packets, SendResult::kTooLarge);
  const PacketTrain train{packets.data, packets.size, segment};
  const SendResult result = Route(nullptr, to, train);
  return result == SendResult::kNoSocket ? Fail(Drop::kTxNoSocket, train, result) : result;
}

void EngineShard::ConfirmPath(PeerId id, const Endpoint& from) {
  Peer* peer = learner_.News(id, from);
  if (peer == nullptr) return;  // spec: PATH-2, the hot path
  PathReport report;
  if (!learner_.Learn(peer, from, now_, &report)) return;
  if (env_.link->paths.TryPush(std::move(report))) wake_control_ = true;
}

// The kernel has the last word, so what was counted as sent is taken back.
void EngineShard::OnSendFailure(io::SocketId, const io::SendFailure& failure) {
  const io::TxTrain& train = *failure.train;
  const PacketTrain packets{train.data, train.size,
                            train.segment_size == 0 ? train.size : train.segment_size};
  const PacketTrain lost = Slice(packets, failure.first, failure.packets);
  counters_.TakeBackTx(DirectPath(train.to), failure.packets, lost.size);
  counters_.AddDrop(DropForError(failure.error), failure.packets);
  const bool v6 = !train.to.IsV4();
  const std::optional<Socket>& from = v6 ? v6_ : v4_;
  if (from.has_value() && MeansDeadSocket(failure.error, from->bound)) {
    env_.link->health[v6].Failed(failure.error);
  }
  // A roaming address is one that no list has, so no peer owns it (spec: SEND-5).
  if (stopping_ || !reader_.online() || env_.peers->OwnerOf(train.to) == PeerId::kNone) return;
  if (!failure_log_.Allow(now_)) return;
  if (env_.link->failures.TryPush({train.to, failure.error})) wake_control_ = true;
}

// The loop's totals go on; the counters get what is new.
void EngineShard::CountSocketDrops() {
  counted_ = now_;
  for (std::optional<Socket>* socket : {&v4_, &v6_}) {
    if (!socket->has_value()) continue;
    const io::UdpStats stats = loop_.Stats((*socket)->id);
    counters_.AddDrop(Drop::kRxTruncated,
                      stats.rx_truncated - std::exchange((*socket)->truncated, stats.rx_truncated));
    counters_.AddDrop(
        Drop::kRxKernel,
        stats.rx_kernel_drops - std::exchange((*socket)->kernel_drops, stats.rx_kernel_drops));
    counters_.AddZeroCopy(
        stats.tx_zero_copy - std::exchange((*socket)->zero_copy, stats.tx_zero_copy),
        stats.tx_zero_copy_copied -
            std::exchange((*socket)->zero_copy_copied, stats.tx_zero_copy_copied));
    if (env_.link->health[socket == &v6_].Look(stats.tx_packets, now_)) wake_control_ = true;
  }
}

}  // namespace ringsock
