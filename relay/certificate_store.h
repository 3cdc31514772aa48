// Where the relay's TLS certificate comes from: files of the operator, or one the relay signs
// itself on first start and keeps.
#ifndef RINGSOCK_RELAY_CERTIFICATE_STORE_H_
#define RINGSOCK_RELAY_CERTIFICATE_STORE_H_

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "derp/tls.h"

namespace ringsock::relay {

// How long a self-signed certificate is valid: ten years, since clients know it by its hash, and
// another one has to be told to each of them. So the relay never replaces it by itself either.
inline constexpr int64_t kSelfSignedSeconds = int64_t{3650} * 86400;
// How long it is valid before it was made, for clients whose clocks are late.
inline constexpr int64_t kSelfSignedBackdate = 86400;
// From here on each load warns that it will expire.
inline constexpr int64_t kExpiryWarning = int64_t{21} * 86400;
inline constexpr size_t kMaxCertificateFile = 1 << 20;

struct CertificateSource {
  std::string host_name;  // a DNS name or an IP address that clients reach the relay by
  // PEM files of the operator; both, or neither.
  std::string chain_file;
  std::string key_file;
  // Else: where the self-signed one is kept, chain and key in one file, so that they are made and
  // lost together.
  std::string self_signed_file;

  bool self_signed() const { return chain_file.empty(); }
};

// Loads a certificate into a TlsServerContext, now and on each Reload(). For one thread, but
// not_after().
class CertificateStore {
 public:
  using UnixTime = int64_t (*)();

  // `context` outlives it.
  CertificateStore(CertificateSource source, derp::TlsServerContext* context, UnixTime unix_time)
      : source_(std::move(source)), context_(context), unix_time_(unix_time) {}

  // Reads the files, on first use making the self-signed one. An error names the file, what is
  // wrong (chain and key that do not belong together, expired, readable by others) and leaves what
  // was there.
  absl::Status Load();

  // Of what was loaded last, as of now. Not errors, but worth saying: about to expire, for another
  // host.
  std::vector<std::string> warnings() const;
  // The self-signed certificate has been made by this object.
  bool made() const { return made_; }
  // SHA-256 of the certificate, which "sha256-raw:" pins.
  const std::array<uint8_t, 32>& pin() const { return pin_; }
  // Unix time of the end of its validity. Any thread.
  int64_t not_after() const { return not_after_.load(std::memory_order_relaxed); }

 private:
  struct Text {
    std::string chain;
    std::string key;  // a secret
  };
  absl::StatusOr<Text> Read();
  absl::StatusOr<std::string> ReadOrMakeSelfSigned();
  absl::Status Use(const Text& text);

  const CertificateSource source_;
  derp::TlsServerContext* const context_;
  const UnixTime unix_time_;
  bool for_host_ = true;
  bool made_ = false;
  std::array<uint8_t, 32> pin_{};
  std::atomic<int64_t> not_after_{0};
};

}  // namespace ringsock::relay

#endif  // RINGSOCK_RELAY_CERTIFICATE_STORE_H_
