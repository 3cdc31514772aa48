// The name of a peer, small enough to travel with every packet.
#ifndef RINGSOCK_CORE_PEER_ID_H_
#define RINGSOCK_CORE_PEER_ID_H_

#include <cstdint>

namespace ringsock {

// Names a peer from CreateEndpoint() until UpdatePeers() drops it, after which the same number
// never names another one: a late send to it is a counted drop. A plain value, valid on every
// thread.
enum class PeerId : uint64_t { kNone = 0 };

}  // namespace ringsock

#endif  // RINGSOCK_CORE_PEER_ID_H_
