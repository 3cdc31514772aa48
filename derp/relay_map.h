// The relay map: which regions there are and which servers each has (spec: derp.md, DERP map). Read
// from and written as the JSON that the reference writes.
#ifndef RINGSOCK_DERP_RELAY_MAP_H_
#define RINGSOCK_DERP_RELAY_MAP_H_

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/endpoint.h"

namespace ringsock::derp {

inline constexpr uint16_t kDefaultDerpPort = 443;
inline constexpr uint16_t kDefaultStunPort = 3478;

// One server. Fields as in the JSON; the methods say what they mean.
struct RelayNode {
  std::string name;
  RegionId region_id = 0;
  std::string host_name;
  std::string cert_name;   // what its certificate is checked against; empty: host_name
  std::string ipv4;        // empty: ask DNS; no IPv4 address ("none"): not over IPv4
  std::string ipv6;        // likewise
  int stun_port = 0;       // 0: 3478, -1: none
  bool stun_only = false;  // no DERP on it
  int derp_port = 0;       // 0: 443
  int derp_test_port = 0;  // the port's older name, which also switches verification off
  bool insecure_for_tests = false;
  bool can_port80 = false;

  // How to reach it over one family.
  struct Family {
    bool enabled = true;
    std::optional<IpAddress> address;  // none: ask DNS
  };
  Family v4() const;
  Family v6() const;
  uint16_t port() const;
  std::optional<uint16_t> stun() const;  // none: it has no STUN
  // True only for the two test fields: nothing else switches verification off.
  bool insecure() const { return insecure_for_tests || derp_test_port != 0; }
  // The name to verify the certificate against; empty if it is pinned.
  std::string certificate_name() const;
  // The SHA-256 of the DER bytes of the only certificate that will do ("sha256-raw:<64 hex>").
  std::optional<std::array<uint8_t, 32>> certificate_pin() const;

  friend bool operator==(const RelayNode&, const RelayNode&) = default;
};

struct RelayRegion {
  RegionId region_id = 0;
  std::string region_code;       // "nyc"
  std::string region_name;       // "New York City"
  bool avoid = false;            // not to be a home
  std::vector<RelayNode> nodes;  // in the order to try them; at least one

  friend bool operator==(const RelayRegion&, const RelayRegion&) = default;
};

// Two maps that are equal need no reaction (spec: DERP-7). An empty one switches relaying off.
struct RelayMap {
  std::map<RegionId, RelayRegion> regions;
  bool omit_default_regions = false;

  // Null if there is no such region.
  const RelayRegion* Find(RegionId id) const;

  friend bool operator==(const RelayMap&, const RelayMap&) = default;
};

// At most 4 MiB of JSON. An error names the field as a path, such as
// Regions["1"].Nodes[0].DERPPort. What the rules allow but nobody means, such as an address that is
// none, is said in `warnings` if it is not null.
absl::StatusOr<RelayMap> ParseRelayMap(absl::string_view json, std::vector<std::string>* warnings);

// JSON that ParseRelayMap reads back to an equal map, fields of zero value left out as the
// reference does.
std::string ToJson(const RelayMap& map);

}  // namespace ringsock::derp

#endif  // RINGSOCK_DERP_RELAY_MAP_H_
