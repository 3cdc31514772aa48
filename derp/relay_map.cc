#include "derp/relay_map.h"

#include <algorithm>
#include <set>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "derp/json.h"

namespace ringsock::derp {
namespace {

// The public map is 20 KiB; this is room for two hundred such.
constexpr JsonLimits kJsonLimits = {.bytes = 4u << 20, .depth = 16, .values = 1u << 20};
constexpr int64_t kMaxRegion = UINT16_MAX;  // it is the port of 127.3.3.40:N
constexpr int64_t kMaxPort = UINT16_MAX;
constexpr size_t kMaxHostName = 253;  // RFC 1035, less the root
constexpr absl::string_view kNone = "none";
constexpr absl::string_view kPinPrefix = "sha256-raw:";

absl::Status Bad(absl::string_view path, absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat(path, ": ", what));
}

std::string Quoted(absl::string_view text) { return absl::StrCat("\"", CleanText(text, 60), "\""); }

// A name that DNS, TLS and the Host header can all take, or an address in its place.
bool IsHostName(absl::string_view name) {
  if (IpAddress::Parse(name).ok()) return true;
  return name.size() <= kMaxHostName && !absl::StartsWith(name, ".") &&
         !absl::StartsWith(name, "-") && !absl::StrContains(name, "..") &&
         std::all_of(name.begin(), name.end(), [](char c) {
           return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '.' || c == '-' ||
                  c == '_';
         });
}

// The names of regions go to logs and terminals. "São Paulo" is one: control characters are those
// of Unicode, the second half of which are two bytes in UTF-8, which JSON is.
bool HasControlCharacters(absl::string_view text) {
  for (size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    const auto next = static_cast<unsigned char>(i + 1 < text.size() ? text[i + 1] : 0);
    if (byte < 0x20 || byte == 0x7f || (byte == 0xc2 && next < 0xa0)) return true;
  }
  return false;
}

RelayNode::Family FamilyOf(absl::string_view text, bool want_v4) {
  if (text.empty()) return {true, std::nullopt};
  const auto address = IpAddress::Parse(text);
  if (!address.ok() || address->IsV4() != want_v4) return {false, std::nullopt};
  return {true, *address};
}

// Reads one map into another representation, keeping the path for errors.
class Reader {
 public:
  explicit Reader(std::vector<std::string>* warnings) : warnings_(warnings) {}

  absl::StatusOr<RelayMap> Read(const nlohmann::json& json);

 private:
  absl::Status ReadRegion(const std::string& key, const nlohmann::json& json, RelayRegion* region);
  absl::Status ReadNode(const std::string& path, const nlohmann::json& json, RelayNode* node);
  absl::Status ReadNodeFields(const std::string& path, const nlohmann::json& json, RelayNode* node);
  absl::Status CheckNode(const std::string& path, const RelayNode& node);
  void Warn(std::string text) {
    if (warnings_ != nullptr) warnings_->push_back(std::move(text));
  }

