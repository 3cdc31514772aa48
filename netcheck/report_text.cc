#include "netcheck/report_text.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "derp/json.h"

namespace ringsock::netcheck {
namespace {

using Json = nlohmann::ordered_json;

constexpr size_t kColumns = 100;

double Milliseconds(Duration duration) {
  return std::chrono::duration<double, std::milli>(duration).count();
}

std::string Rounded(Duration duration) {
  return absl::StrFormat("%.1f ms", Milliseconds(duration));
}

std::string NameOf(const derp::RelayMap& map, RegionId id) {
  const derp::RelayRegion* region = map.Find(id);
  if (region == nullptr) return absl::StrCat(id);
  const std::string& name = region->region_name.empty() ? region->region_code : region->region_name;
  // A map may have come from anywhere: nothing in it talks to the terminal.
  return name.empty() ? absl::StrCat(id) : absl::StrCat(id, " ", derp::CleanText(name, 40));
}

// By latency; those without one last, by id.
std::vector<std::pair<RegionId, const stun::RegionLatency*>> Sorted(const Findings& findings,
                                                                    const derp::RelayMap& map) {
  std::vector<std::pair<RegionId, const stun::RegionLatency*>> regions;
  for (const auto& [id, region] : map.regions) {
    const auto found = findings.report.latency.find(id);
    regions.emplace_back(id, found == findings.report.latency.end() ? nullptr : &found->second);
  }
  std::stable_sort(regions.begin(), regions.end(), [](const auto& a, const auto& b) {
    if (a.second == nullptr || b.second == nullptr)
      return a.second != nullptr && b.second == nullptr;
    return a.second->best < b.second->best;
  });
  return regions;
}

// ---- Text ----

std::string FamilyText(bool host_has, bool asked, const Endpoint& global, const char* name) {
  if (!global.IsNone()) return absl::StrCat("yes, ", global.ToString());
  if (!host_has) return absl::StrCat("no: this host has no ", name, " address");
  return asked ? "no answer" : "not asked: no server of the map has it";
}

std::string NatText(const Findings& findings) {
  switch (BehindNat(findings)) {
    case stun::Answer::kNo:
      return "none: servers see this host's own address";
    case stun::Answer::kUnknown:
      return "unknown";
    case stun::Answer::kYes:
      break;
  }
  switch (findings.report.mapping_varies) {
    case stun::Answer::kYes:
      return "hard: another address or port for each destination";
    case stun::Answer::kNo:
      return "easy: the same address and port for all destinations";
    case stun::Answer::kUnknown:
      break;
  }
  return "yes; its kind is unknown";
}

std::string PortMappingText(const PortMappingFinding& mapping) {
  if (!mapping.asked) return "not asked for";
  if (mapping.external.IsNone()) return absl::StrCat("no: ", mapping.why_not);
  return absl::StrCat("yes, ", mapping.external.ToString(), " (", mapping.protocol, ")");
}

std::string RegionText(const Findings& findings, RegionId id, const stun::RegionLatency* latency) {
  if (latency == nullptr) {
    const auto error = findings.https_errors.find(id);
    if (error != findings.https_errors.end()) return "no answer; HTTPS: " + error->second;
    return findings.report.full ? "no answer" : "not asked, or no answer";
  }
  std::string text = absl::StrFormat("%10s", Rounded(latency->best));
  if (latency->v4) absl::StrAppend(&text, "   IPv4 ", Rounded(*latency->v4));
  if (latency->v6) absl::StrAppend(&text, "   IPv6 ", Rounded(*latency->v6));
  if (!latency->v4 && !latency->v6) absl::StrAppend(&text, "   HTTPS");
  return text;
}

// Words in lines of kColumns, after a first line that has begun with `prefix`.
void AppendWrapped(absl::string_view prefix, absl::string_view text, std::string* out) {
  if (prefix.size() + text.size() <= kColumns) {
    absl::StrAppend(out, prefix, text, "\n");  // as it is, columns and all
    return;
  }
  const std::string indent(prefix.size(), ' ');
  std::string line(prefix);
  bool fresh = true;
  for (const absl::string_view word : absl::StrSplit(text, ' ', absl::SkipEmpty())) {
    if (!fresh && line.size() + 1 + word.size() > kColumns) {
      absl::StrAppend(out, line, "\n");
      line = indent;
      fresh = true;
    }
    absl::StrAppend(&line, fresh ? "" : " ", word);
    fresh = false;
  }
  absl::StrAppend(out, line, "\n");
}

// ---- JSON ----

Json AddressOrNull(const Endpoint& endpoint) {
  return endpoint.IsNone() ? Json() : Json(endpoint.ToString());
}

Json RegionJson(const Findings& findings, const derp::RelayMap& map, RegionId id,
                const stun::RegionLatency* latency) {
  const auto optional = [](const std::optional<Duration>& duration) {
    return duration.has_value() ? Json(Milliseconds(*duration)) : Json();
  };
  Json json;
  json["id"] = id;
  const derp::RelayRegion* region = map.Find(id);
  json["code"] = region == nullptr ? "" : region->region_code;
  json["name"] = region == nullptr ? "" : region->region_name;
  const bool udp = latency != nullptr && (latency->v4.has_value() || latency->v6.has_value());
  json["latency_ms"] = latency == nullptr ? Json() : Json(Milliseconds(latency->best));
  json["v4_ms"] = udp ? optional(latency->v4) : Json();
  json["v6_ms"] = udp ? optional(latency->v6) : Json();
  json["https_ms"] = latency != nullptr && !udp ? Json(Milliseconds(latency->best)) : Json();
  const auto error = findings.https_errors.find(id);
  json["https_error"] = error == findings.https_errors.end() ? Json() : Json(error->second);
  return json;
}

Json PortMappingJson(const PortMappingFinding& mapping) {
  Json json;
  json["asked"] = mapping.asked;
  json["external"] = AddressOrNull(mapping.external);
  json["protocol"] = mapping.external.IsNone() ? Json() : Json(mapping.protocol);
  json["error"] = mapping.why_not.empty() ? Json() : Json(mapping.why_not);
  return json;
}

}  // namespace

std::string ToText(const Findings& findings, const std::vector<Advice>& advice,
                   const derp::RelayMap& map) {
  const stun::Report& report = findings.report;
  std::string text;
  const auto row = [&text](const char* name, absl::string_view value) {
    AppendWrapped(absl::StrFormat("  %-18s", name), value, &text);
  };
  row("UDP", report.udp ? "yes" : "no");
  const stun::HostFamilies& host = findings.host;
  row("IPv4", FamilyText(host.v4, Asks(map, true), report.global_v4, "IPv4"));
  row("IPv6", FamilyText(host.v6, Asks(map, false), report.global_v6, "global IPv6"));
  row("NAT", NatText(findings));
  row("Mapping varies", stun::AnswerName(report.mapping_varies));
  row("Hairpin", stun::AnswerName(report.hairpin));
  row("Port mapping", PortMappingText(findings.port_mapping));
  row("Preferred region", report.preferred == 0 ? "none" : NameOf(map, report.preferred));
  absl::StrAppend(&text, "  Regions, the nearest first:\n");
  for (const auto& [id, latency] : Sorted(findings, map)) {
    AppendWrapped(absl::StrFormat("    %-24s ", NameOf(map, id)), RegionText(findings, id, latency),
                  &text);
  }
  absl::StrAppend(&text, "\n");
  for (const Advice& item : advice) {
    AppendWrapped(item.level == Level::kTrouble ? "TROUBLE: " : "note: ", item.text, &text);
  }
  if (!IsTrouble(advice)) absl::StrAppend(&text, "No trouble found.\n");
  return text;
}

std::string ToJson(const Findings& findings, const std::vector<Advice>& advice,
                   const derp::RelayMap& map) {
  const stun::Report& report = findings.report;
  Json json;
  json["trouble"] = IsTrouble(advice);
  json["udp"] = report.udp;
  json["ipv4"] = !report.global_v4.IsNone();
  json["ipv6"] = report.ipv6;
  json["global_v4"] = AddressOrNull(report.global_v4);
  json["global_v6"] = AddressOrNull(report.global_v6);
  json["behind_nat"] = stun::AnswerName(BehindNat(findings));
  json["mapping_varies"] = stun::AnswerName(report.mapping_varies);
  json["hairpin"] = stun::AnswerName(report.hairpin);
  json["port_mapping"] = PortMappingJson(findings.port_mapping);
  json["preferred_region"] = report.preferred == 0 ? Json() : Json(report.preferred);
  json["regions"] = Json::array();
  for (const auto& [id, latency] : Sorted(findings, map)) {
    json["regions"].push_back(RegionJson(findings, map, id, latency));
  }
  json["findings"] = Json::array();
  for (const Advice& item : advice) {
    json["findings"].push_back({{"id", item.id},
                                {"level", item.level == Level::kTrouble ? "trouble" : "note"},
                                {"text", item.text}});
  }
  json["full"] = report.full;
  json["took_ms"] = Milliseconds(findings.took);
  json["local_port"] = findings.port;
  const stun::NetcheckStats& stats = findings.stats;
  json["probes"] = {{"sent", stats.probes_sent},
                    {"answered", stats.answers},
                    {"late", stats.late},
                    {"repeated", stats.repeated},
                    {"malformed", stats.malformed},
                    {"unknown_id", stats.unknown_id},
                    {"wrong_source", stats.wrong_source},
                    {"wrong_family", stats.wrong_family},
                    {"refused", stats.refused}};
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace ringsock::netcheck
