// Whether a relay's certificate chain is what a target asks for, and if not, which check failed and
// why, in words a person can act on (spec: derp.md, Transport).
//
// With a name: the chain must lead to a root and be in its time, for servers and well signed; the
// name must be among the leaf's alternative names, an address among its addresses. The common name
// does not count. With a pin: the leaf is the one certificate, and in its time as the reference has
// it; its names and issuers do not matter. A test switch: nothing is checked.
// In each case a meta certificate at the end is set aside first.
#ifndef RINGSOCK_DERP_TLS_VERIFY_H_
#define RINGSOCK_DERP_TLS_VERIFY_H_

#include <openssl/base.h>
#include <openssl/pool.h>
#include <openssl/x509.h>

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/key.h"
#include "derp/tls.h"

namespace ringsock::derp {

// Certificates that are trusted to vouch for others. Any certificate in it will do as the end of a
// chain, also one that is not self-signed.
class TlsRoots {
 public:
  // From a PEM file, a directory of such files, or both. With neither, from where systems keep
  // theirs: finding none there is no error until a chain is to be verified.
  static absl::StatusOr<TlsRoots> Load(const std::string& file, const std::string& directory);

  size_t size() const { return size_; }
  X509_STORE* store() const { return store_.get(); }
  const std::string& source() const { return source_; }

 private:
  TlsRoots() = default;
  absl::Status AddFile(const std::string& path);
  absl::Status AddDirectory(const std::string& path);
  void AddSystem();

  bssl::UniquePtr<X509_STORE> store_;
  std::string source_;
  size_t size_ = 0;
};

struct TlsVerdict {
  absl::Status status;      // kUnauthenticated if a check failed
  uint8_t alert = 0;        // SSL_AD_*, for the other side, if one did
  int64_t valid_until = 0;  // Unix time until which it would hold
  std::optional<PublicKey> meta_key;
};

// `chain` as the handshake brought it, the leaf first.
TlsVerdict VerifyTlsChain(const STACK_OF(CRYPTO_BUFFER) * chain, const TlsTarget& target,
                          const TlsRoots& roots, int64_t unix_time);

}  // namespace ringsock::derp

#endif  // RINGSOCK_DERP_TLS_VERIFY_H_
