// A bounded queue of packet trains from one thread to one other, with the bytes in it. Records and
// bytes lie in two rings, so that trains pushed one after the other are also next to each other in
// memory and can leave as one (core/train_builder.h), and a train of any length fits.
#ifndef RINGSOCK_CORE_PACKET_RING_H_
#define RINGSOCK_CORE_PACKET_RING_H_

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>

#include "base/endpoint.h"
#include "base/spsc_ring.h"
#include "core/engine.h"

namespace ringsock {

// A train in the ring: a peer's (then `address` is where it came from, if anywhere), or for one
// address (then `peer` is kNone).
struct PacketRecord {
  PeerId peer = PeerId::kNone;
  Endpoint address;
  PacketTrain packets;
};

// One producer, one consumer. No lock, no allocation after construction. A Record has a PacketTrain
// `packets`, and beside it what the two tell each other about it.
template <typename Record>
class TrainRing {
 public:
  // Bytes set aside per record: a full-size packet of an Ethernet path, or 1/32 of a long train.
  static constexpr size_t kBytesPerRecord = 2048;

  // Holds at least `records` trains (rounded up to a power of two) of kBytesPerRecord on average,
  // and in any case two datagrams of the largest size.
  explicit TrainRing(size_t records)
      : record_mask_(std::bit_ceil(std::max<size_t>(records, 1)) - 1),
        byte_mask_(std::bit_ceil(
                       std::max((record_mask_ + 1) * kBytesPerRecord, 2 * (io::kMaxDatagram + 1))) -
                   1),
        records_(std::make_unique<Slot[]>(record_mask_ + 1)),
        bytes_(std::make_unique_for_overwrite<std::byte[]>(byte_mask_ + 1)) {}
  TrainRing(const TrainRing&) = delete;
  TrainRing& operator=(const TrainRing&) = delete;

  // Producer: copies a record and its bytes, io::kMaxDatagram at most. False when the ring is full.
  bool Push(const Record& record) {
    const PacketTrain& packets = record.packets;
    const size_t tail = tail_.load(std::memory_order_relaxed);
    size_t start = byte_tail_;
    if ((start & byte_mask_) + packets.size > byte_mask_ + 1) {
      start = (start | byte_mask_) + 1;  // never torn: starts over at the beginning
    }
    if (!Fits(tail, start + packets.size)) {
      head_seen_ = head_.load(std::memory_order_acquire);
      byte_head_seen_ = byte_head_.load(std::memory_order_acquire);
      if (!Fits(tail, start + packets.size)) return false;
    }
    std::byte* const data = bytes_.get() + (start & byte_mask_);
    if (packets.size != 0) std::memcpy(data, packets.data, packets.size);
    byte_tail_ = start + packets.size;
    Slot& slot = records_[tail & record_mask_];
    slot.record = record;
    slot.record.packets.data = data;
    slot.byte_end = byte_tail_;
    tail_.store(tail + 1, std::memory_order_release);
    return true;
  }
  // Producer: true when half of the records or of the bytes wait.
  bool HalfFull() {
    if (!SeemsHalfFull()) return false;
    head_seen_ = head_.load(std::memory_order_acquire);
    byte_head_seen_ = byte_head_.load(std::memory_order_acquire);
    return SeemsHalfFull();
  }

  // Consumer: the next train, or null. It and its bytes stay until Release().
  const Record* Next() {
    if (cursor_ == tail_seen_) {
      tail_seen_ = tail_.load(std::memory_order_acquire);
      if (cursor_ == tail_seen_) return nullptr;
    }
    return &records_[cursor_++ & record_mask_].record;
  }
  // Consumer: gives back all that Next() returned.
  void Release() {
    if (cursor_ == head_.load(std::memory_order_relaxed)) return;
    byte_head_.store(records_[(cursor_ - 1) & record_mask_].byte_end, std::memory_order_release);
    head_.store(cursor_, std::memory_order_release);
  }
  // Consumer: the same, but for the last of them, which is still being read.
  void ReleaseAllButLast() {
    if (cursor_ - head_.load(std::memory_order_relaxed) < 2) return;
    byte_head_.store(records_[(cursor_ - 2) & record_mask_].byte_end, std::memory_order_release);
    head_.store(cursor_ - 1, std::memory_order_release);
  }
  // Bytes allocated.
  size_t MemoryUsed() const { return (record_mask_ + 1) * sizeof(Slot) + byte_mask_ + 1; }
  // Consumer: true if Next() would return a train.
  bool HasNext() const { return cursor_ != tail_.load(std::memory_order_acquire); }

 private:
  struct Slot {
    Record record;
    size_t byte_end = 0;
  };

  bool Fits(size_t tail, size_t byte_end) const {
    return tail - head_seen_ <= record_mask_ && byte_end - byte_head_seen_ <= byte_mask_ + 1;
  }

  // By the consumer's positions as last seen, so too often rather than too seldom.
  bool SeemsHalfFull() const {
    return 2 * (tail_.load(std::memory_order_relaxed) - head_seen_) > record_mask_ ||
           2 * (byte_tail_ - byte_head_seen_) > byte_mask_;
  }

  const size_t record_mask_;
  const size_t byte_mask_;
  const std::unique_ptr<Slot[]> records_;
  const std::unique_ptr<std::byte[]> bytes_;

  alignas(kCacheLine) std::atomic<size_t> tail_{0};
  size_t byte_tail_ = 0;  // producer's, like the next two
  size_t head_seen_ = 0;
  size_t byte_head_seen_ = 0;
  alignas(kCacheLine) std::atomic<size_t> head_{0};
  std::atomic<size_t> byte_head_{0};
  size_t cursor_ = 0;  // consumer's, like the next
  size_t tail_seen_ = 0;
};

class PacketRing final : public TrainRing<PacketRecord> {
 public:
  using TrainRing::Push;
  using TrainRing::TrainRing;
  bool Push(PeerId peer, const Endpoint& address, const PacketTrain& packets) {
    return TrainRing::Push(PacketRecord{peer, address, packets});
  }
};

}  // namespace ringsock

#endif  // RINGSOCK_CORE_PACKET_RING_H_
