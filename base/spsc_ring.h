// A bounded queue from one thread to one other: no lock, no allocation after construction, no
// shared cache line that both sides write. Each side keeps a copy of the other's position and
// refreshes it only when the ring looks full or empty.
#ifndef RINGSOCK_BASE_SPSC_RING_H_
#define RINGSOCK_BASE_SPSC_RING_H_

#include <atomic>
#include <bit>
#include <cstddef>
#include <utility>

#include "base/cache_line.h"

namespace ringsock {

// Holds at least `capacity` elements (rounded up to a power of two). T is default constructible and
// is reused in place: Reserve/Publish and Front/Pop hand out the slot itself, so that a slot with a
// buffer in it is filled and read without a copy.
template <typename T>
class SpscRing {
 public:
  explicit SpscRing(size_t capacity)
      : mask_(std::bit_ceil(capacity == 0 ? size_t{1} : capacity) - 1), slots_(mask_ + 1) {}

  SpscRing(const SpscRing&) = delete;
  SpscRing& operator=(const SpscRing&) = delete;

  size_t capacity() const { return mask_ + 1; }

  // Producer: the next free slot, or null when the ring is full. Idempotent until Publish().
  T* Reserve() {
    const size_t tail = tail_.load(std::memory_order_relaxed);
    if (tail - head_seen_ > mask_) {
      head_seen_ = head_.load(std::memory_order_acquire);
      if (tail - head_seen_ > mask_) return nullptr;
    }
    return &slots_[tail & mask_];
  }
  // Producer: hands the slot that Reserve() returned to the consumer.
  void Publish() {
    tail_.store(tail_.load(std::memory_order_relaxed) + 1, std::memory_order_release);
  }
  // Producer: false, and `value` untouched, when the ring is full.
  bool TryPush(T&& value) {
    T* slot = Reserve();
    if (slot == nullptr) return false;
    *slot = std::move(value);
    Publish();
    return true;
  }

  // Consumer: the oldest element, or null when the ring is empty. Valid until Pop().
  T* Front() {
    const size_t head = head_.load(std::memory_order_relaxed);
    if (head == tail_seen_) {
      tail_seen_ = tail_.load(std::memory_order_acquire);
      if (head == tail_seen_) return nullptr;
    }
    return &slots_[head & mask_];
  }
  // Consumer: gives the slot of Front() back to the producer.
  void Pop() { head_.store(head_.load(std::memory_order_relaxed) + 1, std::memory_order_release); }

  // Any thread: a snapshot that may be stale by the time it is read.
  size_t size() const {
    const size_t head = head_.load(std::memory_order_acquire);
    const size_t size = tail_.load(std::memory_order_acquire) - head;
    // The head may have moved on meanwhile, and let the tail pass.
    return size <= capacity() ? size : capacity();
  }

 private:
  const size_t mask_;
  CacheLineVector<T> slots_;
  alignas(kCacheLine) std::atomic<size_t> tail_{0};
  size_t head_seen_ = 0;  // producer's
  alignas(kCacheLine) std::atomic<size_t> head_{0};
  size_t tail_seen_ = 0;  // consumer's
};

}  // namespace ringsock

#endif  // RINGSOCK_BASE_SPSC_RING_H_
