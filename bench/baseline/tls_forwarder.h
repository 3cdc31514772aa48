// The floor for any relay in user space over TLS: one thread, epoll, BoringSSL. What one connection
// says goes to another as it is. No frames, no keys, no queues with a policy: a receiver that does
// not read stops its sender.
#ifndef RINGSOCK_BENCH_BASELINE_TLS_FORWARDER_H_
#define RINGSOCK_BENCH_BASELINE_TLS_FORWARDER_H_

#include <cstdint>

#include "absl/status/status.h"

namespace ringsock::bench {

// The first plaintext of a connection, little endian; it is answered with the same bytes.
struct ForwarderHello {
  uint32_t index = 0;         // of this connection, below kMaxForwarderClients
  uint32_t first = 0;         // what it says goes to `destinations` connections from this one on
  uint32_t destinations = 0;  // 0: it says nothing
  uint32_t chunk = 0;         // bytes that go to each in turn, if there are several
};
inline constexpr uint32_t kMaxForwarderClients = 1 << 16;

// Serves what connects to `listener`, which listens, until `stop` is readable. A self-signed
// certificate is made for it. An error is one of setting up.
absl::Status RunTlsForwarder(int listener, int stop);

}  // namespace ringsock::bench

#endif  // RINGSOCK_BENCH_BASELINE_TLS_FORWARDER_H_
