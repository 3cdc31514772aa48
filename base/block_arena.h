// Memory for many objects of few sizes that are read at random: peers, and the arrays of tables.
// Beyond the first few MiB it lies on huge pages, as a lookup among a million peers misses not only
// the caches but also the memory of the CPU for page addresses: 20 to 30 % of its time.
#ifndef RINGSOCK_BASE_BLOCK_ARENA_H_
#define RINGSOCK_BASE_BLOCK_ARENA_H_

#include <cstddef>
#include <vector>

namespace ringsock {

// For one thread at a time. What is freed is kept for the next block of its size, and goes back to
// the system with the arena: it holds what was in use at most, by sizes, and an eighth.
//
// Under the address sanitizer every block is an allocation of its own, which it can watch over.
class BlockArena {
 public:
  // Blocks begin at a cache line and are whole ones.
  static constexpr size_t kLine = 64;
  static constexpr size_t kMaxBlock = 64 << 10;

  BlockArena() = default;
  BlockArena(const BlockArena&) = delete;
  BlockArena& operator=(const BlockArena&) = delete;
  // All blocks end with it.
  ~BlockArena();

  // At most kMaxBlock bytes, with no value set. Throws std::bad_alloc as operator new does.
  void* Allocate(size_t bytes);
  // `bytes` as it was asked for.
  void Free(void* block, size_t bytes);

  // Bytes taken from the system.
  size_t reserved() const { return reserved_; }
  // Bytes of blocks that are not free.
  size_t used() const { return used_; }

 private:
  struct FreeBlock {
    FreeBlock* next;
  };
  struct Chunk {
    void* memory;
    size_t bytes;
  };

  void AddChunk();
  void* Take(size_t lines);

  std::vector<FreeBlock*> free_;  // by lines
  std::vector<Chunk> chunks_;
  std::byte* next_ = nullptr;  // the rest of the last chunk
  size_t left_ = 0;
  size_t reserved_ = 0;
  size_t used_ = 0;
};

}  // namespace ringsock

#endif  // RINGSOCK_BASE_BLOCK_ARENA_H_
