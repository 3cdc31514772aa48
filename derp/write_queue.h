// Frames that wait for a stream: bounded in bytes and in age. What is over goes from the head,
// since the oldest packet is worth least, and is counted. No I/O.
//
// Frames lie in chunks, none across two, so that they are encoded in place and a run of them is
// handed on as one piece without a copy. Whoever takes pieces decides how much leaves: what left
// can no longer be dropped, so little of it should wait elsewhere.
#ifndef RINGSOCK_DERP_WRITE_QUEUE_H_
#define RINGSOCK_DERP_WRITE_QUEUE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "base/clock.h"
#include "derp/frame.h"

namespace ringsock::derp {

struct WriteQueueLimits {
  // Waiting for the stream: frames of at most so many bytes, none older than this. What is over is
  // dropped from the head, since the oldest packet is worth least.
  size_t max_bytes = 1 << 20;
  Duration max_age = std::chrono::seconds(3);
};

// Totals since the queue was made; bytes are those of whole frames.
struct WriteQueueDrops {
  uint64_t full = 0;   // frames
  uint64_t aged = 0;   // frames
  uint64_t heads = 0;  // frames, by DropHead()
  uint64_t cut = 0;    // frames, by CutHead()
  uint64_t bytes = 0;  // of all of them
};

// Not thread safe.
class WriteQueue {
 public:
  explicit WriteQueue(const WriteQueueLimits& limits) : limits_(limits) {}

  // Memory for a frame of exactly `size` bytes behind the others; older ones are dropped to make
  // room. To be filled before any other call. Empty, and counted as dropped, if there can be no
  // room: it is over max_bytes alone, or with the rest of a frame sent in part.
  MutableBytes Push(size_t size, Instant now);

  // What to send next: whole frames that lie together, up to `max` bytes; or a single longer frame;
  // or the rest of one that was taken in part. Empty if nothing waits. Valid until the next call.
  Bytes Front(size_t max) const;
  // The first `count` bytes of Front() have been sent. Of a frame that is sent in part, the rest
  // is never dropped but by CutHead().
  void Consume(size_t count);
  // A frame has been sent in part.
  bool mid_frame() const { return !partial_.empty(); }

  // Drops what is older than max_age.
  void DropAged(Instant now);
  // When DropAged() will find something; Instant::max() if nothing waits.
  Instant next_age() const;
  // Drops the oldest frame that was not sent in part. False if there is none.
  bool DropHead();
  // The stream broke: what was sent in part is lost.
  void CutHead();

  bool empty() const { return bytes_ == 0; }
  size_t bytes() const { return bytes_; }  // of frames, and what is left of one sent in part
  size_t frames() const { return entries_.size() - first_ + (mid_frame() ? 1 : 0); }
  const WriteQueueDrops& drops() const { return drops_; }

  // Bytes of memory held. An empty queue keeps a chunk until Trim().
  size_t memory() const;
  void Trim();

 private:
  struct Entry {
    Instant pushed;
    uint32_t size;
  };
  struct Chunk {
    std::unique_ptr<std::byte[]> memory;
    size_t capacity = 0;
    size_t begin = 0;
    size_t end = 0;
  };

  Chunk& Tail(size_t size);
  void RemoveBytes(size_t count);
  void RemoveEntry(uint64_t* counter);
  void PopEntry();
  size_t partial_left() const { return partial_.size() - partial_sent_; }
  void ClearPartial() {
    partial_ = std::vector<std::byte>();  // memory and all
    partial_sent_ = 0;
  }

  const WriteQueueLimits limits_;
  std::vector<Chunk> chunks_;  // in order; all but the last hold bytes
  Chunk spare_;
  std::vector<Entry> entries_;  // from first_ on: whole frames, the oldest first
  size_t first_ = 0;
  std::vector<std::byte> partial_;  // the rest of a frame in front of them
  size_t partial_size_ = 0;         // of the whole frame
  size_t partial_sent_ = 0;         // bytes of partial_ gone since
  size_t bytes_ = 0;
  WriteQueueDrops drops_;
};

}  // namespace ringsock::derp

#endif  // RINGSOCK_DERP_WRITE_QUEUE_H_
