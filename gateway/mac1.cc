#include "gateway/mac1.h"

#include <blake2.h>

#include <cstring>

#include "gateway/wireguard_message.h"

namespace ringsock::gateway {
namespace {

constexpr char kLabel[] = "mac1----";
constexpr size_t kLabelSize = sizeof(kLabel) - 1;
constexpr size_t kMacSize = 16;
// mac1 is followed by mac2 only, of the same size.
constexpr size_t kTrailer = 2 * kMacSize;

}  // namespace

Mac1Key::Mac1Key(const PublicKey& receiver) {
  std::array<uint8_t, kLabelSize + kKeySize> input;
  std::memcpy(input.data(), kLabel, kLabelSize);
  std::memcpy(input.data() + kLabelSize, receiver.bytes.data(), kKeySize);
  blake2s(key_.data(), input.data(), nullptr, key_.size(), input.size(), 0);
}

bool Mac1Key::Matches(std::span<const std::byte> message) const {
  if (!OpensSession(WholeTypeOf(message))) return false;
  const size_t covered = message.size() - kTrailer;
  std::array<uint8_t, kMacSize> mac;
  blake2s(mac.data(), message.data(), key_.data(), mac.size(), covered, key_.size());
  // Not a secret, so no need for constant time: both inputs of the key are public.
  return std::memcmp(mac.data(), message.data() + covered, mac.size()) == 0;
}

PeerIndex Mac1Keys::Find(std::span<const std::byte> message) const {
  if (!OpensSession(WholeTypeOf(message))) return kNoPeer;
  for (PeerIndex peer = 0; peer < keys_.size(); ++peer) {
    if (keys_[peer].has_value() && keys_[peer]->Matches(message)) return peer;
  }
  return kNoPeer;
}

}  // namespace ringsock::gateway
