// What seals and opens the records of TLS 1.3: one AEAD with one key (RFC 8446, section 5.2), and
// which implementation of it this CPU runs fastest.
#ifndef RINGSOCK_DERP_TLS_AEAD_H_
#define RINGSOCK_DERP_TLS_AEAD_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

namespace ringsock::derp {

// Numbers of the cipher suites (RFC 8446, appendix B.4).
inline constexpr uint16_t kTlsAes128Gcm = 0x1301;
inline constexpr uint16_t kTlsAes256Gcm = 0x1302;
inline constexpr uint16_t kTlsChaCha20Poly1305 = 0x1303;

inline constexpr size_t kTlsHeaderSize = 5;
inline constexpr size_t kTlsTagSize = 16;
inline constexpr size_t kTlsNonceSize = 12;

using TlsNonce = std::array<uint8_t, kTlsNonceSize>;

// Not thread safe. Its key is wiped when it dies.
class TlsAead {
 public:
  enum class Engine {
    kBest,       // the faster of those that this CPU and this suite have
    kBoringSsl,  // every suite, every CPU
    kIpsecMb,    // AES-GCM with AVX-512 and VAES, where it is some three times as fast
  };

  // 0 if the suite is unknown.
  static size_t KeySize(uint16_t suite);
  // Null if `suite` is unknown, `key` not KeySize() long, or `engine` does not have it here.
  static std::unique_ptr<TlsAead> Create(uint16_t suite, std::span<const uint8_t> key,
                                         Engine engine = Engine::kBest);
  virtual ~TlsAead() = default;

  // Seals `plaintext` and behind it the byte `type`. `out` has room for both and a tag, and shares
  // no byte with `plaintext`. `header` is authenticated with them. False: `out` is not to be sent.
  virtual bool Seal(const TlsNonce& nonce, std::span<const std::byte> header,
                    std::span<const std::byte> plaintext, std::byte type,
                    std::span<std::byte> out) = 0;
  // Opens in place: all of `sealed` but its tag is plaintext then. False: it was changed, is too
  // short, or is not the record that was due; `sealed` holds nothing of use then.
  virtual bool Open(const TlsNonce& nonce, std::span<const std::byte> header,
                    std::span<std::byte> sealed) = 0;
};

// kIpsecMb's. Null if this CPU lacks what it takes, or the suite is not AES-GCM.
std::unique_ptr<TlsAead> NewIpsecMbAead(uint16_t suite, std::span<const uint8_t> key);

}  // namespace ringsock::derp

#endif  // RINGSOCK_DERP_TLS_AEAD_H_
