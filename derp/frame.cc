#include "derp/frame.h"

#include <algorithm>
#include <cstring>

namespace ringsock::derp {
namespace {

// "DERP" and U+1F511, a key, in UTF-8.
constexpr std::array<uint8_t, 8> kMagic = {0x44, 0x45, 0x52, 0x50, 0xf0, 0x9f, 0x94, 0x91};

// Room left to frames whose known payload is small, for fields to come.
constexpr uint32_t kMaxSmall = 1024;
// The reference takes no ping over this.
constexpr uint32_t kMaxPing = 1000;
// Two box overheads and JSON with two numbers; the reference bounds it by the frame alone.
constexpr uint32_t kMaxServerInfo = 64u << 10;
// A sentence for a person.
constexpr uint32_t kMaxHealth = 4096;
constexpr uint32_t kMaxPacketPayload = kKeySize + kMaxPacket;
constexpr uint32_t kNotThisWay = UINT32_MAX;

struct TypeInfo {
  FrameType type;
  const char* name;
  uint32_t max_to_client;
  uint32_t max_to_server;
};

constexpr TypeInfo kTypes[] = {
    {FrameType::kServerKey, "ServerKey", kMaxSmall, kNotThisWay},
    {FrameType::kClientInfo, "ClientInfo", kNotThisWay, kMaxClientInfo},
    {FrameType::kServerInfo, "ServerInfo", kMaxServerInfo, kNotThisWay},
    {FrameType::kSendPacket, "SendPacket", kNotThisWay, kMaxPacketPayload},
    {FrameType::kRecvPacket, "RecvPacket", kMaxPacketPayload, kNotThisWay},
    {FrameType::kKeepAlive, "KeepAlive", kMaxSmall, kNotThisWay},
    {FrameType::kNotePreferred, "NotePreferred", kNotThisWay, kMaxSmall},
    {FrameType::kPeerGone, "PeerGone", kMaxSmall, kNotThisWay},
    {FrameType::kPeerPresent, "PeerPresent", kMaxSmall, kNotThisWay},
    {FrameType::kForwardPacket, "ForwardPacket", kNotThisWay, kKeySize + kMaxPacketPayload},
    {FrameType::kWatchConns, "WatchConns", kNotThisWay, kMaxSmall},
    {FrameType::kClosePeer, "ClosePeer", kNotThisWay, kMaxSmall},
    {FrameType::kPing, "Ping", kMaxPing, kMaxPing},
    {FrameType::kPong, "Pong", kMaxPing, kMaxPing},
    {FrameType::kHealth, "Health", kMaxHealth, kNotThisWay},
    {FrameType::kRestarting, "Restarting", kMaxSmall, kNotThisWay},
};

using BoundTable = std::array<uint32_t, 256>;

constexpr BoundTable MakeBounds(Direction direction) {
  BoundTable bounds{};
  bounds.fill(kNotThisWay);
  for (const TypeInfo& info : kTypes) {
    bounds[static_cast<uint8_t>(info.type)] =
        direction == Direction::kToClient ? info.max_to_client : info.max_to_server;
  }
  return bounds;
}

constexpr BoundTable kBounds[2] = {MakeBounds(Direction::kToClient),
                                   MakeBounds(Direction::kToServer)};

uint32_t Bound(Direction direction, uint8_t type) {
  return kBounds[static_cast<size_t>(direction)][type];
}

// Which way a type flows, to bound what is encoded. Pings have one bound both ways.
uint32_t EncodeBound(FrameType type) {
  const auto index = static_cast<uint8_t>(type);
  const uint32_t to_server = Bound(Direction::kToServer, index);
  return to_server != kNotThisWay ? to_server : Bound(Direction::kToClient, index);
}

uint32_t LoadU32(const std::byte* at) {
  return std::to_integer<uint32_t>(at[0]) << 24 | std::to_integer<uint32_t>(at[1]) << 16 |
         std::to_integer<uint32_t>(at[2]) << 8 | std::to_integer<uint32_t>(at[3]);
}

std::byte* StoreU32(uint32_t value, std::byte* at) {
  at[0] = static_cast<std::byte>(value >> 24);
  at[1] = static_cast<std::byte>(value >> 16);
  at[2] = static_cast<std::byte>(value >> 8);
  at[3] = static_cast<std::byte>(value);
  return at + 4;
}

std::byte* StoreHeader(FrameType type, size_t payload, std::byte* at) {
  *at = static_cast<std::byte>(type);
  return StoreU32(static_cast<uint32_t>(payload), at + 1);
}

std::byte* StoreKey(const PublicKey& key, std::byte* at) {
  std::memcpy(at, key.bytes.data(), kKeySize);
  return at + kKeySize;
}

std::byte* StoreBytes(Bytes bytes, std::byte* at) {
  if (!bytes.empty()) std::memcpy(at, bytes.data(), bytes.size());
  return at + bytes.size();
}

void LoadKey(Bytes from, PublicKey* key) { std::memcpy(key->bytes.data(), from.data(), kKeySize); }

// Where the payload goes, its header written; null if the frame does not fit.
std::byte* Begin(FrameType type, size_t payload, MutableBytes out) {
  if (payload > EncodeBound(type) || out.size() < kFrameHeaderSize + payload) return nullptr;
  return StoreHeader(type, payload, out.data());
}

size_t EncodeEmpty(FrameType type, MutableBytes out) {
  return Begin(type, 0, out) == nullptr ? 0 : kFrameHeaderSize;
}

size_t EncodeBytes(FrameType type, Bytes payload, MutableBytes out) {
  std::byte* at = Begin(type, payload.size(), out);
  if (at == nullptr) return 0;
  StoreBytes(payload, at);
  return kFrameHeaderSize + payload.size();
}

size_t EncodeKeyed(FrameType type, const PublicKey& key, Bytes rest, MutableBytes out) {
  std::byte* at = Begin(type, kKeySize + rest.size(), out);
  if (at == nullptr) return 0;
  StoreBytes(rest, StoreKey(key, at));
  return kPacketHeaderSize + rest.size();
}

bool ParseKeyed(Bytes payload, PublicKey* key, Bytes* rest) {
  if (payload.size() < kKeySize) return false;
  LoadKey(payload, key);
  *rest = payload.subspan(kKeySize);
  return true;
}

bool ParsePingData(Bytes payload, PingData* data) {
  if (payload.size() < data->size()) return false;
  std::copy_n(payload.begin(), data->size(), data->begin());
  return true;
}

}  // namespace

absl::string_view FrameName(FrameType type) {
  for (const TypeInfo& info : kTypes) {
    if (info.type == type) return info.name;
  }
  return "unknown";
}

std::optional<uint32_t> MaxPayload(Direction direction, FrameType type) {
  const uint32_t bound = Bound(direction, static_cast<uint8_t>(type));
  if (bound == kNotThisWay) return std::nullopt;
  return bound;
}

bool Parse(Bytes payload, ServerKeyFrame* out) {
  if (payload.size() < kMagic.size() + kKeySize) return false;
  if (std::memcmp(payload.data(), kMagic.data(), kMagic.size()) != 0) return false;
  LoadKey(payload.subspan(kMagic.size()), &out->key);
  return true;
}

bool Parse(Bytes payload, ClientInfoFrame* out) {
  return ParseKeyed(payload, &out->key, &out->sealed);
}

bool Parse(Bytes payload, ServerInfoFrame* out) {
  out->sealed = payload;
  return true;
}

bool Parse(Bytes payload, SendPacketFrame* out) {
  return ParseKeyed(payload, &out->destination, &out->packet) && out->packet.size() <= kMaxPacket;
}

bool Parse(Bytes payload, RecvPacketFrame* out) {
  return ParseKeyed(payload, &out->source, &out->packet) && out->packet.size() <= kMaxPacket;
}

bool Parse(Bytes, KeepAliveFrame*) { return true; }

bool Parse(Bytes payload, NotePreferredFrame* out) {
  if (payload.empty()) return false;
  out->preferred = payload[0] != std::byte{0};
  return true;
}

bool Parse(Bytes payload, PeerGoneFrame* out) {
  Bytes rest;
  if (!ParseKeyed(payload, &out->peer, &rest)) return false;
  // Relays of before 2022 send no reason.
  out->reason = rest.empty() ? PeerGoneReason::kDisconnected : static_cast<PeerGoneReason>(rest[0]);
  return true;
}

bool Parse(Bytes payload, PeerPresentFrame* out) {
  Bytes rest;
  if (!ParseKeyed(payload, &out->peer, &rest)) return false;
  out->endpoint.reset();
  out->flags.reset();
  constexpr size_t kAddress = 16;
  if (rest.size() < kAddress + 2) return true;
  Endpoint endpoint;
  std::memcpy(endpoint.ip.bytes.data(), rest.data(), kAddress);
  endpoint.port = static_cast<uint16_t>(std::to_integer<unsigned>(rest[kAddress]) << 8 |
                                        std::to_integer<unsigned>(rest[kAddress + 1]));
  out->endpoint = endpoint;
  if (rest.size() > kAddress + 2) out->flags = std::to_integer<uint8_t>(rest[kAddress + 2]);
  return true;
}

bool Parse(Bytes payload, ForwardPacketFrame* out) {
  Bytes rest;
  return ParseKeyed(payload, &out->source, &rest) &&
         ParseKeyed(rest, &out->destination, &out->packet) && out->packet.size() <= kMaxPacket;
}

bool Parse(Bytes, WatchConnsFrame*) { return true; }

bool Parse(Bytes payload, ClosePeerFrame* out) {
  Bytes rest;
  return ParseKeyed(payload, &out->peer, &rest);
}

bool Parse(Bytes payload, PingFrame* out) { return ParsePingData(payload, &out->data); }

bool Parse(Bytes payload, PongFrame* out) { return ParsePingData(payload, &out->data); }

bool Parse(Bytes payload, HealthFrame* out) {
  out->problem = absl::string_view(reinterpret_cast<const char*>(payload.data()), payload.size());
  return true;
}

bool Parse(Bytes payload, RestartingFrame* out) {
  if (payload.size() < 8) return false;
  out->reconnect_in = std::chrono::milliseconds(LoadU32(payload.data()));
  out->try_for = std::chrono::milliseconds(LoadU32(payload.data() + 4));
  return true;
}

size_t Encode(const ServerKeyFrame& frame, MutableBytes out) {
  constexpr size_t kPayload = kMagic.size() + kKeySize;
  std::byte* at = Begin(FrameType::kServerKey, kPayload, out);
  if (at == nullptr) return 0;
  StoreKey(frame.key, StoreBytes(std::as_bytes(std::span(kMagic)), at));
  return kFrameHeaderSize + kPayload;
}

size_t Encode(const ClientInfoFrame& frame, MutableBytes out) {
  return EncodeKeyed(FrameType::kClientInfo, frame.key, frame.sealed, out);
}

size_t Encode(const ServerInfoFrame& frame, MutableBytes out) {
  return EncodeBytes(FrameType::kServerInfo, frame.sealed, out);
}

size_t Encode(const SendPacketFrame& frame, MutableBytes out) {
  return EncodeKeyed(FrameType::kSendPacket, frame.destination, frame.packet, out);
}

size_t Encode(const RecvPacketFrame& frame, MutableBytes out) {
  return EncodeKeyed(FrameType::kRecvPacket, frame.source, frame.packet, out);
}

size_t Encode(const KeepAliveFrame&, MutableBytes out) {
  return EncodeEmpty(FrameType::kKeepAlive, out);
}

size_t Encode(const NotePreferredFrame& frame, MutableBytes out) {
  const std::byte value{static_cast<uint8_t>(frame.preferred ? 1 : 0)};
  return EncodeBytes(FrameType::kNotePreferred, Bytes(&value, 1), out);
}

size_t Encode(const PeerGoneFrame& frame, MutableBytes out) {
  const auto reason = static_cast<std::byte>(frame.reason);
  return EncodeKeyed(FrameType::kPeerGone, frame.peer, Bytes(&reason, 1), out);
}

size_t Encode(const PeerPresentFrame& frame, MutableBytes out) {
  std::array<std::byte, 19> rest;
  size_t size = 0;
  if (frame.endpoint.has_value()) {
    std::memcpy(rest.data(), frame.endpoint->ip.bytes.data(), 16);
    rest[16] = static_cast<std::byte>(frame.endpoint->port >> 8);
    rest[17] = static_cast<std::byte>(frame.endpoint->port);
    rest[18] = static_cast<std::byte>(frame.flags.value_or(0));
    size = frame.flags.has_value() ? 19 : 18;
  }
  return EncodeKeyed(FrameType::kPeerPresent, frame.peer, Bytes(rest.data(), size), out);
}

size_t Encode(const ForwardPacketFrame& frame, MutableBytes out) {
  const size_t payload = 2 * kKeySize + frame.packet.size();
  std::byte* at = Begin(FrameType::kForwardPacket, payload, out);
  if (at == nullptr) return 0;
  StoreBytes(frame.packet, StoreKey(frame.destination, StoreKey(frame.source, at)));
  return kFrameHeaderSize + payload;
}

size_t Encode(const WatchConnsFrame&, MutableBytes out) {
  return EncodeEmpty(FrameType::kWatchConns, out);
}

size_t Encode(const ClosePeerFrame& frame, MutableBytes out) {
  return EncodeKeyed(FrameType::kClosePeer, frame.peer, {}, out);
}

size_t Encode(const PingFrame& frame, MutableBytes out) {
  return EncodeBytes(FrameType::kPing, frame.data, out);
}

size_t Encode(const PongFrame& frame, MutableBytes out) {
  return EncodeBytes(FrameType::kPong, frame.data, out);
}

size_t Encode(const HealthFrame& frame, MutableBytes out) {
  return EncodeBytes(FrameType::kHealth,
                     std::as_bytes(std::span(frame.problem.data(), frame.problem.size())), out);
}

size_t Encode(const RestartingFrame& frame, MutableBytes out) {
  std::array<std::byte, 8> payload;
  const auto clamp = [](std::chrono::milliseconds value) {
    return static_cast<uint32_t>(std::clamp<int64_t>(value.count(), 0, UINT32_MAX));
  };
  StoreU32(clamp(frame.try_for), StoreU32(clamp(frame.reconnect_in), payload.data()));
  return EncodeBytes(FrameType::kRestarting, payload, out);
}

void EncodeSendPacketHeader(const PublicKey& destination, size_t packet_size,
                            std::span<std::byte, kPacketHeaderSize> out) {
  StoreKey(destination, StoreHeader(FrameType::kSendPacket, kKeySize + packet_size, out.data()));
}

void EncodeRecvPacketHeader(const PublicKey& source, size_t packet_size,
                            std::span<std::byte, kPacketHeaderSize> out) {
  StoreKey(source, StoreHeader(FrameType::kRecvPacket, kKeySize + packet_size, out.data()));
}

void EncodeForwardPacketHeader(const PublicKey& source, const PublicKey& destination,
                               size_t packet_size, std::span<std::byte, kForwardHeaderSize> out) {
  std::byte* at = StoreHeader(FrameType::kForwardPacket, 2 * kKeySize + packet_size, out.data());
  StoreKey(destination, StoreKey(source, at));
}

void TurnIntoRecv(const Frame& send_packet, const PublicKey& source) {
  send_packet.bytes[0] = static_cast<std::byte>(FrameType::kRecvPacket);
  StoreKey(source, send_packet.bytes.data() + kFrameHeaderSize);
}

namespace {

// A buffer up to this size is kept for the next frame that straddles two reads: room for a packet
// of an Ethernet link. Idle connections count in memory, so a larger one goes back at once.
constexpr size_t kKeptCapacity = 2048;

}  // namespace

FrameDecoder::Verdict FrameDecoder::Judge(const std::byte* header, Frame* frame) {
  const uint32_t length = LoadU32(header + 1);
  frame->type = static_cast<FrameType>(header[0]);
  if (length > kMaxFramePayload) return Verdict::kTooLong;
  const auto type = std::to_integer<uint8_t>(header[0]);
  const uint32_t bound = Bound(direction_, type);
  const bool refused = (refused_ & RefusedBit(type)) != 0;
  if (length <= bound && bound != kNotThisWay && !refused) return Verdict::kKeep;
  skip_ = length;
  if (refused) return Verdict::kRefused;
  if (bound == kNotThisWay) {
    ++counters_.skipped_unknown;
    return Verdict::kSkip;
  }
  ++counters_.skipped_oversized;
  return Verdict::kOversized;
}

void FrameDecoder::DropDelivered() {
  if (!delivered_) return;
  delivered_ = false;
  if (buffer_.capacity() > kKeptCapacity) {
    buffer_ = {};
  } else {
    buffer_.clear();
  }
}

// Moves bytes from the input until the buffer holds `size`. False if there are too few.
bool FrameDecoder::Fill(size_t size, MutableBytes* input) {
  const size_t take = std::min(size - buffer_.size(), input->size());
  buffer_.insert(buffer_.end(), input->begin(), input->begin() + take);
  *input = input->subspan(take);
  counters_.copied_bytes += take;
  return buffer_.size() == size;
}

FrameDecoder::Result FrameDecoder::Next(MutableBytes* input, Frame* frame) {
  if (failed_) return Result::kTooLong;
  DropDelivered();
  while (true) {
    if (skip_ > 0) {
      const size_t take = std::min<size_t>(skip_, input->size());
      *input = input->subspan(take);
      skip_ -= static_cast<uint32_t>(take);
      if (skip_ > 0) return Result::kNeedMore;
    }
    // The header is looked at where it lies if it can be.
    const bool in_place = buffer_.empty() && input->size() >= kFrameHeaderSize;
    if (!in_place && buffer_.size() < kFrameHeaderSize && !Fill(kFrameHeaderSize, input)) {
      return Result::kNeedMore;
    }
    const std::byte* header = in_place ? input->data() : buffer_.data();
    const Verdict verdict = Judge(header, frame);
    if (verdict == Verdict::kTooLong) {
      failed_ = true;
      buffer_ = {};
      return Result::kTooLong;
    }
    if (verdict != Verdict::kKeep) {
      if (in_place) *input = input->subspan(kFrameHeaderSize);
      buffer_.clear();
      if (verdict == Verdict::kOversized) return Result::kOversized;
      if (verdict == Verdict::kRefused) return Result::kRefused;
      continue;
    }
    const size_t size = kFrameHeaderSize + LoadU32(header + 1);
    if (in_place && input->size() >= size) {
      frame->bytes = input->first(size);
      *input = input->subspan(size);
    } else {
      if (!Fill(size, input)) return Result::kNeedMore;
      frame->bytes = MutableBytes(buffer_);
      delivered_ = true;
    }
    ++counters_.frames;
    return Result::kFrame;
  }
}

void FrameDecoder::Trim() {
  DropDelivered();
  if (buffer_.empty()) buffer_ = {};
}

}  // namespace ringsock::derp
