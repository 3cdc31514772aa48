// The real connections to relays, and what they share: names, trust, randomness.
#ifndef RINGSOCK_CORE_RELAY_CONNECTOR_H_
#define RINGSOCK_CORE_RELAY_CONNECTOR_H_

#include <memory>

#include "base/timer_queue.h"
#include "core/engine.h"
#include "core/relay_hub.h"
#include "io/loop.h"

namespace ringsock {

// Nothing is made before its first Prepare(), on the control thread, whose `loop` and `timers`
// these are; they outlive it.
std::unique_ptr<RelayConnector> NewRelayConnector(io::Loop* loop, TimerQueue* timers,
                                                  const RelayOptions& options);

}  // namespace ringsock

#endif  // RINGSOCK_CORE_RELAY_CONNECTOR_H_
