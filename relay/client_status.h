// What there is to say about one connection of a relay.
#ifndef RINGSOCK_RELAY_CLIENT_STATUS_H_
#define RINGSOCK_RELAY_CLIENT_STATUS_H_

#include <cstdint>
#include <string>

#include "base/clock.h"
#include "base/endpoint.h"
#include "base/key.h"

namespace ringsock::relay {

// One connection, for debugging.
struct ClientStatus {
  PublicKey key;
  Endpoint remote;
  int worker = 0;
  bool mesh = false;       // a server of our region
  bool active = false;     // receives what is sent to its key (the newest connection of it does)
  bool preferred = false;  // says that this relay is its home
  std::string app_name;    // untrusted text
  std::string tls;         // version and cipher; empty: plain
  Instant since{};         // of the login
  uint64_t packets_in = 0;
  uint64_t bytes_in = 0;
  uint64_t packets_out = 0;
  uint64_t dropped = 0;  // of its queue
  uint64_t queued_bytes = 0;
};

}  // namespace ringsock::relay

#endif  // RINGSOCK_RELAY_CLIENT_STATUS_H_
