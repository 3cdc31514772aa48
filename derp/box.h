// The NaCl box of a DERP login: Curve25519, XSalsa20, Poly1305 (crypto_box), through libsodium. The
// key that two sides share is computed once and opens and seals both ways.
#ifndef RINGSOCK_DERP_BOX_H_
#define RINGSOCK_DERP_BOX_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "base/key.h"
#include "base/random.h"

namespace ringsock::derp {

inline constexpr size_t kBoxNonceSize = 24;
inline constexpr size_t kBoxOverhead = 16;  // the authenticator in front of the cipher text

using BoxNonce = std::array<std::byte, kBoxNonceSize>;

// The shared key of two parties. A secret: not copied, not printed, zeroed when it dies.
class BoxKey {
 public:
  // Fails if `theirs` is a point of low order: the shared key would be one that everybody knows.
  static absl::StatusOr<BoxKey> Agree(const PrivateKey& ours, const PublicKey& theirs);

  BoxKey(BoxKey&& other) noexcept;
  BoxKey& operator=(BoxKey&& other) noexcept;
  ~BoxKey();

  // Writes box and authenticator, plain.size() + kBoxOverhead bytes, to the front of `out`, which
  // must have room for them. A nonce must never be used twice with one key.
  void Seal(const BoxNonce& nonce, std::span<const std::byte> plain,
            std::span<std::byte> out) const;
  // Writes box.size() - kBoxOverhead bytes to the front of `out`, which must have room for them.
  // False if the box is too short, was changed, or was made with another key or nonce.
  bool Open(const BoxNonce& nonce, std::span<const std::byte> box, std::span<std::byte> out) const;

  // The form both login frames carry: the nonce, taken from `random`, then the box.
  std::vector<std::byte> SealWithNonce(std::span<const std::byte> plain, Random& random) const;
  absl::StatusOr<std::vector<std::byte>> OpenWithNonce(std::span<const std::byte> sealed) const;

 private:
  BoxKey() = default;

  std::array<uint8_t, 32> bytes_{};
};

}  // namespace ringsock::derp

#endif  // RINGSOCK_DERP_BOX_H_
