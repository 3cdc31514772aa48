// The meta certificate of DERP's fast start: one more certificate behind the TLS chain whose common
// name is "derpkey" and the server's public key in hex, and whose serial number is the protocol
// version. A client that finds it logs in without waiting for HTTP (spec: derp.md, Fast start).
//
// Its signature proves nothing and is not checked. What vouches for the key is the TLS 1.3
// handshake, whose transcript covers all certificates, and the login box, which only opens with the
// private key that belongs to it.
#ifndef RINGSOCK_DERP_META_CERT_H_
#define RINGSOCK_DERP_META_CERT_H_

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "base/key.h"

namespace ringsock::derp {

struct MetaCert {
  PublicKey server_key;
  int version = 0;  // of the protocol, 0 to 127
};

// What a DER certificate says, or nothing if it is no meta certificate. Any bytes may be given.
std::optional<MetaCert> ParseMetaCert(std::span<const uint8_t> der);

// Makes one, self-signed with a throw-away Ed25519 key that is grown from `seed` (32 random bytes).
// Times are seconds of Unix time, from 1950 to 2049; the reference gives it a month each way.
absl::StatusOr<std::vector<uint8_t>> MakeMetaCert(const MetaCert& cert, int64_t not_before,
                                                  int64_t not_after,
                                                  std::span<const uint8_t, 32> seed);

}  // namespace ringsock::derp

#endif  // RINGSOCK_DERP_META_CERT_H_
