// Which shard does the work for a peer, or for an address, where that is for us to choose: packets
// of other threads' Senders, and packets that a relay brought. Always the same one, which keeps
// their order. (What a socket receives is with the shard that the kernel chose.)
#ifndef RINGSOCK_CORE_SHARD_OF_H_
#define RINGSOCK_CORE_SHARD_OF_H_

#include <cstddef>
#include <cstdint>

#include "base/endpoint.h"
#include "core/peer_id.h"

namespace ringsock {

namespace internal {

// Fixed: which shard sends a packet is no secret and no target.
inline constexpr uint64_t kShardSeed = 0x7e55e1;

inline uint32_t ScaleToShards(uint64_t hash, size_t shards) {
  return static_cast<uint32_t>(((hash >> 32) * shards) >> 32);
}

}  // namespace internal

inline uint32_t ShardOf(PeerId peer, size_t shards) {
  // Fibonacci hashing: ids are numbered, and a product by this constant spreads them evenly.
  return internal::ScaleToShards(static_cast<uint64_t>(peer) * 0x9e3779b97f4a7c15u, shards);
}

inline uint32_t ShardOf(const Endpoint& address, size_t shards) {
  return internal::ScaleToShards(HashEndpoint(address, internal::kShardSeed), shards);
}

}  // namespace ringsock

#endif  // RINGSOCK_CORE_SHARD_OF_H_
