// Any text: no crash, no echo; a key that is accepted prints to text that parses to the same key,
// and there is one base64 text per key.
#include <cstdint>
#include <cstdlib>
#include <string>

#include "base/key.h"

namespace {

void Require(bool condition) {
  if (!condition) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using ringsock::PrivateKey;
  using ringsock::PublicKey;
  const std::string text(reinterpret_cast<const char*>(data), size);
  const absl::StatusOr<PublicKey> key = PublicKey::Parse(text);
  const absl::StatusOr<PrivateKey> secret = PrivateKey::Parse(text);
  Require(key.ok() == secret.ok());
  if (!key.ok()) {
    // The error depends on the length alone (or says that the key is zero), so it gives nothing
    // away.
    const absl::Status other = PrivateKey::Parse(std::string(size, '!')).status();
    const absl::Status zero = PrivateKey::Parse(std::string(64, '0')).status();
    Require(secret.status() == other || secret.status() == zero);
    return 0;
  }
  Require(!key->IsZero() && !secret->IsZero());
  Require(key->bytes == secret->bytes());
  Require(PublicKey::Parse(key->ToHex()).value() == *key);
  Require(PublicKey::Parse(key->ToBase64()).value() == *key);
  Require(PrivateKey::Parse(secret->ToBase64()).value() == *secret);
  if (size == 44) Require(key->ToBase64() == text);
  return 0;
}
