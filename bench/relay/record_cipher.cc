// One direction of a TLS 1.3 connection after its handshake.
#include "bench/relay/record_cipher.h"

#include "absl/strings/str_cat.h"

namespace ringsock::bench {

absl::StatusOr<RecordCipher> RecordCipher::Create(uint16_t suite, std::span<const uint8_t> secret) {
  RecordCipher cipher;
  if (derp::TlsAead::KeySize(suite) == 0) {
    return absl::UnimplementedError(absl::StrCat("no TLS 1.3 cipher: ", absl::Hex(suite)));
  }
  if (!cipher.key_->Init(suite, secret, /*sequence=*/0)) {
    return absl::InvalidArgumentError("a traffic secret of the wrong length");
  }
  return cipher;
}

size_t RecordCipher::Seal(std::span<const std::byte> plaintext, std::byte* out) {
  return key_->Seal(derp::TlsContent::kApplicationData, plaintext,
                    {out, plaintext.size() + kRecordOverhead});
}

RecordCipher::Opened RecordCipher::Open(std::span<std::byte> record) {
  const auto inner = key_->Open(record);
  if (!inner.has_value()) return {};
  // Zeroes behind the content type are padding.
  size_t size = inner->size();
  while (size > 0 && (*inner)[size - 1] == std::byte{0}) --size;
  if (size == 0) return {};
  return {.ok = true,
          .type = std::to_integer<uint8_t>((*inner)[size - 1]),
          .plaintext = inner->first(size - 1)};
}

}  // namespace ringsock::bench
