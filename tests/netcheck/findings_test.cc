// What follows from findings, as a table: which of them are trouble, and that the cure is said.
#include "netcheck/findings.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>
#include <functional>

#include "absl/strings/str_cat.h"

namespace ringsock::netcheck {
namespace {

using std::chrono::milliseconds;
using testing::HasSubstr;

Endpoint At(const char* text) { return Endpoint::Parse(text).value(); }

derp::RelayMap Map(const std::string& more = "") {
  const auto map = derp::ParseRelayMap(absl::StrCat(R"({"Regions": {
        "1": {"RegionID": 1, "RegionCode": "one", "Nodes": [{"HostName": "a.test")",
                                                    more, R"(}]},
        "2": {"RegionID": 2, "RegionCode": "two", "Nodes": [{"HostName": "b.test")",
                                                    more, R"(}]}}})"),
                                       nullptr);
  EXPECT_TRUE(map.ok()) << map.status();
  return *map;
}

// A dual-stack host behind an easy NAT.
Findings Good() {
  Findings findings;
  findings.host = {.v4 = true, .v6 = true};
  findings.local = {IpAddress::V4(192, 168, 1, 2)};
  findings.port = 41641;
  stun::Report& report = findings.report;
  report.full = true;
  report.udp = report.ipv6 = true;
  report.global_v4 = At("203.0.113.1:41641");
  report.global_v6 = At("[2001:db8::9]:41641");
  report.mapping_varies = stun::Answer::kNo;
  report.preferred = 1;
  report.latency[1] = {milliseconds(10), milliseconds(10), milliseconds(12)};
  report.latency[2] = {milliseconds(20), milliseconds(20), std::nullopt};
  return findings;
}

// "TROUBLE udp_blocked, note hard_nat", of findings that are good but for a change.
std::string Advised(const std::function<void(Findings*)>& change,
                    const derp::RelayMap& map = Map()) {
  Findings findings = Good();
  change(&findings);
  std::string all;
  const auto advice = Advise(findings, map);
  for (const Advice& item : advice) {
    EXPECT_GT(item.text.size(), 40u) << item.id;
    EXPECT_EQ(item.text.back(), '.') << item.id;
    absl::StrAppend(&all, all.empty() ? "" : ", ",
                    item.level == Level::kTrouble ? "TROUBLE " : "note ", item.id);
  }
  EXPECT_EQ(IsTrouble(advice), all.find("TROUBLE") != std::string::npos);
  return all;
}

void Silence(Findings* findings) {
  stun::Report& report = findings->report;
  const bool full = report.full;
  report = stun::Report{};
  report.full = full;
  findings->https = true;
}

void Hard(Findings* findings) { findings->report.mapping_varies = stun::Answer::kYes; }
void NoIpv6(Findings* findings) {
  findings->host.v6 = findings->report.ipv6 = false;
  findings->report.global_v6 = {};
}
void Mapped(Findings* findings, const char* external) {
  findings->port_mapping = {true, At(external), "UPnP", ""};
}

TEST(AdviseTest, WellIsSilent) {
  EXPECT_EQ(Advised([](Findings*) {}), "");
  EXPECT_EQ(Advised([](Findings* f) { NoIpv6(f); }), "") << "a host without IPv6 is no fault";
  EXPECT_EQ(Advised([](Findings* f) {
              f->host.v4 = false;
              f->report.global_v4 = {};
              f->report.mapping_varies = stun::Answer::kUnknown;
            }),
            "")
      << "nor is one without IPv4";
  EXPECT_EQ(Advised([](Findings* f) {
              f->local = {f->report.global_v4.ip};
              f->report.mapping_varies = stun::Answer::kUnknown;
            }),
            "")
      << "without a NAT";
}

TEST(AdviseTest, WithoutUdp) {
  EXPECT_EQ(Advised([](Findings* f) {
              Silence(f);
              f->report.latency[1] = {milliseconds(30), {}, {}};
              f->report.preferred = 1;
            }),
            "TROUBLE udp_blocked");
  EXPECT_EQ(Advised(Silence), "TROUBLE nothing_reachable");
  EXPECT_EQ(Advised([](Findings* f) {
              Silence(f);
              f->send_error_v4 = EPERM;
            }),
            "TROUBLE udp_refused_here, TROUBLE nothing_reachable");
  EXPECT_EQ(Advised([](Findings* f) {
              Silence(f);
              f->host = {false, false};
            }),
            "TROUBLE no_network, TROUBLE nothing_reachable");
  EXPECT_EQ(Advised(Silence, Map(R"(, "STUNPort": -1)")), "TROUBLE no_stun_servers");
  Findings blocked = Good();
  Silence(&blocked);
  blocked.report.latency[1] = {milliseconds(30), {}, {}};
  EXPECT_THAT(Advise(blocked, Map(R"(, "STUNPort": 3999)"))[0].text,
              HasSubstr("Open outgoing UDP to port 3999"));
}

TEST(AdviseTest, HardNats) {
  EXPECT_EQ(Advised([](Findings* f) { Hard(f), NoIpv6(f); }), "TROUBLE hard_nat");
  EXPECT_EQ(Advised(Hard), "note hard_nat") << "IPv6 works";
  EXPECT_EQ(Advised([](Findings* f) { Hard(f), NoIpv6(f), Mapped(f, "203.0.113.1:41641"); }), "");
  EXPECT_EQ(Advised([](Findings* f) { Hard(f), NoIpv6(f), Mapped(f, "100.64.0.7:41641"); }),
            "TROUBLE hard_nat, note double_nat")
      << "that mapping leads to the provider's NAT only";
  EXPECT_EQ(Advised([](Findings* f) { f->report.mapping_varies = stun::Answer::kUnknown; }),
            "note mapping_unknown");
}

TEST(AdviseTest, HalvesThatDoNotWork) {
  EXPECT_EQ(Advised([](Findings* f) {
              f->report.ipv6 = false;
              f->report.global_v6 = {};
            }),
            "note ipv6_broken");
  EXPECT_EQ(Advised(
                [](Findings* f) {
                  f->report.ipv6 = false;
                  f->report.global_v6 = {};
                },
                Map(R"(, "IPv6": "none")")),
            "")
      << "nobody was asked";
  EXPECT_EQ(Advised([](Findings* f) {
              f->report.global_v4 = {};
              f->report.mapping_varies = stun::Answer::kUnknown;
            }),
            "note ipv4_broken");
  const auto silent = [](Findings* f) { f->report.latency.erase(2); };
  EXPECT_EQ(Advised(silent), "note regions_silent");
  EXPECT_EQ(Advised([&](Findings* f) { silent(f), f->report.full = false; }), "")
      << "it may not have been asked";
  EXPECT_EQ(Advised(silent, Map(R"(, "STUNPort": -1)")), "") << "it was not asked";
  EXPECT_EQ(Advised([](Findings* f) { f->report.preferred = 0; }), "TROUBLE no_relay");
}

TEST(AdviseTest, NamesAndStrangers) {
  EXPECT_EQ(Advised([](Findings* f) { f->unresolved["a.test"] = "no answer"; }),
            "note names_unresolved");
  EXPECT_EQ(Advised([](Findings* f) { f->stats.wrong_source = 1; }), "note strange_answers");
  EXPECT_EQ(Advised([](Findings* f) { f->stats.late = f->stats.repeated = 3; }), "")
      << "the network's ordinary weather";
}

TEST(AdviseTest, BehindNatLooksAtAddressAndPort) {
  Findings findings = Good();
  EXPECT_EQ(BehindNat(findings), stun::Answer::kYes);
  findings.local.push_back(IpAddress::V4(203, 0, 113, 1));
  EXPECT_EQ(BehindNat(findings), stun::Answer::kNo);
  findings.port = 7;
  EXPECT_EQ(BehindNat(findings), stun::Answer::kYes) << "this very host translates ports";
  findings.report.global_v4 = {};
  EXPECT_EQ(BehindNat(findings), stun::Answer::kUnknown);
}

}  // namespace
}  // namespace ringsock::netcheck
