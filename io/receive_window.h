// How many receive buffers are worth having in use at a time: as many as the cache holds. Long
// trains are received, sent and forgotten a few at a time; short ones by the dozen, since then it
// is the calls that cost.
#ifndef RINGSOCK_IO_RECEIVE_WINDOW_H_
#define RINGSOCK_IO_RECEIVE_WINDOW_H_

#include <algorithm>
#include <cstdint>

namespace ringsock::io {

class ReceiveWindow {
 public:
  // Bytes received before they are sent on. With fewer the calls cost (at 320 KiB 3 % of forwarding
  // trains of 46, 6 % of receiving them), with 2 MiB they have left the cache when bursts are long.
  static constexpr uint32_t kBytes = 1 << 20;
  static constexpr uint32_t kFewest = 4;

  // `most`: the buffers there are, at least 1.
  explicit ReceiveWindow(uint32_t most) : most_(most), size_(std::min(kFewest, most)) {}

  // A train of a batch.
  void Add(uint32_t bytes) {
    bytes_ += bytes;
    ++trains_;
  }
  // All of a batch has been added. Returns how many buffers to use from here on.
  uint32_t EndBatch() {
    if (trains_ == 0) return size_;
    // The last few batches count.
    average_ = static_cast<uint32_t>((uint64_t{average_} * 3 + bytes_ / trains_) / 4);
    size_ = std::min(most_, std::max(kFewest, kBytes / std::max(average_, 1u)));
    bytes_ = trains_ = 0;
    return size_;
  }
  uint32_t size() const { return size_; }

 private:
  const uint32_t most_;
  uint32_t average_ = 64 << 10;  // bytes of a train
  uint32_t size_;
  uint64_t bytes_ = 0;  // of this batch
  uint64_t trains_ = 0;
};

}  // namespace ringsock::io

#endif  // RINGSOCK_IO_RECEIVE_WINDOW_H_
