// What one receiver of the load takes: counts the packets in the bytes that come, and looks closely
// at those of one in so many TLS records.
//
// Opening a record costs as much as the relay spends on it. But all frames of a run have one size,
// so how many came follows from the lengths of the records, which are not encrypted; only a sample
// is opened, which shows what was duplicated, reordered, misdelivered or damaged, and how long it
// took. Nor are the bytes of the others needed: where records are long the kernel throws them away
// instead of copying them, which on one machine would take them out of the relay's caches. Frames
// that are not packets (a keep-alive, say) shift the count by their bytes until the next opened
// record puts it right; a run meets one or two of them.
#ifndef RINGSOCK_BENCH_RELAY_STREAM_COUNTER_H_
#define RINGSOCK_BENCH_RELAY_STREAM_COUNTER_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "bench/relay/record_cipher.h"
#include "bench/sequence_tracker.h"
#include "bench/statistics.h"
#include "derp/frame.h"

namespace ringsock::bench {

struct StreamCounterConfig {
  static constexpr uint32_t kAnySender = UINT32_MAX;
  uint32_t size = 0;  // bytes of a packet
  derp::FrameType frame = derp::FrameType::kRecvPacket;
  uint32_t sender = 0;  // the one whose packets are to come here
  uint64_t run = 0;
  uint32_t check = 8;  // opens one record of so many; 1: all. Plain streams are read whole
};

struct StreamTotals {
  uint64_t packets = 0;  // whole ones
  uint64_t checked = 0;  // of them, looked at
  uint64_t duplicates = 0;
  uint64_t reordered = 0;
  uint64_t misdelivered = 0;
  uint64_t invalid = 0;  // frames and records that are not what the sender made
  uint64_t control = 0;  // other frames
  uint64_t resyncs = 0;  // times the place of the next frame had to be searched for

  StreamTotals& operator+=(const StreamTotals& other);
};

class StreamCounter {
 public:
  // `cipher` opens what comes, and outlives this; null: not TLS. `latency` may be shared, or null.
  StreamCounter(const StreamCounterConfig& config, RecordCipher* cipher, Histogram* latency);

  // Bytes in order as they came from the socket, in pieces of any size; they may be written to.
  // `now`, CLOCK_MONOTONIC nanoseconds; latencies are noted only with `record`.
  void OnBytes(std::span<std::byte> bytes, int64_t now, bool record);

  // What to read next. With `discard`: so many bytes that need not be looked at, for Discarded().
  // Else up to so many, for OnBytes().
  struct Read {
    size_t size;
    bool discard;
  };
  Read NextRead() const;
  void Discarded(size_t bytes) { skip_ -= bytes; }

  uint64_t packets() const { return totals_.packets; }
  StreamTotals Totals() const;

 private:
  bool FillCarry(std::span<std::byte>* bytes, size_t size);
  void OnRecord(std::span<std::byte> record);
  void OnPlaintext(std::span<const std::byte> bytes);
  void PassOver(size_t bytes);
  size_t OnFrame(std::span<const std::byte> bytes);
  void OnPacket(std::span<const std::byte> packet);
  bool IsOurs(std::span<const std::byte> frame) const;
  void EndFrame();

  const StreamCounterConfig config_;
  RecordCipher* const cipher_;
  Histogram* const latency_;
  const size_t frame_;
  int64_t now_ = 0;
  bool record_latency_ = false;
  uint32_t until_check_ = 0;
  size_t skip_ = 0;               // bytes of a record that is passed over, still to come
  size_t last_record_ = 0;        // its bytes
  std::vector<std::byte> carry_;  // the beginning of a header, or of a record to be opened
  size_t rest_ = 0;               // bytes of the frame that began, still to come
  bool rest_is_packet_ = false;
  SequenceTracker tracker_;
  StreamTotals totals_;
};

}  // namespace ringsock::bench

#endif  // RINGSOCK_BENCH_RELAY_STREAM_COUNTER_H_
