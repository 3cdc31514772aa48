// Which STUN requests a netcheck sends, and when: every region at first, later mostly the three
// fastest (spec: stun-netcheck.md, NC-2 and NC-3). Pure functions.
#ifndef RINGSOCK_STUN_PROBE_PLAN_H_
#define RINGSOCK_STUN_PROBE_PLAN_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/endpoint.h"
#include "stun/message.h"
#include "stun/report.h"

namespace ringsock::stun {

enum class Family : uint8_t { kV4, kV6 };

// A server, as far as a netcheck wants to know it. Filled from the relay map.
struct ProbeNode {
  // How to reach it over one family.
  struct Address {
    bool enabled = true;               // false: its address for this family is set, but not of it
    std::optional<IpAddress> ip = {};  // none: ask DNS
  };

  std::string name;       // in the log, and for HTTPS
  std::string host_name;  // asked of DNS where an address is not set
  Address v4 = {};
  Address v6 = {};
  std::optional<uint16_t> stun_port = kDefaultPort;  // none: has no STUN
  bool stun_only = false;                            // has no DERP

  const Address& address(Family family) const { return family == Family::kV4 ? v4 : v6; }
  bool HasStun(Family family) const { return stun_port.has_value() && address(family).enabled; }
};

struct ProbeRegion {
  RegionId id = 0;     // not 0, and of one region only
  bool avoid = false;  // probed, but never to be a home
  std::vector<ProbeNode> nodes;
};

using ProbeMap = std::vector<ProbeRegion>;

// Which families this host has an address for (IPv6: a global one).
struct HostFamilies {
  bool v4 = true;
  bool v6 = false;
};

struct Probe {
  Duration delay{};  // from the start of the report
  size_t node = 0;   // index in the nodes of the region

  friend bool operator==(const Probe&, const Probe&) = default;
};

// Probes of one region over one family. Its first answer ends the set (spec: NC-5).
struct ProbeSet {
  size_t region = 0;  // index in the map
  Family family = Family::kV4;
  std::vector<Probe> probes;  // by delay; never empty

  friend bool operator==(const ProbeSet&, const ProbeSet&) = default;
};

using ProbePlan = std::vector<ProbeSet>;

inline constexpr int kFullTries = 3;
inline constexpr Duration kFullInterval = std::chrono::milliseconds(100);
inline constexpr size_t kIncrementalRegions = 3;
inline constexpr size_t kIncrementalFastest = 2;  // of these, how many get two tries
inline constexpr Duration kDefaultRetry = std::chrono::milliseconds(200);

// spec: NC-2. In the order of the map, IPv4 before IPv6.
ProbePlan FullPlan(const ProbeMap& map, const HostFamilies& host);
// spec: NC-3. Regions without a latency in `last` come after those with one, in the order of the
// map. The third place goes to IPv4 on a dual-stack host, the fourth would go to IPv6, and so on.
ProbePlan IncrementalPlan(const ProbeMap& map, const HostFamilies& host, const Report& last);

}  // namespace ringsock::stun

#endif  // RINGSOCK_STUN_PROBE_PLAN_H_
