// The entry of a relay map that leads clients to this relay, ready to be pasted.
#ifndef RINGSOCK_RELAY_MAP_ENTRY_H_
#define RINGSOCK_RELAY_MAP_ENTRY_H_

#include <array>
#include <cstdint>
#include <optional>
#include <string>

#include "base/endpoint.h"
#include "derp/relay_map.h"

namespace ringsock::relay {

struct MapEntry {
  RegionId region_id = 0;
  std::string region_code;
  std::string region_name;
  std::string host_name;          // a DNS name or an IP address
  std::optional<IpAddress> ipv4;  // given: clients need not ask DNS
  std::optional<IpAddress> ipv6;
  uint16_t derp_port = derp::kDefaultDerpPort;
  std::optional<uint16_t> stun_port;           // none: no STUN here
  std::optional<std::array<uint8_t, 32>> pin;  // of a self-signed certificate
};

// "sha256-raw:" and 64 hex digits.
std::string PinText(const std::array<uint8_t, 32>& pin);

// A map of this one region with this one node. A host name that is an IP address stands for its
// family, and the other family is "none" unless it is given too.
derp::RelayMap MakeRelayMap(const MapEntry& entry);

}  // namespace ringsock::relay

#endif  // RINGSOCK_RELAY_MAP_ENTRY_H_
