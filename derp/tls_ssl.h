// What both roles ask of BoringSSL: settings, the way of bytes in and out, and its errors in words.
#ifndef RINGSOCK_DERP_TLS_SSL_H_
#define RINGSOCK_DERP_TLS_SSL_H_

#include <openssl/ssl.h>

#include <cstddef>
#include <span>

#include "absl/status/status.h"
#include "derp/tls.h"

namespace ringsock::derp {

// Versions, ciphers, memory.
absl::Status ConfigureTls(SSL_CTX* ctx);

// Where an SSL reads and writes its ciphertext. Must outlive the SSL it is attached to.
struct TlsTransport {
  std::span<const std::byte> input;  // what has come and is not read yet
  TlsSink* sink = nullptr;           // null: what it writes goes nowhere
};
// Reads straight from `transport->input`, writes straight to its sink. False: out of memory.
bool AttachTransport(SSL* ssl, TlsTransport* transport);

// What went wrong with an SSL that said SSL_ERROR_SSL, from this thread's queue of errors, which
// it empties. kAborted if the other side sent an alert.
absl::Status TakeSslError();

}  // namespace ringsock::derp

#endif  // RINGSOCK_DERP_TLS_SSL_H_
