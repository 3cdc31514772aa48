// What one sender of the load says: SendPacket frames of one size to its receivers in turn, cut
// into TLS records that are as full as they can be.
#ifndef RINGSOCK_BENCH_RELAY_FRAME_BURST_H_
#define RINGSOCK_BENCH_RELAY_FRAME_BURST_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/key.h"
#include "bench/relay/record_cipher.h"
#include "derp/frame.h"

namespace ringsock::bench {

// The largest packet: a frame of it fits into one record.
inline constexpr uint32_t kMaxRelayPacket = kMaxRecordPlaintext - derp::kPacketHeaderSize;

class FrameBurst {
 public:
  // `sender`: its number, in every packet (WireHeader::receiver); `size`: bytes of a packet, from
  // sizeof(WireHeader) to kMaxRelayPacket. There is at least one destination.
  FrameBurst(uint32_t size, uint32_t sender, uint64_t run, std::vector<PublicKey> destinations);

  size_t frame_size() const { return frame_; }
  uint32_t sender() const { return sender_; }
  uint32_t frames_per_record() const { return per_record_; }
  // Bytes that `packets` frames may take in `out` of Append().
  size_t SealedSize(uint32_t packets) const;

  // Writes the next `packets` frames, stamped with `due` (CLOCK_MONOTONIC nanoseconds), to `out`
  // and returns how many bytes that is. Without a cipher they are written as they are.
  size_t Append(uint32_t packets, int64_t due, RecordCipher* cipher, std::byte* out);

  uint64_t packets() const { return packets_; }
  // To each destination, in the order given.
  const std::vector<uint64_t>& by_destination() const { return counters_; }

 private:
  void Fill(std::byte* frame, int64_t due);

  const uint32_t size_;
  const uint32_t frame_;
  const uint32_t per_record_;
  const uint32_t sender_;
  const uint64_t run_;
  const std::vector<PublicKey> destinations_;
  std::vector<uint64_t> counters_;
  size_t next_ = 0;  // destination
  uint64_t packets_ = 0;
  std::vector<std::byte> record_;  // plaintext of one, filled but for what changes
};

}  // namespace ringsock::bench

#endif  // RINGSOCK_BENCH_RELAY_FRAME_BURST_H_
