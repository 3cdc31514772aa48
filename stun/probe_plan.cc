#include "stun/probe_plan.h"

#include <algorithm>
#include <utility>

namespace ringsock::stun {
namespace {

// Up to `tries` probes, `interval` apart, over the nodes that have STUN on this family in turn. No
// such node: no set.
void AppendSet(const ProbeMap& map, size_t region, Family family, int tries, Duration interval,
               ProbePlan* plan) {
  std::vector<size_t> nodes;
  for (size_t i = 0; i < map[region].nodes.size(); ++i) {
    if (map[region].nodes[i].HasStun(family)) nodes.push_back(i);
  }
  if (nodes.empty() || tries <= 0) return;
  ProbeSet set{region, family, {}};
  for (int i = 0; i < tries; ++i) {
    set.probes.push_back({i * interval, nodes[static_cast<size_t>(i) % nodes.size()]});
  }
  plan->push_back(std::move(set));
}

// Best latency of a region in a report; none if it has none.
std::optional<Duration> LatencyOf(const ProbeRegion& region, const Report& report) {
  const auto found = report.latency.find(region.id);
  if (found == report.latency.end()) return std::nullopt;
  return found->second.best;
}

std::vector<size_t> FastestFirst(const ProbeMap& map, const Report& last) {
  std::vector<size_t> order(map.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    return LatencyOf(map[a], last).value_or(Duration::max()) <
           LatencyOf(map[b], last).value_or(Duration::max());
  });
  return order;
}

}  // namespace

ProbePlan FullPlan(const ProbeMap& map, const HostFamilies& host) {
  ProbePlan plan;
  for (size_t region = 0; region < map.size(); ++region) {
    if (host.v4) AppendSet(map, region, Family::kV4, kFullTries, kFullInterval, &plan);
    if (host.v6) AppendSet(map, region, Family::kV6, kFullTries, kFullInterval, &plan);
  }
  return plan;
}

ProbePlan IncrementalPlan(const ProbeMap& map, const HostFamilies& host, const Report& last) {
  const auto any = [&](auto member) {
    return std::any_of(last.latency.begin(), last.latency.end(),
                       [&](const auto& entry) { return (entry.second.*member).has_value(); });
  };
  const bool had_v4 = any(&RegionLatency::v4);
  const bool had_v6 = any(&RegionLatency::v6);
  const bool dual_stack = host.v4 && host.v6 && had_v4 && had_v6;
  const std::vector<size_t> order = FastestFirst(map, last);
  ProbePlan plan;
  for (size_t rank = 0; rank < std::min(order.size(), kIncrementalRegions); ++rank) {
    const size_t region = order[rank];
    const bool fastest = rank < kIncrementalFastest;
    const int tries = fastest ? 2 : 1;
    // The first try of the fastest asks whether IPv6 works by now; else it takes a success.
    const int v6_tries = had_v6 ? tries : (fastest ? 1 : 0);
    const bool turn_of_v4 = rank % 2 == 0;
    const auto latency = LatencyOf(map[region], last);
    const Duration retry = latency.has_value() ? *latency * 6 / 5 : kDefaultRetry;
    if (host.v4 && (fastest || !dual_stack || turn_of_v4)) {
      AppendSet(map, region, Family::kV4, tries, retry, &plan);
    }
    if (host.v6 && (fastest || !dual_stack || !turn_of_v4)) {
      AppendSet(map, region, Family::kV6, v6_tries, retry, &plan);
    }
  }
  return plan;
}

}  // namespace ringsock::stun
