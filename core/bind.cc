#include "core/bind.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/engine_internal.h"
#include "core/packet_train.h"

namespace ringsock {
namespace {

constexpr uint64_t kSenderSeed = 0xb12d;
constexpr uint32_t kMaxQueuePackets = 65536;

void Add(std::atomic<uint64_t>& counter, uint64_t n) {
  counter.store(counter.load(std::memory_order_relaxed) + n, std::memory_order_relaxed);
}

Bind::Source SourceOf(PathKind path) {
  switch (path) {
    case PathKind::kDirectV4:
      return Bind::Source::kV4;
    case PathKind::kDirectV6:
      return Bind::Source::kV6;
    default:
      return Bind::Source::kRelay;
  }
}

absl::Status StatusOf(SendResult result) {
  switch (result) {
    case SendResult::kOk:
      return absl::OkStatus();
    case SendResult::kQueueFull:
      return absl::ResourceExhaustedError("too many packets queued");
    case SendResult::kTooLarge:
      return absl::InvalidArgumentError("larger than a datagram can be");
    case SendResult::kNoDestination:
      return absl::InvalidArgumentError("neither a peer nor an address that can be sent to");
    case SendResult::kUnknownPeer:
      return absl::NotFoundError("no such peer");
    case SendResult::kRelayNotAllowed:
      return absl::InvalidArgumentError("a relay is no address to send to");
    case SendResult::kClosed:
      return absl::CancelledError("the bind is closed");
    default:
      return absl::UnavailableError("not sent");
  }
}

}  // namespace

std::string BindEndpoint::ToString() const {
  if (peer == PeerId::kNone) return address.ToString();
  return absl::StrCat("peer ", static_cast<uint64_t>(peer),
                      address.IsNone() ? "" : absl::StrCat(" at ", address.ToString()));
}

// What waits for Receive() of one source: a ring from each shard.
struct Bind::Queue {
  struct Lane {
    explicit Lane(size_t packets) : ring(packets) {}
    PacketRing ring;
    const PacketRecord* current = nullptr;  // shown in part
    uint32_t offset = 0;                    // of what has not been shown of it
    std::atomic<uint64_t> peer_gone{0};     // written by the receiving side
    // Written by the shard.
    alignas(kCacheLine) std::atomic<uint64_t> dropped{0};

    // Goes on to a record that may be shown. False if there is none.
    bool Continue(const PeerTable& peers) {
      for (;;) {
        if (current == nullptr) {
          current = ring.Next();
          offset = 0;
          if (current == nullptr) return false;
        }
        if (current->peer == PeerId::kNone || peers.FindById(current->peer) != nullptr) return true;
        const PacketTrain& train = current->packets;
        Add(peer_gone, PacketCount({train.data, train.size - offset, train.segment_size}));
        current = nullptr;
      }
    }

    // Copies packets of the record; returns how many.
    size_t Fill(std::span<BindPacket> packets) {
      const PacketTrain& train = current->packets;
      size_t filled = 0;
      while (filled < packets.size() && offset < train.size) {
        BindPacket& packet = packets[filled++];
        packet.size = std::min(SegmentSize(train), train.size - offset);
        packet.too_large = packet.size > packet.capacity;  // spec: RECV-6
        packet.from = {current->peer, current->address};
        if (!packet.too_large) std::memcpy(packet.data, train.data + offset, packet.size);
        offset += packet.size;
      }
      if (offset == train.size) current = nullptr;
      return filled;
    }
  };

  std::vector<std::unique_ptr<Lane>> lanes;  // by shard
  std::mutex mutex;                          // of the receiving side
  Quiescence::Reader reader;                 // of the peers, guarded by mutex
  size_t next_lane = 0;
  // Moves when there is something new: what Receive() sleeps on.
  std::atomic<uint32_t> news{0};

  void Announce() {
    news.fetch_add(1, std::memory_order_release);
    news.notify_all();
  }
};

// The shards' side.
class Bind::Receiver final : public Handler {
 public:
  explicit Receiver(Bind* bind) : bind_(*bind) {}

