// The command line of ringsock-cat.
#ifndef RINGSOCK_CAT_OPTIONS_H_
#define RINGSOCK_CAT_OPTIONS_H_

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/clock.h"
#include "base/key.h"
#include "core/engine.h"
#include "derp/relay_map.h"

namespace ringsock::cat {

// A peer as the user wrote it: KEY[@ip:port,ip:port,...].
struct PeerSpec {
  PublicKey key;
  std::string endpoints;
};

struct Options {
  EngineOptions engine;
  PrivateKey private_key;  // zero: a fresh one is made
  std::vector<PeerSpec> peers;

  // Relays there are; without it there are none.
  std::optional<derp::RelayMap> derp_map;
  std::string derp_roots_file;  // trusted roots, PEM; empty: the system's
  // What is most likely not meant, one line each.
  std::vector<std::string> warnings;

  bool json = false;  // one event a line instead of text
  bool echo = false;  // send back what arrives
  bool help = false;
  PublicKey to;  // zero: every peer

  // Generated packets instead of standard input, when size is not 0.
  uint32_t size = 0;    // bytes of each packet
  uint64_t count = 0;   // packets to send; 0 is no limit
  Duration interval{};  // between two packets

  uint64_t receive = 0;  // stop after this many received packets; 0 is no limit
  Duration timeout{};    // stop after this time; 0 is no limit
  // After the end of input: how long to wait for what is still on its way.
  Duration linger = std::chrono::milliseconds(500);
};

// Reads argv[1..]. Errors name the flag and the value (never a key's text).
absl::StatusOr<Options> ParseOptions(std::span<char* const> argv);
// One peer: KEY or KEY@ip:port,ip:port.
absl::StatusOr<PeerSpec> ParsePeer(absl::string_view text);
// A peers file: one peer a line, '#' starts a comment. Errors name the line.
absl::StatusOr<std::vector<PeerSpec>> ParsePeersFile(const std::string& path);
// What --help prints.
std::string Usage();

}  // namespace ringsock::cat

#endif  // RINGSOCK_CAT_OPTIONS_H_
