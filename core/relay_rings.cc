#include "core/relay_rings.h"

#include "core/packet_train.h"

namespace ringsock {

void RelayRings::Open() {
  for (Link& link : links_) {
    if (link.owner != nullptr) continue;
    link.owner = std::make_unique<Rings>(packets_);
    link.rings.store(link.owner.get(), std::memory_order_release);
  }
  open_.store(true, std::memory_order_release);
}

size_t RelayRings::MemoryUsed() const {
  size_t sum = 0;
  for (const Link& link : links_) {
    if (link.owner == nullptr) continue;
    sum += link.owner->to_relays.MemoryUsed() + link.owner->from_relays.MemoryUsed();
  }
  return sum;
}

uint32_t RelayRings::Push(uint32_t shard, RegionId region, const PublicKey& peer,
                          const PacketTrain& packets) {
  RelayRing* ring = ToRelays(shard);
  if (ring == nullptr) return 0;
  uint32_t taken = 0;
  bool full = false;
  ForEachPiece(packets, UINT32_MAX, [&](const PacketTrain& piece) {
    // Nothing of a train goes after a piece that was lost: the order would have a hole in it.
    full = full || !ring->Append({peer, region, piece});
    if (!full) taken += PacketCount(piece);
  });
  return taken;
}

void RelayRings::Flush(uint32_t shard) {
  if (RelayRing* ring = ToRelays(shard)) ring->Publish();
}

}  // namespace ringsock