  void OnReceive(Shard& shard, std::span<const ReceivedTrain> trains) override {
    std::array<bool, kSources> fresh{};
    for (const ReceivedTrain& train : trains) {
      const auto source = static_cast<size_t>(SourceOf(train.path));
      Queue::Lane& lane = *bind_.queues_[source]->lanes[shard.index()];
      if (lane.ring.Push(train.peer, train.from, train.packets)) {
        fresh[source] = true;
      } else {
        Add(lane.dropped, PacketCount(train.packets));
      }
    }
    for (size_t source = 0; source < kSources; ++source) {
      if (fresh[source]) bind_.queues_[source]->Announce();
    }
  }

 private:
  Bind& bind_;
};

Bind::Bind(const BindOptions& options)
    : options_(options), receiver_(std::make_unique<Receiver>(this)) {
  for (auto& queue : queues_) queue = std::make_unique<Queue>();
}

Bind::~Bind() { Close(); }

absl::Status Bind::WhyNotOpen(uint64_t session) {
  if (session == 0) return absl::FailedPreconditionError("the bind is not open");
  return absl::CancelledError("the bind is closed");
}

absl::StatusOr<uint16_t> Bind::Open(uint16_t port) {
  std::lock_guard lock(open_mutex_);
  if (IsOpen(Session())) return absl::FailedPreconditionError("the bind is open");
  if (options_.queue_packets == 0 || options_.queue_packets > kMaxQueuePackets) {
    return absl::InvalidArgumentError(
        absl::StrCat("queue_packets: ", options_.queue_packets, " is not 1 to ", kMaxQueuePackets));
  }
  EngineOptions options = options_.engine;
  options.port = port;
  options.max_senders = std::max(options.max_senders, kSenders);
  options.shards = options.ShardCount();
  if (absl::Status status = internal::CheckOptions(options, receiver_.get()); !status.ok()) {
    return status;
  }
  if (absl::Status status = StartEngine(options); !status.ok()) return status;
  session_.fetch_add(1, std::memory_order_release);
  return engine_->port();
}

// The engine before, if there was one, is closed.
absl::Status Bind::StartEngine(const EngineOptions& options) {
  if (peers_ == nullptr) {
    peers_ = std::make_shared<internal::PeerState>(options.max_peers);
    for (auto& queue : queues_) {
      absl::StatusOr<Quiescence::Reader> reader = peers_->quiescence.Register();
      if (!reader.ok()) return reader.status();
      queue->reader = *std::move(reader);
    }
  }
  for (auto& queue : queues_) {
    std::scoped_lock queue_lock(queue->mutex, engine_mutex_);
    queue->lanes.clear();
    queue->next_lane = 0;
    for (uint32_t i = 0; i < options.shards; ++i) {
      queue->lanes.push_back(std::make_unique<Queue::Lane>(options_.queue_packets));
    }
  }
  absl::StatusOr<std::unique_ptr<internal::EngineImpl>> engine =
      internal::EngineImpl::Start(options, receiver_.get(), peers_, options_.observer);
  if (!engine.ok()) return engine.status();
  std::array<std::unique_ptr<Sender>, kSenders> fresh;
  for (auto& sender : fresh) {
    absl::StatusOr<std::unique_ptr<Sender>> made = (*engine)->NewSender();
    if (!made.ok()) return made.status();
    sender = *std::move(made);
  }
  for (size_t i = 0; i < kSenders; ++i) {
    std::lock_guard sender_lock(senders_[i].mutex);
    senders_[i].sender = std::move(fresh[i]);
  }
  std::lock_guard engine_lock(engine_mutex_);
  engine_ = *std::move(engine);
  return absl::OkStatus();
}

absl::StatusOr<size_t> Bind::Receive(Source source, std::span<BindPacket> packets) {
  if (packets.empty()) return size_t{0};
  Queue& queue = *queues_[static_cast<size_t>(source)];
  const uint64_t session = Session();
  if (!IsOpen(session)) return WhyNotOpen(session);
  waiting_.fetch_add(1, std::memory_order_acq_rel);
  absl::StatusOr<size_t> result = absl::CancelledError("the bind is closed");
  {
    std::lock_guard lock(queue.mutex);
    for (;;) {
      const uint32_t seen = queue.news.load(std::memory_order_acquire);
      if (Session() != session) break;
      if (const size_t taken = Take(queue, packets); taken > 0) {
        result = taken;
        break;
      }
      queue.news.wait(seen, std::memory_order_acquire);
    }
  }
  waiting_.fetch_sub(1, std::memory_order_acq_rel);
  return result;
}

// Goes round the shards' lanes, beginning behind the one that was served last, so that a busy one
// does not keep the others waiting.
size_t Bind::Take(Queue& queue, std::span<BindPacket> packets) {
  // UpdatePeers() waits for this, so what is found here may still be shown.
  Quiescence::Section section(&queue.reader);
  size_t filled = 0;
  for (size_t i = 0; i < queue.lanes.size() && filled < packets.size(); ++i) {
    Queue::Lane& lane = *queue.lanes[queue.next_lane];
    while (filled < packets.size() && lane.Continue(peers_->peers)) {
      filled += lane.Fill(packets.subspan(filled));
    }
    if (lane.current == nullptr) {
      lane.ring.Release();
    } else {
      lane.ring.ReleaseAllButLast();
    }
    queue.next_lane = (queue.next_lane + 1) % queue.lanes.size();
  }
  return filled;
}

absl::Status Bind::Send(std::span<const std::span<const std::byte>> packets,
                        const BindEndpoint& to) {
  const uint64_t hash = to.peer != PeerId::kNone ? static_cast<uint64_t>(to.peer)
                                                 : HashEndpoint(to.address, kSenderSeed);
  LockedSender& locked = senders_[hash % kSenders];
  std::lock_guard lock(locked.mutex);
  if (locked.sender == nullptr) return WhyNotOpen(0);
  SendResult first_error = SendResult::kOk;
  for (const std::span<const std::byte> packet : packets) {
    SendResult result = SendResult::kTooLarge;
    if (packet.size() <= UINT32_MAX) {
      const auto size = static_cast<uint32_t>(packet.size());
      const PacketTrain train{packet.data(), size, size};
      result = to.peer != PeerId::kNone ? locked.sender->Send(to.peer, train)
                                        : locked.sender->SendTo(to.address, train);
    }
    if (first_error == SendResult::kOk) first_error = result;
  }
  locked.sender->Flush();
  return StatusOf(first_error);
}

absl::StatusOr<BindEndpoint> Bind::ParseEndpoint(absl::string_view text) {
  absl::StatusOr<Endpoint> address = Endpoint::Parse(text);
  if (!address.ok()) return address.status();
  if (IsRelay(*address)) {
    return absl::InvalidArgumentError(absl::StrCat(text, " stands for a relay"));
  }
  return BindEndpoint{PeerId::kNone, *address};
}

absl::StatusOr<BindEndpoint> Bind::CreateEndpoint(const PublicKey& key,
                                                  absl::string_view endpoints) {
  const std::shared_ptr<Engine> engine = this->engine();
  if (engine == nullptr) return WhyNotOpen(0);
  absl::StatusOr<PeerId> peer = engine->CreateEndpoint(key, endpoints);
  if (!peer.ok()) return peer.status();
  return BindEndpoint{*peer, {}};
}

void Bind::ConfirmPath(PeerId peer, const BindEndpoint& from) {
  LockedSender& locked = senders_[static_cast<uint64_t>(peer) % kSenders];
  std::lock_guard lock(locked.mutex);
  if (locked.sender != nullptr) locked.sender->ConfirmPath(peer, from.address);
}

void Bind::Close() {
  std::lock_guard lock(open_mutex_);
  if (!IsOpen(Session())) return;
  session_.fetch_add(1, std::memory_order_release);
  for (auto& queue : queues_) queue->Announce();
  engine_->Close();
}

std::shared_ptr<Engine> Bind::engine() const {
  std::lock_guard lock(engine_mutex_);
  return engine_;
}

CounterSnapshot Bind::Counters() const {
  std::lock_guard lock(engine_mutex_);
  if (engine_ == nullptr) return {};
  CounterSnapshot counters = engine_->Counters();
  for (const auto& queue : queues_) {
    for (const auto& lane : queue->lanes) {
      counters.drops[static_cast<size_t>(Drop::kRxQueueFull)] +=
          lane->dropped.load(std::memory_order_relaxed);
      counters.drops[static_cast<size_t>(Drop::kRxPeerGone)] +=
          lane->peer_gone.load(std::memory_order_relaxed);
    }
  }
  return counters;
}

}  // namespace ringsock
