// Certificates for tests: authorities, intermediates and leaves with any one thing wrong.
#ifndef RINGSOCK_TESTS_DERP_TLS_CERTIFICATES_H_
#define RINGSOCK_TESTS_DERP_TLS_CERTIFICATES_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "derp/tls.h"

namespace ringsock::derp {

// 2026-01-15 12:00:00 UTC: the time in tests of certificates.
inline constexpr int64_t kTestTime = 1768478400;
inline constexpr int64_t kDay = 86400;

// A certificate, its key, and the certificates above it.
struct TestCertificate {
  std::string pem;  // of itself
  std::string key_pem;
  std::string above_pem;  // its issuers that a server sends along; no root

  std::string chain_pem() const { return pem + above_pem; }
};

struct TestCertificateOptions {
  std::string common_name = "relay.test";
  std::vector<std::string> dns_names = {"relay.test"};
  std::vector<std::string> ip_addresses = {};
  int64_t not_before = kTestTime - kDay;
  int64_t not_after = kTestTime + kDay;
  bool authority = false;
  std::string extended_key_usage = "serverAuth";  // empty: none
  bool sha1 = false;
  int rsa_bits = 0;  // 0: ECDSA with P-256
};

TestCertificateOptions AuthorityNamed(const std::string& name);

// Signed by `issuer`; self-signed if that is null.
TestCertificate MakeTestCertificate(const TestCertificateOptions& options,
                                    const TestCertificate* issuer);

// A file below the test's own folder.
std::string WriteTestFile(const std::string& name, const std::string& text);

}  // namespace ringsock::derp

#endif  // RINGSOCK_TESTS_DERP_TLS_CERTIFICATES_H_
