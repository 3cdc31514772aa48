// Bytes of a stream that wait for the kernel, in chunks from a pool that all streams of a loop
// share: a stream with nothing to send holds no memory.
#ifndef RINGSOCK_IO_SEND_QUEUE_H_
#define RINGSOCK_IO_SEND_QUEUE_H_

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "io/stream.h"

namespace ringsock::io {

struct SendChunk {
  static constexpr size_t kSize = kMaxSendSpace;
  SendChunk* next = nullptr;
  uint32_t begin = 0;
  uint32_t end = 0;
  std::byte data[kSize];
};

// Not thread safe. Outlives its queues.
class SendChunkPool {
 public:
  SendChunk* Acquire();
  // Keeps up to kKept chunks for later and frees the others.
  void Release(SendChunk* chunk);
  size_t handed_out() const { return handed_out_; }

 private:
  static constexpr size_t kKept = 64;
  std::vector<std::unique_ptr<SendChunk>> free_;
  size_t handed_out_ = 0;
};

// The bound is the caller's. What Front() showed stays where it is until it is consumed, also while
// more is appended.
class SendQueue {
 public:
  SendQueue() = default;
  ~SendQueue();
  SendQueue(const SendQueue&) = delete;
  SendQueue& operator=(const SendQueue&) = delete;

  size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  void Append(std::span<const std::byte> bytes, SendChunkPool* pool);
  // `size` (1 to SendChunk::kSize) contiguous bytes behind the last one. They stay, whatever is
  // consumed, until the next call of Append(), Reserve(), Commit(), EndReservation() or Clear().
  std::span<std::byte> Reserve(size_t size, SendChunkPool* pool);
  // Appends the first `bytes` of what was reserved, at most all of it.
  void Commit(size_t bytes, SendChunkPool* pool);
  void EndReservation(SendChunkPool* pool) { Commit(0, pool); }
  // The first bytes, in up to `out.size()` pieces; returns how many.
  size_t Front(std::span<iovec> out) const;
  void Consume(size_t bytes, SendChunkPool* pool);
  void Clear(SendChunkPool* pool);

 private:
  void PrepareTail();
  void AddChunk(SendChunkPool* pool);

  // Only the tail may be empty, and only while something is reserved in it, or there is a chunk
  // before it.
  SendChunk* head_ = nullptr;
  SendChunk* tail_ = nullptr;
  size_t size_ = 0;
  size_t reserved_ = 0;
};

}  // namespace ringsock::io

#endif  // RINGSOCK_IO_SEND_QUEUE_H_
