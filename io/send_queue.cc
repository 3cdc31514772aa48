#include "io/send_queue.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace ringsock::io {

SendChunk* SendChunkPool::Acquire() {
  // Not make_unique: it would clear the bytes.
  if (free_.empty()) return new SendChunk;
  SendChunk* chunk = free_.back().release();
  free_.pop_back();
  return chunk;
}

void SendChunkPool::Release(SendChunk* chunk) {
  std::unique_ptr<SendChunk> owned(chunk);
  owned->next = nullptr;
  owned->begin = owned->end = 0;
  if (free_.size() < kKept) free_.push_back(std::move(owned));
}

SendQueue::~SendQueue() {
  while (head_ != nullptr) delete std::exchange(head_, head_->next);
}

void SendQueue::Append(std::span<const std::byte> bytes, SendChunkPool* pool) {
  while (!bytes.empty()) {
    if (tail_ == nullptr || tail_->end == SendChunk::kSize) {
      SendChunk* chunk = pool->Acquire();
      (tail_ == nullptr ? head_ : tail_->next) = chunk;
      tail_ = chunk;
    }
    const size_t part = std::min(bytes.size(), SendChunk::kSize - tail_->end);
    memcpy(tail_->data + tail_->end, bytes.data(), part);
    tail_->end += static_cast<uint32_t>(part);
    size_ += part;
    bytes = bytes.subspan(part);
  }
}

size_t SendQueue::Front(std::span<iovec> out) const {
  size_t count = 0;
  for (SendChunk* chunk = head_; chunk != nullptr && count < out.size(); chunk = chunk->next) {
    out[count++] = {chunk->data + chunk->begin, chunk->end - chunk->begin};
  }
  return count;
}

void SendQueue::Consume(size_t bytes, SendChunkPool* pool) {
  bytes = std::min(bytes, size_);
  size_ -= bytes;
  while (bytes > 0) {
    const size_t part = std::min<size_t>(bytes, head_->end - head_->begin);
    head_->begin += static_cast<uint32_t>(part);
    bytes -= part;
    if (head_->begin != head_->end) return;
    // Also a chunk with room left: the next Append() takes a fresh one.
    SendChunk* next = head_->next;
    pool->Release(head_);
    head_ = next;
    if (head_ == nullptr) tail_ = nullptr;
  }
}

}  // namespace ringsock::io
