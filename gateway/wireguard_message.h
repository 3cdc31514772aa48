// A WireGuard message taken for one only if its size is that of its type (white paper,
// section 5.4).
#ifndef RINGSOCK_GATEWAY_WIREGUARD_MESSAGE_H_
#define RINGSOCK_GATEWAY_WIREGUARD_MESSAGE_H_

#include <cstddef>
#include <span>

#include "core/wireguard.h"

namespace ringsock::gateway {

inline constexpr size_t kInitiationSize = 148;
inline constexpr size_t kResponseSize = 92;
inline constexpr size_t kCookieReplySize = 64;
// Header of 16 bytes and tag of 16. The payload should be padded to a multiple of 16, but not every
// implementation does so when that would exceed the MTU.
inline constexpr size_t kMinTransportSize = 32;

// kNone if it is no whole message of a known type.
inline MessageType WholeTypeOf(std::span<const std::byte> message) {
  const MessageType type = TypeOf(message.data(), message.size());
  switch (type) {
    case MessageType::kInitiation:
      return message.size() == kInitiationSize ? type : MessageType::kNone;
    case MessageType::kResponse:
      return message.size() == kResponseSize ? type : MessageType::kNone;
    case MessageType::kCookieReply:
      return message.size() == kCookieReplySize ? type : MessageType::kNone;
    case MessageType::kTransport:
      return message.size() >= kMinTransportSize ? type : MessageType::kNone;
    default:
      return MessageType::kNone;
  }
}

// Initiation or response: what carries a mac1 and gives out a session index.
inline bool OpensSession(MessageType type) {
  return type == MessageType::kInitiation || type == MessageType::kResponse;
}

}  // namespace ringsock::gateway

#endif  // RINGSOCK_GATEWAY_WIREGUARD_MESSAGE_H_
