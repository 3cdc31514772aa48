// The networks this host is in, as far as paths to peers depend on them: the addresses of the
// interfaces that work, and the default routes. Read from the kernel (rtnetlink(7)) as a whole, so
// that no lost event can leave it wrong.
#ifndef RINGSOCK_CORE_NETWORK_STATE_H_
#define RINGSOCK_CORE_NETWORK_STATE_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/endpoint.h"
#include "core/own_endpoints.h"

namespace ringsock {

struct DefaultRoute {
  bool v4 = true;
  std::string interface;
  IpAddress gateway = IpAddress::AnyV6();  // unspecified: none, the interface is point to point
  uint32_t metric = 0;

  friend bool operator==(const DefaultRoute&, const DefaultRoute&) = default;
};

// Two states are equal if nothing changed that a path could depend on. Interfaces without an
// address are not in it, nor addresses that cannot be used yet (tentative) or by others
// (link-local).
struct NetworkState {
  // By interface that is up and has a carrier; sorted, never empty.
  std::map<std::string, std::vector<IpAddress>> addresses;
  std::vector<IpAddress> loopback;
  std::vector<DefaultRoute> default_routes;  // sorted: family, then metric

  LocalAddresses Local() const;
  bool HasGlobalV6() const;  // an address that may be tried for IPv6 beyond this site

  friend bool operator==(const NetworkState&, const NetworkState&) = default;
};

// What became different, for the log: "eth0: lost 10.0.0.7; default route 0.0.0.0/0 via 10.0.0.1 on
// eth0 added". Empty if nothing did.
std::string DescribeChange(const NetworkState& before, const NetworkState& after);

// Of this thread's network namespace. Interfaces in `ignored` are left out: the tunnel's own, say,
// whose addresses nobody can reach the host by. Errors are the kernel's.
absl::StatusOr<NetworkState> ReadNetworkState(const std::vector<std::string>& ignored);
// The same without default routes: the kernel shows routes only all together, and a router may have
// a million.
absl::StatusOr<NetworkState> ReadAddresses(const std::vector<std::string>& ignored);

}  // namespace ringsock

#endif  // RINGSOCK_CORE_NETWORK_STATE_H_
