// Where packets for a relay leave the packet path: the seam between the shards and the DERP
// connections of the control thread.
#ifndef RINGSOCK_CORE_RELAY_QUEUE_H_
#define RINGSOCK_CORE_RELAY_QUEUE_H_

#include <cstdint>

#include "base/endpoint.h"
#include "base/key.h"
#include "core/engine.h"

namespace ringsock {

class RelayQueue {
 public:
  virtual ~RelayQueue() = default;
  // On the thread of shard number `shard`: copies the packets into the write queue of that region.
  // Never blocks. Returns how many packets it took, in order from the first; the caller counts the
  // others as dropped because the queue is full (spec: SEND-7).
  virtual uint32_t Push(uint32_t shard, RegionId region, const PublicKey& peer,
                        const PacketTrain& packets) = 0;
};

}  // namespace ringsock

#endif  // RINGSOCK_CORE_RELAY_QUEUE_H_
