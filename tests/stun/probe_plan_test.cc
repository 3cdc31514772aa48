// Probe plans as tables: what is sent to whom, when.
#include "stun/probe_plan.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace ringsock::stun {
namespace {

using std::chrono::milliseconds;

ProbeNode Node(const std::string& name) { return {.name = name, .host_name = name}; }

// Regions 1 to `count`, with one node each.
ProbeMap Regions(RegionId count) {
  ProbeMap map;
  for (RegionId id = 1; id <= count; ++id)
    map.push_back({id, false, {Node(absl::StrCat("n", id))}});
  return map;
}

// "1-v4: 0@0 0@100 0@200": region, family, then node@milliseconds.
std::string Print(const ProbeMap& map, const ProbePlan& plan) {
  std::vector<std::string> lines;
  for (const ProbeSet& set : plan) {
    std::string line =
        absl::StrCat(map[set.region].id, set.family == Family::kV4 ? "-v4:" : "-v6:");
    for (const Probe& probe : set.probes) {
      absl::StrAppend(&line, " ", probe.node, "@", probe.delay / milliseconds(1));
    }
    lines.push_back(line);
  }
  return absl::StrJoin(lines, "\n");
}

// A report with the latencies of regions in milliseconds; 0: none.
Report Last(const std::map<RegionId, int>& v4, const std::map<RegionId, int>& v6 = {}) {
  Report report;
  const auto add = [&](RegionId id, int ms, auto member) {
    RegionLatency& latency = report.latency[id];
    latency.*member = milliseconds(ms);
    const bool first = latency.best == Duration{};
    latency.best = first ? milliseconds(ms) : std::min<Duration>(latency.best, milliseconds(ms));
  };
  for (const auto& [id, ms] : v4) add(id, ms, &RegionLatency::v4);
  for (const auto& [id, ms] : v6) add(id, ms, &RegionLatency::v6);
  return report;
}

// spec: NC-2
TEST(FullPlanTest, EveryRegionThreeTriesOverItsNodesInTurn) {
  ProbeMap map = Regions(3);
  map[1].nodes.push_back(Node("2b"));
  for (const char* name : {"3b", "3c", "3d"}) map[2].nodes.push_back(Node(name));
  EXPECT_EQ(Print(map, FullPlan(map, {.v4 = true, .v6 = false})),
            "1-v4: 0@0 0@100 0@200\n"
            "2-v4: 0@0 1@100 0@200\n"
            "3-v4: 0@0 1@100 2@200");
  EXPECT_EQ(Print(map, FullPlan(map, {.v4 = false, .v6 = true})),
            "1-v6: 0@0 0@100 0@200\n"
            "2-v6: 0@0 1@100 0@200\n"
            "3-v6: 0@0 1@100 2@200");
  map.resize(1);
  EXPECT_EQ(Print(map, FullPlan(map, {.v4 = true, .v6 = true})),
            "1-v4: 0@0 0@100 0@200\n"
            "1-v6: 0@0 0@100 0@200");
  EXPECT_EQ(FullPlan(map, {.v4 = false, .v6 = false}), ProbePlan{});
  EXPECT_EQ(FullPlan({}, {.v4 = true, .v6 = true}), ProbePlan{});
}

// spec: NC-2
TEST(FullPlanTest, NodesWithoutTheFamilyOrWithoutStunAreSkipped) {
  ProbeMap map = Regions(4);
  map[0].nodes[0].v6.enabled = false;
  map[0].nodes.push_back(Node("1b"));
  map[0].nodes[1].v4.enabled = false;
  map[1].nodes[0].stun_port.reset();
  map[1].nodes.push_back(Node("2b"));
  map[2].nodes[0].stun_port.reset();
  map[3].nodes.clear();
  EXPECT_EQ(Print(map, FullPlan(map, {.v4 = true, .v6 = true})),
            "1-v4: 0@0 0@100 0@200\n"
            "1-v6: 1@0 1@100 1@200\n"
            "2-v4: 1@0 1@100 1@200\n"
            "2-v6: 1@0 1@100 1@200");
}

// spec: NC-3
TEST(IncrementalPlanTest, Tables) {
  const ProbeMap map = Regions(5);
  struct Case {
    const char* what;
    HostFamilies host;
    Report last;
    const char* plan;
  } const cases[] = {
      {"three fastest, two of them twice",
       {.v4 = true, .v6 = false},
       Last({{1, 50}, {2, 10}, {3, 40}, {4, 30}, {5, 20}}),
       "2-v4: 0@0 0@12\n5-v4: 0@0 0@24\n4-v4: 0@0"},
      {"one known region: others in the order of the map, after 200 ms",
       {.v4 = true, .v6 = false},
       Last({{3, 100}}),
       "3-v4: 0@0 0@120\n1-v4: 0@0 0@200\n2-v4: 0@0"},
      {"dual stack, both worked: the third by IPv4 alone",
       {.v4 = true, .v6 = true},
       Last({{1, 10}, {2, 20}, {3, 30}}, {{1, 15}, {2, 20}, {3, 25}}),
       "1-v4: 0@0 0@12\n1-v6: 0@0 0@12\n2-v4: 0@0 0@24\n2-v6: 0@0 0@24\n3-v4: 0@0"},
      {"dual stack, IPv6 failed: one try of the fastest",
       {.v4 = true, .v6 = true},
       Last({{1, 10}, {2, 20}, {3, 30}}),
       "1-v4: 0@0 0@12\n1-v6: 0@0\n2-v4: 0@0 0@24\n2-v6: 0@0\n3-v4: 0@0"},
      {"IPv6 only",
       {.v4 = false, .v6 = true},
       Last({}, {{1, 10}, {2, 20}, {3, 30}, {4, 40}}),
       "1-v6: 0@0 0@12\n2-v6: 0@0 0@24\n3-v6: 0@0"},
      {"IPv6 went away",
       {.v4 = true, .v6 = false},
       Last({{1, 10}}, {{2, 5}}),
       "2-v4: 0@0 0@6\n1-v4: 0@0 0@12\n3-v4: 0@0"},
      {"no family", {.v4 = false, .v6 = false}, Last({{1, 10}}), ""},
  };
  for (const Case& c : cases) {
    EXPECT_EQ(Print(map, IncrementalPlan(map, c.host, c.last)), c.plan) << c.what;
  }
}

// spec: NC-3
TEST(IncrementalPlanTest, SecondTryGoesToTheSecondNode) {
  ProbeMap map = Regions(1);
  map[0].nodes.push_back(Node("1b"));
  EXPECT_EQ(Print(map, IncrementalPlan(map, {.v4 = true, .v6 = false}, Last({{1, 50}, {9, 1}}))),
            "1-v4: 0@0 1@60");
}

}  // namespace
}  // namespace ringsock::stun
