// The gateway's configuration: a JSON file, checked whole before anything is opened. The reference
// for operators is docs/gateway.md, an example gateway/example.json.
#ifndef RINGSOCK_GATEWAY_CONFIG_H_
#define RINGSOCK_GATEWAY_CONFIG_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/clock.h"
#include "base/endpoint.h"
#include "base/key.h"
#include "derp/relay_map.h"
#include "io/loop.h"

namespace ringsock::gateway {

// A block of 127.0.0.0/8 out of which every (peer, path) gets an address.
struct LoopbackRange {
  uint32_t base = (127u << 24) | (100u << 16);  // the first address, host order
  uint32_t size = 1u << 16;                     // addresses, a power of two

  // "127.100.0.0/16". Only the form is checked here: inside 127.0.0.0/8, no host bits.
  static absl::StatusOr<LoopbackRange> Parse(absl::string_view cidr);
  bool Contains(const IpAddress& ip) const { return ip.IsV4() && ip.V4HostOrder() - base < size; }
  std::string ToString() const;
};

struct PeerConfig {
  PublicKey key;
  std::string name;                 // for logs; may be empty
  std::vector<Endpoint> endpoints;  // from the most reliable to the fastest; may be empty
  bool derp_region = false;         // the first of them was given as derp_region

  // The name, or the short form of the key if there is none.
  std::string Label() const { return name.empty() ? key.ToShortString() : name; }
};

// What waits for a relay whose connection stalls. Beyond either bound the oldest packets go.
struct RelayQueue {
  uint32_t bytes = 1 << 20;
  Duration age = std::chrono::seconds(3);
};

struct Config {
  std::string wireguard_interface = "wg0";  // only for the `wg set` lines
  IpAddress wireguard_address = IpAddress::V4(127, 0, 0, 1);
  uint16_t wireguard_port = 0;
  // WireGuard's own public key, if given: handshakes from unknown sources that are not meant for it
  // are then dropped at once.
  std::optional<PublicKey> wireguard_key;
  uint16_t local_port = 0;   // our side towards WireGuard, on the loopback device
  uint16_t listen_port = 0;  // our side towards the peers; 0 lets the kernel choose
  LoopbackRange range;
  std::vector<PeerConfig> peers;
  std::string log_level = "info";

  // Relays. Files are as written until LoadConfig() has read them; the names are then relative to
  // the working directory.
  std::optional<derp::RelayMap> derp_map;
  std::string derp_map_file;     // "" if the map is in the configuration itself, or there is none
  std::string private_key_file;  // "" for none, which is without relays
  // Of private_key_file. Shared, so that copies of the configuration are none of the secret.
  std::shared_ptr<const PrivateKey> private_key;
  RegionId derp_home = 0;       // the region where peers find us; 0: the engine chooses
  std::string derp_roots_file;  // trusted roots, PEM; "" is the system's
  RelayQueue relay_queue;

  // Where our own endpoints are told; names as above. The command is a program and its arguments.
  std::string endpoints_file;                  // "" for none
  std::vector<std::string> endpoints_command;  // empty for none

  // Engine options.
  uint32_t shards = 0;  // 0: one per core
  bool pin_threads = true;
  io::Steering steering = io::Steering::kNone;  // which shard gets a peer's packets
  bool ipv4 = true;
  bool ipv6 = true;
  IpAddress bind_v4 = IpAddress::AnyV4();
  IpAddress bind_v6 = IpAddress::AnyV6();
  int socket_buffer = io::kDefaultSocketBuffer;
  bool port_mapping = false;  // ask the router to forward our port
  bool netcheck = true;       // ask the relays' STUN servers what they see of us
  io::LoopOptions io;

  // What is allowed but most likely not meant, one line each.
  std::vector<std::string> warnings;
};

// Where the endpoints are written before they replace `endpoints_file`.
inline std::string NewFileBeside(const std::string& endpoints_file) {
  return endpoints_file + ".new";
}

// Parses and checks `text` without opening any of the files that it names. An error is one line:
// file, field (such as peers[2].public_key), value and what is wrong. It never shows a whole key,
// since people paste private ones by mistake.
absl::StatusOr<Config> ParseConfig(absl::string_view file, absl::string_view text);

// Reads `file`, parses it, and reads the files that it names, whose relative names begin at the
// folder of `file`. Errors name both.
absl::StatusOr<Config> LoadConfig(const std::string& file);

}  // namespace ringsock::gateway

#endif  // RINGSOCK_GATEWAY_CONFIG_H_
