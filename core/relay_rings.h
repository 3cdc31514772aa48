// The rings between every shard and the control thread that carry packets for relays and from
// relays. They are allocated when relays are first used: an engine without them pays nothing.
#ifndef RINGSOCK_CORE_RELAY_RINGS_H_
#define RINGSOCK_CORE_RELAY_RINGS_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "base/endpoint.h"
#include "base/key.h"
#include "core/engine.h"
#include "core/packet_ring.h"
#include "core/relay_queue.h"

namespace ringsock {

// A train for a peer whose relay is that region's.
struct RelayRecord {
  PublicKey peer;
  RegionId region = 0;
  PacketTrain packets;

  bool MayFollow(const RelayRecord& before) const {
    return region == before.region && peer == before.peer;
  }
};
using RelayRing = TrainRing<RelayRecord>;

class RelayRings final : public RelayQueue {
 public:
  // `packets` per ring: see PacketRing. With 4,096 of them a shard's two rings take 17 MB, of which
  // what was never filled is not resident.
  RelayRings(size_t shards, uint32_t packets) : packets_(packets), links_(shards) {}

  // Control thread. Opening again costs nothing; what waits while closed stays to be taken.
  void Open();
  void Close() { open_.store(false, std::memory_order_relaxed); }
  size_t shards() const { return links_.size(); }
  // Consumer's end and producer's end; null before the first Open().
  RelayRing* ToRelays(uint32_t shard) const { return Get(shard, &Rings::to_relays); }
  PacketRing* FromRelays(uint32_t shard) const { return Get(shard, &Rings::from_relays); }
  size_t MemoryUsed() const;

  // Shards.
  bool open() const override { return open_.load(std::memory_order_acquire); }
  uint32_t Push(uint32_t shard, RegionId region, const PublicKey& peer,
                const PacketTrain& packets) override;
  void Flush(uint32_t shard) override;
  PacketRing* Received(uint32_t shard) override { return FromRelays(shard); }

 private:
  struct Rings {
    explicit Rings(uint32_t packets) : to_relays(packets), from_relays(packets) {}
    RelayRing to_relays;
    PacketRing from_relays;
  };
  // Made once, never taken away while shards run.
  struct Link {
    std::unique_ptr<Rings> owner;
    std::atomic<Rings*> rings{nullptr};
  };

  template <typename Ring>
  Ring* Get(uint32_t shard, Ring Rings::*which) const {
    Rings* rings = links_[shard].rings.load(std::memory_order_acquire);
    return rings == nullptr ? nullptr : &(rings->*which);
  }

  const uint32_t packets_;
  std::vector<Link> links_;
  std::atomic<bool> open_{false};
};

}  // namespace ringsock

#endif  // RINGSOCK_CORE_RELAY_RINGS_H_
