#include "core/bind.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/packet_train.h"

namespace ringsock {
namespace {

constexpr uint64_t kSenderSeed = 0xb12d;

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
    std::atomic<uint64_t> dropped{0};       // written by the shard
  };

  std::vector<std::unique_ptr<Lane>> lanes;  // by shard
  std::mutex mutex;                          // of the receiving side
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
        lane.dropped.store(
            lane.dropped.load(std::memory_order_relaxed) + PacketCount(train.packets),
            std::memory_order_relaxed);
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

absl::StatusOr<uint16_t> Bind::Open(uint16_t port) {
  std::lock_guard lock(open_mutex_);
  if (engine_ != nullptr || closed_.load()) {
    return absl::FailedPreconditionError("the bind was opened before");
  }
  EngineOptions options = options_.engine;
  options.port = port;
  options.max_senders = std::max(options.max_senders, kSenders);
  options.shards = options.ShardCount();
  for (auto& queue : queues_) {
    queue->lanes.clear();
    for (uint32_t i = 0; i < options.shards; ++i) {
      queue->lanes.push_back(std::make_unique<Queue::Lane>(options_.queue_packets));
    }
  }
  absl::StatusOr<std::unique_ptr<Engine>> engine = Engine::Start(options, receiver_.get());
  if (!engine.ok()) return engine.status();
  for (LockedSender& locked : senders_) {
    absl::StatusOr<std::unique_ptr<Sender>> sender = (*engine)->NewSender();
    if (!sender.ok()) return sender.status();
    locked.sender = *std::move(sender);
  }
  engine_ = *std::move(engine);
  open_.store(true, std::memory_order_release);
  return engine_->port();
}

absl::StatusOr<size_t> Bind::Receive(Source source, std::span<BindPacket> packets) {
  if (packets.empty()) return size_t{0};
  Queue& queue = *queues_[static_cast<size_t>(source)];
  std::lock_guard lock(queue.mutex);
  for (;;) {
    const uint32_t seen = queue.news.load(std::memory_order_acquire);
    if (closed_.load(std::memory_order_acquire)) return absl::CancelledError("the bind is closed");
    if (!open_.load(std::memory_order_acquire)) {
      return absl::FailedPreconditionError("the bind is not open");
    }
    const size_t taken = Take(queue, packets);
    if (taken > 0) return taken;
    queue.news.wait(seen, std::memory_order_acquire);
  }
}

// Goes round the shards' lanes, beginning behind the one that was served last, so that a busy one
// does not keep the others waiting.
size_t Bind::Take(Queue& queue, std::span<BindPacket> packets) {
  size_t filled = 0;
  for (size_t i = 0; i < queue.lanes.size() && filled < packets.size(); ++i) {
    Queue::Lane& lane = *queue.lanes[queue.next_lane];
    while (filled < packets.size()) {
      if (lane.current == nullptr) {
        lane.current = lane.ring.Next();
        lane.offset = 0;
        if (lane.current == nullptr) break;
      }
      const PacketTrain& train = lane.current->packets;
      BindPacket& packet = packets[filled++];
      packet.size = std::min(SegmentSize(train), train.size - lane.offset);
      packet.too_large = packet.size > packet.capacity;  // spec: RECV-6
      packet.from = {lane.current->peer, lane.current->address};
      if (!packet.too_large) std::memcpy(packet.data, train.data + lane.offset, packet.size);
      lane.offset += packet.size;
      if (lane.offset == train.size) lane.current = nullptr;
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
  if (!open_.load(std::memory_order_acquire)) {
    return absl::FailedPreconditionError("the bind is not open");
  }
  const uint64_t hash = to.peer != PeerId::kNone ? static_cast<uint64_t>(to.peer)
                                                 : HashEndpoint(to.address, kSenderSeed);
  LockedSender& locked = senders_[hash % kSenders];
  std::lock_guard lock(locked.mutex);
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
  if (!open_.load(std::memory_order_acquire)) {
    return absl::FailedPreconditionError("the bind is not open");
  }
  absl::StatusOr<PeerId> peer = engine_->CreateEndpoint(key, endpoints);
  if (!peer.ok()) return peer.status();
  return BindEndpoint{*peer, {}};
}

void Bind::ConfirmPath(PeerId peer, const BindEndpoint& from) {
  if (open_.load(std::memory_order_acquire)) engine_->ConfirmPath(peer, from.address);
}

void Bind::Close() {
  if (closed_.exchange(true)) return;
  for (auto& queue : queues_) queue->Announce();
  std::lock_guard lock(open_mutex_);
  if (engine_ != nullptr) engine_->Close();
}

CounterSnapshot Bind::Counters() const {
  if (!open_.load(std::memory_order_acquire)) return {};
  CounterSnapshot counters = engine_->Counters();
  uint64_t dropped = 0;
  for (const auto& queue : queues_) {
    for (const auto& lane : queue->lanes) dropped += lane->dropped.load(std::memory_order_relaxed);
  }
  counters.drops[static_cast<size_t>(Drop::kRxQueueFull)] += dropped;
  return counters;
}

}  // namespace ringsock
