// Whose handshake message is it? WireGuard's initiations and responses end with mac1, a keyed hash
// whose key follows from the receiver's public key alone (white paper, section 5.4.4):
//   mac1 = BLAKE2s-128(key = BLAKE2s-256("mac1----" || receiver's public key), message before mac1)
// So whoever knows the configured peers can tell, without a guess, for which of them a message of
// our own WireGuard is meant.
#ifndef RINGSOCK_GATEWAY_MAC1_H_
#define RINGSOCK_GATEWAY_MAC1_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "base/key.h"

namespace ringsock::gateway {

// The name of a peer inside the gateway: its position in Config::peers at the start, the next free
// number if it came later. Never another peer's.
using PeerIndex = uint32_t;
inline constexpr PeerIndex kNoPeer = ~PeerIndex{0};

// Recognises the messages for one receiver. Immutable; 32 bytes.
class Mac1Key {
 public:
  explicit Mac1Key(const PublicKey& receiver);
  // True if `message` is a whole initiation or response for the receiver.
  bool Matches(std::span<const std::byte> message) const;

 private:
  std::array<uint8_t, 32> key_;
};

// The receivers there may be, by PeerIndex; nothing for a peer that has gone. Immutable, so safe on
// every thread.
class Mac1Keys {
 public:
  Mac1Keys() = default;
  explicit Mac1Keys(std::vector<std::optional<Mac1Key>> keys) : keys_(std::move(keys)) {}

  // At most this many; some may be nothing.
  size_t size() const { return keys_.size(); }
  const std::optional<Mac1Key>& operator[](PeerIndex peer) const { return keys_[peer]; }
  bool Matches(PeerIndex peer, std::span<const std::byte> message) const {
    return peer < keys_.size() && keys_[peer].has_value() && keys_[peer]->Matches(message);
  }
  // Tries every peer, so the time grows with their number. kNoPeer if it is for none of them.
  PeerIndex Find(std::span<const std::byte> message) const;

 private:
  std::vector<std::optional<Mac1Key>> keys_;
};

}  // namespace ringsock::gateway

#endif  // RINGSOCK_GATEWAY_MAC1_H_