  std::vector<std::string>* const warnings_;
  std::set<std::string> names_;
};

absl::StatusOr<RelayMap> Reader::Read(const nlohmann::json& json) {
  RelayMap map;
  if (auto s = ReadField(json, "", "OmitDefaultRegions", &map.omit_default_regions); !s.ok()) {
    return s;
  }
  const auto regions = json.find("Regions");
  if (regions == json.end() || regions->is_null()) return map;
  if (!regions->is_object()) return Bad("Regions", "not an object");
  for (const auto& [key, value] : regions->items()) {
    RelayRegion region;
    if (auto s = ReadRegion(key, value, &region); !s.ok()) return s;
    const RegionId id = region.region_id;
    map.regions.emplace(id, std::move(region));
  }
  return map;
}

absl::Status Reader::ReadRegion(const std::string& key, const nlohmann::json& json,
                                RelayRegion* region) {
  const std::string path = absl::StrCat("Regions[", Quoted(key), "]");
  int64_t key_id = 0;
  // One spelling for each id, so that no region can hide another.
  if (!absl::SimpleAtoi(key, &key_id) || absl::StrCat(key_id) != key || key_id < 1 ||
      key_id > kMaxRegion) {
    return Bad(path, absl::StrCat("the key is no region id from 1 to ", kMaxRegion));
  }
  if (!json.is_object()) return Bad(path, "not an object");
  int64_t id = key_id;
  if (auto s = ReadField(json, path, "RegionID", 1, kMaxRegion, &id); !s.ok()) return s;
  if (id != key_id) return Bad(absl::StrCat(path, ".RegionID"), absl::StrCat("is ", id));
  region->region_id = static_cast<RegionId>(id);
  const std::pair<const char*, std::string*> names[] = {{"RegionCode", &region->region_code},
                                                        {"RegionName", &region->region_name}};
  for (const auto& [field, out] : names) {
    if (auto s = ReadField(json, path, field, out); !s.ok()) return s;
    if (HasControlCharacters(*out)) {
      return Bad(absl::StrCat(path, ".", field), "has control characters");
    }
  }
  if (auto s = ReadField(json, path, "Avoid", &region->avoid); !s.ok()) return s;

  const auto nodes = json.find("Nodes");
  const std::string nodes_path = absl::StrCat(path, ".Nodes");
  if (nodes == json.end() || nodes->is_null()) return Bad(nodes_path, "no nodes");
  if (!nodes->is_array()) return Bad(nodes_path, "not an array");
  if (nodes->empty()) return Bad(nodes_path, "no nodes");
  for (size_t i = 0; i < nodes->size(); ++i) {
    RelayNode node;
    node.region_id = region->region_id;
    if (auto s = ReadNode(absl::StrCat(nodes_path, "[", i, "]"), (*nodes)[i], &node); !s.ok()) {
      return s;
    }
    region->nodes.push_back(std::move(node));
  }
  return absl::OkStatus();
}

absl::Status Reader::ReadNode(const std::string& path, const nlohmann::json& json,
                              RelayNode* node) {
  if (!json.is_object()) return Bad(path, "not an object");
  if (auto s = ReadNodeFields(path, json, node); !s.ok()) return s;
  int64_t region = node->region_id;
  if (auto s = ReadField(json, path, "RegionID", 1, kMaxRegion, &region); !s.ok()) return s;
  if (region != node->region_id) {
    return Bad(absl::StrCat(path, ".RegionID"),
               absl::StrCat("is ", region, " in region ", node->region_id));
  }
  if (!node->name.empty() && !names_.insert(node->name).second) {
    return Bad(absl::StrCat(path, ".Name"), absl::StrCat(Quoted(node->name), " is there twice"));
  }
  return CheckNode(path, *node);
}

absl::Status Reader::ReadNodeFields(const std::string& path, const nlohmann::json& json,
                                    RelayNode* node) {
  const std::pair<const char*, std::string*> texts[] = {
      {"Name", &node->name}, {"HostName", &node->host_name}, {"CertName", &node->cert_name},
      {"IPv4", &node->ipv4}, {"IPv6", &node->ipv6},
  };
  for (const auto& [field, out] : texts) {
    if (auto s = ReadField(json, path, field, out); !s.ok()) return s;
  }
  const std::pair<const char*, bool*> switches[] = {
      {"STUNOnly", &node->stun_only},
      {"InsecureForTests", &node->insecure_for_tests},
      {"CanPort80", &node->can_port80},
  };
  for (const auto& [field, out] : switches) {
    if (auto s = ReadField(json, path, field, out); !s.ok()) return s;
  }
  struct PortField {
    const char* field;
    int64_t min;
    int* out;
  };
  const PortField ports[] = {
      {"STUNPort", -1, &node->stun_port},
      {"DERPPort", 0, &node->derp_port},
      {"DERPTestPort", 0, &node->derp_test_port},
  };
  for (const PortField& port : ports) {
    int64_t number = 0;
    if (auto s = ReadField(json, path, port.field, port.min, kMaxPort, &number); !s.ok()) return s;
    *port.out = static_cast<int>(number);
  }
  return absl::OkStatus();
}

absl::Status Reader::CheckNode(const std::string& path, const RelayNode& node) {
  const auto field = [&](absl::string_view name) { return absl::StrCat(path, ".", name); };
  if (!IsHostName(node.host_name)) {
    return Bad(field("HostName"), absl::StrCat(Quoted(node.host_name), " is no host name"));
  }
  const bool pinned = absl::StartsWith(node.cert_name, kPinPrefix);
  if (pinned && !node.certificate_pin().has_value()) {
    return Bad(field("CertName"), "sha256-raw: wants 64 hex digits");
  }
  if (!pinned && !IsHostName(node.cert_name)) {
    return Bad(field("CertName"), absl::StrCat(Quoted(node.cert_name), " is no host name"));
  }
  if (CleanText(node.name, node.name.size()) != node.name) {
    return Bad(field("Name"), "has characters no header may have");
  }
  const RelayNode::Family v4 = node.v4();
  const RelayNode::Family v6 = node.v6();
  if (!v4.enabled && !v6.enabled) {
    return Bad(field("IPv4"), absl::StrCat(Quoted(node.ipv4), " and IPv6 ", Quoted(node.ipv6),
                                           ": no address of either family"));
  }
  if (!v4.address.has_value() && !v6.address.has_value() && node.host_name.empty()) {
    return Bad(field("HostName"), "empty, and no address is given");
  }
  if (!v4.enabled && node.ipv4 != kNone) {
    Warn(absl::StrCat(field("IPv4"), ": ", Quoted(node.ipv4), " is no IPv4 address: IPv4 is off"));
  }
  if (!v6.enabled && node.ipv6 != kNone) {
    Warn(absl::StrCat(field("IPv6"), ": ", Quoted(node.ipv6), " is no IPv6 address: IPv6 is off"));
  }
  if (node.insecure()) Warn(absl::StrCat(path, ": its certificate is not verified"));
  return absl::OkStatus();
}

template <typename T>
void PutUnlessZero(nlohmann::ordered_json* json, const char* field, const T& value) {
  if (value != T{}) (*json)[field] = value;
}

nlohmann::ordered_json NodeToJson(const RelayNode& node) {
  nlohmann::ordered_json json;
  json["Name"] = node.name;
  json["RegionID"] = node.region_id;
  json["HostName"] = node.host_name;
  PutUnlessZero(&json, "CertName", node.cert_name);
  PutUnlessZero(&json, "IPv4", node.ipv4);
  PutUnlessZero(&json, "IPv6", node.ipv6);
  PutUnlessZero(&json, "STUNPort", node.stun_port);
  PutUnlessZero(&json, "STUNOnly", node.stun_only);
  PutUnlessZero(&json, "DERPPort", node.derp_port);
  PutUnlessZero(&json, "DERPTestPort", node.derp_test_port);
  PutUnlessZero(&json, "InsecureForTests", node.insecure_for_tests);
  PutUnlessZero(&json, "CanPort80", node.can_port80);
  return json;
}

}  // namespace

