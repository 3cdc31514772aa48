// What a relay asks the operating system about the host it runs on.
#ifndef RINGSOCK_RELAY_HOST_H_
#define RINGSOCK_RELAY_HOST_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/endpoint.h"
#include "io/fd.h"

namespace ringsock::relay {

// Cores this process may run on.
std::vector<int> AllowedCpus();

// Raises the limit of open descriptors as far as it goes, and returns it.
uint64_t RaiseDescriptorLimit();

// Whether sockets of IPv6 can be opened here at all.
bool HasIpv6();

// A TCP port that several sockets of this process will share (SO_REUSEPORT).
struct SharedPort {
  uint16_t port = 0;
  io::Fd held;  // keeps others from a port that the kernel chose; until the listeners are there
};
// Finds out whether another program has `address`, which sharing would hide: its sockets and ours
// would each get a part of the connections. For port 0 one is chosen. The error names the cure;
// what else may be wrong with the address is for whoever listens to say.
absl::StatusOr<SharedPort> ClaimPort(const Endpoint& address);

// The first address of a name, by the system's resolver, which may take some seconds; an address
// stands for itself.
absl::StatusOr<IpAddress> ResolveHost(const std::string& host);

}  // namespace ringsock::relay

#endif  // RINGSOCK_RELAY_HOST_H_
