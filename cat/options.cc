#include "cat/options.h"

#include <getopt.h>
#include <sodium.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <map>
#include <sstream>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "base/file.h"
#include "core/address_set.h"

namespace ringsock::cat {
namespace {

enum Flag : int {
  kPrivateKey = 1000,
  kPrivateKeyFile,
  kDerpMap,
  kDerpRoots,
  kPort,
  kPeers,
  kJson,
  kEcho,
  kTo,
  kSize,
  kCount,
  kInterval,
  kReceive,
  kTimeout,
  kLinger,
  kBackend,
  kBind,
  kHelp,
};

constexpr size_t kShownOfKey = 6;

// As many bytes as a relay map may have (derp/relay_map.h).
constexpr size_t kMaxMapFile = 4u << 20;

constexpr option kFlags[] = {
    {"private-key", required_argument, nullptr, kPrivateKey},
    {"private-key-file", required_argument, nullptr, kPrivateKeyFile},
    {"derp-map", required_argument, nullptr, kDerpMap},
    {"derp-roots", required_argument, nullptr, kDerpRoots},
    {"port", required_argument, nullptr, kPort},
    {"peers", required_argument, nullptr, kPeers},
    {"json", no_argument, nullptr, kJson},
    {"echo", no_argument, nullptr, kEcho},
    {"to", required_argument, nullptr, kTo},
    {"size", required_argument, nullptr, kSize},
    {"count", required_argument, nullptr, kCount},
    {"interval", required_argument, nullptr, kInterval},
    {"receive", required_argument, nullptr, kReceive},
    {"timeout", required_argument, nullptr, kTimeout},
    {"linger", required_argument, nullptr, kLinger},
    {"backend", required_argument, nullptr, kBackend},
    {"bind", required_argument, nullptr, kBind},
    {"help", no_argument, nullptr, kHelp},
    {nullptr, 0, nullptr, 0},
};

absl::Status BadValue(absl::string_view flag, absl::string_view value, absl::string_view want) {
  return absl::InvalidArgumentError(absl::StrCat("--", flag, " \"", value, "\": want ", want));
}

absl::StatusOr<uint64_t> ParseNumber(absl::string_view flag, absl::string_view value, uint64_t low,
                                     uint64_t high) {
  uint64_t number = 0;
  if (!absl::SimpleAtoi(value, &number) || number < low || number > high) {
    return BadValue(flag, value, absl::StrCat("a number from ", low, " to ", high));
  }
  return number;
}

absl::StatusOr<Duration> ParseTime(absl::string_view flag, absl::string_view value) {
  absl::Duration time;
  if (!absl::ParseDuration(value, &time) || time < absl::ZeroDuration() ||
      time > absl::Hours(24 * 365)) {
    return BadValue(flag, value, "a time such as 10ms, 1.5s or 2m");
  }
  return Duration(absl::ToInt64Nanoseconds(time));
}

absl::Status SetPrivateKeyFile(const std::string& path, Options* options) {
  absl::StatusOr<PrivateKey> key = ReadPrivateKeyFile(path);
  if (!key.ok()) {
    return absl::InvalidArgumentError(absl::StrCat("--private-key-file: ", key.status().message()));
  }
  options->private_key = *std::move(key);
  return absl::OkStatus();
}

// A key's file is the usual way; the key itself is accepted for scripts. It is then wiped where it
// stands, so that nobody can read it in our memory or our command line any longer.
absl::Status SetPrivateKey(char* value, Options* options) {
  absl::StatusOr<PrivateKey> key = PrivateKey::Parse(value);
  if (key.ok()) {
    sodium_memzero(value, std::strlen(value));
  } else {
    key = ReadPrivateKeyFile(value);
    // Without the name: it may be a mistyped key.
    if (absl::IsNotFound(key.status())) {
      return absl::InvalidArgumentError(
          "--private-key: neither a key (base64 or hex) nor a readable file with one");
    }
    if (!key.ok()) {
      return absl::InvalidArgumentError(absl::StrCat("--private-key: ", key.status().message()));
    }
  }
  options->private_key = *std::move(key);
  return absl::OkStatus();
}

absl::Status SetDerpMap(const std::string& path, Options* options) {
  const absl::StatusOr<std::string> json = ReadFile(path, kMaxMapFile);
  if (!json.ok()) {
    return absl::InvalidArgumentError(absl::StrCat("--derp-map: ", json.status().message()));
  }
  absl::StatusOr<derp::RelayMap> map = derp::ParseRelayMap(*json, &options->warnings);
  if (!map.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat("--derp-map: ", path, ": ", map.status().message()));
  }
  options->derp_map = *std::move(map);
  return absl::OkStatus();
}

// The relay endpoints of peers without a relay behind them.
void WarnOfRelays(Options* options) {
  for (const PeerSpec& peer : options->peers) {
    const auto endpoints = Endpoint::ParseList(peer.endpoints);
    if (!endpoints.ok()) continue;
    for (const Endpoint& endpoint : *endpoints) {
      if (!IsRelay(endpoint)) continue;
      const RegionId region = RelayRegion(endpoint);
      if (options->derp_map.has_value() && options->derp_map->Find(region) != nullptr) continue;
      options->warnings.push_back(
          absl::StrCat("peer ", peer.key.ToShortString(), ": ",
                       options->derp_map.has_value()
                           ? absl::StrCat("region ", region, " is not in the relay map")
                           : std::string("is at a relay, but there is no --derp-map")));
    }
  }
}

absl::Status SetBackend(absl::string_view value, Options* options) {
  static const auto& kBackends =
      *new std::map<std::string, io::Backend>{{"auto", io::Backend::kAuto},
                                              {"io_uring", io::Backend::kUring},
                                              {"mmsg", io::Backend::kMmsg}};
  const auto found = kBackends.find(std::string(value));
  if (found == kBackends.end()) return BadValue("backend", value, "auto, io_uring or mmsg");
  options->engine.io.backend = found->second;
  return absl::OkStatus();
}

absl::Status SetBind(absl::string_view value, Options* options) {
  const absl::StatusOr<IpAddress> ip = IpAddress::Parse(value);
  if (!ip.ok()) return BadValue("bind", value, "an IP address");
  options->engine.ipv4 = ip->IsV4();
  options->engine.ipv6 = !ip->IsV4();
  (ip->IsV4() ? options->engine.bind_v4 : options->engine.bind_v6) = *ip;
  return absl::OkStatus();
}

template <typename T, typename From>
absl::Status Assign(absl::StatusOr<From> value, T* to) {
  if (!value.ok()) return value.status();
  *to = static_cast<T>(*std::move(value));
  return absl::OkStatus();
}

absl::Status SetFlag(int flag, const std::string& value, Options* options) {
  switch (flag) {
    case kPrivateKeyFile:
      return SetPrivateKeyFile(value, options);
    case kDerpMap:
      return SetDerpMap(value, options);
    case kDerpRoots:
      options->derp_roots_file = value;
      return absl::OkStatus();
    case kPort:
      return Assign(ParseNumber("port", value, 0, 65535), &options->engine.port);
    case kPeers: {
      absl::StatusOr<std::vector<PeerSpec>> peers = ParsePeersFile(value);
      if (!peers.ok()) return peers.status();
      options->peers.insert(options->peers.end(), peers->begin(), peers->end());
      return absl::OkStatus();
    }
    case kTo: {
      const absl::StatusOr<PublicKey> key = PublicKey::Parse(value);
      if (!key.ok()) return BadValue("to", value.substr(0, kShownOfKey) + "...", "a public key");
      options->to = *key;
      return absl::OkStatus();
    }
    case kSize:
      return Assign(ParseNumber("size", value, 1, io::kMaxDatagram), &options->size);
    case kCount:
      return Assign(ParseNumber("count", value, 1, uint64_t{1} << 60), &options->count);
    case kInterval:
      return Assign(ParseTime("interval", value), &options->interval);
    case kReceive:
      return Assign(ParseNumber("receive", value, 1, uint64_t{1} << 60), &options->receive);
    case kTimeout:
      return Assign(ParseTime("timeout", value), &options->timeout);
    case kLinger:
      return Assign(ParseTime("linger", value), &options->linger);
    case kBackend:
      return SetBackend(value, options);
    case kBind:
      return SetBind(value, options);
    case kJson:
      options->json = true;
      return absl::OkStatus();
    case kEcho:
      options->echo = true;
      return absl::OkStatus();
    default:
      options->help = true;
      return absl::OkStatus();
  }
}

absl::Status CheckTogether(const Options& options) {
  for (size_t i = 0; i < options.peers.size(); ++i) {
    for (size_t j = 0; j < i; ++j) {
      if (options.peers[i].key == options.peers[j].key) {
        return absl::InvalidArgumentError(
            absl::StrCat("peer ", options.peers[i].key.ToBase64(), " is given twice"));
      }
    }
  }
  if (!options.to.IsZero() &&
      std::none_of(options.peers.begin(), options.peers.end(),
                   [&](const PeerSpec& peer) { return peer.key == options.to; })) {
    return absl::InvalidArgumentError(
        absl::StrCat("--to ", options.to.ToBase64(), ": not among the peers given"));
  }
  if (options.size == 0 && (options.count != 0 || options.interval != Duration())) {
    return absl::InvalidArgumentError("--count and --interval need --size");
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<PeerSpec> ParsePeer(absl::string_view text) {
  const size_t at = text.find('@');
  const absl::string_view key_text = text.substr(0, at);
  const absl::StatusOr<PublicKey> key = PublicKey::Parse(key_text);
  if (!key.ok()) {
    // Only its beginning: people paste private keys by mistake.
    return absl::InvalidArgumentError(absl::StrCat("peer \"", key_text.substr(0, kShownOfKey),
                                                   key_text.size() > kShownOfKey ? "..." : "",
                                                   "\": ", key.status().message()));
  }
  PeerSpec peer{*key, {}};
  if (at != absl::string_view::npos) peer.endpoints = std::string(text.substr(at + 1));
  const absl::StatusOr<std::vector<Endpoint>> endpoints = Endpoint::ParseList(peer.endpoints);
  if (!endpoints.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat("peer ", key->ToShortString(), ": ", endpoints.status().message()));
  }
  if (endpoints->size() > kMaxEndpoints) {
    return absl::InvalidArgumentError(absl::StrCat("peer ", key->ToShortString(), ": ",
                                                   endpoints->size(), " endpoints, at most ",
                                                   kMaxEndpoints));
  }
  return peer;
}

absl::StatusOr<std::vector<PeerSpec>> ParsePeersFile(const std::string& path) {
  std::ifstream file(path);
  if (!file) return absl::InvalidArgumentError(absl::StrCat("--peers ", path, ": cannot be read"));
  std::vector<PeerSpec> peers;
  std::string line;
  for (int number = 1; std::getline(file, line); ++number) {
    const absl::string_view text =
        absl::StripAsciiWhitespace(absl::string_view(line).substr(0, line.find('#')));
    if (text.empty()) continue;
    absl::StatusOr<PeerSpec> peer = ParsePeer(text);
    if (!peer.ok()) {
      return absl::InvalidArgumentError(
          absl::StrCat("--peers ", path, " line ", number, ": ", peer.status().message()));
    }
    peers.push_back(*std::move(peer));
  }
  return peers;
}

absl::StatusOr<Options> ParseOptions(std::span<char* const> argv) {
  Options options;
  options.engine.shards = 1;
  options.engine.pin_threads = false;
  // getopt keeps its place in globals; 0 starts it anew.
  optind = 0;
  opterr = 0;
  std::vector<char*> args(argv.begin(), argv.end());
  const int argc = static_cast<int>(args.size());
  args.push_back(nullptr);
  int flag = 0;
  while ((flag = getopt_long(argc, args.data(), ":", kFlags, nullptr)) != -1) {
    if (flag == '?' || flag == ':') {
      // Without what follows "=": a mistyped flag may carry a secret.
      const absl::string_view word = args[static_cast<size_t>(optind) - 1];
      return absl::InvalidArgumentError(absl::StrCat(
          word.substr(0, word.find('=')),
          flag == ':' ? ": needs a value" : ": no such flag, or a value it does not take"));
    }
    const absl::Status set = flag == kPrivateKey
                                 ? SetPrivateKey(optarg, &options)
                                 : SetFlag(flag, optarg != nullptr ? optarg : "", &options);
    if (!set.ok()) return set;
  }
  for (int i = optind; i < argc; ++i) {
    absl::StatusOr<PeerSpec> peer = ParsePeer(args[static_cast<size_t>(i)]);
    if (!peer.ok()) return peer.status();
    options.peers.push_back(*std::move(peer));
  }
  if (options.help) return options;
  if (absl::Status together = CheckTogether(options); !together.ok()) return together;
  WarnOfRelays(&options);
  return options;
}

std::string Usage() {
  return R"(ringsock-cat: netcat over the ringsock engine

  ringsock-cat [flags] PEER...

PEER is KEY or KEY@ip:port,ip:port with the most reliable address first; 127.3.3.40:N is the relay
of region N. Each line of standard input goes to the peers as one packet; each packet that arrives
is printed.

  --private-key FILE   our key, from a file that others cannot read (or the key itself); a fresh
                       one without this flag
  --private-key-file FILE
                       our key, from such a file only
  --derp-map FILE      the relays there are, as JSON; without it there are none
  --derp-roots FILE    trust these roots (PEM) for relays instead of the system's
  --port N             UDP port (default: a free one)
  --bind IP            bind this address only
  --peers FILE         more peers, one a line
  --to KEY             send to this peer only
  --size N             send generated packets of N bytes instead of standard input
  --count N            ... this many (default: no end)
  --interval TIME      ... this far apart, such as 10ms (default: flat out)
  --echo               send every packet back to where it came from
  --receive N          stop after N received packets
  --timeout TIME       stop after this time
  --linger TIME        wait this long for answers after the end of input (default 500ms)
  --json               print one JSON event a line: self, endpoints, network,
                       relay, packet, sent, status, warning, error, summary
  --backend NAME       auto, io_uring or mmsg

Exit status: 0 done, 1 a failure, 2 a wrong command line, 3 the time was up before --receive
packets had come. There is no encryption here: a packet counts as the peer's if it comes from one
of the peer's addresses.
)";
}

}  // namespace ringsock::cat
