// One direction of a TLS 1.3 connection after its handshake.
#include "bench/relay/record_cipher.h"

#include <openssl/digest.h>
#include <openssl/hkdf.h>

#include <cstring>
#include <vector>

#include "absl/strings/str_cat.h"

namespace ringsock::bench {
namespace {

struct Suite {
  const EVP_AEAD* aead;
  const EVP_MD* digest;
};

absl::StatusOr<Suite> FindSuite(uint16_t suite) {
  switch (suite) {
    case 0x1301:
      return Suite{EVP_aead_aes_128_gcm(), EVP_sha256()};
    case 0x1302:
      return Suite{EVP_aead_aes_256_gcm(), EVP_sha384()};
    case 0x1303:
      return Suite{EVP_aead_chacha20_poly1305(), EVP_sha256()};
    default:
      return absl::UnimplementedError(absl::StrCat("no TLS 1.3 cipher: ", absl::Hex(suite)));
  }
}

// HKDF-Expand-Label (RFC 8446, section 7.1) with an empty context.
bool ExpandLabel(const EVP_MD* digest, std::span<const uint8_t> secret, const char* label,
                 std::span<uint8_t> out) {
  const std::string full = absl::StrCat("tls13 ", label);
  std::vector<uint8_t> info = {static_cast<uint8_t>(out.size() >> 8),
                               static_cast<uint8_t>(out.size()), static_cast<uint8_t>(full.size())};
  info.insert(info.end(), full.begin(), full.end());
  info.push_back(0);
  return HKDF_expand(out.data(), out.size(), digest, secret.data(), secret.size(), info.data(),
                     info.size()) == 1;
}

const uint8_t* U8(const std::byte* bytes) { return reinterpret_cast<const uint8_t*>(bytes); }
uint8_t* U8(std::byte* bytes) { return reinterpret_cast<uint8_t*>(bytes); }

}  // namespace

absl::StatusOr<RecordCipher> RecordCipher::Create(uint16_t suite, std::span<const uint8_t> secret) {
  const absl::StatusOr<Suite> found = FindSuite(suite);
  if (!found.ok()) return found.status();
  if (secret.size() != EVP_MD_size(found->digest)) {
    return absl::InvalidArgumentError("a traffic secret of the wrong length");
  }
  RecordCipher cipher;
  std::array<uint8_t, EVP_AEAD_MAX_KEY_LENGTH> key;
  const size_t key_size = EVP_AEAD_key_length(found->aead);
  if (!ExpandLabel(found->digest, secret, "key", std::span(key).first(key_size)) ||
      !ExpandLabel(found->digest, secret, "iv", cipher.iv_)) {
    return absl::InternalError("cannot set up a cipher");
  }
  cipher.context_.reset(EVP_AEAD_CTX_new(found->aead, key.data(), key_size, kRecordTag));
  if (cipher.context_ == nullptr) return absl::InternalError("cannot set up a cipher");
  return cipher;
}

RecordCipher::Nonce RecordCipher::NextNonce() {
  Nonce nonce = iv_;
  const uint64_t sequence = sequence_++;
  for (size_t i = 0; i < 8; ++i) nonce[11 - i] ^= static_cast<uint8_t>(sequence >> (8 * i));
  return nonce;
}

size_t RecordCipher::Seal(std::span<const std::byte> plaintext, std::byte* out) {
  const size_t body = plaintext.size() + 1 + kRecordTag;
  out[0] = std::byte{kApplicationData};
  out[1] = std::byte{3};
  out[2] = std::byte{3};
  out[3] = static_cast<std::byte>(body >> 8);
  out[4] = static_cast<std::byte>(body);
  const Nonce nonce = NextNonce();
  const uint8_t type = kApplicationData;
  size_t tail = 0;
  std::byte* ciphertext = out + kRecordHeader;
  const int ok = EVP_AEAD_CTX_seal_scatter(context_.get(), U8(ciphertext),
                                           U8(ciphertext + plaintext.size()), &tail, 1 + kRecordTag,
                                           nonce.data(), nonce.size(), U8(plaintext.data()),
                                           plaintext.size(), &type, 1, U8(out), kRecordHeader);
  return ok == 1 ? kRecordHeader + plaintext.size() + tail : 0;
}

RecordCipher::Opened RecordCipher::Open(std::span<std::byte> record) {
  const Nonce nonce = NextNonce();
  if (record.size() < kRecordOverhead) return {};
  const std::span<std::byte> body = record.subspan(kRecordHeader);
  size_t size = 0;
  if (EVP_AEAD_CTX_open(context_.get(), U8(body.data()), &size, body.size(), nonce.data(),
                        nonce.size(), U8(body.data()), body.size(), U8(record.data()),
                        kRecordHeader) != 1) {
    return {};
  }
  // Zeroes behind the content type are padding.
  while (size > 0 && body[size - 1] == std::byte{0}) --size;
  if (size == 0) return {};
  return {.ok = true,
          .type = std::to_integer<uint8_t>(body[size - 1]),
          .plaintext = body.first(size - 1)};
}

}  // namespace ringsock::bench
