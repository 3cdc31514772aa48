// The report as text and as JSON.
#include "netcheck/report_text.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "absl/strings/str_split.h"

namespace ringsock::netcheck {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;
using testing::HasSubstr;
using testing::Not;

derp::RelayMap Map() {
  auto map = derp::ParseRelayMap(
      R"({"Regions": {
        "1": {"RegionID": 1, "RegionCode": "one", "Nodes": [{"HostName": "a.test"}]},
        "2": {"RegionID": 2, "RegionName": "Two", "Nodes": [{"HostName": "b.test"}]},
        "3": {"RegionID": 3, "Nodes": [{"HostName": "c.test"}]}}})",
      nullptr);
  EXPECT_TRUE(map.ok()) << map.status();
  // As no map that was read has it.
  map->regions.at(2).region_name = "Two\x1b[2J";
  return *map;
}

Findings Good() {
  Findings findings;
  findings.host = {.v4 = true, .v6 = false};
  findings.took = milliseconds(123);
  findings.port = 41641;
  stun::Report& report = findings.report;
  report.full = report.udp = true;
  report.global_v4 = Endpoint::Parse("203.0.113.1:41641").value();
  report.mapping_varies = stun::Answer::kNo;
  report.hairpin = stun::Answer::kNo;
  report.preferred = 2;
  report.latency[1] = {microseconds(20'340), microseconds(20'340), std::nullopt};
  report.latency[2] = {milliseconds(9), milliseconds(9), std::nullopt};
  return findings;
}

TEST(ReportTextTest, ReadsFromTopToBottom) {
  Findings findings = Good();
  findings.port_mapping = {true, Endpoint::Parse("203.0.113.1:5000").value(), "NAT-PMP", ""};
  EXPECT_EQ(ToText(findings, {}, Map()),
            "  UDP               yes\n"
            "  IPv4              yes, 203.0.113.1:41641\n"
            "  IPv6              no: this host has no global IPv6 address\n"
            "  NAT               easy: the same address and port for all destinations\n"
            "  Mapping varies    no\n"
            "  Hairpin           no\n"
            "  Port mapping      yes, 203.0.113.1:5000 (NAT-PMP)\n"
            "  Preferred region  2 Two?[2J\n"
            "  Regions, the nearest first:\n"
            "    2 Two?[2J                    9.0 ms   IPv4 9.0 ms\n"
            "    1 one                       20.3 ms   IPv4 20.3 ms\n"
            "    3                        no answer\n"
            "\n"
            "No trouble found.\n");
}

TEST(ReportTextTest, TroubleIsSaidInLinesOfReadableLength) {
  Findings findings = Good();
  findings.report.udp = false;
  findings.report.global_v4 = {};
  findings.report.latency = {{1, {milliseconds(40), {}, {}}}};
  findings.https_errors[3] = "node 3: TLS handshake not done in time";
  findings.port_mapping = {true, {}, "", "NAT-PMP: no answer"};
  const auto advice = Advise(findings, Map());
  ASSERT_TRUE(IsTrouble(advice));
  const std::string text = ToText(findings, advice, Map());
  EXPECT_THAT(text, HasSubstr("  UDP               no\n"));
  EXPECT_THAT(text, HasSubstr("40.0 ms   HTTPS\n"));
  EXPECT_THAT(text, HasSubstr("no answer; HTTPS: node 3: TLS handshake not done in time\n"));
  EXPECT_THAT(text, HasSubstr("  IPv4              no answer\n"));
  EXPECT_THAT(text, HasSubstr("Port mapping      no: NAT-PMP: no answer\n"));
  EXPECT_THAT(text, HasSubstr("\nTROUBLE: UDP is blocked: "));
  EXPECT_THAT(text, Not(HasSubstr("No trouble")));
  for (const absl::string_view line : absl::StrSplit(text, '\n'))
    EXPECT_LE(line.size(), 100u) << line;
}

TEST(ReportTextTest, JsonIsOneLineOfTheSame) {
  Findings findings = Good();
  findings.stats.probes_sent = 9;
  const Advice advice{Level::kTrouble, "hard_nat", "Text with \"quotes\"."};
  const std::string line = ToJson(findings, {advice}, Map());
  EXPECT_THAT(line, Not(HasSubstr("\n")));
  const auto json = nlohmann::json::parse(line);
  EXPECT_EQ(json["trouble"], true);
  EXPECT_EQ(json["udp"], true);
  EXPECT_EQ(json["ipv4"], true);
  EXPECT_EQ(json["ipv6"], false);
  EXPECT_EQ(json["global_v4"], "203.0.113.1:41641");
  EXPECT_TRUE(json["global_v6"].is_null());
  EXPECT_EQ(json["behind_nat"], "yes");
  EXPECT_EQ(json["mapping_varies"], "no");
  EXPECT_EQ(json["hairpin"], "no");
  EXPECT_EQ(json["preferred_region"], 2);
  EXPECT_EQ(json["port_mapping"]["asked"], false);
  ASSERT_EQ(json["regions"].size(), 3u);
  EXPECT_EQ(json["regions"][0]["id"], 2);
  EXPECT_EQ(json["regions"][0]["latency_ms"], 9.0);
  EXPECT_EQ(json["regions"][0]["v4_ms"], 9.0);
  EXPECT_TRUE(json["regions"][0]["https_ms"].is_null());
  EXPECT_EQ(json["regions"][2]["id"], 3);
  EXPECT_TRUE(json["regions"][2]["latency_ms"].is_null());
  EXPECT_EQ(json["findings"][0]["id"], "hard_nat");
  EXPECT_EQ(json["findings"][0]["level"], "trouble");
  EXPECT_EQ(json["probes"]["sent"], 9);
  EXPECT_EQ(json["took_ms"], 123.0);
  // Bytes that are no text in a map that was not read from JSON.
  derp::RelayMap map = Map();
  map.regions[1].region_name = "\xff\xfe";
  EXPECT_TRUE(nlohmann::json::accept(ToJson(findings, {}, map)));
}

}  // namespace
}  // namespace ringsock::netcheck
