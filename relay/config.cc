#include "relay/config.h"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "derp/json.h"
#include "relay/config_table.h"
#include "relay/state_file.h"

namespace ringsock::relay {
namespace {

constexpr size_t kMaxConfigFile = 1 << 20;
constexpr derp::JsonLimits kJsonLimits{.bytes = kMaxConfigFile, .depth = 4, .values = 10000};
constexpr size_t kShownCharacters = 60;

absl::Status Invalid(absl::string_view why) { return absl::InvalidArgumentError(why); }

absl::Status BadValue(absl::string_view name, absl::string_view value, absl::string_view why) {
  return Invalid(absl::StrCat(name, " \"", derp::CleanText(value, kShownCharacters), "\": ", why));
}

std::string KeyOf(const ConfigOption& option) {
  std::string key = option.name;
  std::replace(key.begin(), key.end(), '-', '_');
  return key;
}

const ConfigOption* FindFlag(absl::string_view name) {
  for (const ConfigOption& option : ConfigTable()) {
    if (name == option.name) return &option;
  }
  return nullptr;
}

const ConfigOption* FindKey(absl::string_view key) {
  for (const ConfigOption& option : ConfigTable()) {
    if (!option.flag_only && key == KeyOf(option)) return &option;
  }
  return nullptr;
}

// The text of a JSON value as it would stand on the command line.
absl::StatusOr<std::string> ScalarText(const nlohmann::json& value) {
  if (value.is_string()) return value.get<std::string>();
  if (value.is_boolean() || value.is_number_integer()) return value.dump();
  return Invalid(
      absl::StrCat("must be a string, a whole number, true or false, not ", value.type_name()));
}

absl::Status SetFromJson(const ConfigOption& option, const nlohmann::json& value, Config* config) {
  if (value.is_array() && !option.repeated) return Invalid("takes one value, not a list");
  const nlohmann::json list = value.is_array() ? value : nlohmann::json::array({value});
  for (const nlohmann::json& item : list) {
    const absl::StatusOr<std::string> text = ScalarText(item);
    if (!text.ok()) return text.status();
    if (const absl::Status set = option.set(*text, config); !set.ok()) {
      return Invalid(
          absl::StrCat("\"", derp::CleanText(*text, kShownCharacters), "\": ", set.message()));
    }
  }
  return absl::OkStatus();
}

struct Argument {
  const ConfigOption* option;
  std::string value;
};

// Splits "--name value" and "--name=value". Every name is one of the table, once unless it may be
// repeated.
absl::StatusOr<std::vector<Argument>> SplitArguments(std::span<char* const> argv) {
  std::vector<Argument> arguments;
  std::set<const ConfigOption*> seen;
  for (size_t i = 1; i < argv.size(); ++i) {
    const absl::string_view word = argv[i];
    const size_t equals = word.find('=');
    const absl::string_view name = word.substr(0, equals);
    const ConfigOption* option = absl::StartsWith(name, "--") ? FindFlag(name.substr(2)) : nullptr;
    if (option == nullptr) {
      return Invalid(absl::StrCat(derp::CleanText(name, kShownCharacters), ": no such flag"));
    }
    if (!seen.insert(option).second && !option->repeated) {
      return Invalid(absl::StrCat(name, ": given twice"));
    }
    std::string value;
    if (equals != absl::string_view::npos) {
      if (option->value[0] == '\0') return Invalid(absl::StrCat(name, ": takes no value"));
      value = std::string(word.substr(equals + 1));
    } else if (option->value[0] != '\0') {
      if (++i == argv.size()) return Invalid(absl::StrCat(name, ": needs a value"));
      value = argv[i];
    }
    arguments.push_back({option, std::move(value)});
  }
  return arguments;
}

absl::StatusOr<Config> LoadConfigFile(const std::string& file) {
  const absl::StatusOr<std::string> text = ReadStateFile(file, kMaxConfigFile, Secrecy::kPublic);
  if (!text.ok()) return text.status();
  return ParseConfigFile(file, *text);
}

// What holds between options.
absl::Status CheckTogether(const Config& config) {
  if (config.host_name.empty()) {
    return Invalid("--hostname is missing: the DNS name or IP address that clients reach this by");
  }
  if (config.certificate.empty() != config.certificate_key.empty()) {
    return Invalid("--cert and --cert-key go together");
  }
  if (config.port < 0 && config.plain.empty()) {
    return Invalid("--port -1 switches TLS off, and without --plain-http nothing is left");
  }
  if (config.port < 0 && !config.certificate.empty()) {
    return Invalid("--port -1 switches TLS off, so --cert has no use");
  }
  if (!config.mesh.empty() && config.mesh_key.empty()) {
    return Invalid("--mesh-with needs --mesh-key, the secret that the servers share");
  }
  if (config.limits.client_bytes_burst != 0 && config.limits.client_bytes_per_second == 0) {
    return Invalid("--client-bytes-burst needs --client-bytes-per-second");
  }
  if (config.limits.max_logins > config.limits.max_clients) {
    return Invalid("--max-logins is more than --max-clients");
  }
  if (config.queues.worker_bytes < 2 * config.queues.max_bytes) {
    return Invalid("--queue-memory is less than twice --queue-bytes");
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<MeshUrl> MeshUrl::Parse(absl::string_view text) {
  constexpr absl::string_view kForm =
      "want https://host:port, with #sha256-raw:<64 hex> for a "
      "self-signed certificate, or http://host:port for plain TCP";
  MeshUrl url;
  if (absl::ConsumePrefix(&text, "http://")) {
    url.tls = false;
  } else if (!absl::ConsumePrefix(&text, "https://")) {
    return Invalid(kForm);
  }
  const size_t hash = text.find('#');
  if (hash != absl::string_view::npos) {
    url.pin = std::string(text.substr(hash + 1));
    derp::RelayNode node;
    node.cert_name = url.pin;
    if (!url.tls || !node.certificate_pin().has_value()) return Invalid(kForm);
    text = text.substr(0, hash);
  }
  absl::ConsumeSuffix(&text, "/");
  const size_t colon = text.rfind(':');
  if (colon == absl::string_view::npos) return Invalid(kForm);
  uint32_t port = 0;
  const absl::string_view digits = text.substr(colon + 1);
  if (!std::all_of(digits.begin(), digits.end(), absl::ascii_isdigit) ||
      !absl::SimpleAtoi(digits, &port) || port == 0 || port > 65535) {
    return Invalid(kForm);
  }
  url.port = static_cast<uint16_t>(port);
  absl::string_view host = text.substr(0, colon);
  if (absl::ConsumePrefix(&host, "[")) {
    if (!absl::ConsumeSuffix(&host, "]") || !IpAddress::Parse(host).ok()) return Invalid(kForm);
  } else if (!IsHostName(host)) {
    return Invalid(kForm);
  }
  url.host = std::string(host);
  return url;
}

std::string MeshUrl::ToString() const {
  const bool v6 = absl::StrContains(host, ':');
  return absl::StrCat(tls ? "https://" : "http://", v6 ? "[" : "", host, v6 ? "]:" : ":", port,
                      pin.empty() ? "" : "#", pin);
}

absl::StatusOr<Config> ParseConfigFile(absl::string_view file, absl::string_view text) {
  const auto bad = [file](absl::string_view why) { return Invalid(absl::StrCat(file, ": ", why)); };
  const absl::StatusOr<nlohmann::json> json = derp::ParseJsonObject(text, kJsonLimits);
  if (!json.ok()) return bad(json.status().message());
  Config config;
  for (const auto& item : json->items()) {
    const std::string name = derp::CleanText(item.key(), kShownCharacters);
    const ConfigOption* option = FindKey(item.key());
    if (option == nullptr) return bad(absl::StrCat("\"", name, "\": no such option"));
    if (const absl::Status set = SetFromJson(*option, item.value(), &config); !set.ok()) {
      return bad(absl::StrCat(name, ": ", set.message()));
    }
  }
  return config;
}

absl::StatusOr<Config> ParseConfig(std::span<char* const> argv) {
  const absl::StatusOr<std::vector<Argument>> arguments = SplitArguments(argv);
  if (!arguments.ok()) return arguments.status();
  Config config;
  for (const Argument& argument : *arguments) {
    if (argument.option->name != absl::string_view("config")) continue;
    absl::StatusOr<Config> from_file = LoadConfigFile(argument.value);
    if (!from_file.ok()) return from_file.status();
    config = *std::move(from_file);
  }
  // A list on the command line takes the place of the file's.
  std::set<const ConfigOption*> begun;
  for (const Argument& argument : *arguments) {
    const ConfigOption& option = *argument.option;
    if (option.repeated && begun.insert(&option).second) option.clear(&config);
    const absl::Status set = option.set(argument.value, &config);
    if (!set.ok()) {
      return BadValue(absl::StrCat("--", option.name), argument.value, set.message());
    }
  }
  if (config.help) return config;
  if (absl::Status together = CheckTogether(config); !together.ok()) return together;
  return config;
}

std::string Config::ToString() const {
  std::string text;
  for (const ConfigOption& option : ConfigTable()) {
    if (option.flag_only) continue;
    absl::StrAppend(&text, text.empty() ? "" : " ", option.name, "=", option.get(*this));
  }
  return text;
}

std::string Usage() {
  std::string text =
      "ringsock-relay: a relay server (DERP) for peers that find no direct path\n\n"
      "  ringsock-relay --hostname NAME [flags]\n\n"
      "On first start it makes a key and a self-signed certificate in its state directory. It\n"
      "prints the relay map that leads clients to it, on standard output, one line of JSON.\n";
  constexpr size_t kColumn = 34;
  const Config defaults;
  for (const ConfigOption& option : ConfigTable()) {
    if (option.section[0] != '\0') absl::StrAppend(&text, "\n", option.section, ":\n");
    std::string left =
        absl::StrCat("  --", option.name, option.value[0] == '\0' ? "" : " ", option.value);
    left.resize(std::max(kColumn, left.size() + 1), ' ');
    absl::StrAppend(&text, left, option.help);
    const std::string value = option.flag_only ? "" : option.get(defaults);
    if (!value.empty()) absl::StrAppend(&text, " [", value, "]");
    absl::StrAppend(&text, "\n");
  }
  absl::StrAppend(
      &text,
      "\nSizes are bytes, also 64K, 1M or 2G; times such as 500ms, 2s or 1m.\n"
      "SIGHUP reads the certificate and the allow-list again, SIGUSR1 logs clients and\n"
      "counters, SIGTERM and SIGINT stop it gracefully.\n"
      "Exit status: 0 stopped by a signal, 1 could not start, 2 a wrong option.\n");
  return text;
}

}  // namespace ringsock::relay
