// The list of our own endpoints, and net-info (core/own_endpoints.h).
#include "core/own_endpoints.h"

#include <algorithm>

#include <spdlog/fmt/fmt.h>

namespace ringsock {
namespace {

class List {
 public:
  void Add(const Endpoint& endpoint, EndpointSource source) {
    if (endpoint.port == 0 || endpoint.ip.IsUnspecified()) return;
    const bool known = std::any_of(list_.begin(), list_.end(), [&](const OwnEndpoint& other) {
      return other.endpoint == endpoint;
    });
    if (!known) list_.push_back({endpoint, source});
  }
  std::vector<OwnEndpoint> Take() { return std::move(list_); }

 private:
  std::vector<OwnEndpoint> list_;
};

// A socket bound to the unspecified address is reached at every address of its family.
std::optional<Endpoint> Wildcard(const EndpointInputs& inputs, bool v4) {
  const std::optional<Endpoint>& bound = v4 ? inputs.bound_v4 : inputs.bound_v6;
  return bound && bound->ip.IsUnspecified() ? bound : std::nullopt;
}

// Returns whether there was anything to add.
bool AddLocal(const EndpointInputs& inputs, const std::vector<IpAddress>& addresses,
              EndpointSource source, List* list) {
  bool any = false;
  for (const IpAddress& ip : addresses) {
    const std::optional<Endpoint> bound = Wildcard(inputs, ip.IsV4());
    if (!bound) continue;
    list->Add({ip, bound->port}, source);
    any = true;
  }
  return any;
}

std::string FamilyName(RegionId region, const char* family) {
  return fmt::format("{}-{}", region, family);
}

}  // namespace

const char* EndpointSourceName(EndpointSource source) {
  switch (source) {
    case EndpointSource::kStun:
      return "stun";
    case EndpointSource::kPortMapping:
      return "portmap";
    case EndpointSource::kLocal:
      return "local";
    case EndpointSource::kLoopback:
      return "loopback";
    case EndpointSource::kSocket:
      return "socket";
  }
  return "?";
}

std::string ToString(const std::vector<OwnEndpoint>& endpoints) {
  std::string text;
  for (const OwnEndpoint& own : endpoints) {
    text += fmt::format("{}{} ({})", text.empty() ? "" : ", ", own.endpoint.ToString(),
                        EndpointSourceName(own.source));
  }
  return text.empty() ? "none" : text;
}

std::vector<OwnEndpoint> ListOwnEndpoints(const EndpointInputs& inputs) {
  List list;
  if (inputs.bound_v4) list.Add(inputs.global_v4, EndpointSource::kStun);
  if (inputs.bound_v6) list.Add(inputs.global_v6, EndpointSource::kStun);
  list.Add(inputs.port_mapping, EndpointSource::kPortMapping);
  if (!AddLocal(inputs, inputs.local.regular, EndpointSource::kLocal, &list)) {
    AddLocal(inputs, inputs.local.loopback, EndpointSource::kLoopback, &list);
  }
  // Add() leaves out the unspecified ones, whose addresses have just been listed.
  if (inputs.bound_v4) list.Add(*inputs.bound_v4, EndpointSource::kSocket);
  if (inputs.bound_v6) list.Add(*inputs.bound_v6, EndpointSource::kSocket);
  return list.Take();
}

NetInfo MakeNetInfo(const stun::Report& report, RegionId home) {
  NetInfo info;
  info.udp = report.udp;
  info.ipv6 = report.ipv6;
  info.mapping_varies = report.mapping_varies;
  info.hairpin = report.hairpin;
  info.home = home;
  for (const auto& [region, latency] : report.latency) {
    if (latency.v4) info.latency[FamilyName(region, "v4")] = *latency.v4;
    if (latency.v6) info.latency[FamilyName(region, "v6")] = *latency.v6;
  }
  return info;
}

bool DiffersSubstantially(const NetInfo& a, const NetInfo& b) {
  return a.udp != b.udp || a.ipv6 != b.ipv6 || a.mapping_varies != b.mapping_varies ||
         a.hairpin != b.hairpin || a.home != b.home;
}

std::string ToString(const NetInfo& info) {
  std::string text =
      fmt::format("udp={} v6={} mapvarydest={} hair={} home={}", info.udp ? "yes" : "no",
                  info.ipv6 ? "yes" : "no", stun::AnswerName(info.mapping_varies),
                  stun::AnswerName(info.hairpin), info.home);
  const char* separator = " latency=";
  for (const auto& [name, latency] : info.latency) {
    text += fmt::format("{}{}:{:.1f}ms", separator, name,
                        std::chrono::duration<double, std::milli>(latency).count());
    separator = ",";
  }
  return text;
}

}  // namespace ringsock
