// Curve25519 keys: a peer's identity, and our own secret. Text forms are WireGuard's base64 (44
// characters) and plain hex (64).
#ifndef RINGSOCK_BASE_KEY_H_
#define RINGSOCK_BASE_KEY_H_

#include <array>
#include <compare>
#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace ringsock {

inline constexpr size_t kKeySize = 32;

// A peer's public key: 32 bytes, a plain value. The default, all zeroes, is no valid key.
struct PublicKey {
  std::array<uint8_t, kKeySize> bytes{};

  static absl::StatusOr<PublicKey> Parse(absl::string_view base64_or_hex);
  bool IsZero() const;
  std::string ToBase64() const;
  std::string ToHex() const;
  // The first characters of the base64 form, for logs: "[Abc12]".
  std::string ToShortString() const;

  friend auto operator<=>(const PublicKey&, const PublicKey&) = default;
  template <typename H>
  friend H AbslHashValue(H h, const PublicKey& key) {
    return H::combine(std::move(h), key.bytes);
  }
};

// A private key. Never printed, compared in constant time, zeroed when it dies. Copies are explicit
// because every copy is one more place the secret lives.
class PrivateKey {
 public:
  PrivateKey() = default;
  PrivateKey(PrivateKey&& other) noexcept;
  PrivateKey& operator=(PrivateKey&& other) noexcept;
  ~PrivateKey();

  static absl::StatusOr<PrivateKey> Parse(absl::string_view base64_or_hex);
  static PrivateKey FromBytes(const std::array<uint8_t, kKeySize>& bytes);
  // A fresh clamped key from the system's random source.
  static PrivateKey Generate();

  PrivateKey Clone() const { return FromBytes(bytes_); }
  bool IsZero() const;
  PublicKey Public() const;
  // For writing a key file. The text is a secret.
  std::string ToBase64() const;
  const std::array<uint8_t, kKeySize>& bytes() const { return bytes_; }
  friend bool operator==(const PrivateKey& a, const PrivateKey& b);

 private:
  std::array<uint8_t, kKeySize> bytes_{};
};

}  // namespace ringsock

#endif  // RINGSOCK_BASE_KEY_H_
