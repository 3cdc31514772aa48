// The memory of a loop that the kernel may read long after a send has returned: its slabs and its
// receive buffers, in one mapping, so that one registration covers all of them.
//
// Sending without a copy pins pages. Pages of 2 MiB are 512 times fewer, and registered memory is
// pinned once instead of at each send: a train of 46 full-size packets to a device cost 0.80 of a
// copied one without either, 0.64 with both.
#ifndef RINGSOCK_IO_PINNED_MEMORY_H_
#define RINGSOCK_IO_PINNED_MEMORY_H_

#include <liburing.h>

#include <cstddef>
#include <cstdint>
#include <span>

namespace ringsock::io {

// For one thread. Pages are touched when they are first used, or by Register().
class PinnedMemory {
 public:
  enum class Pages : uint8_t {
    kSmall,
    kTransparent,  // huge where the kernel finds some (MADV_HUGEPAGE)
    kReserved,     // huge, of those set aside by sysctl vm.nr_hugepages
  };
  static constexpr size_t kHugePage = 2 << 20;
  // No more than this is taken of the reserved huge pages, which others may be waiting for.
  static constexpr size_t kMostReserved = 64 << 20;

  // `huge`: in huge pages if there are any, rounded up to whole ones. No memory leaves it empty.
  PinnedMemory(size_t bytes, bool huge);
  ~PinnedMemory();
  PinnedMemory(const PinnedMemory&) = delete;
  PinnedMemory& operator=(const PinnedMemory&) = delete;

  std::span<std::byte> bytes() const { return bytes_; }
  Pages pages() const { return pages_; }

  // Makes it the only registered buffer of `ring`, number 0. Returns 0, or a positive errno: ENOMEM
  // is over RLIMIT_MEMLOCK.
  int Register(io_uring* ring);

 private:
  bool MapReserved(size_t size);
  bool MapAligned(size_t size);

  std::span<std::byte> bytes_;
  std::span<std::byte> mapping_;  // with what alignment cost
  Pages pages_ = Pages::kSmall;
};

}  // namespace ringsock::io

#endif  // RINGSOCK_IO_PINNED_MEMORY_H_
