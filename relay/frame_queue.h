// Frames that wait for one connection, packed back to back in chunks of one full TLS record each,
// so that what gathered in a turn is sealed where it lies. Bounded in bytes and age, from whose
// head whole frames are dropped; memory comes from a pool that all queues of a worker share.
#ifndef RINGSOCK_RELAY_FRAME_QUEUE_H_
#define RINGSOCK_RELAY_FRAME_QUEUE_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/clock.h"
#include "derp/frame.h"

namespace ringsock::relay {

// Frames never straddle chunks. One that is longer than kSize has a chunk of its own.
struct FrameChunk {
  static constexpr uint32_t kSize = 16384;

  FrameChunk* next;
  uint32_t capacity;
  uint32_t begin;   // not yet sent from here
  uint32_t end;     // free from here
  uint32_t frames;  // between begin and end
  Instant since;    // when the first frame came

  std::byte* data() { return reinterpret_cast<std::byte*>(this + 1); }
};

// Not thread safe. Outlives its queues.
class FrameChunkPool {
 public:
  explicit FrameChunkPool(size_t max_bytes) : max_bytes_(max_bytes) {}
  ~FrameChunkPool();
  FrameChunkPool(const FrameChunkPool&) = delete;
  FrameChunkPool& operator=(const FrameChunkPool&) = delete;

  // Null if its bound would be passed.
  FrameChunk* Acquire(uint32_t capacity);
  void Release(FrameChunk* chunk);
  size_t used_bytes() const { return used_bytes_; }
  size_t free_bytes() const { return max_bytes_ - used_bytes_; }

 private:
  static constexpr size_t kKept = 512;

  const size_t max_bytes_;
  size_t used_bytes_ = 0;
  std::vector<FrameChunk*> kept_;
};

// Packets dropped, by reason.
struct FrameDrops {
  uint64_t full = 0;
  uint64_t aged = 0;
  uint64_t memory = 0;
};

// Not thread safe. Holds no memory while it is empty.
class FrameQueue {
 public:
  struct Limits {
    size_t max_bytes = 0;
    Duration max_age{};
  };

  FrameQueue() = default;
  FrameQueue(const FrameQueue&) = delete;
  FrameQueue& operator=(const FrameQueue&) = delete;

  bool empty() const { return head_ == nullptr; }
  size_t bytes() const { return bytes_; }
  size_t memory() const { return memory_; }

  // Adds a frame given in two parts, header and payload (or all of it and nothing). What must go
  // for it is dropped from the head and counted; so is the frame itself, if nothing else can go.
  void Append(derp::Bytes first, derp::Bytes second, Instant now, const Limits& limits,
              FrameChunkPool* pool, FrameDrops* drops);
  // Drops from the head what is too old.
  void DropAged(Instant now, const Limits& limits, FrameChunkPool* pool, FrameDrops* drops);

  // The bytes to send next, whole frames (or the rest of one that has a chunk of its own); empty if
  // there are none. Stays valid until the queue is changed.
  derp::Bytes Front() const {
    return head_ == nullptr ? derp::Bytes{}
                            : derp::Bytes{head_->data() + head_->begin, HeadBytes()};
  }
  // A part of a frame has been sent: nothing else may be sent before the rest of it.
  bool in_frame() const { return in_frame_; }
  // The first `count` bytes of Front() have been sent: all of it, or a part of a frame that has a
  // chunk of its own. Returns how many frames were sent to their end.
  uint32_t Consume(size_t count, FrameChunkPool* pool);
  // Returns how many frames were lost.
  uint64_t Clear(FrameChunkPool* pool);

 private:
  size_t HeadBytes() const { return head_->end - head_->begin; }
  bool MakeRoom(size_t size, const Limits& limits, FrameChunkPool* pool, FrameDrops* drops);
  bool NewChunk(size_t size, Instant now, FrameChunkPool* pool, FrameDrops* drops);
  void DropFrame(FrameChunkPool* pool);
  uint32_t DropChunk(FrameChunkPool* pool);
  FrameChunk* Droppable() const;

  FrameChunk* head_ = nullptr;
  FrameChunk* tail_ = nullptr;
  size_t bytes_ = 0;
  size_t memory_ = 0;
  bool in_frame_ = false;
};

}  // namespace ringsock::relay

#endif  // RINGSOCK_RELAY_FRAME_QUEUE_H_
