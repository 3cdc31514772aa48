#include "derp/tls_traffic_key.h"

#include <openssl/digest.h>
#include <openssl/err.h>
#include <openssl/hkdf.h>
#include <openssl/mem.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <string_view>

namespace ringsock::derp {
namespace {

constexpr size_t kMaxKey = 32;

const EVP_MD* Digest(uint16_t suite) {
  return suite == kTlsAes256Gcm ? EVP_sha384() : EVP_sha256();
}

// HKDF-Expand-Label (RFC 8446, section 7.1) with an empty context.
bool ExpandLabel(const EVP_MD* digest, std::span<const uint8_t> secret, std::string_view label,
                 std::span<uint8_t> out) {
  constexpr std::string_view kPrefix = "tls13 ";
  std::array<uint8_t, 32> info;
  size_t size = 0;
  info[size++] = static_cast<uint8_t>(out.size() >> 8);
  info[size++] = static_cast<uint8_t>(out.size());
  info[size++] = static_cast<uint8_t>(kPrefix.size() + label.size());
  size += kPrefix.copy(reinterpret_cast<char*>(&info[size]), kPrefix.size());
  size += label.copy(reinterpret_cast<char*>(&info[size]), label.size());
  info[size++] = 0;
  return HKDF_expand(out.data(), out.size(), digest, secret.data(), secret.size(), info.data(),
                     size) == 1;
}

}  // namespace

TlsTrafficKey::~TlsTrafficKey() {
  OPENSSL_cleanse(secret_.data(), secret_.size());
  OPENSSL_cleanse(iv_.data(), iv_.size());
}

bool TlsTrafficKey::Init(uint16_t suite, std::span<const uint8_t> secret, uint64_t sequence,
                         TlsAead::Engine engine) {
  if (TlsAead::KeySize(suite) == 0 || secret.size() != EVP_MD_size(Digest(suite))) return false;
  suite_ = suite;
  engine_ = engine;
  secret_size_ = static_cast<uint8_t>(secret.size());
  std::copy(secret.begin(), secret.end(), secret_.begin());
  sequence_ = sequence;
  return Derive();
}

bool TlsTrafficKey::Derive() {
  std::array<uint8_t, kMaxKey> key;
  const std::span<uint8_t> used = std::span(key).first(TlsAead::KeySize(suite_));
  const std::span<const uint8_t> secret = std::span(secret_).first(secret_size_);
  aead_.reset();
  if (ExpandLabel(Digest(suite_), secret, "key", used) &&
      ExpandLabel(Digest(suite_), secret, "iv", iv_)) {
    aead_ = TlsAead::Create(suite_, used, engine_);
  }
  OPENSSL_cleanse(key.data(), key.size());
  if (aead_ == nullptr) ERR_clear_error();
  return aead_ != nullptr;
}

bool TlsTrafficKey::Update() {
  std::array<uint8_t, kMaxSecret> next{};
  const std::span<uint8_t> used = std::span(next).first(secret_size_);
  const bool good =
      ExpandLabel(Digest(suite_), std::span(secret_).first(secret_size_), "traffic upd", used);
  secret_ = next;
  OPENSSL_cleanse(next.data(), next.size());
  sequence_ = 0;
  if (!good) aead_.reset();
  return good && Derive();
}

TlsNonce TlsTrafficKey::NextNonce() {
  TlsNonce nonce = iv_;
  const uint64_t sequence = sequence_++;
  for (size_t i = 0; i < 8; ++i) nonce[11 - i] ^= static_cast<uint8_t>(sequence >> (8 * i));
  return nonce;
}

size_t TlsTrafficKey::Seal(TlsContent type, std::span<const std::byte> plaintext,
                           std::span<std::byte> out) {
  // A nonce is never used twice: numbers must not wrap (section 5.3).
  if (aead_ == nullptr || sequence_ == std::numeric_limits<uint64_t>::max()) return 0;
  const size_t body = plaintext.size() + 1 + kTlsTagSize;
  if (out.size() < kTlsHeaderSize + body) return 0;
  const std::span<std::byte> header = out.first(kTlsHeaderSize);
  header[0] = static_cast<std::byte>(TlsContent::kApplicationData);
  header[1] = std::byte{3};
  header[2] = std::byte{3};
  header[3] = static_cast<std::byte>(body >> 8);
  header[4] = static_cast<std::byte>(body);
  if (!aead_->Seal(NextNonce(), header, plaintext, static_cast<std::byte>(type),
                   out.subspan(kTlsHeaderSize, body))) {
    aead_.reset();
    return 0;
  }
  return kTlsHeaderSize + body;
}

std::optional<std::span<std::byte>> TlsTrafficKey::Open(std::span<std::byte> record) {
  if (aead_ == nullptr || sequence_ == std::numeric_limits<uint64_t>::max()) return std::nullopt;
  if (record.size() < kTlsHeaderSize + kTlsTagSize) return std::nullopt;
  const std::span<std::byte> sealed = record.subspan(kTlsHeaderSize);
  if (!aead_->Open(NextNonce(), record.first(kTlsHeaderSize), sealed)) return std::nullopt;
  return sealed.first(sealed.size() - kTlsTagSize);
}

}  // namespace ringsock::derp
