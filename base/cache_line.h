// Memory that shares no cache line with anybody else's: what two threads write must lie on lines of
// their own, or each write takes the line away from the other core (some 50 to 100 ns).
#ifndef RINGSOCK_BASE_CACHE_LINE_H_
#define RINGSOCK_BASE_CACHE_LINE_H_

#include <cstddef>
#include <memory>
#include <new>
#include <vector>

namespace ringsock {

inline constexpr size_t kCacheLine = 64;

// At least `bytes`, from the start of a cache line to the end of one. Not initialised.
inline void* NewCacheLines(size_t bytes) {
  const size_t whole = (bytes + kCacheLine - 1) / kCacheLine * kCacheLine;
  return ::operator new (whole, std::align_val_t{kCacheLine});
}
inline void FreeCacheLines(void* memory) {
  ::operator delete (memory, std::align_val_t{kCacheLine});
}

// Of a container whose elements are one thread's, however many there are.
template <typename T>
struct CacheLineAllocator {
  using value_type = T;

  CacheLineAllocator() = default;
  template <typename U>
  CacheLineAllocator(const CacheLineAllocator<U>&) {}  // NOLINT(google-explicit-constructor)

  T* allocate(size_t count) { return static_cast<T*>(NewCacheLines(count * sizeof(T))); }
  void deallocate(T* memory, size_t /*count*/) { FreeCacheLines(memory); }
  friend bool operator==(const CacheLineAllocator&, const CacheLineAllocator&) { return true; }
};
template <typename T>
using CacheLineVector = std::vector<T, CacheLineAllocator<T>>;

// Bytes that nobody touches before they are used.
struct CacheLineDeleter {
  void operator()(std::byte* memory) const { FreeCacheLines(memory); }
};
using CacheLineBytes = std::unique_ptr<std::byte[], CacheLineDeleter>;
inline CacheLineBytes NewCacheLineBytes(size_t size) {
  return CacheLineBytes(static_cast<std::byte*>(NewCacheLines(size)));
}

}  // namespace ringsock

#endif  // RINGSOCK_BASE_CACHE_LINE_H_
