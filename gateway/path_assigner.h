// Gives out loopback addresses to the paths that packets come over, one PathAssigner per shard,
// each with its part of the range. There are four classes (PathClass), each with addresses of its
// own, so that a flood of one kind of source takes nothing from the others:
//
//   unknown, handshake, recognised
//         pending: never answered by WireGuard. Few. Reused oldest first, but only after
//         `quarantine`: an answer that is still on its way must not meet an address that stands for
//         somebody else by now. Who wants to fill the second must know WireGuard's public key, the
//         third an index of a session.
//   live  known to the engine as a peer's, or answered by WireGuard. Reused only after `idle`,
//         oldest first, and never the one that WireGuard uses for a peer.
//
// When a class is full of addresses that may not be reused, the packet gets none.
#ifndef RINGSOCK_GATEWAY_PATH_ASSIGNER_H_
#define RINGSOCK_GATEWAY_PATH_ASSIGNER_H_

#include <array>
#include <cstdint>

#include "base/cache_line.h"
#include "gateway/path_addresses.h"

namespace ringsock::gateway {

struct AssignerLimits {
  uint32_t pending = 8192;  // of each of the three pending classes
  uint32_t live = 1u << 18;
  uint32_t quarantine_s = 3;
  uint32_t idle_s = kIdlePathSeconds;
};

// All calls on the shard's thread.
class PathAssigner {
 public:
  // Takes part `shard` of `shards` of the range. The limits are lowered to what is free in it: a
  // quarter for the unknown, an eighth for each other pending class. Memory for them is allocated
  // here, none later.
  PathAssigner(PathAddresses* addresses, uint32_t shard, uint32_t shards,
               const AssignerLimits& limits);

  // The address that this path has, now used again; kNoAddress if it has none.
  AddressOffset Lookup(const PathKey& key, Instant now);
  // An address for a path that has none; kNoAddress if there is none to be had. `owner` is the peer
  // that the path belongs to (kLive) or is thought to belong to.
  AddressOffset Assign(const PathKey& key, PeerIndex owner, PathClass kind, Instant now);

  uint32_t size(PathClass kind) const { return queues_[Index(kind)].size; }
  uint32_t limit(PathClass kind) const { return queues_[Index(kind)].limit; }
  // Of the three pending classes together.
  uint32_t pending() const;
  uint32_t live() const { return size(PathClass::kLive); }

 private:
  // A class of addresses in the order of the last packet received, linked through their notes.
  struct Queue {
    uint32_t limit = 0;
    uint32_t size = 0;
    AddressOffset oldest = kNoAddress;
    AddressOffset newest = kNoAddress;

    bool full() const { return size >= limit; }
  };

  static constexpr size_t Index(PathClass kind) { return static_cast<size_t>(kind); }
  Queue& QueueOf(PathClass kind) { return queues_[Index(kind)]; }
  void Push(AddressOffset offset, PathClass kind);
  void Remove(AddressOffset offset);
  size_t SlotOf(const PathKey& key) const;
  AddressOffset Find(const PathKey& key) const;
  void Insert(const PathKey& key, AddressOffset offset);
  void Erase(const PathKey& key);
  // Notes that a packet came over the path.
  void Use(AddressOffset offset, Instant now);
  // An address never given out before; kNoAddress if there is none.
  AddressOffset Fresh(const PathKey& key, PeerIndex owner, PathClass kind, Instant now);
  // The oldest of the class if it may be reused; kNoAddress if not. It is in no class then.
  AddressOffset ReusePending(const PathKey& key, PeerIndex owner, PathClass kind, Instant now);
  AddressOffset ReuseLive(const PathKey& key, PeerIndex owner, PathClass kind, Instant now);
  // Makes the address stand for the key, if it is still what `old` says.
  bool Replace(const PathAddress& old, const PathKey& key, PeerIndex owner, PathClass kind,
               Instant now);

  PathAddresses* const addresses_;
  const AssignerLimits limits_;
  const uint64_t seed_;  // of the hash, so that nobody can aim at one place of the map
  const AddressOffset begin_;
  const AddressOffset end_;
  // The next address never given out, and how many there are left. Starts anywhere: what WireGuard
  // still sends to an address of the last life had better not meet a new source there.
  AddressOffset next_;
  uint32_t left_;
  std::array<Queue, kPathClasses> queues_;
  // Open addressing, linear probing, at most half full; kNoAddress is an empty place.
  CacheLineVector<AddressOffset> map_;
};

}  // namespace ringsock::gateway

#endif  // RINGSOCK_GATEWAY_PATH_ASSIGNER_H_
