#include "base/key.h"

#include <sodium.h>

#include <algorithm>
#include <cstdlib>

#include "absl/strings/str_cat.h"

namespace ringsock {
namespace {

constexpr size_t kHexLength = 2 * kKeySize;
constexpr size_t kBase64Length = 44;

using KeyBytes = std::array<uint8_t, kKeySize>;

// Chooses the fast implementations and opens the random source; to be done before any other call
// and safe from several threads.
void InitSodium() {
  static const int result = sodium_init();
  if (result < 0) std::abort();  // no random source: nothing good can follow
}

// Writes where the caller wipes it, so that no copy of a secret is left behind. The error never
// repeats the text: it may be a secret. `bytes` is all zeroes after an error.
absl::Status DecodeKey(absl::string_view text, KeyBytes* bytes) {
  size_t decoded = 0;
  const char* end = nullptr;
  int result = -1;
  // libsodium takes some bytes above 127 for letters, so that one key would have many texts. Looked
  // for without a branch per character, as it decodes.
  unsigned high = 0;
  for (const char c : text) high |= static_cast<unsigned char>(c) & 0x80u;
  if (high != 0) {
    result = -1;
  } else if (text.size() == kHexLength) {
    result =
        sodium_hex2bin(bytes->data(), kKeySize, text.data(), text.size(), nullptr, &decoded, &end);
  } else if (text.size() == kBase64Length) {
    result = sodium_base642bin(bytes->data(), kKeySize, text.data(), text.size(), nullptr, &decoded,
                               &end, sodium_base64_VARIANT_ORIGINAL);
  }
  if (result == 0 && decoded == kKeySize && end == text.data() + text.size()) {
    return absl::OkStatus();
  }
  sodium_memzero(bytes->data(), kKeySize);
  return absl::InvalidArgumentError(
      absl::StrCat("a key is 44 characters of base64 or 64 of hex, for 32 bytes; got ", text.size(),
                   " characters"));
}

std::string EncodeBase64(const KeyBytes& bytes) {
  char text[kBase64Length + 1];
  sodium_bin2base64(text, sizeof(text), bytes.data(), bytes.size(), sodium_base64_VARIANT_ORIGINAL);
  std::string result(text, kBase64Length);
  sodium_memzero(text, sizeof(text));
  return result;
}

}  // namespace

absl::StatusOr<PublicKey> PublicKey::Parse(absl::string_view base64_or_hex) {
  PublicKey key;
  const absl::Status decoded = DecodeKey(base64_or_hex, &key.bytes);
  if (!decoded.ok()) return decoded;
  if (key.IsZero()) return absl::InvalidArgumentError("the all-zero key is no peer's key");
  return key;
}

bool PublicKey::IsZero() const {
  return std::all_of(bytes.begin(), bytes.end(), [](uint8_t b) { return b == 0; });
}

std::string PublicKey::ToBase64() const { return EncodeBase64(bytes); }

std::string PublicKey::ToHex() const {
  char text[kHexLength + 1];
  sodium_bin2hex(text, sizeof(text), bytes.data(), bytes.size());
  return text;
}

std::string PublicKey::ToShortString() const {
  return absl::StrCat("[", ToBase64().substr(0, 5), "]");
}

PrivateKey::PrivateKey(PrivateKey&& other) noexcept : bytes_(other.bytes_) {
  sodium_memzero(other.bytes_.data(), other.bytes_.size());
}

PrivateKey& PrivateKey::operator=(PrivateKey&& other) noexcept {
  if (this != &other) {
    bytes_ = other.bytes_;
    sodium_memzero(other.bytes_.data(), other.bytes_.size());
  }
  return *this;
}

PrivateKey::~PrivateKey() { sodium_memzero(bytes_.data(), bytes_.size()); }

absl::StatusOr<PrivateKey> PrivateKey::Parse(absl::string_view base64_or_hex) {
  PrivateKey key;
  const absl::Status decoded = DecodeKey(base64_or_hex, &key.bytes_);
  if (!decoded.ok()) return decoded;
  if (key.IsZero()) return absl::InvalidArgumentError("the all-zero key is no private key");
  return key;
}

PrivateKey PrivateKey::FromBytes(const std::array<uint8_t, kKeySize>& bytes) {
  PrivateKey key;
  key.bytes_ = bytes;
  return key;
}

PrivateKey PrivateKey::Generate() {
  InitSodium();
  PrivateKey key;
  randombytes_buf(key.bytes_.data(), key.bytes_.size());
  key.bytes_[0] &= 248;
  key.bytes_[31] = static_cast<uint8_t>((key.bytes_[31] & 127) | 64);
  return key;
}

bool PrivateKey::IsZero() const { return sodium_is_zero(bytes_.data(), bytes_.size()) == 1; }

PublicKey PrivateKey::Public() const {
  InitSodium();
  PublicKey key;
  crypto_scalarmult_base(key.bytes.data(), bytes_.data());
  return key;
}

std::string PrivateKey::ToBase64() const { return EncodeBase64(bytes_); }

bool operator==(const PrivateKey& a, const PrivateKey& b) {
  return sodium_memcmp(a.bytes_.data(), b.bytes_.data(), kKeySize) == 0;
}

}  // namespace ringsock
