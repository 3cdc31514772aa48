#include "relay/config_table.h"

#include <algorithm>
#include <limits>
#include <type_traits>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "absl/time/time.h"

namespace ringsock::relay {
namespace {

using View = absl::string_view;
using Set = std::function<absl::Status(View, Config*)>;
using Get = std::function<std::string(const Config&)>;

// Where a value lives: a function that gives a reference to it, for reading and writing.
template <typename Field>
using ValueOf = std::remove_reference_t<std::invoke_result_t<Field, Config&>>;

absl::Status Want(View what) { return absl::InvalidArgumentError(absl::StrCat("want ", what)); }

constexpr size_t kMaxName = 253;  // of DNS (RFC 1035)
constexpr size_t kMaxRegionText = 64;
constexpr int64_t kMaxSize = int64_t{1} << 40;
constexpr int64_t kMaxPortNumber = 65535;

bool SimpleNumber(View text, int64_t* out) {
  const View digits = absl::StartsWith(text, "-") ? text.substr(1) : text;
  return !digits.empty() && std::all_of(digits.begin(), digits.end(), absl::ascii_isdigit) &&
         absl::SimpleAtoi(text, out);
}

// A whole number from `min` to `max`.
template <typename Field>
ConfigOption Number(const char* section, const char* name, const char* value, const char* help,
                    int64_t min, int64_t max, Field field) {
  auto set = [=](View text, Config* config) -> absl::Status {
    int64_t number = 0;
    if (!SimpleNumber(text, &number) || number < min || number > max) {
      return Want(absl::StrCat("a number from ", min, " to ", max));
    }
    field(*config) = static_cast<ValueOf<Field>>(number);
    return absl::OkStatus();
  };
  auto get = [=](const Config& config) { return absl::StrCat(field(const_cast<Config&>(config))); };
  return {section, name, value, help, std::move(set), std::move(get)};
}

// Bytes, with K, M or G for powers of 1024.
template <typename Field>
ConfigOption Size(const char* section, const char* name, const char* help, int64_t min,
                  Field field) {
  const int64_t max = std::min<int64_t>(
      kMaxSize, sizeof(ValueOf<Field>) == 4 ? std::numeric_limits<int32_t>::max() : kMaxSize);
  auto set = [=](View text, Config* config) -> absl::Status {
    int shift = 0;
    if (absl::ConsumeSuffix(&text, "K")) {
      shift = 10;
    } else if (absl::ConsumeSuffix(&text, "M")) {
      shift = 20;
    } else if (absl::ConsumeSuffix(&text, "G")) {
      shift = 30;
    }
    int64_t number = 0;
    if (!SimpleNumber(text, &number) || number < 0 || number > (max >> shift) ||
        (number << shift) < min) {
      return Want(absl::StrCat("a size from ", min, " to ", max, " bytes, such as 128K or 1M"));
    }
    field(*config) = static_cast<ValueOf<Field>>(number << shift);
    return absl::OkStatus();
  };
  auto get = [=](const Config& config) { return absl::StrCat(field(const_cast<Config&>(config))); };
  return {section, name, "BYTES", help, std::move(set), std::move(get)};
}

template <typename Field>
ConfigOption Time(const char* section, const char* name, const char* help, absl::Duration min,
                  absl::Duration max, Field field) {
  auto set = [=](View text, Config* config) -> absl::Status {
    absl::Duration time;
    if (!absl::ParseDuration(text, &time) || time < min || time > max) {
      return Want(absl::StrCat("a time from ", absl::FormatDuration(min), " to ",
                               absl::FormatDuration(max)));
    }
    field(*config) = Duration(absl::ToInt64Nanoseconds(time));
    return absl::OkStatus();
  };
  auto get = [=](const Config& config) {
    return absl::FormatDuration(absl::Nanoseconds(field(const_cast<Config&>(config)).count()));
  };
  return {section, name, "TIME", help, std::move(set), std::move(get)};
}

template <typename Field>
ConfigOption Bool(const char* section, const char* name, const char* help, Field field) {
  auto set = [=](View text, Config* config) -> absl::Status {
    if (text != "true" && text != "false") return Want("true or false");
    field(*config) = text == "true";
    return absl::OkStatus();
  };
  auto get = [=](const Config& config) -> std::string {
    return field(const_cast<Config&>(config)) ? "true" : "false";
  };
  return {section, name, "BOOL", help, std::move(set), std::move(get)};
}

using Check = absl::Status (*)(View);

// Text that `check` agrees with.
template <typename Field>
ConfigOption Text(const char* section, const char* name, const char* value, const char* help,
                  Check check, Field field) {
  auto set = [=](View text, Config* config) -> absl::Status {
    if (absl::Status checked = check(text); !checked.ok()) return checked;
    field(*config) = std::string(text);
    return absl::OkStatus();
  };
  auto get = [=](const Config& config) { return field(const_cast<Config&>(config)); };
  return {section, name, value, help, std::move(set), std::move(get)};
}

// A list of what `T::Parse` understands.
template <typename T, typename Field>
ConfigOption List(const char* section, const char* name, const char* value, const char* help,
                  size_t max_items, Field field) {
  auto set = [=](View text, Config* config) -> absl::Status {
    absl::StatusOr<T> item = T::Parse(text);
    if (!item.ok()) return item.status();
    if (field(*config).size() == max_items) {
      return absl::InvalidArgumentError(absl::StrCat("more than ", max_items));
    }
    field(*config).push_back(*std::move(item));
    return absl::OkStatus();
  };
  auto get = [=](const Config& config) {
    return absl::StrJoin(field(const_cast<Config&>(config)), ",",
                         [](std::string* out, const T& item) { *out += item.ToString(); });
  };
  const auto clear = [=](Config* config) { field(*config).clear(); };
  return {section, name, value, help, std::move(set), std::move(get), true, clear};
}

// A path, which is printed on lines of the log.
absl::Status CheckPath(View text) {
  const bool printable = std::none_of(text.begin(), text.end(), [](char c) {
    return absl::ascii_iscntrl(static_cast<unsigned char>(c));
  });
  if (text.empty() || text.size() > 4095 || !printable) return Want("a path");
  return absl::OkStatus();
}

absl::Status CheckHost(View text) {
  if (!IsHostName(text)) return Want("a DNS name or an IP address, without port");
  return absl::OkStatus();
}

absl::Status CheckRegionText(View text) {
  const bool printable =
      std::all_of(text.begin(), text.end(), [](char c) { return c >= 0x20 && c < 0x7f; });
  if (text.empty() || text.size() > kMaxRegionText || !printable) {
    return Want(absl::StrCat("1 to ", kMaxRegionText, " printable ASCII characters"));
  }
  return absl::OkStatus();
}

absl::Status CheckLevel(View text) {
  for (const View level : {"trace", "debug", "info", "warn", "error", "off"}) {
    if (text == level) return absl::OkStatus();
  }
  return Want("trace, debug, info, warn, error or off");
}

ConfigOption PublicIp(const char* name, const char* help, bool v4,
                      std::optional<IpAddress> Config::*field) {
  auto set = [=](View text, Config* config) -> absl::Status {
    const absl::StatusOr<IpAddress> ip = IpAddress::Parse(text);
    if (!ip.ok() || ip->IsV4() != v4 || ip->IsUnspecified() || ip->zone != 0) {
      return Want(v4 ? "an IPv4 address of this host" : "an IPv6 address of this host");
    }
    config->*field = *ip;
    return absl::OkStatus();
  };
  auto get = [=](const Config& config) {
    return (config.*field).has_value() ? (config.*field)->ToString() : "";
  };
  return {"", name, "IP", help, set, get};
}

ConfigOption MetricsAddress() {
  auto set = [](View text, Config* config) -> absl::Status {
    config->metrics.reset();
    if (text == "off") return absl::OkStatus();
    // Endpoint::Parse() takes no port 0, which here lets the kernel choose.
    const bool any_port = absl::EndsWith(text, ":0");
    const absl::StatusOr<Endpoint> address =
        Endpoint::Parse(any_port ? absl::StrCat(text.substr(0, text.size() - 1), "1") : text);
    if (!address.ok()) return Want("ip:port, or off");
    config->metrics = *address;
    if (any_port) config->metrics->port = 0;
    return absl::OkStatus();
  };
  auto get = [](const Config& config) -> std::string {
    return config.metrics.has_value() ? config.metrics->ToString() : "off";
  };
  return {"operation", "metrics", "IP:PORT", "Prometheus metrics and /healthz, or off", set, get};
}

ConfigOption BackendOption() {
  static constexpr std::pair<View, io::Backend> kBackends[] = {{"auto", io::Backend::kAuto},
                                                               {"io_uring", io::Backend::kUring},
                                                               {"mmsg", io::Backend::kMmsg}};
  auto set = [](View text, Config* config) -> absl::Status {
    for (const auto& [name, backend] : kBackends) {
      if (text != name) continue;
      config->backend = backend;
      return absl::OkStatus();
    }
    return Want("auto, io_uring or mmsg");
  };
  auto get = [](const Config& config) -> std::string {
    for (const auto& [name, backend] : kBackends) {
      if (backend == config.backend) return std::string(name);
    }
    return "";
  };
  return {"", "backend", "NAME", "auto, io_uring or mmsg (epoll)", set, get};
}

// A flag without value.
ConfigOption Switch(const char* section, const char* name, const char* help, bool Config::*field) {
  ConfigOption option{section, name, "", help, [field](View, Config* config) -> absl::Status {
                        config->*field = true;
                        return absl::OkStatus();
                      }};
  option.flag_only = true;
  return option;
}

#define FIELD(member) \
  [](Config & c) -> auto& { return c.member; }

void AddIdentity(std::vector<ConfigOption>* table) {
  ConfigOption config{"the relay", "config", "FILE", "the options below as JSON; flags win",
                      [](View, Config*) { return absl::OkStatus(); }};
  config.flag_only = true;
  table->push_back(config);
  table->push_back(Text("", "hostname", "NAME", "DNS name or IP address clients reach it by",
                        CheckHost, FIELD(host_name)));
  table->push_back(Text("", "state-dir", "DIR", "keeps its key and its own certificate", CheckPath,
                        FIELD(state_dir)));
  table->push_back(List<IpAddress>("listening", "bind", "IP",
                                   "address to listen on, repeatable; default: all", 64,
                                   FIELD(bind)));
  table->push_back(
      Number("", "port", "N", "TCP port of TLS; -1: no TLS", -1, kMaxPortNumber, FIELD(port)));
  table->push_back(List<Endpoint>("", "plain-http", "IP:PORT",
                                  "serve without TLS here too (behind a proxy), repeatable", 16,
                                  FIELD(plain)));
  table->push_back(Text("", "cert", "FILE", "certificate chain, PEM; default: self-signed",
                        CheckPath, FIELD(certificate)));
  table->push_back(
      Text("", "cert-key", "FILE", "its private key, PEM", CheckPath, FIELD(certificate_key)));
  table->push_back(
      Bool("", "fast-start", "save clients a round trip by a meta certificate", FIELD(fast_start)));
  table->push_back(Number("", "stun-port", "N", "UDP port of STUN; -1: off", -1, kMaxPortNumber,
                          FIELD(stun_port)));
  table->push_back(Number("the printed map", "region-id", "N", "number of its region", 1,
                          kMaxPortNumber, FIELD(region_id)));
  table->push_back(Text("", "region-code", "TEXT", "short name of its region", CheckRegionText,
                        FIELD(region_code)));
  table->push_back(Text("", "region-name", "TEXT", "long name of its region", CheckRegionText,
                        FIELD(region_name)));
  table->push_back(
      PublicIp("public-ipv4", "so that clients need no DNS", true, &Config::public_ipv4));
  table->push_back(PublicIp("public-ipv6", "likewise", false, &Config::public_ipv6));
}

void AddLimits(std::vector<ConfigOption>* table) {
  constexpr int64_t kMillion = 1'000'000;
  table->push_back(Text("clients", "allow-list", "FILE",
                        "keys let in, one a line; default: everyone", CheckPath,
                        FIELD(allow_list)));
  table->push_back(Number("", "max-clients", "N", "connections at one time", 1, kMillion,
                          FIELD(limits.max_clients)));
  table->push_back(Number("", "max-logins", "N", "... of these not logged in yet", 1, kMillion,
                          FIELD(limits.max_logins)));
  table->push_back(Number("", "max-connections-per-key", "N", "one more closes the oldest", 1, 64,
                          FIELD(limits.max_connections_per_key)));
  table->push_back(Number("", "accepts-per-second", "N", "new connections; 0: no limit", 0,
                          kMillion, FIELD(limits.accepts_per_second)));
  table->push_back(Number("", "accept-burst", "N", "... that may come at once", 1, kMillion,
                          FIELD(limits.accept_burst)));
  table->push_back(Size("", "client-bytes-per-second", "packets from one client; 0: no limit", 0,
                        FIELD(limits.client_bytes_per_second)));
  table->push_back(Size("", "client-bytes-burst", "... at once; 0: one second's", 0,
                        FIELD(limits.client_bytes_burst)));
  table->push_back(Size("queues", "queue-bytes", "waiting for one client, oldest dropped first",
                        QueueLimits::kMinBytes, FIELD(queues.max_bytes)));
  table->push_back(Time("", "queue-age", "... none older than this", absl::Milliseconds(10),
                        absl::Minutes(1), FIELD(queues.max_age)));
  table->push_back(Size("", "queue-memory", "... of all clients of one worker", 1 << 20,
                        FIELD(queues.worker_bytes)));
  table->push_back(Time("", "write-timeout", "a client that reads nothing for so long is closed",
                        absl::Milliseconds(100), absl::Minutes(10), FIELD(queues.write_timeout)));
}

void AddOperation(std::vector<ConfigOption>* table) {
  table->push_back(Text("mesh of one region", "mesh-key", "FILE",
                        "secret shared by its servers (openssl rand -hex 32)", CheckPath,
                        FIELD(mesh_key)));
  table->push_back(List<MeshUrl>("", "mesh-with", "URL",
                                 "another server, https://host:port[#pin], repeatable", 64,
                                 FIELD(mesh)));
  table->push_back(Text("", "mesh-roots", "FILE", "roots for their certificates; default: system",
                        CheckPath, FIELD(mesh_roots)));
  table->push_back(MetricsAddress());
  table->push_back(Number("", "workers", "N", "threads; 0: one per core", 0, Options::kMaxWorkers,
                          FIELD(workers)));
  table->push_back(Bool("", "pin-workers", "each to its core", FIELD(pin_workers)));
  table->push_back(BackendOption());
  table->push_back(Time("", "stop-grace", "for what waits in queues when it stops",
                        absl::ZeroDuration(), absl::Minutes(5), FIELD(stop_grace)));
  table->push_back(Time("", "reconnect-in", "what a stop tells clients to wait, at most",
                        absl::ZeroDuration(), absl::Minutes(5), FIELD(reconnect_in)));
  table->push_back(Text("", "log-level", "LEVEL", "trace, debug, info, warn, error, off",
                        CheckLevel, FIELD(log_level)));
  table->push_back(Switch("", "check", "check all this, print the map, and stop", &Config::check));
  table->push_back(Switch("", "help", "this text", &Config::help));
}

#undef FIELD

}  // namespace

bool IsHostName(absl::string_view text) {
  if (text.empty() || text.size() > kMaxName) return false;
  if (const auto ip = IpAddress::Parse(text); ip.ok()) {
    return !ip->IsUnspecified() && ip->zone == 0;
  }
  const bool plain = std::all_of(text.begin(), text.end(), [](char c) {
    return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '-' || c == '.' || c == '_';
  });
  // Digits and dots alone would be a mistyped address.
  const bool letter = std::any_of(text.begin(), text.end(), absl::ascii_isalpha);
  return plain && letter && text.front() != '-' && text.front() != '.' &&
         !absl::StrContains(text, "..");
}

std::span<const ConfigOption> ConfigTable() {
  static const auto& table = *[] {
    auto* made = new std::vector<ConfigOption>;
    AddIdentity(made);
    AddLimits(made);
    AddOperation(made);
    return made;
  }();
  return table;
}

}  // namespace ringsock::relay
