#include "base/block_arena.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdint>
#include <new>

namespace ringsock {
namespace {

#if defined(__SANITIZE_ADDRESS__)
constexpr bool kWatched = true;
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
constexpr bool kWatched = true;
#else
constexpr bool kWatched = false;
#endif
#else
constexpr bool kWatched = false;
#endif

constexpr size_t kFirstChunk = 64 << 10;
constexpr size_t kHugePage = 2 << 20;
// A chunk is at most so large: what is not used of it yet is little beside what is.
constexpr size_t kMaxChunk = 64 << 20;

size_t LinesFor(size_t bytes) { return (bytes + BlockArena::kLine - 1) / BlockArena::kLine; }

// Begins at a multiple of `alignment`. Null if there is no memory.
void* Map(size_t bytes, size_t alignment) {
  const size_t mapped = bytes + alignment;
  void* memory = mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return nullptr;
  auto* begin = static_cast<std::byte*>(memory);
  const size_t before = alignment - reinterpret_cast<uintptr_t>(begin) % alignment;
  munmap(begin, before);
  if (before < alignment) munmap(begin + before + bytes, alignment - before);
  return begin + before;
}

}  // namespace

BlockArena::~BlockArena() {
  for (const Chunk& chunk : chunks_) munmap(chunk.memory, chunk.bytes);
}

// Doubles up to a huge page; from then on an eighth is added, in whole huge pages.
void BlockArena::AddChunk() {
  const bool huge = reserved_ >= kHugePage;
  const size_t bytes = huge
                           ? std::clamp(reserved_ / 8 / kHugePage * kHugePage, kHugePage, kMaxChunk)
                           : std::max(kFirstChunk, reserved_);
  void* memory = Map(bytes, huge ? kHugePage : kFirstChunk);
  if (memory == nullptr) throw std::bad_alloc();
  // Advice: where the system has none to give, small pages do.
  if (huge) madvise(memory, bytes, MADV_HUGEPAGE);
  chunks_.push_back({memory, bytes});
  reserved_ += bytes;
  next_ = static_cast<std::byte*>(memory);
  left_ = bytes;
}

void* BlockArena::Take(size_t lines) {
  if (lines < free_.size() && free_[lines] != nullptr) {
    FreeBlock* block = free_[lines];
    free_[lines] = block->next;
    return block;
  }
  const size_t bytes = lines * kLine;
  while (left_ < bytes) {
    // What is left of the last chunk, under 3 % of it, goes unused.
    AddChunk();
  }
  void* block = next_;
  next_ += bytes;
  left_ -= bytes;
  return block;
}

void* BlockArena::Allocate(size_t bytes) {
  const size_t lines = LinesFor(bytes);
  void* block = kWatched ? ::operator new (lines* kLine, std::align_val_t{kLine}) : Take(lines);
  used_ += lines * kLine;
  if (kWatched) reserved_ = std::max(reserved_, used_);
  return block;
}

void BlockArena::Free(void* block, size_t bytes) {
  const size_t lines = LinesFor(bytes);
  used_ -= lines * kLine;
  if (kWatched) {
    ::operator delete (block, std::align_val_t{kLine});
    return;
  }
  if (free_.size() <= lines) free_.resize(lines + 1);
  free_[lines] = new (block) FreeBlock{free_[lines]};
}

}  // namespace ringsock
