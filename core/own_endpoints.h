// What we tell others about ourselves: the list of addresses we can be reached at, and what kind of
// network we are in. Made from a netcheck's report and the addresses of this host. Pure functions
// (spec: magicsock.md, Our own endpoints).
#ifndef RINGSOCK_CORE_OWN_ENDPOINTS_H_
#define RINGSOCK_CORE_OWN_ENDPOINTS_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/endpoint.h"
#include "stun/report.h"

namespace ringsock {

// How an address was found.
enum class EndpointSource : uint8_t {
  kStun,         // a STUN server saw it
  kPortMapping,  // the router gave it to us
  kLocal,        // of a network interface
  kLoopback,     // likewise, and there is nothing better
  kSocket,       // the one the socket is bound to
};
const char* EndpointSourceName(EndpointSource source);  // "stun", "portmap", "local", ...

struct OwnEndpoint {
  Endpoint endpoint;
  EndpointSource source = EndpointSource::kLocal;

  friend bool operator==(const OwnEndpoint&, const OwnEndpoint&) = default;
};
// "192.0.2.1:41641 (stun), 10.0.0.7:41641 (local)", for the log.
std::string ToString(const std::vector<OwnEndpoint>& endpoints);

// Addresses of the interfaces that are up, link-local ones left out: nobody else can use them.
struct LocalAddresses {
  std::vector<IpAddress> regular;
  std::vector<IpAddress> loopback;

  friend bool operator==(const LocalAddresses&, const LocalAddresses&) = default;
};

struct EndpointInputs {
  Endpoint global_v4;  // from STUN; none if not known
  Endpoint global_v6;
  Endpoint port_mapping;  // from the router; none if there is none
  // Where the data sockets are bound, with their real port; nothing for a family that is off.
  std::optional<Endpoint> bound_v4;
  std::optional<Endpoint> bound_v6;
  LocalAddresses local;
};

// In order, without repeats: what STUN saw, the port mapping, then local addresses, or the ones the
// sockets are bound to (spec: EP-3).
std::vector<OwnEndpoint> ListOwnEndpoints(const EndpointInputs& inputs);

// The kind of network we are in (spec: EP-5).
struct NetInfo {
  bool udp = false;   // a STUN server answered
  bool ipv6 = false;  // over IPv6
  stun::Answer mapping_varies = stun::Answer::kUnknown;
  stun::Answer hairpin = stun::Answer::kUnknown;
  RegionId home = 0;  // 0: none
  // By "1-v4", "1-v6": round trip to that region over that family.
  std::map<std::string, Duration> latency;
};
NetInfo MakeNetInfo(const stun::Report& report, RegionId home);
// Different enough to tell others: latencies always move and do not count.
bool DiffersSubstantially(const NetInfo& a, const NetInfo& b);
std::string ToString(const NetInfo& info);

}  // namespace ringsock

#endif  // RINGSOCK_CORE_OWN_ENDPOINTS_H_
