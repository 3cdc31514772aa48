// Where a key is: the words that the registry and the workers exchange. Every worker keeps a
// replica of the table from key to route, which it alone reads and writes.
#ifndef RINGSOCK_RELAY_ROUTE_H_
#define RINGSOCK_RELAY_ROUTE_H_

#include <cstdint>
#include <functional>

#include "base/key.h"

namespace ringsock::relay {

class Worker;

// A connection of a worker. A slot is used again with another generation, so a reference that has
// gone stale finds nothing.
struct ConnectionRef {
  uint32_t worker = 0;
  uint32_t slot = 0;
  uint32_t generation = 0;

  friend bool operator==(const ConnectionRef&, const ConnectionRef&) = default;
};

struct Route {
  enum class Kind : uint8_t { kNone, kClient, kMesh };
  Kind kind = Kind::kNone;
  ConnectionRef ref;
};

// What happened elsewhere, for a worker. In the order of the registry.
struct Notice {
  enum class Kind : uint8_t {
    kRoute,         // the way to `key` is now `route`
    kPeerGone,      // tell the client `route.ref` that `key` is gone
    kDuplicate,     // the key of the client `route.ref` has another connection, too
    kNotDuplicate,  // no longer
    kCloseOldest,   // close `route.ref`: its key has too many connections
    kClosePeer,     // close `route.ref`: a meshed server wants it
  };
  Kind kind = Kind::kRoute;
  PublicKey key;
  Route route;
};

}  // namespace ringsock::relay

#endif  // RINGSOCK_RELAY_ROUTE_H_
