// Whole frames from one worker to another: a ring of bytes with one writer and one reader, no lock
// and no allocation. What a turn wrote is shown to the reader at once, by Publish().
#ifndef RINGSOCK_RELAY_FRAME_RING_H_
#define RINGSOCK_RELAY_FRAME_RING_H_

#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>

#include "base/spsc_ring.h"
#include "derp/frame.h"

namespace ringsock::relay {

class FrameRing {
 public:
  // Where a frame goes: a connection of the reading worker.
  struct Target {
    uint32_t slot = 0;
    uint32_t generation = 0;
  };

  // Rounded up to a power of two, at least 256 KiB, so that the longest frame fits.
  explicit FrameRing(size_t bytes)
      : size_(std::bit_ceil(bytes < kMinSize ? kMinSize : bytes)),
        // Not cleared: memory that is never used is never touched.
        data_(new (std::align_val_t{kAlign}) std::byte[size_]) {}

  // Writer: false if there is no room.
  bool Write(const Target& target, derp::Bytes first, derp::Bytes second) {
    const size_t size = first.size() + second.size();
    const size_t need = Padded(sizeof(Header) + size);
    size_t at = written_ & (size_ - 1);
    const size_t skip = size_ - at < need ? size_ - at : 0;  // frames are contiguous
    if (!HasRoom(skip + need)) return false;
    if (skip > 0) {
      Put(at, {kSkip, {}});
      written_ += skip;
      at = 0;
    }
    Put(at, {static_cast<uint32_t>(size), target});
    std::byte* out = data_.get() + at + sizeof(Header);
    memcpy(out, first.data(), first.size());
    if (!second.empty()) memcpy(out + first.size(), second.data(), second.size());
    written_ += need;
    return true;
  }
  // Writer: shows what was written. False if that was nothing.
  bool Publish() {
    if (tail_.load(std::memory_order_relaxed) == written_) return false;
    tail_.store(written_, std::memory_order_release);
    return true;
  }

  // Reader: calls `take(Target, derp::MutableBytes)` for each frame there is, in order.
  template <typename Take>
  void Drain(Take&& take) {
    size_t head = head_.load(std::memory_order_relaxed);
    const size_t tail = tail_.load(std::memory_order_acquire);
    while (head != tail) {
      const size_t at = head & (size_ - 1);
      Header header;
      memcpy(&header, data_.get() + at, sizeof header);
      if (header.size == kSkip) {
        head += size_ - at;
        continue;
      }
      take(header.target, derp::MutableBytes(data_.get() + at + sizeof header, header.size));
      head += Padded(sizeof header + header.size);
    }
    head_.store(head, std::memory_order_release);
  }

 private:
  static constexpr size_t kMinSize = 256 << 10;
  static constexpr size_t kAlign = 64;
  static constexpr uint32_t kSkip = UINT32_MAX;  // the rest, up to the end of the memory, is unused

  struct Header {
    uint32_t size;
    Target target;
  };
  struct Delete {
    void operator()(std::byte* data) const { operator delete[](data, std::align_val_t{kAlign}); }
  };
  // Keeps every header aligned, and room for one at the end of the memory.
  static constexpr size_t Padded(size_t size) { return (size + 15) & ~size_t{15}; }

  bool HasRoom(size_t need) {
    if (written_ + need - head_seen_ <= size_) return true;
    head_seen_ = head_.load(std::memory_order_acquire);
    return written_ + need - head_seen_ <= size_;
  }
  void Put(size_t at, const Header& header) { memcpy(data_.get() + at, &header, sizeof header); }

  const size_t size_;
  const std::unique_ptr<std::byte[], Delete> data_;
  alignas(kCacheLine) std::atomic<size_t> tail_{0};
  size_t written_ = 0;    // writer's
  size_t head_seen_ = 0;  // writer's
  alignas(kCacheLine) std::atomic<size_t> head_{0};
};

}  // namespace ringsock::relay

#endif  // RINGSOCK_RELAY_FRAME_RING_H_
