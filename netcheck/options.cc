#include "netcheck/options.h"

#include <getopt.h>

#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "base/file.h"

namespace ringsock::netcheck {
namespace {

enum Flag : int {
  kDerpMap = 1000,
  kDerpRoots,
  kPort,
  kTimeout,
  kNoPortMapping,
  kFull,
  kWatch,
  kJson,
  kVerbose,
  kHelp,
};

// As many bytes as a relay map may have (derp/relay_map.h).
constexpr size_t kMaxMapFile = 4u << 20;

constexpr option kFlags[] = {
    {"derp-map", required_argument, nullptr, kDerpMap},
    {"derp-roots", required_argument, nullptr, kDerpRoots},
    {"port", required_argument, nullptr, kPort},
    {"timeout", required_argument, nullptr, kTimeout},
    {"no-port-mapping", no_argument, nullptr, kNoPortMapping},
    {"full", no_argument, nullptr, kFull},
    {"watch", required_argument, nullptr, kWatch},
    {"json", no_argument, nullptr, kJson},
    {"verbose", no_argument, nullptr, kVerbose},
    {"help", no_argument, nullptr, kHelp},
    {nullptr, 0, nullptr, 0},
};

absl::Status BadValue(absl::string_view flag, absl::string_view value, absl::string_view want) {
  return absl::InvalidArgumentError(absl::StrCat("--", flag, " \"", value, "\": want ", want));
}

absl::StatusOr<Duration> ParseTime(absl::string_view flag, absl::string_view value,
                                   absl::Duration low, absl::Duration high) {
  absl::Duration time;
  if (!absl::ParseDuration(value, &time) || time < low || time > high) {
    return BadValue(flag, value,
                    absl::StrCat("a time from ", absl::FormatDuration(low), " to ",
                                 absl::FormatDuration(high), ", such as 1.5s"));
  }
  return Duration(absl::ToInt64Nanoseconds(time));
}

absl::Status SetDerpMap(const std::string& path, Options* options) {
  const absl::StatusOr<std::string> json = ReadFile(path, kMaxMapFile);
  if (!json.ok()) {
    return absl::InvalidArgumentError(absl::StrCat("--derp-map: ", json.status().message()));
  }
  options->warnings.clear();
  absl::StatusOr<derp::RelayMap> map = derp::ParseRelayMap(*json, &options->warnings);
  if (!map.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat("--derp-map: ", path, ": ", map.status().message()));
  }
  if (map->regions.empty()) {
    return absl::InvalidArgumentError(absl::StrCat("--derp-map: ", path, ": has no regions"));
  }
  options->map = *std::move(map);
  return absl::OkStatus();
}

absl::Status SetFlag(int flag, const std::string& value, Options* options) {
  switch (flag) {
    case kDerpMap:
      return SetDerpMap(value, options);
    case kDerpRoots:
      options->roots_file = value;
      return absl::OkStatus();
    case kPort: {
      uint32_t port = 0;
      if (!absl::SimpleAtoi(value, &port) || port > 65535) {
        return BadValue("port", value, "a number from 0 to 65535");
      }
      options->port = static_cast<uint16_t>(port);
      return absl::OkStatus();
    }
    case kTimeout: {
      const auto time = ParseTime("timeout", value, absl::Milliseconds(100), absl::Seconds(30));
      if (!time.ok()) return time.status();
      options->timeout = *time;
      return absl::OkStatus();
    }
    case kWatch: {
      const auto time = ParseTime("watch", value, absl::Seconds(1), absl::Hours(24));
      if (!time.ok()) return time.status();
      options->watch = *time;
      return absl::OkStatus();
    }
    case kNoPortMapping:
      options->port_mapping = false;
      return absl::OkStatus();
    case kFull:
      options->full = true;
      return absl::OkStatus();
    case kJson:
      options->json = true;
      return absl::OkStatus();
    case kVerbose:
      options->verbose = true;
      return absl::OkStatus();
    default:
      options->help = true;
      return absl::OkStatus();
  }
}

}  // namespace

absl::StatusOr<Options> ParseOptions(std::span<char* const> argv) {
  Options options;
  // getopt keeps its place in globals; 0 starts it anew.
  optind = 0;
  opterr = 0;
  std::vector<char*> args(argv.begin(), argv.end());
  const int argc = static_cast<int>(args.size());
  args.push_back(nullptr);
  int flag = 0;
  while ((flag = getopt_long(argc, args.data(), ":", kFlags, nullptr)) != -1) {
    if (flag == '?' || flag == ':') {
      return absl::InvalidArgumentError(absl::StrCat(
          args[static_cast<size_t>(optind) - 1],
          flag == ':' ? ": needs a value" : ": no such flag, or a value it does not take"));
    }
    const absl::Status set = SetFlag(flag, optarg != nullptr ? optarg : "", &options);
    if (!set.ok()) return set;
  }
  if (options.help) return options;
  if (optind < argc) {
    return absl::InvalidArgumentError(
        absl::StrCat("\"", args[static_cast<size_t>(optind)], "\": only flags are taken"));
  }
  if (options.map.regions.empty()) {
    return absl::InvalidArgumentError("--derp-map is needed: it says which servers to ask");
  }
  return options;
}

std::string Usage() {
  return R"(ringsock-netcheck: what kind of network is this host in?

  ringsock-netcheck --derp-map FILE [flags]

Asks the STUN servers of a relay map what they see of this host, and says what that means for
direct paths to peers: whether UDP gets through, over which families, what the NAT does, whether the
router gives ports away, and which relay is near. Where UDP is blocked it measures over HTTPS.

  --derp-map FILE      relay map, JSON: what ringsock-gateway and ringsock-cat take
  --derp-roots FILE    trusted roots, PEM, in place of the system's
  --port N             UDP port to send from; the kernel chooses without it. A NAT may treat ports
                       differently: try the gateway's while that is stopped
  --timeout TIME       for all that goes over UDP (3s); HTTPS has 5s beside it
  --no-port-mapping    do not ask the router for a port (NAT-PMP, UPnP); it is given back at the end
  --watch TIME         again and again, with so long between two reports; later reports ask the
                       nearest regions only, as the engine does
  --full               with --watch: all regions every time
  --json               a report is one line of JSON
  --verbose            the log, on standard error

Exit status: 0 all is well, 1 trouble was found, 2 a wrong command line, a bad map, or no check was
possible. With --watch that of the last report.
)";
}

}  // namespace ringsock::netcheck
