// One direction of a TLS 1.3 connection after its handshake (RFC 8446, section 5), for a load that
// has to be cheaper than what it measures: it seals records straight into the buffer that goes to
// the kernel, and passes over records that it does not want to open. BoringSSL does the handshake
// and the ciphers.
#ifndef RINGSOCK_BENCH_RELAY_RECORD_CIPHER_H_
#define RINGSOCK_BENCH_RELAY_RECORD_CIPHER_H_

#include <openssl/aead.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "absl/status/statusor.h"

namespace ringsock::bench {

inline constexpr size_t kRecordHeader = 5;
inline constexpr size_t kRecordTag = 16;
// A record is this much longer than its plaintext: header, content type, tag.
inline constexpr size_t kRecordOverhead = kRecordHeader + 1 + kRecordTag;
inline constexpr size_t kMaxRecordPlaintext = 16384;
inline constexpr uint8_t kApplicationData = 23;

// Length of what follows a record's header, of which there must be kRecordHeader bytes.
inline size_t RecordBody(std::span<const std::byte> header) {
  return std::to_integer<size_t>(header[3]) << 8 | std::to_integer<size_t>(header[4]);
}

// Not thread safe. Moves, is not copied.
class RecordCipher {
 public:
  // `suite`: 0x1301, 0x1302 or 0x1303 (RFC 8446, appendix B.4); `secret`: the direction's
  // application traffic secret.
  static absl::StatusOr<RecordCipher> Create(uint16_t suite, std::span<const uint8_t> secret);

  // Writes one record of application data, of at most kMaxRecordPlaintext, and returns its size:
  // plaintext.size() + kRecordOverhead, for which `out` must have room.
  size_t Seal(std::span<const std::byte> plaintext, std::byte* out);

  struct Opened {
    bool ok = false;  // false: damaged, or not the record that was due
    uint8_t type = 0;
    std::span<std::byte> plaintext;
  };
  // Opens a whole record, header and all, where it lies.
  Opened Open(std::span<std::byte> record);
  // The next record is not going to be opened.
  void Skip() { ++sequence_; }

 private:
  using Nonce = std::array<uint8_t, 12>;
  RecordCipher() = default;
  Nonce NextNonce();

  bssl::UniquePtr<EVP_AEAD_CTX> context_;
  Nonce iv_{};
  uint64_t sequence_ = 0;
};

}  // namespace ringsock::bench

#endif  // RINGSOCK_BENCH_RELAY_RECORD_CIPHER_H_
