#include "relay/map_entry.h"

#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"

namespace ringsock::relay {

std::string PinText(const std::array<uint8_t, 32>& pin) {
  return absl::StrCat("sha256-raw:", absl::BytesToHexString(
                                         {reinterpret_cast<const char*>(pin.data()), pin.size()}));
}

derp::RelayMap MakeRelayMap(const MapEntry& entry) {
  derp::RelayNode node;
  node.name = absl::StrCat(entry.region_id, "a");
  node.region_id = entry.region_id;
  node.host_name = entry.host_name;
  if (entry.pin.has_value()) node.cert_name = PinText(*entry.pin);
  std::optional<IpAddress> v4 = entry.ipv4;
  std::optional<IpAddress> v6 = entry.ipv6;
  if (const auto ip = IpAddress::Parse(entry.host_name); ip.ok()) {
    (ip->IsV4() ? v4 : v6) = *ip;
    if (!v4.has_value()) node.ipv4 = "none";
    if (!v6.has_value()) node.ipv6 = "none";
  }
  if (v4.has_value()) node.ipv4 = v4->ToString();
  if (v6.has_value()) node.ipv6 = v6->ToString();
  if (!entry.stun_port.has_value()) {
    node.stun_port = -1;
  } else if (*entry.stun_port != derp::kDefaultStunPort) {
    node.stun_port = *entry.stun_port;
  }
  if (entry.derp_port != derp::kDefaultDerpPort) node.derp_port = entry.derp_port;

  derp::RelayRegion region;
  region.region_id = entry.region_id;
  region.region_code = entry.region_code;
  region.region_name = entry.region_name;
  region.nodes.push_back(std::move(node));
  derp::RelayMap map;
  map.regions.emplace(entry.region_id, std::move(region));
  return map;
}

}  // namespace ringsock::relay
