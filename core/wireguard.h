// What the engine may know of a packet: its first bytes. WireGuard's message type and indices (all
// little endian) and whether a datagram is STUN; the same questions asked of a whole train.
#ifndef RINGSOCK_CORE_WIREGUARD_H_
#define RINGSOCK_CORE_WIREGUARD_H_

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>

namespace ringsock {

static_assert(std::endian::native == std::endian::little, "fields are read as the host's integers");

// First four bytes of a WireGuard message (WireGuard paper, section 5.4; spec: SEND-1).
enum class MessageType : uint32_t {
  kNone = 0,  // shorter than four bytes
  kInitiation = 1,
  kResponse = 2,
  kCookieReply = 3,
  kTransport = 4,
};

// RFC 8489, section 5: a header of 20 bytes with the magic cookie at offset 4.
inline constexpr size_t kStunHeaderSize = 20;
inline constexpr uint32_t kStunMagicCookie = 0x2112A442;

// "There is no such packet in the train."
inline constexpr uint32_t kNoPacket = UINT32_MAX;

namespace internal {

inline uint32_t LoadWord(const std::byte* data) {
  uint32_t word;
  std::memcpy(&word, data, sizeof(word));
  return word;
}

// The cookie as it looks when read as a little-endian word.
inline constexpr uint32_t kStunCookieWord = __builtin_bswap32(kStunMagicCookie);

inline bool IsHandshakeWord(uint32_t first) { return first - 1 <= 2; }
inline bool IsStunWords(uint32_t first, uint32_t second) {
  return second == kStunCookieWord && (first & 0xc0) == 0;
}

}  // namespace internal

// Any value may come back: the bytes are the network's.
inline MessageType TypeOf(const std::byte* packet, size_t size) {
  if (size < sizeof(uint32_t)) return MessageType::kNone;
  return static_cast<MessageType>(internal::LoadWord(packet));
}

// Types 1, 2 and 3, which are sprayed. Shorter than four bytes: never (spec: SEND-1, SEND-2).
inline bool IsHandshake(const std::byte* packet, size_t size) {
  return size >= sizeof(uint32_t) && internal::IsHandshakeWord(internal::LoadWord(packet));
}

// STUN, by the rule of RECV-1. A WireGuard message whose index field happens to be the cookie (one
// session in 2^32) is STUN by this rule too.
inline bool IsStun(const std::byte* packet, size_t size) {
  return size >= kStunHeaderSize &&
         internal::IsStunWords(internal::LoadWord(packet), internal::LoadWord(packet + 4));
}

// Who sent it, as the sender numbers sessions: in types 1 and 2.
inline std::optional<uint32_t> SenderIndex(const std::byte* packet, size_t size) {
  const MessageType type = TypeOf(packet, size);
  if (size < 8) return std::nullopt;
  if (type != MessageType::kInitiation && type != MessageType::kResponse) return std::nullopt;
  return internal::LoadWord(packet + 4);
}

// For whom it is, as the receiver numbers sessions: in types 2, 3 and 4.
inline std::optional<uint32_t> ReceiverIndex(const std::byte* packet, size_t size) {
  const MessageType type = TypeOf(packet, size);
  if (type == MessageType::kResponse) {
    if (size < 12) return std::nullopt;
    return internal::LoadWord(packet + 8);
  }
  if (type != MessageType::kCookieReply && type != MessageType::kTransport) return std::nullopt;
  if (size < 8) return std::nullopt;
  return internal::LoadWord(packet + 4);
}

// Index of the first handshake packet of a train at or after packet `first`, else kNoPacket. The
// train is `size` bytes of packets of `segment_size` bytes, the last of which may be shorter;
// segment_size 0 or larger than `size` means one packet.
inline uint32_t FindHandshake(const std::byte* data, size_t size, size_t segment_size,
                              uint32_t first = 0) {
  if (segment_size == 0 || segment_size > size) segment_size = size;
  if (segment_size < sizeof(uint32_t)) return kNoPacket;
  uint32_t index = first;
  for (size_t at = first * segment_size; at + sizeof(uint32_t) <= size; at += segment_size) {
    if (internal::IsHandshakeWord(internal::LoadWord(data + at))) [[unlikely]]
      return index;
    ++index;
  }
  return kNoPacket;
}

// Index of the first STUN packet of a train at or after packet `first`, else kNoPacket. Arguments
// as above.
inline uint32_t FindStun(const std::byte* data, size_t size, size_t segment_size,
                         uint32_t first = 0) {
  if (segment_size == 0 || segment_size > size) segment_size = size;
  if (segment_size < kStunHeaderSize) return kNoPacket;
  uint32_t index = first;
  for (size_t at = first * segment_size; at + kStunHeaderSize <= size; at += segment_size) {
    // The cookie first: nothing but STUN has it, so the branch is never taken for other traffic.
    if (internal::LoadWord(data + at + 4) == internal::kStunCookieWord) [[unlikely]] {
      if (internal::IsStunWords(internal::LoadWord(data + at), internal::kStunCookieWord)) {
        return index;
      }
    }
    ++index;
  }
  return kNoPacket;
}

}  // namespace ringsock

#endif  // RINGSOCK_CORE_WIREGUARD_H_
