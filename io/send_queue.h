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

namespace ringsock::io {

struct SendChunk {
  // A TLS record of full length and its frame fit.
  static constexpr size_t kSize = (16 << 10) + 512;
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

 private:
  static constexpr size_t kKept = 256;
  std::vector<std::unique_ptr<SendChunk>> free_;
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
  // The first bytes, in up to `out.size()` pieces; returns how many.
  size_t Front(std::span<iovec> out) const;
  void Consume(size_t bytes, SendChunkPool* pool);
  void Clear(SendChunkPool* pool) { Consume(size_, pool); }

 private:
  SendChunk* head_ = nullptr;
  SendChunk* tail_ = nullptr;
  size_t size_ = 0;
};

}  // namespace ringsock::io

#endif  // RINGSOCK_IO_SEND_QUEUE_H_
