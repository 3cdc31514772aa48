#include "relay/certificate_info.h"

#include <openssl/asn1.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "base/endpoint.h"

namespace ringsock::relay {
namespace {

constexpr int64_t kSecondsPerDay = 86400;

bool UnixTime(const ASN1_TIME* time, int64_t* out) {
  const bssl::UniquePtr<ASN1_TIME> epoch(ASN1_TIME_set(nullptr, 0));
  int days = 0;
  int seconds = 0;
  if (epoch == nullptr || ASN1_TIME_diff(&days, &seconds, epoch.get(), time) != 1) return false;
  *out = days * kSecondsPerDay + seconds;
  return true;
}

}  // namespace

absl::StatusOr<CertificateInfo> ReadCertificateInfo(absl::string_view chain_pem,
                                                    const std::string& host) {
  const bssl::UniquePtr<BIO> bio(
      BIO_new_mem_buf(chain_pem.data(), static_cast<int>(chain_pem.size())));
  const bssl::UniquePtr<X509> certificate(
      bio == nullptr ? nullptr : PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr));
  ERR_clear_error();
  if (certificate == nullptr) {
    return absl::InvalidArgumentError("holds no certificate in PEM form");
  }
  CertificateInfo info;
  if (!UnixTime(X509_get0_notBefore(certificate.get()), &info.not_before) ||
      !UnixTime(X509_get0_notAfter(certificate.get()), &info.not_after)) {
    return absl::InvalidArgumentError("the certificate's validity period cannot be read");
  }
  info.for_host =
      IpAddress::Parse(host).ok()
          ? X509_check_ip_asc(certificate.get(), host.c_str(), 0) == 1
          : X509_check_host(certificate.get(), host.data(), host.size(), 0, nullptr) == 1;
  ERR_clear_error();
  return info;
}

std::string DateText(int64_t unix_time) {
  return absl::FormatTime("%Y-%m-%d", absl::FromUnixSeconds(unix_time), absl::UTCTimeZone());
}

}  // namespace ringsock::relay