RelayNode::Family RelayNode::v4() const { return FamilyOf(ipv4, true); }

RelayNode::Family RelayNode::v6() const { return FamilyOf(ipv6, false); }

uint16_t RelayNode::port() const {
  if (derp_port != 0) return static_cast<uint16_t>(derp_port);
  if (derp_test_port != 0) return static_cast<uint16_t>(derp_test_port);
  return kDefaultDerpPort;
}

std::optional<uint16_t> RelayNode::stun() const {
  if (stun_port < 0) return std::nullopt;
  return stun_port == 0 ? kDefaultStunPort : static_cast<uint16_t>(stun_port);
}

std::string RelayNode::certificate_name() const {
  if (absl::StartsWith(cert_name, kPinPrefix)) return "";
  return cert_name.empty() ? host_name : cert_name;
}

std::optional<std::array<uint8_t, 32>> RelayNode::certificate_pin() const {
  absl::string_view hex = cert_name;
  std::array<uint8_t, 32> pin{};
  if (!absl::StartsWith(hex, kPinPrefix)) return std::nullopt;
  hex.remove_prefix(kPinPrefix.size());
  if (hex.size() != 2 * pin.size() || !std::all_of(hex.begin(), hex.end(), absl::ascii_isxdigit)) {
    return std::nullopt;
  }
  const std::string bytes = absl::HexStringToBytes(hex);
  std::copy(bytes.begin(), bytes.end(), pin.begin());
  return pin;
}

const RelayRegion* RelayMap::Find(RegionId id) const {
  const auto found = regions.find(id);
  return found == regions.end() ? nullptr : &found->second;
}

absl::StatusOr<RelayMap> ParseRelayMap(absl::string_view text, std::vector<std::string>* warnings) {
  const auto json = ParseJsonObject(text, kJsonLimits);
  if (!json.ok()) {
    return absl::InvalidArgumentError(absl::StrCat("relay map: ", json.status().message()));
  }
  return Reader(warnings).Read(*json);
}

std::string ToJson(const RelayMap& map) {
  nlohmann::ordered_json regions = nlohmann::ordered_json::object();
  for (const auto& [id, region] : map.regions) {
    nlohmann::ordered_json json;
    json["RegionID"] = region.region_id;
    json["RegionCode"] = region.region_code;
    json["RegionName"] = region.region_name;
    PutUnlessZero(&json, "Avoid", region.avoid);
    json["Nodes"] = nlohmann::ordered_json::array();
    for (const RelayNode& node : region.nodes) json["Nodes"].push_back(NodeToJson(node));
    regions[absl::StrCat(id)] = std::move(json);
  }
  nlohmann::ordered_json json;
  json["Regions"] = std::move(regions);
  PutUnlessZero(&json, "OmitDefaultRegions", map.omit_default_regions);
  return json.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

}  // namespace ringsock::derp
