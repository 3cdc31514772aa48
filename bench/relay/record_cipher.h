// One direction of a TLS 1.3 connection after its handshake, for a load that has to be cheaper than
// what it measures: it seals records straight into the buffer that goes to the kernel, and passes
// over records that it does not want to open. The cipher is the relay's own
// (derp/tls_traffic_key.h).
#ifndef RINGSOCK_BENCH_RELAY_RECORD_CIPHER_H_
#define RINGSOCK_BENCH_RELAY_RECORD_CIPHER_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "absl/status/statusor.h"
#include "derp/tls_traffic_key.h"

namespace ringsock::bench {

inline constexpr size_t kRecordHeader = derp::kTlsHeaderSize;
inline constexpr size_t kRecordOverhead = derp::kTlsRecordOverhead;
inline constexpr size_t kMaxRecordPlaintext = 16384;
inline constexpr uint8_t kApplicationData = 23;

inline size_t RecordBody(std::span<const std::byte> header) { return derp::TlsBodySize(header); }

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
  void Skip() { key_->Skip(); }

 private:
  RecordCipher() = default;
  std::unique_ptr<derp::TlsTrafficKey> key_ = std::make_unique<derp::TlsTrafficKey>();
};

}  // namespace ringsock::bench

#endif  // RINGSOCK_BENCH_RELAY_RECORD_CIPHER_H_
