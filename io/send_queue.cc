#include "io/send_queue.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace ringsock::io {

SendChunk* SendChunkPool::Acquire() {
  ++handed_out_;
  // Not make_unique: it would clear the bytes.
  if (free_.empty()) return new SendChunk;
  SendChunk* chunk = free_.back().release();
  free_.pop_back();
  return chunk;
}

void SendChunkPool::Release(SendChunk* chunk) {
  --handed_out_;
  std::unique_ptr<SendChunk> owned(chunk);
  owned->next = nullptr;
  owned->begin = owned->end = 0;
  if (free_.size() < kKept) free_.push_back(std::move(owned));
}

SendQueue::~SendQueue() {
  while (head_ != nullptr) delete std::exchange(head_, head_->next);
}

// A reservation ends with the next one. Nobody looks at the bytes of an empty chunk any more.
void SendQueue::PrepareTail() {
  reserved_ = 0;
  if (tail_ != nullptr && tail_->begin == tail_->end) tail_->begin = tail_->end = 0;
}

void SendQueue::Append(std::span<const std::byte> bytes, SendChunkPool* pool) {
  PrepareTail();
  while (!bytes.empty()) {
    if (tail_ == nullptr || tail_->end == SendChunk::kSize) AddChunk(pool);
    const size_t part = std::min(bytes.size(), SendChunk::kSize - tail_->end);
    memcpy(tail_->data + tail_->end, bytes.data(), part);
    tail_->end += static_cast<uint32_t>(part);
    size_ += part;
    bytes = bytes.subspan(part);
  }
}

void SendQueue::AddChunk(SendChunkPool* pool) {
  SendChunk* chunk = pool->Acquire();
  (tail_ == nullptr ? head_ : tail_->next) = chunk;
  tail_ = chunk;
}

std::span<std::byte> SendQueue::Reserve(size_t size, SendChunkPool* pool) {
  PrepareTail();
  size = std::min(size, SendChunk::kSize);
  if (tail_ == nullptr || SendChunk::kSize - tail_->end < size) AddChunk(pool);
  reserved_ = size;
  return {tail_->data + tail_->end, size};
}

void SendQueue::Commit(size_t bytes, SendChunkPool* pool) {
  bytes = std::min(bytes, std::exchange(reserved_, 0));
  if (bytes == 0) return Consume(0, pool);  // gives back a chunk that stayed empty
  tail_->end += static_cast<uint32_t>(bytes);
  size_ += bytes;
}

size_t SendQueue::Front(std::span<iovec> out) const {
  size_t count = 0;
  for (SendChunk* chunk = head_; chunk != nullptr && count < out.size(); chunk = chunk->next) {
    if (chunk->begin == chunk->end) break;
    out[count++] = {chunk->data + chunk->begin, chunk->end - chunk->begin};
  }
  return count;
}

void SendQueue::Consume(size_t bytes, SendChunkPool* pool) {
  bytes = std::min(bytes, size_);
  size_ -= bytes;
  while (head_ != nullptr) {
    const size_t part = std::min<size_t>(bytes, head_->end - head_->begin);
    head_->begin += static_cast<uint32_t>(part);
    bytes -= part;
    if (head_->begin != head_->end || (head_ == tail_ && reserved_ > 0)) return;
    // Also a chunk with room left: the next Append() takes a fresh one.
    SendChunk* next = head_->next;
    pool->Release(head_);
    head_ = next;
  }
  tail_ = nullptr;
}

void SendQueue::Clear(SendChunkPool* pool) {
  reserved_ = 0;
  Consume(size_, pool);
}

}  // namespace ringsock::io
