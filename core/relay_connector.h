// The real connections to relays, and what they share: names, trust, randomness. Made when first
// needed.
#ifndef RINGSOCK_CORE_RELAY_CONNECTOR_H_
#define RINGSOCK_CORE_RELAY_CONNECTOR_H_

#include <memory>

#include "core/relay_hub.h"

namespace ringsock {

std::unique_ptr<RelayConnector> NewRelayConnector();

}  // namespace ringsock

#endif  // RINGSOCK_CORE_RELAY_CONNECTOR_H_
