#include "derp/tls_aead.h"

#include <openssl/aead.h>
#include <openssl/err.h>
#include <openssl/mem.h>

namespace ringsock::derp {
namespace {

const uint8_t* U8(const std::byte* bytes) { return reinterpret_cast<const uint8_t*>(bytes); }
uint8_t* U8(std::byte* bytes) { return reinterpret_cast<uint8_t*>(bytes); }

const EVP_AEAD* FindAead(uint16_t suite) {
  switch (suite) {
    case kTlsAes128Gcm:
      return EVP_aead_aes_128_gcm();
    case kTlsAes256Gcm:
      return EVP_aead_aes_256_gcm();
    case kTlsChaCha20Poly1305:
      return EVP_aead_chacha20_poly1305();
    default:
      return nullptr;
  }
}

class BoringSslAead final : public TlsAead {
 public:
  BoringSslAead() { EVP_AEAD_CTX_zero(&context_); }
  BoringSslAead(const BoringSslAead&) = delete;
  BoringSslAead& operator=(const BoringSslAead&) = delete;
  ~BoringSslAead() override {
    EVP_AEAD_CTX_cleanup(&context_);
    OPENSSL_cleanse(&context_, sizeof(context_));
  }

  bool Init(const EVP_AEAD* aead, std::span<const uint8_t> key) {
    return EVP_AEAD_CTX_init(&context_, aead, key.data(), key.size(), kTlsTagSize, nullptr) == 1;
  }

  bool Seal(const TlsNonce& nonce, std::span<const std::byte> header,
            std::span<const std::byte> plaintext, std::byte type,
            std::span<std::byte> out) override {
    const size_t tail_size = 1 + kTlsTagSize;
    if (out.size() < plaintext.size() + tail_size) return false;
    size_t written = 0;
    const uint8_t type_byte = std::to_integer<uint8_t>(type);
    return EVP_AEAD_CTX_seal_scatter(&context_, U8(out.data()), U8(out.data() + plaintext.size()),
                                     &written, tail_size, nonce.data(), nonce.size(),
                                     U8(plaintext.data()), plaintext.size(), &type_byte, 1,
                                     U8(header.data()), header.size()) == 1 &&
           written == tail_size;
  }

  bool Open(const TlsNonce& nonce, std::span<const std::byte> header,
            std::span<std::byte> sealed) override {
    size_t size = 0;
    if (EVP_AEAD_CTX_open(&context_, U8(sealed.data()), &size, sealed.size(), nonce.data(),
                          nonce.size(), U8(sealed.data()), sealed.size(), U8(header.data()),
                          header.size()) == 1) {
      return true;
    }
    ERR_clear_error();
    return false;
  }

 private:
  EVP_AEAD_CTX context_;
};

}  // namespace

size_t TlsAead::KeySize(uint16_t suite) {
  const EVP_AEAD* aead = FindAead(suite);
  return aead == nullptr ? 0 : EVP_AEAD_key_length(aead);
}

std::unique_ptr<TlsAead> TlsAead::Create(uint16_t suite, std::span<const uint8_t> key,
                                         Engine engine) {
  if (key.empty() || key.size() != KeySize(suite)) return nullptr;
  if (engine != Engine::kBoringSsl) {
    auto aead = NewIpsecMbAead(suite, key);
    if (aead != nullptr || engine == Engine::kIpsecMb) return aead;
  }
  auto aead = std::make_unique<BoringSslAead>();
  if (!aead->Init(FindAead(suite), key)) {
    ERR_clear_error();
    return nullptr;
  }
  return aead;
}

}  // namespace ringsock::derp
