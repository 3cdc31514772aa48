// How ringsock-relay is set up: flags, and a JSON file with the same names. What of it the server
// itself takes is in relay/options.h. The reference for operators is docs/relay.md.
#ifndef RINGSOCK_RELAY_CONFIG_H_
#define RINGSOCK_RELAY_CONFIG_H_

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/clock.h"
#include "base/endpoint.h"
#include "relay/options.h"

namespace ringsock::relay {

// A server of the same region, as the operator wrote it: https://host:port,
// https://host:port#sha256-raw:<64 hex>, or http://host:port for plain TCP.
struct MeshUrl {
  std::string host;  // a DNS name, or an IP address without brackets
  uint16_t port = 0;
  bool tls = true;
  std::string pin;  // "sha256-raw:...", or empty

  static absl::StatusOr<MeshUrl> Parse(absl::string_view text);
  std::string ToString() const;
};

struct Config {
  std::string host_name;
  std::string state_dir = "/var/lib/ringsock-relay";

  // Where clients come in.
  std::vector<IpAddress> bind;  // empty: every address of both families
  int port = 443;               // of TLS; 0: the kernel chooses; -1: no TLS at all
  std::vector<Endpoint> plain;  // plain HTTP beside it
  std::string certificate;      // PEM files; empty: self-signed
  std::string certificate_key;
  bool fast_start = true;  // the meta certificate
  int stun_port = 3478;    // 0: the kernel chooses; -1: off

  // Only for the map entry that is printed.
  RegionId region_id = 900;
  std::string region_code = "own";
  std::string region_name = "own relay";
  std::optional<IpAddress> public_ipv4;
  std::optional<IpAddress> public_ipv6;

  std::string allow_list;  // file; empty: every client is let in
  Limits limits;
  QueueLimits queues;
  std::string mesh_key;  // file; empty: no mesh
  std::vector<MeshUrl> mesh;
  std::string mesh_roots;  // PEM file; empty: the system's

  int workers = 0;  // 0: one per core this process may run on
  bool pin_workers = true;
  io::Backend backend = io::Backend::kAuto;
  // Metrics and /healthz; none: off. Local, since nothing there asks who is calling.
  std::optional<Endpoint> metrics = Endpoint{IpAddress::V4(127, 0, 0, 1), 9478};
  Duration stop_grace = std::chrono::seconds(5);
  Duration reconnect_in = std::chrono::seconds(2);
  std::string log_level = "info";

  bool check = false;  // print the map entry and stop
  bool help = false;

  // Every option with its value, in one line fit for a log. Secrets stand in files, so there are
  // none in it.
  std::string ToString() const;
};

// Reads argv[1..]; --config FILE first, then the flags, which have the last word. An error is one
// line that names the flag, or the file and its key, the value and what is wrong.
absl::StatusOr<Config> ParseConfig(std::span<char* const> argv);

// The options in a JSON text: {"hostname": "relay.example.com", "max_clients": 1000}. Names are the
// flags' with _ for -; those that may be repeated take a list. Errors begin with `file`.
absl::StatusOr<Config> ParseConfigFile(absl::string_view file, absl::string_view text);

// What --help prints.
std::string Usage();

}  // namespace ringsock::relay

#endif  // RINGSOCK_RELAY_CONFIG_H_
