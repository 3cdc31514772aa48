// What one receiver of the load takes.
#include "bench/relay/stream_counter.h"

#include <algorithm>
#include <cstring>

#include "bench/wire.h"

namespace ringsock::bench {
namespace {

constexpr uint64_t kMaxControlPayload = 2048;
// Records of this length are worth a call of their own to be thrown away.
constexpr size_t kLongRecord = 8 << 10;
constexpr size_t kReadForHeader = 256;

size_t PayloadSize(std::span<const std::byte> header) {
  size_t size = 0;
  for (size_t i = 1; i < derp::kFrameHeaderSize; ++i) {
    size = size << 8 | std::to_integer<size_t>(header[i]);
  }
  return size;
}

}  // namespace

StreamTotals& StreamTotals::operator+=(const StreamTotals& other) {
  packets += other.packets;
  checked += other.checked;
  duplicates += other.duplicates;
  reordered += other.reordered;
  misdelivered += other.misdelivered;
  invalid += other.invalid;
  control += other.control;
  resyncs += other.resyncs;
  return *this;
}

StreamCounter::StreamCounter(const StreamCounterConfig& config, RecordCipher* cipher,
                             Histogram* latency)
    : config_(config),
      cipher_(cipher),
      latency_(latency),
      frame_(derp::kPacketHeaderSize + config.size) {}

StreamTotals StreamCounter::Totals() const {
  StreamTotals totals = totals_;
  totals.duplicates = tracker_.duplicates();
  totals.reordered = tracker_.reordered();
  return totals;
}

StreamCounter::Read StreamCounter::NextRead() const {
  if (skip_ >= kLongRecord / 2) return {skip_, true};
  if (cipher_ == nullptr || last_record_ < kLongRecord) return {SIZE_MAX, false};
  // One record, or the header of one.
  return {skip_ + kReadForHeader + (until_check_ > 0 ? 0 : last_record_), false};
}

// Moves bytes until carry_ has `size`; false if there are not enough.
bool StreamCounter::FillCarry(std::span<std::byte>* bytes, size_t size) {
  const size_t count = std::min(size - std::min(size, carry_.size()), bytes->size());
  carry_.insert(carry_.end(), bytes->begin(), bytes->begin() + static_cast<ptrdiff_t>(count));
  *bytes = bytes->subspan(count);
  return carry_.size() >= size;
}

void StreamCounter::OnBytes(std::span<std::byte> bytes, int64_t now, bool record) {
  now_ = now;
  record_latency_ = record;
  if (cipher_ == nullptr) return OnPlaintext(bytes);
  while (!bytes.empty()) {
    if (skip_ > 0) {
      const size_t count = std::min(skip_, bytes.size());
      skip_ -= count;
      bytes = bytes.subspan(count);
      continue;
    }
    // A header in pieces; else it is read where it lies.
    const bool in_place = carry_.empty() && bytes.size() >= kRecordHeader;
    if (!in_place && !FillCarry(&bytes, kRecordHeader)) return;
    const size_t size = kRecordHeader + RecordBody(in_place ? bytes : std::span(carry_));
    last_record_ = size;
    if (until_check_ > 0) {
      --until_check_;
      cipher_->Skip();
      PassOver(size - std::min(size, kRecordOverhead));
      skip_ = size - carry_.size();
      carry_.clear();
    } else if (in_place && bytes.size() >= size) {
      OnRecord(bytes.first(size));
      bytes = bytes.subspan(size);
    } else {
      if (!FillCarry(&bytes, size)) return;
      OnRecord(carry_);
      carry_.clear();
    }
  }
}

void StreamCounter::OnRecord(std::span<std::byte> record) {
  until_check_ = config_.check - 1;
  const RecordCipher::Opened opened = cipher_->Open(record);
  if (!opened.ok) {
    ++totals_.invalid;
  } else if (opened.type == kApplicationData) {
    OnPlaintext(opened.plaintext);
  }  // else a session ticket
}

void StreamCounter::EndFrame() {
  rest_ = 0;
  if (rest_is_packet_) ++totals_.packets;
}

// So many bytes of plaintext that nobody reads: packets, presumably.
void StreamCounter::PassOver(size_t bytes) {
  if (bytes < rest_) {
    rest_ -= bytes;
    return;
  }
  if (rest_ > 0) {
    bytes -= rest_;
    EndFrame();
  }
  totals_.packets += bytes / frame_;
  rest_ = bytes % frame_ == 0 ? 0 : frame_ - bytes % frame_;
  rest_is_packet_ = true;
}

void StreamCounter::OnPlaintext(std::span<const std::byte> bytes) {
  const size_t before = std::min(rest_, bytes.size());
  std::span<const std::byte> left = bytes.subspan(before);
  if (before > 0) {
    rest_ -= before;
    if (rest_ == 0) EndFrame();
  }
  while (!left.empty()) {
    // The end of the bytes cuts a header; what follows is a packet, presumably.
    if (left.size() < derp::kFrameHeaderSize) return PassOver(left.size());
    const size_t taken = OnFrame(left);
    if (taken == 0) {
      ++totals_.resyncs;
      // Nearly always found: the frames of a run look alike.
      size_t at = 1;
      while (at < left.size() && !IsOurs(left.subspan(at))) ++at;
      left = left.subspan(at);
      continue;
    }
    left = left.subspan(taken);
  }
}

// Whether a packet frame of this run begins here, as far as it can be seen.
bool StreamCounter::IsOurs(std::span<const std::byte> frame) const {
  if (frame.size() < derp::kPacketHeaderSize + sizeof(WireHeader)) return false;
  if (frame[0] != static_cast<std::byte>(config_.frame)) return false;
  if (PayloadSize(frame) != frame_ - derp::kFrameHeaderSize) return false;
  WireHeader header;
  std::memcpy(&header, frame.data() + derp::kPacketHeaderSize, sizeof(header));
  return header.type == 4 && header.run == config_.run;
}

// Takes a frame, or its beginning, from the front; returns how many bytes, 0 if there is none.
size_t StreamCounter::OnFrame(std::span<const std::byte> bytes) {
  const size_t size = derp::kFrameHeaderSize + PayloadSize(bytes);
  rest_is_packet_ = bytes[0] == static_cast<std::byte>(config_.frame) && size == frame_;
  if (rest_is_packet_) {
    if (bytes.size() >= derp::kPacketHeaderSize + sizeof(WireHeader)) {
      OnPacket(bytes.subspan(derp::kPacketHeaderSize));
    }
  } else {
    const auto type = std::to_integer<uint8_t>(bytes[0]);
    const bool known = derp::FrameName(static_cast<derp::FrameType>(type)) != "unknown";
    if (!known || size > derp::kFrameHeaderSize + kMaxControlPayload) return 0;
    ++totals_.control;
  }
  if (bytes.size() >= size) {
    EndFrame();
    return size;
  }
  rest_ = size - bytes.size();
  return bytes.size();
}

void StreamCounter::OnPacket(std::span<const std::byte> packet) {
  WireHeader header;
  std::memcpy(&header, packet.data(), sizeof(header));
  ++totals_.checked;
  if (header.type != 4 || header.run != config_.run) {
    ++totals_.invalid;
    return;
  }
  if (config_.sender == StreamCounterConfig::kAnySender) return;
  if (header.receiver != config_.sender) {
    ++totals_.misdelivered;
    return;
  }
  tracker_.OnPackets(header.counter, 1);
  if (record_latency_ && latency_ != nullptr) {
    latency_->Record(static_cast<uint64_t>(std::max<int64_t>(0, now_ - header.stamp)));
  }
}

}  // namespace ringsock::bench
