// Asks the router in front of us to forward a UDP port to us, so that peers reach us without a
// traversal of its NAT: NAT-PMP (RFC 6886, by libnatpmp), else UPnP IGD (by libminiupnpc). Keeps
// the mapping alive, takes it back at the end. A thread of its own, since both libraries block.
#ifndef RINGSOCK_CORE_PORT_MAPPER_H_
#define RINGSOCK_CORE_PORT_MAPPER_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/clock.h"
#include "base/endpoint.h"

namespace ringsock {

struct PortMappingRequest {
  IpAddress gateway;      // IPv4, of the default route
  uint16_t port = 0;      // ours, on this host
  uint16_t external = 0;  // wanted on the router's outside: the one we had, or `port`
  Duration lifetime{};    // after which the router may forget it
  int interrupt = -1;     // becomes readable when the wait must end
};

struct PortMapping {
  Endpoint external;
  Duration lifetime{};        // granted
  const char* protocol = "";  // "NAT-PMP", "UPnP"
};

// A way to ask. Blocks for some seconds at most (a hostile router can stretch UPnP to more); for
// the mapper's thread.
class PortMappingProtocol {
 public:
  virtual ~PortMappingProtocol() = default;
  // Asks for a mapping, or for more time for the one there is.
  virtual absl::StatusOr<PortMapping> Map(const PortMappingRequest& request) = 0;
  // Takes it back, without much ado.
  virtual void Unmap(const PortMappingRequest& request) = 0;
};
std::unique_ptr<PortMappingProtocol> NewNatPmp();
std::unique_ptr<PortMappingProtocol> NewUpnp();

struct PortMapperOptions {
  uint16_t port = 0;
  Duration lifetime = std::chrono::hours(2);  // RFC 6886 section 3.3 recommends it
  Duration retry = std::chrono::minutes(2);   // after nobody answered
  // A router that grants less than twice this would be asked all the time.
  Duration min_renewal = std::chrono::seconds(10);
};

struct PortMapperStatus {
  Endpoint external;  // none: no mapping
  std::string protocol;
  std::string last_error;  // of the last request; there may be a mapping that is still good
  uint64_t requests = 0;
  uint64_t failures = 0;  // requests that no protocol could fulfil
};

class PortMapper {
 public:
  // On the mapper's thread, when the mapping changed; none: it is gone. One that could not be
  // renewed is so only when the router's time for it is over.
  using Callback = std::function<void(const Endpoint& external)>;

  // `protocols` in the order to try them; what worked is asked first the next time. Asks nothing
  // before SetGateway().
  static absl::StatusOr<std::unique_ptr<PortMapper>> Start(
      const PortMapperOptions& options, std::vector<std::unique_ptr<PortMappingProtocol>> protocols,
      Callback callback);
  // Takes the mapping back. No callback is running or will come when it returns. Not from one.
  virtual ~PortMapper() = default;
  // Any thread: the default route's IPv4 gateway, or AnyV4() if there is none, and our port, which
  // a rebind may change. Another one than before makes a mapping void and asks anew; a router that
  // is still there is told that it is.
  virtual void SetGateway(const IpAddress& gateway, uint16_t port) = 0;
  virtual PortMapperStatus status() const = 0;
};

}  // namespace ringsock

#endif  // RINGSOCK_CORE_PORT_MAPPER_H_
