// The slabs behind Loop::AcquireSlab(): equal blocks of one piece of memory, the most recently
// returned one first, because it is still in the cache.
#ifndef RINGSOCK_IO_SLAB_POOL_H_
#define RINGSOCK_IO_SLAB_POOL_H_

#include <sys/mman.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>

#include "base/cache_line.h"
#include "io/loop.h"

namespace ringsock::io {

// For one thread. Pages are touched when they are first used.
class SlabPool {
 public:
  static constexpr size_t kSlabSize = 64 << 10;
  static_assert(kSlabSize >= kMaxDatagram);

  // In memory of its own. An allocation that fails leaves an empty pool: every Acquire() is then
  // null.
  explicit SlabPool(uint32_t count) {
    const size_t size = std::max<size_t>(1, count) * kSlabSize;
    void* memory = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) return;
    own_ = {static_cast<std::byte*>(memory), size};
    Cut(own_.data(), count);
  }
  // In memory of the caller: at least `count` times kSlabSize bytes, or none.
  SlabPool(uint32_t count, std::span<std::byte> memory) {
    if (memory.size() >= count * kSlabSize) Cut(memory.data(), count);
  }
  SlabPool(const SlabPool&) = delete;
  SlabPool& operator=(const SlabPool&) = delete;
  ~SlabPool() {
    if (!own_.empty()) munmap(own_.data(), own_.size());
  }

  TxSlab* Acquire() {
    if (free_.empty()) return nullptr;
    TxSlab* slab = free_.back();
    free_.pop_back();
    return slab;
  }
  void Release(TxSlab* slab) { free_.push_back(slab); }

  size_t available() const { return free_.size(); }
  // The position of a slab of this pool, for tables that go with it.
  size_t IndexOf(const TxSlab* slab) const { return static_cast<size_t>(slab - slabs_.data()); }
  TxSlab* At(size_t index) { return &slabs_[index]; }

 private:
  void Cut(std::byte* memory, uint32_t count) {
    slabs_.resize(count);
    free_.reserve(count);
    for (uint32_t i = count; i-- > 0;) {
      slabs_[i] = {memory + i * kSlabSize, static_cast<uint32_t>(kSlabSize)};
      free_.push_back(&slabs_[i]);
    }
  }

  std::span<std::byte> own_;
  CacheLineVector<TxSlab> slabs_;
  CacheLineVector<TxSlab*> free_;
};

}  // namespace ringsock::io

#endif  // RINGSOCK_IO_SLAB_POOL_H_
