// Where packets for a relay leave the packet path, and where relayed ones join it: the seam between
// the shards and the relay connections of the control thread.
#ifndef RINGSOCK_CORE_RELAY_QUEUE_H_
#define RINGSOCK_CORE_RELAY_QUEUE_H_

#include <cstdint>

#include "base/endpoint.h"
#include "base/key.h"
#include "core/engine.h"
#include "core/packet_ring.h"

namespace ringsock {

// All calls are for the thread of shard number `shard`.
class RelayQueue {
 public:
  virtual ~RelayQueue() = default;
  // Whether there are relays at all.
  virtual bool open() const { return true; }
  // Copies the packets into the queue to that region. Never blocks. Returns how many packets it
  // took, in order from the first; the caller counts the others as dropped because the queue is
  // full (spec: SEND-7).
  virtual uint32_t Push(uint32_t shard, RegionId region, const PublicKey& peer,
                        const PacketTrain& packets) = 0;
  // After a run of Push(): shows control what they queued. Control is to be woken then.
  virtual void Flush(uint32_t /*shard*/) {}
  // What relays brought for this shard: records with the peer, if the source's key is one's, and
  // the relay's endpoint. Null: nothing yet.
  virtual PacketRing* Received(uint32_t /*shard*/) { return nullptr; }
};

}  // namespace ringsock

#endif  // RINGSOCK_CORE_RELAY_QUEUE_H_
