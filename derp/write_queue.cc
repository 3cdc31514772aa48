#include "derp/write_queue.h"

#include <algorithm>
#include <utility>

namespace ringsock::derp {
namespace {

// Two TLS records' worth: a piece of Front() is long enough, and a queue of few packets is small.
constexpr size_t kChunkSize = 32 << 10;

}  // namespace

MutableBytes WriteQueue::Push(size_t size, Instant now) {
  DropAged(now);
  if (size == 0 || partial_left() + size > limits_.max_bytes) {
    ++drops_.full;
    drops_.bytes += size;
    return {};
  }
  while (bytes_ + size > limits_.max_bytes) RemoveEntry(&drops_.full);
  Chunk& chunk = Tail(size);
  const MutableBytes memory(chunk.memory.get() + chunk.end, size);
  chunk.end += size;
  bytes_ += size;
  entries_.push_back({now, static_cast<uint32_t>(size)});
  return memory;
}

WriteQueue::Chunk& WriteQueue::Tail(size_t size) {
  if (!chunks_.empty() && chunks_.back().capacity - chunks_.back().end >= size) {
    return chunks_.back();
  }
  // An empty chunk that is too small makes way, so that only the last one is ever empty.
  if (!chunks_.empty() && chunks_.back().begin == chunks_.back().end) chunks_.pop_back();
  if (spare_.capacity >= size) {
    chunks_.push_back(std::exchange(spare_, {}));
  } else {
    const size_t capacity = std::max(kChunkSize, size);
    chunks_.push_back({.memory = std::make_unique_for_overwrite<std::byte[]>(capacity),
                       .capacity = capacity,
                       .begin = 0,
                       .end = 0});
  }
  return chunks_.back();
}

Bytes WriteQueue::Front(size_t max) const {
  if (mid_frame()) return Bytes(partial_).subspan(partial_sent_);
  if (first_ == entries_.size()) return {};
  const Chunk& chunk = chunks_.front();
  size_t size = entries_[first_].size;
  for (size_t i = first_ + 1; i < entries_.size(); ++i) {
    const size_t longer = size + entries_[i].size;
    if (longer > max || longer > chunk.end - chunk.begin) break;
    size = longer;
  }
  return {chunk.memory.get() + chunk.begin, size};
}

void WriteQueue::Consume(size_t count) {
  if (mid_frame()) {
    bytes_ -= count;
    partial_sent_ += count;
    if (partial_left() == 0) ClearPartial();
    return;
  }
  while (count > 0) {
    const size_t size = entries_[first_].size;
    if (count < size) {
      // The rest moves out of the chunks, so that those behind it can still be dropped.
      const std::byte* rest = chunks_.front().memory.get() + chunks_.front().begin + count;
      partial_.assign(rest, rest + (size - count));
      partial_size_ = size;
      partial_sent_ = 0;
      bytes_ += partial_.size();
    }
    PopEntry();
    RemoveBytes(size);
    count -= std::min(count, size);
  }
}

void WriteQueue::PopEntry() {
  if (++first_ == entries_.size()) {
    entries_.clear();
    first_ = 0;
  } else if (first_ >= entries_.size() / 2 && first_ >= 64) {
    entries_.erase(entries_.begin(), entries_.begin() + static_cast<ptrdiff_t>(first_));
    first_ = 0;
  }
}

// Takes whole frames off the front chunk.
void WriteQueue::RemoveBytes(size_t count) {
  Chunk& chunk = chunks_.front();
  chunk.begin += count;
  bytes_ -= count;
  if (chunk.begin < chunk.end) return;
  chunk.begin = chunk.end = 0;
  if (chunks_.size() == 1 && chunk.capacity == kChunkSize) return;
  if (spare_.capacity == 0 && chunk.capacity == kChunkSize) spare_ = std::move(chunk);
  chunks_.erase(chunks_.begin());
}

void WriteQueue::RemoveEntry(uint64_t* counter) {
  const size_t size = entries_[first_].size;
  ++*counter;
  drops_.bytes += size;
  PopEntry();
  RemoveBytes(size);
}

void WriteQueue::DropAged(Instant now) {
  while (first_ < entries_.size() && now - entries_[first_].pushed > limits_.max_age) {
    RemoveEntry(&drops_.aged);
  }
}

Instant WriteQueue::next_age() const {
  if (first_ == entries_.size()) return Instant::max();
  // The first instant at which it is too old.
  const Duration left = Instant::max() - entries_[first_].pushed;
  if (limits_.max_age >= left) return Instant::max();
  return entries_[first_].pushed + limits_.max_age + Duration(1);
}

bool WriteQueue::DropHead() {
  if (first_ == entries_.size()) return false;
  RemoveEntry(&drops_.heads);
  return true;
}

void WriteQueue::CutHead() {
  if (!mid_frame()) return;
  bytes_ -= partial_left();
  ClearPartial();
  ++drops_.cut;
  drops_.bytes += partial_size_;
}

size_t WriteQueue::memory() const {
  size_t sum = spare_.capacity + partial_.capacity() + entries_.capacity() * sizeof(Entry);
  for (const Chunk& chunk : chunks_) sum += chunk.capacity;
  return sum;
}

void WriteQueue::Trim() {
  spare_ = {};
  if (!empty()) return;
  chunks_ = std::vector<Chunk>();
  entries_ = std::vector<Entry>();
}

}  // namespace ringsock::derp
