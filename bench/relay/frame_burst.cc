// What one sender of the load says.
#include "bench/relay/frame_burst.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "bench/wire.h"

namespace ringsock::bench {

FrameBurst::FrameBurst(uint32_t size, uint32_t sender, uint64_t run,
                       std::vector<PublicKey> destinations)
    : size_(size),
      frame_(static_cast<uint32_t>(derp::kPacketHeaderSize) + size),
      per_record_(static_cast<uint32_t>(kMaxRecordPlaintext) / frame_),
      sender_(sender),
      run_(run),
      destinations_(std::move(destinations)),
      counters_(destinations_.size(), 0),
      record_(size_t{per_record_} * frame_, std::byte{0x5a}) {
  for (uint32_t i = 0; i < per_record_; ++i) {
    std::byte* frame = &record_[size_t{i} * frame_];
    derp::EncodeSendPacketHeader(
        destinations_[0], size_,
        std::span<std::byte, derp::kPacketHeaderSize>(frame, derp::kPacketHeaderSize));
    const WireHeader header{.receiver = sender_, .run = run_};
    std::memcpy(frame + derp::kPacketHeaderSize, &header, sizeof(header));
  }
}

size_t FrameBurst::SealedSize(uint32_t packets) const {
  const size_t records = (packets + per_record_ - 1) / per_record_;
  return size_t{packets} * frame_ + records * kRecordOverhead;
}

// Only what differs from the frame that was here before.
void FrameBurst::Fill(std::byte* frame, int64_t due) {
  if (destinations_.size() > 1) {
    std::memcpy(frame + derp::kFrameHeaderSize, destinations_[next_].bytes.data(), kKeySize);
  }
  std::byte* header = frame + derp::kPacketHeaderSize;
  std::memcpy(header + offsetof(WireHeader, counter), &counters_[next_], sizeof(uint64_t));
  std::memcpy(header + offsetof(WireHeader, stamp), &due, sizeof(due));
  ++counters_[next_];
  if (++next_ == destinations_.size()) next_ = 0;
}

size_t FrameBurst::Append(uint32_t packets, int64_t due, RecordCipher* cipher, std::byte* out) {
  size_t written = 0;
  packets_ += packets;
  while (packets > 0) {
    const uint32_t count = std::min(packets, per_record_);
    for (uint32_t i = 0; i < count; ++i) Fill(&record_[size_t{i} * frame_], due);
    const std::span<const std::byte> plaintext(record_.data(), size_t{count} * frame_);
    if (cipher != nullptr) {
      written += cipher->Seal(plaintext, out + written);
    } else {
      std::memcpy(out + written, plaintext.data(), plaintext.size());
      written += plaintext.size();
    }
    packets -= count;
  }
  return written;
}

}  // namespace ringsock::bench
