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
#include <utility>

#include "base/cache_line.h"
#include "base/endpoint.h"
#include "core/engine.h"

namespace ringsock {

// A train in the ring: a peer's (then `address` is where it came from, if anywhere), or for one
// address (then `peer` is kNone).
struct PacketRecord {
  PeerId peer = PeerId::kNone;
  Endpoint address;
  PacketTrain packets;

  bool MayFollow(const PacketRecord& before) const {
    return peer == before.peer && address == before.address;
  }
};

// One producer, one consumer. No lock, no allocation after construction. A Record has a PacketTrain
// `packets`, beside it what the two tell each other about it, and MayFollow(before): whether its
// packets may be part of that record's train, but for their sizes.
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
        records_(record_mask_ + 1),
        bytes_(NewCacheLineBytes(byte_mask_ + 1)) {}
  TrainRing(const TrainRing&) = delete;
  TrainRing& operator=(const TrainRing&) = delete;

  // Producer: copies a record and its bytes, io::kMaxDatagram at most. False when the ring is full.
  bool Push(const Record& record) {
    Publish();
    if (!Write(record)) return false;
    tail_.store(tail_.load(std::memory_order_relaxed) + 1, std::memory_order_release);
    return true;
  }
  // Producer: the same, but the consumer sees it after Publish() only, and until then packets that
  // follow, and are of one size, become part of the same train.
  bool Append(const Record& record) {
    if (open_ && Extend(record)) return true;
    Publish();
    open_ = Write(record);
    return open_;
  }
  void Publish() {
    if (!std::exchange(open_, false)) return;
    tail_.store(tail_.load(std::memory_order_relaxed) + 1, std::memory_order_release);
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

  // Fills the next slot.
  bool Write(const Record& record) {
    const PacketTrain& packets = record.packets;
    const size_t tail = tail_.load(std::memory_order_relaxed);
    size_t start = byte_tail_;
    if ((start & byte_mask_) + packets.size > byte_mask_ + 1) {
      start = (start | byte_mask_) + 1;  // never torn: starts over at the beginning
    }
    if (!HasRoom(tail, start + packets.size)) return false;
    std::byte* const data = bytes_.get() + (start & byte_mask_);
    if (packets.size != 0) std::memcpy(data, packets.data, packets.size);
    byte_tail_ = start + packets.size;
    Slot& slot = records_[tail & record_mask_];
    slot.record = record;
    slot.record.packets.data = data;
    slot.byte_end = byte_tail_;
    return true;
  }

  // The slot that is not published yet takes in the packets if
  //   1. they are of the same flow,
  //   2. no shorter packet has ended the train,
  //   3. they are of its segment size, or are one packet that is shorter (and ends it),
  //   4. together they are no longer than a train may be, and
  //   5. there is room right behind it.
  bool Extend(const Record& record) {
    const PacketTrain& next = record.packets;
    const size_t tail = tail_.load(std::memory_order_relaxed);
    Slot& slot = records_[tail & record_mask_];
    PacketTrain& train = slot.record.packets;
    if (!record.MayFollow(slot.record)) return false;                                   // 1
    if (train.segment_size == 0 || train.size % train.segment_size != 0) return false;  // 2
    if (next.segment_size != train.segment_size &&
        (next.size > next.segment_size || next.size > train.segment_size)) {
      return false;  // 3
    }
    if (train.size + next.size > io::kMaxDatagram) return false;  // 4
    const size_t at = byte_tail_ & byte_mask_;
    if (at == 0 || at + next.size > byte_mask_ + 1) return false;  // 5
    if (!HasRoom(tail, byte_tail_ + next.size)) return false;
    std::memcpy(bytes_.get() + at, next.data, next.size);
    train.size += next.size;
    byte_tail_ += next.size;
    slot.byte_end = byte_tail_;
    return true;
  }

  bool HasRoom(size_t tail, size_t byte_end) {
    if (Fits(tail, byte_end)) return true;
    head_seen_ = head_.load(std::memory_order_acquire);
    byte_head_seen_ = byte_head_.load(std::memory_order_acquire);
    return Fits(tail, byte_end);
  }
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
  CacheLineVector<Slot> records_;
  const CacheLineBytes bytes_;

  alignas(kCacheLine) std::atomic<size_t> tail_{0};
  size_t byte_tail_ = 0;  // producer's, like the next three
  size_t head_seen_ = 0;
  size_t byte_head_seen_ = 0;
  bool open_ = false;  // the slot at the tail is filled and not published
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
