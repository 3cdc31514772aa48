// Certificates as TLS here needs them: read from PEM, hashed for pins, named in messages for
// people. What makes one (MakeSelfSignedCertificate) is declared in derp/tls.h.
#ifndef RINGSOCK_DERP_TLS_CERTIFICATE_H_
#define RINGSOCK_DERP_TLS_CERTIFICATE_H_

#include <openssl/base.h>
#include <openssl/pool.h>
#include <openssl/x509.h>

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace ringsock::derp {

// DER bytes of one certificate; equal ones are kept once in the process, for all its connections.
using TlsCertificate = bssl::UniquePtr<CRYPTO_BUFFER>;

// Never freed, as BoringSSL wants it.
CRYPTO_BUFFER_POOL* TlsCertificatePool();

// The certificates of a PEM text in their order; other blocks are passed over. An error if a
// certificate's block is damaged or there is none. The DER bytes are not looked at.
absl::StatusOr<std::vector<TlsCertificate>> ReadPemChain(const std::string& pem);

// The first private key of a PEM text. Errors never quote it.
absl::StatusOr<bssl::UniquePtr<EVP_PKEY>> ReadPemKey(const std::string& pem);

std::array<uint8_t, 32> CertificatePin(const CRYPTO_BUFFER* certificate);

// Null if the bytes are no certificate.
bssl::UniquePtr<X509> ParseCertificate(CRYPTO_BUFFER* certificate);

// Seconds of Unix time. Times that cannot be read count as over (or as never to come).
int64_t NotBefore(const X509* certificate);
int64_t NotAfter(const X509* certificate);
// "2026-01-02 03:04:05 UTC".
std::string UnixTimeText(int64_t unix_time);

// Its common name or, without one, its first alternative name, fit for a log line.
std::string SubjectText(X509* certificate);
std::string IssuerText(X509* certificate);
// The names it is for: "a.example.com, *.example.org, 192.0.2.1", at most some of them.
std::string NamesText(X509* certificate);

// An IPv4 or IPv6 address, as opposed to a name of DNS.
bool IsIpAddress(const std::string& host_name);

}  // namespace ringsock::derp

#endif  // RINGSOCK_DERP_TLS_CERTIFICATE_H_
