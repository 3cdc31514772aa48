// One remote WireGuard node, as shards see it: its id, its key and its addresses. Immutable but for
// the path in use; a change of the addresses makes a new Peer with the same id.
#ifndef RINGSOCK_CORE_PEER_H_
#define RINGSOCK_CORE_PEER_H_

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/endpoint.h"
#include "base/key.h"
#include "core/address_set.h"
#include "core/peer_id.h"

namespace ringsock {

// Owned by the PeerTable. A reader may use it until its next quiescent point and must not keep it
// beyond; what it may keep is the id.
class alignas(64) Peer {
 public:
  // Bytes of a peer with `endpoints` addresses: 192 for up to two, 256 for up to four.
  static constexpr size_t SizeFor(size_t endpoints) {
    return (kListOffset + endpoints * sizeof(Endpoint) + 63) / 64 * 64;
  }
  // Makes a peer in `memory`: SizeFor(endpoints.size()) bytes, aligned to a cache line.
  static Peer* Construct(void* memory, PeerId id, const PublicKey& key,
                         std::span<const Endpoint> endpoints) {
    return new (memory) Peer(id, key, endpoints);
  }
  Peer(const Peer&) = delete;
  Peer& operator=(const Peer&) = delete;

  PeerId id() const { return static_cast<PeerId>(addresses_.label()); }
  const PublicKey& key() const { return key_; }
  AddressSet& addresses() { return addresses_; }
  const AddressSet& addresses() const { return addresses_; }

  // The cache line that receiving and sending read.
  const void* hot_line() const { return reinterpret_cast<const std::byte*>(this) + kHotOffset; }

 private:
  Peer(PeerId id, const PublicKey& key, std::span<const Endpoint> endpoints)
      : key_(key), addresses_(endpoints, static_cast<uint64_t>(id)) {}

  static constexpr size_t kHotOffset = 128;  // id and state, then the first two addresses
  static constexpr size_t kListOffset = 144;

  const PublicKey key_;
  const uint64_t reserved_ = 0;  // brings id and state to a line of their own
  AddressSet addresses_;         // last: its list follows
};

}  // namespace ringsock

#endif  // RINGSOCK_CORE_PEER_H_
