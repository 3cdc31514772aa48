// One direction of a TLS 1.3 connection after its handshake: the traffic secret, what is derived
// from it, and the number of the next record (RFC 8446, sections 5.2, 5.3 and 7).
#ifndef RINGSOCK_DERP_TLS_TRAFFIC_KEY_H_
#define RINGSOCK_DERP_TLS_TRAFFIC_KEY_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>

#include "derp/tls_aead.h"

namespace ringsock::derp {

// A record is this much longer than its plaintext: header, content type, tag.
inline constexpr size_t kTlsRecordOverhead = kTlsHeaderSize + 1 + kTlsTagSize;

enum class TlsContent : uint8_t {
  kChangeCipherSpec = 20,
  kAlert = 21,
  kHandshake = 22,
  kApplicationData = 23,
};

// The length of what follows a record's header, of which there must be kTlsHeaderSize bytes.
inline size_t TlsBodySize(std::span<const std::byte> header) {
  return std::to_integer<size_t>(header[3]) << 8 | std::to_integer<size_t>(header[4]);
}

// Not thread safe. Wipes its secrets when it dies.
class TlsTrafficKey {
 public:
  TlsTrafficKey() = default;
  ~TlsTrafficKey();
  TlsTrafficKey(const TlsTrafficKey&) = delete;
  TlsTrafficKey& operator=(const TlsTrafficKey&) = delete;

  // False: the suite is unknown, the secret not of its length, or memory ran out.
  bool Init(uint16_t suite, std::span<const uint8_t> secret, uint64_t sequence,
            TlsAead::Engine engine = TlsAead::Engine::kBest);
  // The next generation of the secret (section 7.2), as after a KeyUpdate. False: of no use now.
  bool Update();
  // Records sealed or opened with the present key.
  uint64_t sequence() const { return sequence_; }

  // Writes one record and returns its size, plaintext.size() + kTlsRecordOverhead, for which `out`
  // has room. `plaintext` shares no byte with it. 0: this key may not be used any more.
  size_t Seal(TlsContent type, std::span<const std::byte> plaintext, std::span<std::byte> out);
  // Opens a whole record, header and all, where it lies. Returns content, content type and padding;
  // nothing if the record was changed or is not the one that was due.
  std::optional<std::span<std::byte>> Open(std::span<std::byte> record);
  // The next record is not going to be opened.
  void Skip() { ++sequence_; }

 private:
  static constexpr size_t kMaxSecret = 48;

  bool Derive();
  TlsNonce NextNonce();

  std::unique_ptr<TlsAead> aead_;
  uint64_t sequence_ = 0;
  TlsNonce iv_{};
  uint16_t suite_ = 0;
  TlsAead::Engine engine_ = TlsAead::Engine::kBest;
  uint8_t secret_size_ = 0;
  std::array<uint8_t, kMaxSecret> secret_{};
};

}  // namespace ringsock::derp

#endif  // RINGSOCK_DERP_TLS_TRAFFIC_KEY_H_
