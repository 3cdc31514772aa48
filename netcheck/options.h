// The command line of ringsock-netcheck.
#ifndef RINGSOCK_NETCHECK_OPTIONS_H_
#define RINGSOCK_NETCHECK_OPTIONS_H_

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/clock.h"
#include "derp/relay_map.h"

namespace ringsock::netcheck {

struct Options {
  derp::RelayMap map;                 // has a region at least
  std::string roots_file;             // trusted roots, PEM; empty: the system's
  std::vector<std::string> warnings;  // what is most likely not meant, one line each

  uint16_t port = 0;  // to send from; 0: the kernel chooses
  Duration timeout = std::chrono::seconds(3);
  bool port_mapping = true;       // ask the router for a port, and give it back
  bool full = false;              // ask all regions every time
  std::optional<Duration> watch;  // again after so long; none: once
  bool json = false;
  bool verbose = false;
  bool help = false;
};

// Reads argv[1..] and the relay map. Errors name the flag and the value.
absl::StatusOr<Options> ParseOptions(std::span<char* const> argv);
// What --help prints.
std::string Usage();

}  // namespace ringsock::netcheck

#endif  // RINGSOCK_NETCHECK_OPTIONS_H_
