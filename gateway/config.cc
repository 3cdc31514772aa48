#include "gateway/config.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/file.h"
#include "core/address_set.h"
#include "gateway/json_object.h"
#include "gateway/relay_config.h"

namespace ringsock::gateway {
namespace {

// As many as the engine takes (EngineOptions::max_peers).
constexpr size_t kMaxPeers = 1u << 20;
// A million peers take a quarter of it.
constexpr size_t kMaxFileSize = size_t{1} << 30;
// Each shard and each Sender reads the peer tables, of which no more than kMaxReaders may
// (core/quiescence.h); this is well below.
constexpr int64_t kMaxShards = 128;
constexpr size_t kMaxNameLength = 64;
// IFNAMSIZ less the final zero byte.
constexpr size_t kMaxInterfaceLength = 15;
// From 16 addresses to all that 127.0.0.0/8 has beside the reserved ones.
constexpr int kLongestPrefix = 28;
constexpr int kShortestPrefix = 9;

// Loopback addresses that others use.
struct Reserved {
  const char* cidr;
  const char* user;
};
constexpr Reserved kReserved[] = {
    {"127.0.0.0/24", "localhost and local resolvers"},
    {"127.0.1.1/32", "the host's own name on Debian"},
    {"127.3.3.40/32", "relay endpoints"},
};

absl::Status Invalid(absl::string_view why) { return absl::InvalidArgumentError(why); }

bool Overlap(const LoopbackRange& a, const LoopbackRange& b) {
  return a.base - b.base < b.size || b.base - a.base < a.size;
}

absl::Status ParseRange(absl::string_view text, LoopbackRange* out) {
  const absl::StatusOr<LoopbackRange> range = LoopbackRange::Parse(text);
  if (!range.ok()) return range.status();
  if (range->size < (1u << (32 - kLongestPrefix)) || range->size > (1u << (32 - kShortestPrefix))) {
    return Invalid(
        absl::StrCat("the prefix length is from ", kShortestPrefix, " to ", kLongestPrefix));
  }
  for (const Reserved& reserved : kReserved) {
    if (Overlap(*range, *LoopbackRange::Parse(reserved.cidr))) {
      return Invalid(absl::StrCat("overlaps ", reserved.cidr, ", used by ", reserved.user));
    }
  }
  *out = *range;
  return absl::OkStatus();
}

absl::Status ParseInterface(absl::string_view text, std::string* out) {
  const bool plain = std::all_of(text.begin(), text.end(), [](char c) {
    return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '.' || c == '_' || c == '-';
  });
  if (text.empty() || text.size() > kMaxInterfaceLength || !plain || text.front() == '-') {
    return Invalid("an interface name has 1 to 15 letters, digits, dots, dashes or underscores");
  }
  *out = std::string(text);
  return absl::OkStatus();
}

// Names are printed on lines that people paste into a shell: nothing that ends a line.
absl::Status ParseName(absl::string_view text, std::string* out) {
  const bool printable = std::none_of(text.begin(), text.end(), [](char c) {
    return static_cast<unsigned char>(c) < 0x20 || c == 0x7f;
  });
  if (text.size() > kMaxNameLength || !printable) {
    return Invalid(
        absl::StrCat("a name has at most ", kMaxNameLength, " bytes and no control characters"));
  }
  // It is shown in logs.
  if (MaskKeys(text) != text) return Invalid("looks like a key, which may be a private one");
  *out = std::string(text);
  return absl::OkStatus();
}

absl::Status ParseKey(absl::string_view text, PublicKey* out) {
  const absl::StatusOr<PublicKey> key = PublicKey::Parse(text);
  if (!key.ok()) return key.status();
  *out = *key;
  return absl::OkStatus();
}

absl::Status ParseBind(absl::string_view text, bool v4, IpAddress* out) {
  const absl::StatusOr<IpAddress> ip = IpAddress::Parse(text);
  if (!ip.ok()) return ip.status();
  if (ip->IsV4() != v4) return Invalid(v4 ? "must be an IPv4 address" : "must be an IPv6 address");
  *out = *ip;
  return absl::OkStatus();
}

absl::Status ParseWireGuardAddress(absl::string_view text, IpAddress* out) {
  const absl::StatusOr<IpAddress> ip = IpAddress::Parse(text);
  if (!ip.ok()) return ip.status();
  if (!ip->IsV4() || !ip->IsLoopback()) return Invalid("must be in 127.0.0.0/8");
  *out = *ip;
  return absl::OkStatus();
}

bool IsMulticast(const IpAddress& ip) {
  return ip.IsV4() ? (ip.bytes[12] & 0xf0) == 0xe0 : ip.bytes[0] == 0xff;
}

absl::Status ParseEndpoint(absl::string_view text, std::vector<Endpoint>* out) {
  const absl::StatusOr<Endpoint> endpoint = Endpoint::Parse(text);
  if (!endpoint.ok()) return endpoint.status();
  if (endpoint->ip.IsUnspecified() || IsMulticast(endpoint->ip)) {
    return Invalid("is no address of one host");
  }
  if (std::find(out->begin(), out->end(), *endpoint) != out->end()) {
    return Invalid("stands twice in the list");
  }
  out->push_back(*endpoint);
  return absl::OkStatus();
}

void ReadPort(JsonObject& object, absl::string_view key, uint16_t min, uint16_t* out) {
  int64_t port = 0;
  object.Require(key);
  object.Integer(key, min, 65535, &port);
  *out = static_cast<uint16_t>(port);
}

void ReadWireGuard(JsonObject& object, Config* config) {
  object.AllowKeys({"port", "address", "interface", "public_key"});
  ReadPort(object, "port", 1, &config->wireguard_port);
  object.Text("address", false, [config](absl::string_view text) {
    return ParseWireGuardAddress(text, &config->wireguard_address);
  });
  object.Text("interface", false, [config](absl::string_view text) {
    return ParseInterface(text, &config->wireguard_interface);
  });
  object.Text("public_key", true, [config](absl::string_view text) {
    return ParseKey(text, &config->wireguard_key.emplace());
  });
}

// With the engine's bounds.
void ReadBatches(JsonObject& object, io::LoopOptions* options) {
  const struct {
    const char* key;
    int64_t min, max;
    uint32_t* out;
  } sizes[] = {
      {"rx_buffers", 1, 32768, &options->rx_buffers},
      {"rx_batch", 1, 1024, &options->rx_batch},
      {"tx_queue", 1, 16384, &options->tx_queue},
      {"tx_slabs", 0, 4096, &options->tx_slabs},
  };
  for (const auto& size : sizes) {
    int64_t value = *size.out;
    object.Integer(size.key, size.min, size.max, &value);
    *size.out = static_cast<uint32_t>(value);
  }
}

void ReadEngine(JsonObject& object, Config* config) {
  object.AllowKeys({"shards",      "pin_threads", "steering",          "backend",        "gso",
                    "gro",         "zero_copy",   "spin_us",           "rx_buffers",     "rx_batch",
                    "tx_queue",    "tx_slabs",    "socket_buffer",     "ipv4",           "ipv6",
                    "bind_ipv4",   "bind_ipv6",   "relay_queue_bytes", "relay_queue_ms", "netcheck",
                    "port_mapping"});
  int64_t shards = config->shards;
  object.Integer("shards", 0, kMaxShards, &shards);
  config->shards = static_cast<uint32_t>(shards);
  object.Bool("pin_threads", &config->pin_threads);
  object.Text("steering", false, [config](absl::string_view text) {
    for (const io::Steering steering :
         {io::Steering::kNone, io::Steering::kSource, io::Steering::kReceiverIndex}) {
      if (text != io::SteeringName(steering)) continue;
      config->steering = steering;
      return absl::OkStatus();
    }
    return Invalid("must be \"none\", \"source\" or \"receiver_index\"");
  });
  object.Text("backend", false, [config](absl::string_view text) {
    if (text == "auto")
      config->io.backend = io::Backend::kAuto;
    else if (text == "io_uring")
      config->io.backend = io::Backend::kUring;
    else if (text == "mmsg")
      config->io.backend = io::Backend::kMmsg;
    else
      return Invalid("must be \"auto\", \"io_uring\" or \"mmsg\"");
    return absl::OkStatus();
  });
  object.Bool("gso", &config->io.gso);
  object.Bool("gro", &config->io.gro);
  object.Bool("zero_copy", &config->io.zero_copy);
  int64_t spin_us = 0;
  object.Integer("spin_us", 0, 1'000'000, &spin_us);
  config->io.spin = std::chrono::microseconds(spin_us);
  ReadBatches(object, &config->io);
  int64_t buffer = config->socket_buffer;
  object.Integer("socket_buffer", 4096, 1 << 30, &buffer);
  config->socket_buffer = static_cast<int>(buffer);
  object.Bool("ipv4", &config->ipv4);
  object.Bool("ipv6", &config->ipv6);
  object.Bool("netcheck", &config->netcheck);
  object.Bool("port_mapping", &config->port_mapping);
  if (!config->ipv4 && !config->ipv6) object.Fail("ipv6", "IPv4 and IPv6 cannot both be off");
  object.Text("bind_ipv4", false,
              [config](absl::string_view text) { return ParseBind(text, true, &config->bind_v4); });
  object.Text("bind_ipv6", false, [config](absl::string_view text) {
    return ParseBind(text, false, &config->bind_v6);
  });
  ReadRelayQueue(object, config);
}

void ReadPeer(JsonObject& object, Config* config) {
  PeerConfig peer;
  object.AllowKeys({"public_key", "name", "derp_region", "endpoints"});
  object.Require("public_key");
  object.Text("public_key", true,
              [&peer](absl::string_view text) { return ParseKey(text, &peer.key); });
  object.Text("name", false,
              [&peer](absl::string_view text) { return ParseName(text, &peer.name); });
  ReadRelayRegion(object, &peer);
  object.Texts("endpoints", kMaxEndpoints - peer.endpoints.size(),
               [&peer](absl::string_view text) { return ParseEndpoint(text, &peer.endpoints); });
  config->peers.push_back(std::move(peer));
}

// What would get the packets sent to `endpoint`, if that is this program or its WireGuard; else "".
absl::string_view OwnListener(const Config& config, const Endpoint& endpoint) {
  if (endpoint.ip.IsLoopback()) {
    if (endpoint.port == config.wireguard_port) return "wireguard.port";
    if (endpoint.port == config.local_port) return "local_port";
  }
  if (config.listen_port == 0 || endpoint.port != config.listen_port) return "";
  const bool v4 = endpoint.ip.IsV4();
  if (!(v4 ? config.ipv4 : config.ipv6)) return "";
  const IpAddress& bound = v4 ? config.bind_v4 : config.bind_v6;
  const bool ours = bound.IsUnspecified() ? endpoint.ip.IsLoopback() : endpoint.ip == bound;
  return ours ? "listen_port" : "";
}

// Keys and endpoints that stand twice, and endpoints that would lead back to ourselves.
absl::Status CheckPeers(const Config& config) {
  absl::flat_hash_map<PublicKey, size_t> keys;
  absl::flat_hash_map<Endpoint, size_t> owners;
  for (size_t i = 0; i < config.peers.size(); ++i) {
    const PeerConfig& peer = config.peers[i];
    const auto [first, fresh] = keys.try_emplace(peer.key, i);
    if (!fresh) {
      return Invalid(absl::StrCat("peers[", i, "].public_key: ", peer.key.ToShortString(),
                                  ": the same key as peers[", first->second, "]"));
    }
    for (size_t e = peer.derp_region ? 1 : 0; e < peer.endpoints.size(); ++e) {
      const Endpoint& endpoint = peer.endpoints[e];
      // As people count them, who wrote derp_region elsewhere.
      const size_t position = peer.derp_region ? e - 1 : e;
      const std::string field =
          absl::StrCat("peers[", i, "].endpoints[", position, "]: \"", endpoint.ToString(), "\": ");
      if (config.range.Contains(endpoint.ip)) {
        return Invalid(absl::StrCat(field, "lies in loopback_range ", config.range.ToString(),
                                    ", which is for WireGuard's side"));
      }
      if (IsRelay(endpoint)) continue;  // many peers share a relay
      const absl::string_view own = OwnListener(config, endpoint);
      if (!own.empty()) {
        return Invalid(absl::StrCat(field, "leads back to this host's ", own));
      }
      const auto [owner, unowned] = owners.try_emplace(endpoint, i);
      if (!unowned) {
        return Invalid(absl::StrCat(field, "belongs to peers[", owner->second, "] already"));
      }
    }
  }
  return absl::OkStatus();
}

absl::Status CheckWhole(const Config& config) {
  if (config.local_port == config.wireguard_port) {
    return Invalid(absl::StrCat("local_port: ", config.local_port,
                                " is wireguard.port; both would listen there"));
  }
  if (config.listen_port == config.wireguard_port || config.listen_port == config.local_port) {
    return Invalid(
        absl::StrCat("listen_port: ", config.listen_port, " is ",
                     config.listen_port == config.local_port ? "local_port" : "wireguard.port",
                     "; both would listen there"));
  }
  if (config.range.Contains(config.wireguard_address)) {
    return Invalid(absl::StrCat("loopback_range: \"", config.range.ToString(),
                                "\": overlaps wireguard.address ",
                                config.wireguard_address.ToString()));
  }
  const absl::Status peers = CheckPeers(config);
  if (!peers.ok()) return peers;
  // Every peer and every configured endpoint has an address for good; as many must stay free for
  // the addresses that peers roam to.
  uint64_t needed = config.peers.size();
  for (const PeerConfig& peer : config.peers) needed += peer.endpoints.size();
  if (needed * 2 > config.range.size) {
    return Invalid(absl::StrCat("loopback_range: \"", config.range.ToString(), "\": has ",
                                config.range.size, " addresses; these peers and endpoints need ",
                                std::bit_ceil(needed * 2), " (half of them for roaming)"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<LoopbackRange> LoopbackRange::Parse(absl::string_view cidr) {
  const std::vector<absl::string_view> parts = absl::StrSplit(cidr, '/');
  uint32_t prefix = 0;
  const bool digits = parts.size() == 2 && !parts[1].empty() && parts[1].size() <= 2 &&
                      parts[1].find_first_not_of("0123456789") == absl::string_view::npos;
  if (!digits || !absl::SimpleAtoi(parts[1], &prefix) || prefix > 32) {
    return Invalid("is not of the form 127.x.y.z/prefix");
  }
  const absl::StatusOr<IpAddress> ip = IpAddress::Parse(parts[0]);
  if (!ip.ok()) return ip.status();
  if (!ip->IsV4() || !ip->IsLoopback() || prefix < 8) return Invalid("is not inside 127.0.0.0/8");
  LoopbackRange range;
  range.base = ip->V4HostOrder();
  range.size = 1u << (32 - prefix);
  if ((range.base & (range.size - 1)) != 0) {
    const uint32_t first = range.base & ~(range.size - 1);
    return Invalid(
        absl::StrCat("has host bits set; the range starts at ", IpAddress::V4(first).ToString()));
  }
  return range;
}

std::string LoopbackRange::ToString() const {
  return absl::StrCat(IpAddress::V4(base).ToString(), "/", 32 - std::countr_zero(size));
}

absl::StatusOr<Config> ParseConfig(absl::string_view file, absl::string_view text) {
  Config config;
  const absl::Status status = ReadJson(file, text, [&config](JsonObject& root) {
    root.AllowKeys({"wireguard", "listen_port", "local_port", "loopback_range", "private_key_file",
                    "derp_map", "derp_home", "derp_roots_file", "endpoints_file",
                    "endpoints_command", "engine", "log_level", "peers"});
    root.Require("wireguard");
    root.Object("wireguard", [&config](JsonObject& object) { ReadWireGuard(object, &config); });
    ReadPort(root, "listen_port", 0, &config.listen_port);
    ReadPort(root, "local_port", 1, &config.local_port);
    root.Text("loopback_range", false,
              [&config](absl::string_view value) { return ParseRange(value, &config.range); });
    ReadRelays(root, &config);
    root.Object("engine", [&config](JsonObject& object) { ReadEngine(object, &config); });
    root.Text("log_level", false, [&config](absl::string_view value) {
      constexpr absl::string_view kLevels[] = {"trace", "debug", "info", "warn", "error", "off"};
      if (std::find(std::begin(kLevels), std::end(kLevels), value) == std::end(kLevels)) {
        return Invalid("must be one of trace, debug, info, warn, error, off");
      }
      config.log_level = std::string(value);
      return absl::OkStatus();
    });
    root.Require("peers");
    root.Objects("peers", kMaxPeers, [&config](JsonObject& object) { ReadPeer(object, &config); });
    if (!root.ok()) return;
    const absl::Status whole = CheckWhole(config);
    if (!whole.ok()) root.Fail("", whole.message());
  });
  if (!status.ok()) return status;
  return config;
}

absl::StatusOr<Config> LoadConfig(const std::string& file) {
  const absl::StatusOr<std::string> text = ReadFile(file, kMaxFileSize);
  if (!text.ok()) return text.status();
  absl::StatusOr<Config> config = ParseConfig(file, *text);
  if (!config.ok()) return config;
  const absl::Status files = LoadRelayFiles(file, &*config);
  if (!files.ok()) {
    return absl::Status(files.code(), absl::StrCat(file, ": ", files.message()));
  }
  CheckRelayRegions(&*config);
  return config;
}

}  // namespace ringsock::gateway
