// What an operator is told about a certificate: for whom it is, and how long.
#ifndef RINGSOCK_RELAY_CERTIFICATE_INFO_H_
#define RINGSOCK_RELAY_CERTIFICATE_INFO_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace ringsock::relay {

// Of the first certificate of a PEM chain. Times are seconds of Unix time.
struct CertificateInfo {
  int64_t not_before = 0;
  int64_t not_after = 0;
  bool for_host = false;  // whether it is for the host asked about
};

// `host` is a DNS name or an IP address.
absl::StatusOr<CertificateInfo> ReadCertificateInfo(absl::string_view chain_pem,
                                                    const std::string& host);

// "2036-11-20" (UTC).
std::string DateText(int64_t unix_time);

}  // namespace ringsock::relay

#endif  // RINGSOCK_RELAY_CERTIFICATE_INFO_H_
