// The relay map as a netcheck wants it: which STUN servers there are and how to reach them. Pure
// functions (spec: stun-netcheck.md, NC-2 and NC-11).
#ifndef RINGSOCK_CORE_PROBE_MAP_H_
#define RINGSOCK_CORE_PROBE_MAP_H_

#include "base/endpoint.h"
#include "derp/relay_map.h"
#include "stun/probe_plan.h"

namespace ringsock {

// Regions in the order of their ids, nodes in the order of the map. A node without a name goes by
// its host name. An address in place of a host name is taken as one, and a family without address
// or name is off: what is left to DNS is a name.
stun::ProbeMap ToProbeMap(const derp::RelayMap& map);

// The relay that a node made by ToProbeMap() stands for: the one to measure over HTTPS (NC-9). Null
// if the map has changed and has no such relay any more. Points into `map`.
const derp::RelayNode* FindProbedRelay(const derp::RelayMap& map, RegionId region,
                                       const stun::ProbeNode& node);

}  // namespace ringsock

#endif  // RINGSOCK_CORE_PROBE_MAP_H_
