// Huge pages of either kind, or small ones.
#include "io/pinned_memory.h"

#include <sys/mman.h>

#include <algorithm>

// Linux 5.14; glibc 2.36 has no name for it.
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

namespace ringsock::io {
namespace {

std::byte* Map(size_t size, int flags) {
  void* memory =
      mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);
  return memory == MAP_FAILED ? nullptr : static_cast<std::byte*>(memory);
}

}  // namespace

PinnedMemory::PinnedMemory(size_t bytes, bool huge) {
  bytes = std::max<size_t>(bytes, 1);
  if (huge) {
    bytes = (bytes + kHugePage - 1) / kHugePage * kHugePage;
    if (bytes <= kMostReserved && MapReserved(bytes)) return;
    if (MapAligned(bytes)) return;
  }
  if (std::byte* memory = Map(bytes, 0)) bytes_ = mapping_ = {memory, bytes};
}

PinnedMemory::~PinnedMemory() {
  if (!mapping_.empty()) munmap(mapping_.data(), mapping_.size());
}

// They are touched here, because a control group may have fewer of them than the host: then the
// first touch is SIGBUS, and this call an error.
bool PinnedMemory::MapReserved(size_t size) {
  std::byte* memory = Map(size, MAP_HUGETLB);
  if (memory == nullptr) return false;
  if (madvise(memory, size, MADV_POPULATE_WRITE) != 0) {
    munmap(memory, size);
    return false;
  }
  bytes_ = mapping_ = {memory, size};
  pages_ = Pages::kReserved;
  return true;
}

bool PinnedMemory::MapAligned(size_t size) {
  std::byte* memory = Map(size + kHugePage, 0);
  if (memory == nullptr) return false;
  mapping_ = {memory, size + kHugePage};
  const size_t over = reinterpret_cast<uintptr_t>(memory) % kHugePage;
  bytes_ = {memory + (over == 0 ? 0 : kHugePage - over), size};
  if (madvise(bytes_.data(), size, MADV_HUGEPAGE) == 0) pages_ = Pages::kTransparent;
  return true;
}

int PinnedMemory::Register(io_uring* ring) {
  const iovec all{bytes_.data(), bytes_.size()};
  return -io_uring_register_buffers(ring, &all, 1);
}

}  // namespace ringsock::io
