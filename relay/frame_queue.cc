#include "relay/frame_queue.h"

#include <algorithm>
#include <cstring>
#include <new>

namespace ringsock::relay {
namespace {

constexpr size_t Footprint(size_t capacity) { return sizeof(FrameChunk) + capacity; }

uint32_t FrameSize(const std::byte* frame) {
  const auto at = [frame](int i) { return static_cast<uint32_t>(frame[i]); };
  return static_cast<uint32_t>(derp::kFrameHeaderSize) +
         (at(1) << 24 | at(2) << 16 | at(3) << 8 | at(4));
}

}  // namespace

// ---- Memory ----

FrameChunkPool::~FrameChunkPool() {
  for (FrameChunk* chunk : kept_) ::operator delete(chunk);
}

FrameChunk* FrameChunkPool::Acquire(uint32_t capacity) {
  const size_t size = Footprint(capacity);
  if (size > free_bytes()) return nullptr;
  used_bytes_ += size;
  FrameChunk* chunk = nullptr;
  if (capacity == FrameChunk::kSize && !kept_.empty()) {
    chunk = kept_.back();
    kept_.pop_back();
  } else {
    chunk = static_cast<FrameChunk*>(::operator new(size));
  }
  *chunk = {.next = nullptr, .capacity = capacity, .begin = 0, .end = 0, .frames = 0, .since = {}};
  return chunk;
}

void FrameChunkPool::Release(FrameChunk* chunk) {
  used_bytes_ -= Footprint(chunk->capacity);
  if (chunk->capacity == FrameChunk::kSize && kept_.size() < kKept) {
    kept_.push_back(chunk);
  } else {
    ::operator delete(chunk);
  }
}

// ---- Adding ----

void FrameQueue::Append(derp::Bytes first, derp::Bytes second, Instant now, const Limits& limits,
                        FrameChunkPool* pool, FrameDrops* drops) {
  const size_t size = first.size() + second.size();
  if (bytes_ + size > limits.max_bytes && !MakeRoom(size, limits, pool, drops)) return;
  // A chunk spans a quarter of the greatest age, so that its frames are of about one age.
  const bool fits = tail_ != nullptr && size <= tail_->capacity - tail_->end &&
                    now - tail_->since <= limits.max_age / 4;
  if (!fits && !NewChunk(size, now, pool, drops)) return;
  std::byte* out = tail_->data() + tail_->end;
  memcpy(out, first.data(), first.size());
  if (!second.empty()) memcpy(out + first.size(), second.data(), second.size());
  tail_->end += static_cast<uint32_t>(size);
  ++tail_->frames;
  bytes_ += size;
}

bool FrameQueue::MakeRoom(size_t size, const Limits& limits, FrameChunkPool* pool,
                          FrameDrops* drops) {
  while (bytes_ + size > limits.max_bytes && Droppable() != nullptr) {
    DropFrame(pool);
    ++drops->full;
  }
  if (bytes_ + size <= limits.max_bytes) return true;
  ++drops->full;
  return false;
}

bool FrameQueue::NewChunk(size_t size, Instant now, FrameChunkPool* pool, FrameDrops* drops) {
  const auto capacity = size <= FrameChunk::kSize ? FrameChunk::kSize : static_cast<uint32_t>(size);
  // As the pool fills, a queue may hold no more than what is left for all: the many that need
  // little find it, whatever the few do that need much.
  while (memory_ + Footprint(capacity) > pool->free_bytes() && Droppable() != nullptr) {
    drops->memory += DropChunk(pool);
  }
  FrameChunk* chunk = pool->Acquire(capacity);
  if (chunk == nullptr) {
    ++drops->memory;
    return false;
  }
  chunk->since = now;
  (tail_ == nullptr ? head_ : tail_->next) = chunk;
  tail_ = chunk;
  memory_ += Footprint(capacity);
  return true;
}

// ---- Dropping ----

// The chunk with the oldest frame that may be dropped: not one that is sent in part.
FrameChunk* FrameQueue::Droppable() const { return in_frame_ ? head_->next : head_; }

void FrameQueue::DropFrame(FrameChunkPool* pool) {
  FrameChunk* chunk = Droppable();
  if (chunk->frames == 1) {
    DropChunk(pool);
    return;
  }
  const uint32_t size = FrameSize(chunk->data() + chunk->begin);
  chunk->begin += size;
  --chunk->frames;
  bytes_ -= size;
}

uint32_t FrameQueue::DropChunk(FrameChunkPool* pool) {
  FrameChunk* chunk = Droppable();
  const uint32_t frames = chunk->frames;
  (in_frame_ ? head_->next : head_) = chunk->next;
  if (tail_ == chunk) tail_ = in_frame_ ? head_ : nullptr;
  bytes_ -= chunk->end - chunk->begin;
  memory_ -= Footprint(chunk->capacity);
  pool->Release(chunk);
  return frames;
}

void FrameQueue::DropAged(Instant now, const Limits& limits, FrameChunkPool* pool,
                          FrameDrops* drops) {
  while (true) {
    const FrameChunk* chunk = head_ == nullptr ? nullptr : Droppable();
    if (chunk == nullptr || now - chunk->since <= limits.max_age) return;
    drops->aged += DropChunk(pool);
  }
}

// ---- Sending ----

uint32_t FrameQueue::Consume(size_t count, FrameChunkPool* pool) {
  if (count < HeadBytes()) {
    if (count == 0) return 0;
    in_frame_ = true;
    head_->begin += static_cast<uint32_t>(count);
    bytes_ -= count;
    return 0;
  }
  in_frame_ = false;
  return DropChunk(pool);
}

uint64_t FrameQueue::Clear(FrameChunkPool* pool) {
  uint64_t frames = 0;
  in_frame_ = false;
  while (head_ != nullptr) frames += DropChunk(pool);
  return frames;
}

}  // namespace ringsock::relay
