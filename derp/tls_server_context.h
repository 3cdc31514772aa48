// What the connections of a server share: the certificate and BoringSSL's settings.
#ifndef RINGSOCK_DERP_TLS_SERVER_CONTEXT_H_
#define RINGSOCK_DERP_TLS_SERVER_CONTEXT_H_

#include <openssl/ssl.h>

#include <mutex>
#include <string>
#include <vector>

#include "derp/tls.h"
#include "derp/tls_certificate.h"

namespace ringsock::derp {

// Each certificate has an SSL_CTX of its own, and with it keys for tickets of its own, which
// BoringSSL makes and changes every two days. So tickets end with the certificate they were given
// under, and a client that comes back after a Load() sees the new one.
class TlsServerContextImpl final : public TlsServerContext {
 public:
  explicit TlsServerContextImpl(const Options& options) : options_(options) {}

  absl::Status Load(const std::string& chain_pem, const std::string& key_pem) override;
  // Null before the first Load().
  bssl::UniquePtr<SSL_CTX> current() const;

 private:
  absl::StatusOr<bssl::UniquePtr<SSL_CTX>> Make(const std::vector<TlsCertificate>& chain,
                                                EVP_PKEY* key) const;

  const Options options_;
  mutable std::mutex mutex_;  // taken once a connection
  bssl::UniquePtr<SSL_CTX> current_;
  std::vector<TlsCertificate> chain_;  // as loaded
};

}  // namespace ringsock::derp

#endif  // RINGSOCK_DERP_TLS_SERVER_CONTEXT_H_
