#include "gateway/relay_config.h"

#include <algorithm>
#include <filesystem>
#include <set>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/file.h"

namespace ringsock::gateway {
namespace {

// As many bytes as a relay map may have (derp/relay_map.h).
constexpr size_t kMaxMapFile = 4u << 20;
// The system's own has a quarter of a megabyte.
constexpr size_t kMaxRootsFile = 16u << 20;
constexpr int64_t kMaxRegion = 65535;
// Of endpoints_command.
constexpr size_t kMaxArguments = 100;
// The engine's bounds.
constexpr int64_t kMinQueueBytes = 1 << 17;
constexpr int64_t kMaxQueueBytes = 1 << 30;
constexpr int64_t kMaxQueueMs = 60'000;
// Warnings about peers; more would hide the others.
constexpr size_t kMaxPeerWarnings = 10;

absl::Status Invalid(absl::string_view why) { return absl::InvalidArgumentError(why); }

absl::Status ParseFileName(absl::string_view text, std::string* out) {
  if (text.empty()) return Invalid("is no name of a file");
  if (absl::StrContains(text, absl::string_view("\0", 1))) return Invalid("is no name of a file");
  *out = std::string(text);
  return absl::OkStatus();
}

absl::Status ParseMap(absl::string_view json, Config* config) {
  std::vector<std::string> warnings;
  absl::StatusOr<derp::RelayMap> map = derp::ParseRelayMap(json, &warnings);
  if (!map.ok()) return map.status();
  if (map->regions.empty()) warnings.push_back("has no regions, so there are no relays");
  config->derp_map = *std::move(map);
  for (const std::string& warning : warnings) {
    config->warnings.push_back(absl::StrCat("derp_map: ", warning));
  }
  return absl::OkStatus();
}

// `name` as seen from the folder of `file`.
std::string Beside(const std::string& file, const std::string& name) {
  const size_t slash = file.rfind('/');
  if (name.empty() || name.front() == '/' || slash == std::string::npos) return name;
  return file.substr(0, slash + 1) + name;
}

absl::Status About(absl::string_view field, const absl::Status& status) {
  return absl::Status(status.code(), absl::StrCat(field, ": ", status.message()));
}

absl::Status LoadMap(Config* config) {
  const absl::StatusOr<std::string> json = ReadFile(config->derp_map_file, kMaxMapFile);
  if (!json.ok()) return json.status();
  const absl::Status parsed = ParseMap(*json, config);
  return parsed.ok() ? parsed : About(config->derp_map_file, parsed);
}

// The TLS library reads it again; this is for an error that names the field.
absl::Status CheckRoots(const std::string& file) {
  const absl::StatusOr<std::string> pem = ReadFile(file, kMaxRootsFile);
  if (!pem.ok()) return About("derp_roots_file", pem.status());
  if (absl::StrContains(*pem, "-----BEGIN CERTIFICATE-----")) return absl::OkStatus();
  return Invalid(absl::StrCat("derp_roots_file: ", file, ": has no certificate in PEM form"));
}

absl::Status LoadPrivateKey(Config* config) {
  absl::StatusOr<PrivateKey> key = ReadPrivateKeyFile(config->private_key_file);
  if (!key.ok()) return About("private_key_file", key.status());
  const PublicKey ours = key->Public();
  if (config->wireguard_key.has_value() && *config->wireguard_key != ours) {
    return Invalid(absl::StrCat("private_key_file: ", config->private_key_file, ": belongs to ",
                                ours.ToShortString(), ", but wireguard.public_key is ",
                                config->wireguard_key->ToShortString()));
  }
  for (size_t i = 0; i < config->peers.size(); ++i) {
    if (config->peers[i].key != ours) continue;
    return Invalid(absl::StrCat("peers[", i, "].public_key: ", ours.ToShortString(),
                                ": is our own, of private_key_file"));
  }
  config->wireguard_key = ours;
  config->private_key = std::make_shared<const PrivateKey>(*std::move(key));
  return absl::OkStatus();
}

// What is wrong with the relay endpoints of one peer, or "".
std::string Complaint(const Config& config, const PeerConfig& peer) {
  bool direct = false;
  for (const Endpoint& endpoint : peer.endpoints) {
    if (!IsRelay(endpoint)) {
      direct = true;
      continue;
    }
    const RegionId region = RelayRegion(endpoint);
    if (!config.derp_map.has_value()) return "is at a relay, but there is no derp_map";
    if (config.derp_map->Find(region) == nullptr) {
      return absl::StrCat("region ", region, " is not in derp_map");
    }
    if (direct) {
      return absl::StrCat("the relay of region ", region,
                          " should come first: while no path is known to work, packets go to the "
                          "first endpoint");
    }
  }
  return "";
}

}  // namespace

void ReadRelays(JsonObject& root, Config* config) {
  root.TextOrObject(
      "derp_map",
      [config](absl::string_view text) { return ParseFileName(text, &config->derp_map_file); },
      [config](absl::string_view json) { return ParseMap(json, config); });
  root.Text("private_key_file", true, [config](absl::string_view text) {
    if (PrivateKey::Parse(text).ok()) {
      return Invalid("is a key; write it to a file that only we may read, and give its name");
    }
    return ParseFileName(text, &config->private_key_file);
  });
  root.Text("derp_roots_file", false, [config](absl::string_view text) {
    return ParseFileName(text, &config->derp_roots_file);
  });
  root.Text("endpoints_file", false, [config](absl::string_view text) {
    return ParseFileName(text, &config->endpoints_file);
  });
  root.Texts("endpoints_command", kMaxArguments, [config](absl::string_view text) {
    if (absl::StrContains(text, absl::string_view("\0", 1))) return Invalid("has a zero byte");
    if (text.empty() && config->endpoints_command.empty()) return Invalid("is no program");
    config->endpoints_command.emplace_back(text);
    return absl::OkStatus();
  });
  int64_t home = 0;
  root.Integer("derp_home", 1, kMaxRegion, &home);
  config->derp_home = static_cast<RegionId>(home);
  if (home != 0 && !root.Has("derp_map")) root.Fail("derp_home", "needs a derp_map");
  if (root.Has("derp_map") && !root.Has("private_key_file")) {
    root.Fail("private_key_file",
              "is missing; relays want a proof that the WireGuard key is ours (derp_map)");
  }
}

void ReadRelayQueue(JsonObject& engine, Config* config) {
  int64_t bytes = config->relay_queue.bytes;
  engine.Integer("relay_queue_bytes", kMinQueueBytes, kMaxQueueBytes, &bytes);
  config->relay_queue.bytes = static_cast<uint32_t>(bytes);
  int64_t age_ms =
      std::chrono::duration_cast<std::chrono::milliseconds>(config->relay_queue.age).count();
  engine.Integer("relay_queue_ms", 1, kMaxQueueMs, &age_ms);
  config->relay_queue.age = std::chrono::milliseconds(age_ms);
}

void ReadRelayRegion(JsonObject& object, PeerConfig* peer) {
  int64_t region = 0;
  object.Integer("derp_region", 1, kMaxRegion, &region);
  if (region == 0) return;
  peer->derp_region = true;
  peer->endpoints.push_back(RelayEndpoint(static_cast<RegionId>(region)));
}

// Whether `ours` is the configuration `file` or one that it names to be read.
bool IsRead(const std::string& file, const Config& config, const std::string& ours) {
  for (const std::string& read :
       {file, config.derp_map_file, config.derp_roots_file, config.private_key_file}) {
    std::error_code missing;
    if (read == ours) return true;
    if (!read.empty() && std::filesystem::equivalent(read, ours, missing)) return true;
  }
  return false;
}

// What we write must not be what we read.
absl::Status CheckEndpointsFile(const std::string& file, const Config& config) {
  if (config.endpoints_file.empty()) return absl::OkStatus();
  const std::string& name = config.endpoints_file;
  const std::string beside = NewFileBeside(name);
  if (IsRead(file, config, name)) {
    return Invalid(absl::StrCat("endpoints_file: ", name,
                                " is a file that is read, and would be lost; name another"));
  }
  if (IsRead(file, config, beside)) {
    return Invalid(absl::StrCat("endpoints_file: ", name, ": is written by way of ", beside,
                                ", which is a file that is read, and would be lost; name another"));
  }
  return absl::OkStatus();
}

absl::Status LoadRelayFiles(const std::string& file, Config* config) {
  if (!config->derp_map_file.empty()) {
    config->derp_map_file = Beside(file, config->derp_map_file);
    if (absl::Status map = LoadMap(config); !map.ok()) return About("derp_map", map);
  }
  if (config->derp_home != 0 && config->derp_map->Find(config->derp_home) == nullptr) {
    return Invalid(absl::StrCat("derp_home: region ", config->derp_home, " is not in derp_map"));
  }
  if (!config->derp_roots_file.empty()) {
    config->derp_roots_file = Beside(file, config->derp_roots_file);
    if (absl::Status roots = CheckRoots(config->derp_roots_file); !roots.ok()) return roots;
  }
  config->endpoints_file = Beside(file, config->endpoints_file);
  config->private_key_file = Beside(file, config->private_key_file);
  if (absl::Status ours = CheckEndpointsFile(file, *config); !ours.ok()) return ours;
  return config->private_key_file.empty() ? absl::OkStatus() : LoadPrivateKey(config);
}

void CheckRelayRegions(Config* config) {
  size_t complaints = 0;
  for (size_t i = 0; i < config->peers.size(); ++i) {
    const std::string complaint = Complaint(*config, config->peers[i]);
    if (complaint.empty() || ++complaints > kMaxPeerWarnings) continue;
    config->warnings.push_back(
        absl::StrCat("peers[", i, "] (", config->peers[i].Label(), "): ", complaint));
  }
  if (complaints > kMaxPeerWarnings) {
    config->warnings.push_back(
        absl::StrCat("... and ", complaints - kMaxPeerWarnings, " peers more like these"));
  }
}

}  // namespace ringsock::gateway
