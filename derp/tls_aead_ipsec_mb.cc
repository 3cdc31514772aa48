// AES-GCM by Intel's multi-buffer library, of which only the direct calls are used: one message at
// a time, with keys expanded before. They keep no state but what they are given, so all threads
// share one table of functions. It is chosen where it has its AVX-512 and VAES code; on older CPUs
// BoringSSL is about as fast.
#include <openssl/mem.h>

#include <cstring>

#include "derp/tls_aead.h"

#if defined(__x86_64__)
#include <intel-ipsec-mb.h>
#endif

namespace ringsock::derp {

#if defined(__x86_64__)
namespace {

// The calls for one length of key.
struct Gcm {
  aes_gcm_pre_t expand = nullptr;
  aes_gcm_enc_dec_t seal = nullptr;
  aes_gcm_enc_dec_t open = nullptr;
  aes_gcm_init_t begin = nullptr;
  aes_gcm_enc_dec_update_t seal_part = nullptr;
  aes_gcm_enc_dec_finalize_t end_seal = nullptr;
};

struct Calls {
  bool usable = false;
  Gcm aes128, aes256;
};

Calls FindCalls() {
  Calls calls;
  IMB_MGR* manager = alloc_mb_mgr(0);
  if (manager == nullptr) return calls;
  IMB_ARCH arch = IMB_ARCH_NONE;
  init_mb_mgr_auto(manager, &arch);
  constexpr uint64_t kNeeded = IMB_FEATURE_AVX512_SKX | IMB_FEATURE_VAES | IMB_FEATURE_VPCLMULQDQ;
  calls.usable = imb_get_errno(manager) == 0 && arch == IMB_ARCH_AVX512 &&
                 (manager->features & kNeeded) == kNeeded;
  calls.aes128 = {manager->gcm128_pre,  manager->gcm128_enc,        manager->gcm128_dec,
                  manager->gcm128_init, manager->gcm128_enc_update, manager->gcm128_enc_finalize};
  calls.aes256 = {manager->gcm256_pre,  manager->gcm256_enc,        manager->gcm256_dec,
                  manager->gcm256_init, manager->gcm256_enc_update, manager->gcm256_enc_finalize};
  free_mb_mgr(manager);
  return calls;
}

// Up to here a copy costs less than sealing in two parts.
constexpr size_t kCopied = 1024;

const uint8_t* U8(const std::byte* bytes) { return reinterpret_cast<const uint8_t*>(bytes); }
uint8_t* U8(std::byte* bytes) { return reinterpret_cast<uint8_t*>(bytes); }

class IpsecMbAead final : public TlsAead {
 public:
  IpsecMbAead(const Gcm* gcm, std::span<const uint8_t> key) : gcm_(gcm) {
    gcm_->expand(key.data(), &key_);
  }
  IpsecMbAead(const IpsecMbAead&) = delete;
  IpsecMbAead& operator=(const IpsecMbAead&) = delete;
  ~IpsecMbAead() override { OPENSSL_cleanse(&key_, sizeof(key_)); }

  bool Seal(const TlsNonce& nonce, std::span<const std::byte> header,
            std::span<const std::byte> plaintext, std::byte type,
            std::span<std::byte> out) override {
    const size_t size = plaintext.size();
    if (out.size() < size + 1 + kTlsTagSize) return false;
    uint8_t* const to = U8(out.data());
    uint8_t* const tag = to + size + 1;
    gcm_context_data context;
    if (size <= kCopied) {
      if (size > 0) std::memcpy(to, plaintext.data(), size);
      to[size] = std::to_integer<uint8_t>(type);
      gcm_->seal(&key_, &context, to, to, size + 1, nonce.data(), U8(header.data()), header.size(),
                 tag, kTlsTagSize);
    } else {
      const uint8_t type_byte = std::to_integer<uint8_t>(type);
      gcm_->begin(&key_, &context, nonce.data(), U8(header.data()), header.size());
      gcm_->seal_part(&key_, &context, to, U8(plaintext.data()), size);
      gcm_->seal_part(&key_, &context, to + size, &type_byte, 1);
      gcm_->end_seal(&key_, &context, tag, kTlsTagSize);
    }
    OPENSSL_cleanse(&context, sizeof(context));  // a piece of keystream is in it
    return true;
  }

  bool Open(const TlsNonce& nonce, std::span<const std::byte> header,
            std::span<std::byte> sealed) override {
    if (sealed.size() < kTlsTagSize) return false;
    const size_t size = sealed.size() - kTlsTagSize;
    uint8_t* const bytes = U8(sealed.data());
    gcm_context_data context;
    uint8_t tag[kTlsTagSize];
    gcm_->open(&key_, &context, bytes, bytes, size, nonce.data(), U8(header.data()), header.size(),
               tag, kTlsTagSize);
    OPENSSL_cleanse(&context, sizeof(context));
    if (CRYPTO_memcmp(tag, bytes + size, kTlsTagSize) == 0) return true;
    // It has been decrypted all the same; nobody is to see what.
    std::memset(bytes, 0, size);
    return false;
  }

 private:
  const Gcm* const gcm_;
  alignas(64) gcm_key_data key_;
};

}  // namespace

std::unique_ptr<TlsAead> NewIpsecMbAead(uint16_t suite, std::span<const uint8_t> key) {
  static const Calls calls = FindCalls();
  if (!calls.usable || key.size() != TlsAead::KeySize(suite)) return nullptr;
  if (suite == kTlsAes128Gcm) return std::make_unique<IpsecMbAead>(&calls.aes128, key);
  if (suite == kTlsAes256Gcm) return std::make_unique<IpsecMbAead>(&calls.aes256, key);
  return nullptr;
}

#else

std::unique_ptr<TlsAead> NewIpsecMbAead(uint16_t, std::span<const uint8_t>) { return nullptr; }

#endif

}  // namespace ringsock::derp
