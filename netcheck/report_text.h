// A check's findings for people, and for scripts.
#ifndef RINGSOCK_NETCHECK_REPORT_TEXT_H_
#define RINGSOCK_NETCHECK_REPORT_TEXT_H_

#include <string>
#include <vector>

#include "derp/relay_map.h"
#include "netcheck/findings.h"

namespace ringsock::netcheck {

// Some lines; the last one ends.
std::string ToText(const Findings& findings, const std::vector<Advice>& advice,
                   const derp::RelayMap& map);
// One line of JSON without its end. Fields are only ever added: see docs/netcheck.md.
std::string ToJson(const Findings& findings, const std::vector<Advice>& advice,
                   const derp::RelayMap& map);

}  // namespace ringsock::netcheck

#endif  // RINGSOCK_NETCHECK_REPORT_TEXT_H_
