// Tables and JSON of made-up rounds.
#include "bench/relay/relay_report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <nlohmann/json.hpp>

namespace ringsock::bench {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

RelayRound Round(uint64_t delivered, uint64_t cpu_ns) {
  RelayRound round;
  round.seconds = 1;
  round.offered = delivered;
  round.delivered = delivered;
  round.cpu_ns = cpu_ns;
  round.latency_p50 = 12'000;
  round.total.offered = delivered;
  round.total.sent = delivered;
  round.total.received.packets = delivered;
  return round;
}

RelaySubjectSpec Relay() {
  RelaySubjectSpec spec;
  spec.kind = RelaySubjectSpec::Kind::kCommand;
  spec.name = "ringsock-relay";
  return spec;
}

RelayScenario Scenario() {
  RelayScenario scenario;
  scenario.name = "paced";
  scenario.traffic.rate = 40'000;
  scenario.subjects.push_back({.spec = Relay(), .rounds = {}, .error = {}});
  scenario.subjects.push_back({.spec = {}, .rounds = {}, .error = {}});
  scenario.subjects[1].spec.name = "tls-floor";
  for (const uint64_t cost : {2000, 1000, 3000}) {
    scenario.subjects[0].rounds.push_back(Round(1000, 1000 * cost));
    scenario.subjects[1].rounds.push_back(Round(1000, 1000 * 1000));
  }
  return scenario;
}

void ExpectFits(const std::string& text) {
  size_t column = 0;
  for (const char c : text) {
    column = c == '\n' ? 0 : column + 1;
    ASSERT_LE(column, 100u) << text;
  }
}

TEST(RelayReportTest, MedianRangeAndFloor) {
  const std::string text = FormatRelayScenario(Scenario());
  EXPECT_THAT(text, HasSubstr("1 to 1, 1400 B, 40000/s in bursts of 1 ms"));
  EXPECT_THAT(text, HasSubstr("5900 ns/pkt, 20% lost"));
  EXPECT_THAT(text, HasSubstr("   2000 1000-3000"));
  EXPECT_THAT(text, HasSubstr(" 0.50\n"));
  ExpectFits(text);
  EXPECT_THAT(RatiosToFloor(Scenario(), Scenario().subjects[1]), ElementsAre(1, 1, 1));
  const RelayScenario scenario = Scenario();
  EXPECT_THAT(RatiosToFloor(scenario, scenario.subjects[0]), ElementsAre(0.5, 1, 1000.0 / 3000));
}

TEST(RelayReportTest, ReferenceFiguresOfKnownLoads) {
  for (const uint32_t clients : {1, 20}) {
    for (const uint32_t size : {64, 1400}) {
      for (const double rate : {0, 40'000, 120'000}) {
        ExpectFits(ReferenceFigures(
            {.senders = clients, .receivers = clients, .size = size, .rate = rate}));
      }
    }
  }
  EXPECT_THAT(ReferenceFigures({.rate = 40'000}), HasSubstr("5900 ns/pkt, 20% lost"));
  EXPECT_EQ(ReferenceFigures({.senders = 3, .receivers = 3}), "");
  EXPECT_EQ(ReferenceFigures({.one_in_flight = true}), "");
}

TEST(RelayReportTest, LossesAndWhere) {
  RelayScenario scenario = Scenario();
  for (RelayRound& round : scenario.subjects[0].rounds) {
    round.total.offered = 2000;
    round.total.sent = 1500;
    round.total.held_back = 500;
    round.total.received.packets = 1000;
    round.total.received.duplicates = 1;
    round.total.closed = 2;
    round.losses = {{"dropped{reason=\"queue_full\"}", 500}};
  }
  EXPECT_DOUBLE_EQ(scenario.subjects[0].rounds[0].LostShare(), 0.25);
  EXPECT_DOUBLE_EQ(scenario.subjects[0].rounds[0].HeldBackShare(), 0.25);
  const std::string text = FormatRelayScenario(scenario);
  EXPECT_THAT(text, HasSubstr(" 25.0% 25.0%"));
  EXPECT_THAT(text, HasSubstr("dropped{reason=\"queue_full\"}: 1500"));
  EXPECT_THAT(text, HasSubstr("duplicates: 3"));
  EXPECT_THAT(text, HasSubstr("connections it closed: 6"));
  ExpectFits(text);
}

TEST(RelayReportTest, SaysWhenTheLoadWasTheLimit) {
  RelayScenario scenario = Scenario();
  EXPECT_THAT(FormatRelayScenario(scenario), Not(HasSubstr("the load was the limit")));
  for (RelayRound& round : scenario.subjects[0].rounds) round.load_busy_ns = 990'000'000;
  EXPECT_THAT(FormatRelayScenario(scenario), HasSubstr("the load was the limit"));
}

TEST(RelayReportTest, NothingDelivered) {
  RelayScenario scenario = Scenario();
  for (RelayRound& round : scenario.subjects[0].rounds) round = Round(0, 5);
  scenario.subjects[1].rounds.clear();
  scenario.subjects[1].error = "no such file";
  const std::string text = FormatRelayScenario(scenario);
  EXPECT_THAT(text, HasSubstr("delivered no packets"));
  EXPECT_THAT(text, HasSubstr("not measured: no such file"));
}

TEST(RelayReportTest, SweepAsShareOfTheBest) {
  Sweep sweep{.capacity = 1000, .points = {}};
  const auto add = [&sweep](double factor, double due, uint64_t delivered) {
    sweep.points.push_back({factor, Scenario()});
    sweep.points.back().scenario.traffic.rate = due;
    for (RelayRound& round : sweep.points.back().scenario.subjects[0].rounds) {
      round = Round(delivered, 500'000);
      round.seconds = 1;
    }
  };
  // Under the best rate what was due counts, over it the best.
  add(0.5, 500, 450);
  add(1, 1000, 1000);
  add(2, 2000, 1250);
  add(0, 0, 625);
  EXPECT_EQ(sweep.Best(), 1250);
  const std::string text = FormatSweep(sweep);
  EXPECT_THAT(text, HasSubstr("0.5x 0.90 1.0x 1.00 2.0x 1.00 flat out 0.50"));
  ExpectFits(text);
}

TEST(RelayReportTest, MemoryPerClient) {
  MemoryResult result{.spec = Relay(), .clients = 100, .before = {}, .after = {}, .error = {}};
  result.before.rss = 1 << 20;
  result.after.rss = (1 << 20) + 100 * 10 * 1024;
  const std::string text = FormatMemory(result);
  EXPECT_THAT(text, HasSubstr("resident 10.00"));
  ExpectFits(text);
  EXPECT_THAT(FormatMemory({.spec = Relay(), .before = {}, .after = {}, .error = "refused"}),
              HasSubstr("refused"));
}

TEST(RelayReportTest, Json) {
  RelayResults results;
  results.scenarios.push_back(Scenario());
  results.scenarios[0].subjects[0].rounds[0] = Round(0, 5);
  results.sweeps.push_back({.capacity = 5, .points = {{0, Scenario()}}});
  results.memory.push_back({.spec = Relay(), .clients = 3, .before = {}, .after = {}, .error = {}});
  const auto json =
      nlohmann::json::parse(FormatRelayJson({}, {}, results), nullptr, /*allow_exceptions=*/false);
  ASSERT_FALSE(json.is_discarded());
  const auto& subject = json["scenarios"][0]["subjects"][0];
  EXPECT_EQ(subject["rounds"].size(), 3u);
  EXPECT_TRUE(subject["rounds"][0]["cpu_ns_per_packet"].is_null());
  EXPECT_EQ(subject["rounds"][1]["cpu_ns_per_packet"], 1000);
  EXPECT_EQ(json["sweeps"][0]["points"][0]["factor"], 0);
  EXPECT_EQ(json["memory"][0]["clients"], 3);
}

}  // namespace
}  // namespace ringsock::bench
