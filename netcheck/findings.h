// What a check found out, as far as a person wants to know it: the netcheck's report and what is
// known beside it. And what follows from that, in words.
#ifndef RINGSOCK_NETCHECK_FINDINGS_H_
#define RINGSOCK_NETCHECK_FINDINGS_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/endpoint.h"
#include "derp/relay_map.h"
#include "stun/netcheck.h"
#include "stun/probe_plan.h"
#include "stun/report.h"

namespace ringsock::netcheck {

struct PortMappingFinding {
  bool asked = false;
  Endpoint external;     // none: no mapping
  std::string protocol;  // "NAT-PMP", "UPnP"
  std::string why_not;   // without a mapping
};

struct Findings {
  stun::Report report;
  Duration took{};
  stun::HostFamilies host;       // which addresses this host has
  std::vector<IpAddress> local;  // they themselves, without loopback
  uint16_t port = 0;             // that was sent from
  int send_error_v4 = 0;         // errno of a probe that did not leave; 0: all left
  int send_error_v6 = 0;
  std::map<std::string, std::string> unresolved;  // names without any address, and why
  bool https = false;                             // was measured, as nothing came over UDP
  std::map<RegionId, std::string> https_errors;
  stun::NetcheckStats stats;  // of this report alone
  PortMappingFinding port_mapping;
};

// Whether the map has somebody to ask over IPv4 (else IPv6).
bool Asks(const derp::RelayMap& map, bool v4);
// Whether a NAT is in front of this host, over IPv4.
stun::Answer BehindNat(const Findings& findings);
// Whether the router's mapping leads in from where the STUN servers are: its address is the one
// that they see.
bool MappingReaches(const Findings& findings);

enum class Level : uint8_t {
  kNote,     // good to know; all works
  kTrouble,  // something does not work, or works badly: exit status 1
};

struct Advice {
  Level level = Level::kNote;
  const char* id = "";  // for scripts, never changed: "udp_blocked", see docs/netcheck.md
  std::string text;     // what it means and what to do, sentences

  friend bool operator==(const Advice&, const Advice&) = default;
};

// Trouble first.
std::vector<Advice> Advise(const Findings& findings, const derp::RelayMap& map);
bool IsTrouble(const std::vector<Advice>& advice);

}  // namespace ringsock::netcheck

#endif  // RINGSOCK_NETCHECK_FINDINGS_H_
