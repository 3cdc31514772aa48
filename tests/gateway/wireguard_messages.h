// WireGuard messages as a stand-in for it sends them: right in size, type, indices and mac1, and
// nothing in the encrypted parts (white paper, section 5.4).
#ifndef RINGSOCK_TESTS_GATEWAY_WIREGUARD_MESSAGES_H_
#define RINGSOCK_TESTS_GATEWAY_WIREGUARD_MESSAGES_H_

#include <blake2.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "base/key.h"

namespace ringsock::gateway {

using Bytes = std::vector<std::byte>;

// The key whose hex is all `digit`.
inline PublicKey KeyOf(char digit) { return *PublicKey::Parse(std::string(64, digit)); }

inline void Put(Bytes* message, size_t at, uint32_t value) {
  std::memcpy(message->data() + at, &value, sizeof(value));
}

inline Bytes Transport(uint32_t receiver_index, size_t size = 96, uint8_t fill = 0) {
  Bytes message(size, static_cast<std::byte>(fill));
  Put(&message, 0, 4);
  Put(&message, 4, receiver_index);
  return message;
}

// Ends with the mac1 that the receiver expects (white paper, section 5.4.4).
inline void Seal(Bytes* message, const PublicKey& receiver) {
  Bytes input(8 + kKeySize);
  std::memcpy(input.data(), "mac1----", 8);
  std::memcpy(input.data() + 8, receiver.bytes.data(), kKeySize);
  std::array<uint8_t, 32> key;
  blake2s(key.data(), input.data(), nullptr, key.size(), input.size(), 0);
  const size_t covered = message->size() - 32;
  std::array<uint8_t, 16> mac;
  blake2s(mac.data(), message->data(), key.data(), mac.size(), covered, key.size());
  std::memcpy(message->data() + covered, mac.data(), mac.size());
}

inline Bytes Initiation(uint32_t sender_index, const PublicKey& receiver) {
  Bytes message(148);
  Put(&message, 0, 1);
  Put(&message, 4, sender_index);
  Seal(&message, receiver);
  return message;
}

inline Bytes Response(uint32_t sender_index, uint32_t receiver_index, const PublicKey& receiver) {
  Bytes message(92);
  Put(&message, 0, 2);
  Put(&message, 4, sender_index);
  Put(&message, 8, receiver_index);
  Seal(&message, receiver);
  return message;
}

inline Bytes CookieReply(uint32_t receiver_index) {
  Bytes message(64);
  Put(&message, 0, 3);
  Put(&message, 4, receiver_index);
  return message;
}

}  // namespace ringsock::gateway

#endif  // RINGSOCK_TESTS_GATEWAY_WIREGUARD_MESSAGES_H_
