#include "core/sender.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/address_set.h"
#include "core/packet_train.h"
#include "core/shard_of.h"

namespace ringsock {

class alignas(kCacheLine) SenderQueues::SenderImpl final : public Sender {
 public:
  SenderImpl(SenderQueues* queues, size_t index, Place* place, Quiescence::Reader reader)
      : queues_(*queues),
        index_(index),
        place_(*place),
        reader_(std::move(reader)),
        learner_(queues->paths_.peers),
        unpublished_(queues->loops_.size()) {}
  ~SenderImpl() override {
    Flush();
    queues_.GiveBack(index_);
  }

  SendResult Send(PeerId peer, const PacketTrain& packets) override {
    // In the ring, a record without a peer is one for an address.
    if (peer == PeerId::kNone) return Fail(Drop::kTxUnknownPeer, packets, SendResult::kUnknownPeer);
    return Push(ShardOf(peer, queues_.loops_.size()), peer, Endpoint{}, packets);
  }

  SendResult SendTo(const Endpoint& to, const PacketTrain& packets) override {
    if (IsRelay(to)) {  // spec: SEND-8
      return Fail(Drop::kTxRelayNotAllowed, packets, SendResult::kRelayNotAllowed);
    }
    if (!IsDestination(to)) {
      return Fail(Drop::kTxNoDestination, packets, SendResult::kNoDestination);
    }
    return Push(ShardOf(to, queues_.loops_.size()), PeerId::kNone, to, packets);
  }

  void ConfirmPath(PeerId id, const Endpoint& from) override {
    if (queues_.closed_.load(std::memory_order_acquire)) return;
    PathReport report;
    {
      Quiescence::Section section(&reader_);
      Peer* peer = learner_.News(id, from);
      if (peer == nullptr) return;  // spec: PATH-2
      if (!learner_.Learn(peer, from, queues_.loops_[0]->clock().Now(), &report)) return;
    }
    queues_.paths_.reports->Push(report);
  }

  void Flush() override {
    if (!any_unpublished_) return;
    for (uint32_t shard = 0; shard < unpublished_.size(); ++shard) {
      if (unpublished_[shard]) PublishShard(shard);
    }
    any_unpublished_ = false;
  }

 private:
  SendResult Fail(Drop drop, const PacketTrain& packets, SendResult result) {
    place_.counters.AddDrop(drop, PacketCount(packets));
    return result;
  }

  SendResult Push(uint32_t shard, PeerId peer, const Endpoint& to, const PacketTrain& packets) {
    if (packets.size == 0) return SendResult::kOk;
    if (SegmentSize(packets) > io::kMaxDatagram) {
      place_.counters.AddDrop(Drop::kTxTooLarge, 1);
      return SendResult::kTooLarge;
    }
    if (queues_.closed_.load(std::memory_order_acquire)) {
      return Fail(Drop::kClosed, packets, SendResult::kClosed);
    }
    PacketRing& ring = *place_.rings[shard];
    SendResult result = SendResult::kOk;
    ForEachPiece(packets, UINT32_MAX, [&](const PacketTrain& piece) {
      // Nothing of a train goes after a piece that was lost: the order would have a hole in it.
      if (result == SendResult::kOk && ring.Push(peer, to, piece)) return;
      result = SendResult::kQueueFull;
      place_.counters.AddDrop(Drop::kTxQueueFull, PacketCount(piece));
    });
    if (result == SendResult::kQueueFull || ring.HalfFull()) {
      PublishShard(shard);
    } else {
      unpublished_[shard] = true;
      any_unpublished_ = true;
    }
    return result;
  }

  void PublishShard(uint32_t shard) {
    unpublished_[shard] = false;
    queues_.Publish(shard, index_);
  }

  SenderQueues& queues_;
  const size_t index_;
  Place& place_;
  Quiescence::Reader reader_;
  PathLearner learner_;
  std::vector<bool> unpublished_;  // by shard
  bool any_unpublished_ = false;
};

SenderQueues::SenderQueues(std::vector<io::Loop*> loops, const Paths& paths, uint32_t max_senders,
                           uint32_t ring_packets)
    : loops_(std::move(loops)),
      paths_(paths),
      ring_packets_(ring_packets),
      words_((std::max<size_t>(max_senders, 1) + 63) / 64),
      pending_(std::make_unique<PendingWord[]>(loops_.size() * words_)),
      places_(std::make_unique<std::unique_ptr<Place>[]>(max_senders)),
      max_places_(max_senders) {}

SenderQueues::~SenderQueues() = default;

absl::StatusOr<std::unique_ptr<Sender>> SenderQueues::NewSender() {
  std::lock_guard lock(mutex_);
  if (closed_.load(std::memory_order_relaxed)) {
    return absl::FailedPreconditionError("the engine is closed");
  }
  size_t index = 0;
  while (index < made_ && places_[index]->taken) ++index;
  if (index == max_places_) {
    return absl::ResourceExhaustedError(
        absl::StrCat("all ", max_places_, " senders are in use; raise EngineOptions::max_senders"));
  }
  absl::StatusOr<Quiescence::Reader> reader = paths_.quiescence->Register();
  if (!reader.ok()) return reader.status();
  if (index == made_) {
    auto place = std::make_unique<Place>();
    for (size_t shard = 0; shard < loops_.size(); ++shard) {
      place->rings.push_back(std::make_unique<PacketRing>(ring_packets_));
    }
    places_[index] = std::move(place);
    ++made_;
  }
  places_[index]->taken = true;
  return std::make_unique<SenderImpl>(this, index, places_[index].get(), *std::move(reader));
}

bool SenderQueues::Pending(uint32_t shard) const {
  for (size_t word = 0; word < words_; ++word) {
    if (Word(shard, word).load(std::memory_order_relaxed) != 0) return true;
  }
  return false;
}

void SenderQueues::Release(uint32_t shard) {
  for (size_t word = 0; word < words_; ++word) {
    uint64_t bits = std::exchange(Drained(shard, word), 0);
    for (; bits != 0; bits &= bits - 1) {
      places_[word * 64 + static_cast<size_t>(std::countr_zero(bits))]->rings[shard]->Release();
    }
  }
}

void SenderQueues::Publish(uint32_t shard, size_t place) {
  Word(shard, place / 64).fetch_or(uint64_t{1} << (place % 64), std::memory_order_release);
  loops_[shard]->Wake();
}

void SenderQueues::GiveBack(size_t place) {
  std::lock_guard lock(mutex_);
  places_[place]->taken = false;
  if (closed_.load(std::memory_order_relaxed)) CountLeftovers(*places_[place]);
}

void SenderQueues::Close() {
  std::lock_guard lock(mutex_);
  closed_.store(true, std::memory_order_release);
  // The rings of living Senders are looked at when those end, since they may be pushing right now.
  for (size_t i = 0; i < made_; ++i) {
    if (!places_[i]->taken) CountLeftovers(*places_[i]);
  }
}

void SenderQueues::CountLeftovers(Place& place) {
  for (const auto& ring : place.rings) {
    while (const PacketRecord* record = ring->Next()) {
      place.counters.AddDrop(Drop::kClosed, PacketCount(record->packets));
    }
    ring->Release();
  }
}

CounterSnapshot SenderQueues::Counters() const {
  std::lock_guard lock(mutex_);
  CounterSnapshot sum;
  for (size_t i = 0; i < made_; ++i) sum += places_[i]->counters.Snapshot();
  return sum;
}

}  // namespace ringsock
