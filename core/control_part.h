// A part of what the control thread does, run by it in every turn.
#ifndef RINGSOCK_CORE_CONTROL_PART_H_
#define RINGSOCK_CORE_CONTROL_PART_H_

#include "base/clock.h"
#include "core/peer.h"

namespace ringsock {

// All calls are on the control thread.
class ControlPart {
 public:
  virtual ~ControlPart() = default;
  // Does what is there to be done, within bounds: other parts and the network wait meanwhile. True
  // if there is more to do at once.
  virtual bool Run() = 0;
  // When Run() has something to do of itself.
  virtual Instant NextDeadline() const = 0;
  // A peer came (`before` is null), went (`now` is null), or has other addresses. Views that end
  // with the call.
  virtual void OnPeerChange(const Peer* /*before*/, const Peer* /*now*/) {}
};

}  // namespace ringsock

#endif  // RINGSOCK_CORE_CONTROL_PART_H_
