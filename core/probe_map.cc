#include "core/probe_map.h"

#include <algorithm>
#include <string>

namespace ringsock {
namespace {

const std::string& NameOf(const derp::RelayNode& node) {
  return node.name.empty() ? node.host_name : node.name;
}

stun::ProbeNode::Address AddressOf(const derp::RelayNode& node, bool v4) {
  const derp::RelayNode::Family family = v4 ? node.v4() : node.v6();
  if (!family.enabled || family.address.has_value()) return {family.enabled, family.address};
  if (node.host_name.empty()) return {false, {}};
  const auto literal = IpAddress::Parse(node.host_name);
  if (!literal.ok()) return {true, {}};
  if (literal->IsV4() != v4) return {false, {}};
  return {true, *literal};
}

}  // namespace

stun::ProbeMap ToProbeMap(const derp::RelayMap& map) {
  stun::ProbeMap result;
  result.reserve(map.regions.size());
  for (const auto& [id, region] : map.regions) {
    stun::ProbeRegion& out = result.emplace_back();
    out.id = id;
    out.avoid = region.avoid;
    out.nodes.reserve(region.nodes.size());
    for (const derp::RelayNode& node : region.nodes) {
      out.nodes.push_back({.name = NameOf(node),
                           .host_name = node.host_name,
                           .v4 = AddressOf(node, true),
                           .v6 = AddressOf(node, false),
                           .stun_port = node.stun(),
                           .stun_only = node.stun_only});
    }
  }
  return result;
}

const derp::RelayNode* FindProbedRelay(const derp::RelayMap& map, RegionId region,
                                       const stun::ProbeNode& node) {
  const derp::RelayRegion* found = map.Find(region);
  if (found == nullptr) return nullptr;
  const auto relay =
      std::find_if(found->nodes.begin(), found->nodes.end(), [&](const derp::RelayNode& n) {
        return !n.stun_only && NameOf(n) == node.name && n.host_name == node.host_name;
      });
  return relay == found->nodes.end() ? nullptr : &*relay;
}

}  // namespace ringsock
