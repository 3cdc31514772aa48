// What the gateway may read of a WireGuard message: its type, and the session indices in clear.
// Layout: WireGuard white paper, section 5.4; all integers little endian.
#ifndef RINGSOCK_GATEWAY_WIREGUARD_MESSAGE_H_
#define RINGSOCK_GATEWAY_WIREGUARD_MESSAGE_H_

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

namespace ringsock::gateway {

enum class MessageType : uint8_t {
  kOther = 0,  // no message of WireGuard
  kInitiation = 1,
  kResponse = 2,
  kCookieReply = 3,
  kTransport = 4,
};

inline constexpr size_t kInitiationSize = 148;
inline constexpr size_t kResponseSize = 92;
inline constexpr size_t kCookieReplySize = 64;
// Header of 16 bytes and tag of 16; the payload is padded to a multiple of 16.
inline constexpr size_t kMinTransportSize = 32;

inline uint32_t LoadLe32(const std::byte* bytes) {
  static_assert(std::endian::native == std::endian::little);
  uint32_t value;
  std::memcpy(&value, bytes, sizeof(value));
  return value;
}

// The type, if the size fits it too.
inline MessageType TypeOf(std::span<const std::byte> message) {
  if (message.size() < kMinTransportSize) return MessageType::kOther;
  switch (LoadLe32(message.data())) {
    case 1:
      return message.size() == kInitiationSize ? MessageType::kInitiation : MessageType::kOther;
    case 2:
      return message.size() == kResponseSize ? MessageType::kResponse : MessageType::kOther;
    case 3:
      return message.size() == kCookieReplySize ? MessageType::kCookieReply : MessageType::kOther;
    case 4:
      return message.size() % 16 == 0 ? MessageType::kTransport : MessageType::kOther;
    default:
      return MessageType::kOther;
  }
}

inline bool IsHandshake(MessageType type) {
  return type == MessageType::kInitiation || type == MessageType::kResponse;
}

// True if a message of this size may be other than transport data.
inline bool MayBeHandshakeSize(size_t size) {
  return size == kInitiationSize || size == kResponseSize || size == kCookieReplySize;
}

// The index that the sender of a handshake message chose for the session. The message is a whole
// one of that type.
inline uint32_t SenderIndex(std::span<const std::byte> handshake) {
  return LoadLe32(handshake.data() + 4);
}

// The index that the receiver of this message once chose: in a response at 8, in a cookie reply and
// in transport data at 4. An initiation has none.
inline uint32_t ReceiverIndex(MessageType type, std::span<const std::byte> message) {
  return LoadLe32(message.data() + (type == MessageType::kResponse ? 8 : 4));
}

}  // namespace ringsock::gateway

#endif  // RINGSOCK_GATEWAY_WIREGUARD_MESSAGE_H_
