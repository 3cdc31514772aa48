// The table and the JSON of made-up results.
#include "bench/report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <sstream>

namespace ringsock::bench {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

Round MakeRound(double ns_per_packet) {
  Round round;
  round.seconds = 1;
  round.packets = 1'000'000;
  round.cpu_ns = static_cast<uint64_t>(ns_per_packet * 1e6);
  round.core_busy_ns = round.cpu_ns;
  round.load.sent = round.load.received = round.load.distinct = 1'000'000;
  round.subject.received = round.subject.sent = 1'000'000;
  round.latency_p50 = 12'345;
  round.latency_p99 = 99'000;
  round.latency_p999 = 1'000'000;
  return round;
}

SubjectResult MakeSubject(const char* name, std::initializer_list<double> costs) {
  SubjectResult subject{.spec = ParseSubjects(name)->front(), .rounds = {}, .error = {}};
  for (const double cost : costs) subject.rounds.push_back(MakeRound(cost));
  return subject;
}

Scenario MakeScenario() {
  Scenario scenario;
  scenario.subjects = {
      MakeSubject("recvfrom", {2000, 2100, 1900}), MakeSubject("recvmmsg+gro:4", {260, 250, 240}),
      MakeSubject("recvmmsg+gro:8", {210, 200, 190}), MakeSubject("ringsock", {100, 200, 400})};
  return scenario;
}

TEST(ReportTest, RatiosAreByRoundToTheBestBareLoop) {
  const Scenario scenario = MakeScenario();
  ASSERT_EQ(BestBareLoop(scenario), 2);  // the engine is cheaper, but not bare
  EXPECT_THAT(RatiosToBest(scenario.subjects[2], scenario.subjects[3]),
              ElementsAre(2.1, 1.0, 0.475));
}

TEST(ReportTest, RoundsThatMovedNothingHaveNoRatio) {
  Scenario scenario = MakeScenario();
  scenario.subjects[3].rounds[1].packets = 0;
  EXPECT_EQ(RatiosToBest(scenario.subjects[2], scenario.subjects[3]).size(), 2u);
  for (Round& round : scenario.subjects[3].rounds) round.packets = 0;
  EXPECT_THAT(FormatScenario(scenario), HasSubstr("moved no packets"));
}

TEST(ReportTest, TableShowsTheBestBatchAndFits) {
  Scenario scenario = MakeScenario();
  scenario.subjects[0].error = "the rounds that failed";
  scenario.subjects[0].rounds[0].load.distinct -= 1000;
  scenario.subjects[0].rounds[0].subject.received -= 1000;
  scenario.subjects[0].rounds[0].subject.AddReason("tx_buffer_full", 7);
  scenario.subjects[0].rounds[1].load.reordered = 5;
  const std::string table = FormatScenario(scenario);
  EXPECT_THAT(table, HasSubstr("recvmmsg+gro:8"));
  EXPECT_THAT(table, Not(HasSubstr("recvmmsg+gro:4")));
  EXPECT_THAT(table, HasSubstr("0.033%"));  // 1000 of 3 million
  EXPECT_THAT(table, HasSubstr("before the subject 1000, tx_buffer_full 7"));
  EXPECT_THAT(table, HasSubstr("reordered 5"));
  EXPECT_THAT(table, HasSubstr("not measured: the rounds that failed"));
  std::istringstream lines(table);
  for (std::string line; std::getline(lines, line);) EXPECT_LE(line.size(), 100u) << line;
}

TEST(ReportTest, VariantsOfOneEngineAreAllShown) {
  Scenario scenario = MakeScenario();
  scenario.subjects.push_back(MakeSubject("ringsock:rx_buffers=32/rx_batch=4", {900, 900, 900}));
  const std::string table = FormatScenario(scenario);
  EXPECT_THAT(table, HasSubstr("  ringsock   "));
  EXPECT_THAT(table,
              HasSubstr("  ringsock:rx_buffers=32/rx_batch=4\n" + std::string(19, ' ') + "1.000"));
  std::istringstream lines(table);
  for (std::string line; std::getline(lines, line);) EXPECT_LE(line.size(), 100u) << line;
}

TEST(ReportTest, SaysWhenSomethingElseRanOnTheCore) {
  Scenario scenario = MakeScenario();
  EXPECT_THAT(FormatScenario(scenario), Not(HasSubstr("/proc/stat")));
  for (Round& round : scenario.subjects[3].rounds) round.core_busy_ns *= 3;
  EXPECT_THAT(FormatScenario(scenario), HasSubstr("ringsock: by /proc/stat"));
}

TEST(RoundTest, LossIsWhereThePacketsEnded) {
  Round round = MakeRound(100);
  round.subject.received = 900'000;
  round.subject.sent = 850'000;
  round.load.received = 840'000;
  round.load.distinct = 839'000;
  EXPECT_EQ(round.Lost(), 161'000u);
  EXPECT_EQ(round.LostBeforeSubject(), 100'000u);
  EXPECT_EQ(round.LostInSubject(), 50'000u);
  EXPECT_EQ(round.LostAfterSubject(), 10'000u);
  round.mode = Mode::kReceive;
  EXPECT_EQ(round.Lost(), 100'000u);
  EXPECT_EQ(round.LostInSubject(), 0u);
}

TEST(ReportTest, JsonParsesAndHoldsEveryRound) {
  Scenario scenario = MakeScenario();
  scenario.subjects[1].rounds[0].packets = 0;  // an infinite cost is no number
  scenario.subjects[1].error = "bad bytes \xff";
  const auto json = nlohmann::json::parse(FormatJson({}, {}, {scenario, scenario}));
  ASSERT_EQ(json["scenarios"].size(), 2u);
  const auto& subjects = json["scenarios"][0]["subjects"];
  ASSERT_EQ(subjects.size(), 4u);
  EXPECT_EQ(subjects[1]["rounds"].size(), 3u);
  EXPECT_TRUE(subjects[1]["rounds"][0]["cpu_ns_per_packet"].is_null());
  EXPECT_EQ(subjects[3]["cpu_ns_per_packet"]["median"], 200);
  EXPECT_EQ(subjects[3]["ratio_to_best_bare"]["median"], 1.0);
  EXPECT_EQ(subjects[3]["rounds"][0]["latency_ns"]["p99.9"], 1'000'000);
  EXPECT_EQ(subjects[3]["latency_ns"]["p50"]["median"], 12'345);
  EXPECT_EQ(subjects[3]["lost_share"], 0);
  EXPECT_GT(subjects[3]["busy"]["median"], 0);
  EXPECT_EQ(json["scenarios"][0]["latency"], "at full window");
  EXPECT_EQ(json["scenarios"][0]["best_bare"], "recvmmsg+gro:8");
}

TEST(AssignCoresTest, LastCoresAreMeasured) {
  const auto cores = AssignCores({0, 1, 2, 3, 8, 9, 10}, 2, 0);
  ASSERT_TRUE(cores.ok());
  EXPECT_THAT(cores->load, ElementsAre(0, 1, 2, 3));
  EXPECT_THAT(cores->subject, ElementsAre(9, 10));
  EXPECT_FALSE(cores->shared);
  EXPECT_TRUE(AssignCores({5}, 1, 0)->shared);
  EXPECT_FALSE(AssignCores({0, 1}, 2, 0).ok());
  EXPECT_FALSE(AssignCores({0, 1}, 1, 2).ok());
}

// Without the right to exceed the limits, figures are of small windows.
TEST(ReportTest, HeaderSaysWhenBuffersAreCapped) {
  const Options options = *ParseOptions(std::array{"forward"});
  Environment environment;
  environment.receive_buffer = environment.send_buffer = 425'984;
  const std::string capped = FormatHeader(environment, options);
  EXPECT_THAT(capped, HasSubstr("receive 425984, send 425984"));
  EXPECT_THAT(capped, HasSubstr("sysctl -w net.core.rmem_max=7340032 net.core.wmem_max=7340032"));
  environment.receive_buffer = environment.send_buffer = 2 * 7'340'032;
  EXPECT_THAT(FormatHeader(environment, options), Not(HasSubstr("sysctl")));
  const auto json = nlohmann::json::parse(FormatJson(environment, options, {}));
  EXPECT_EQ(json["receive_buffer"], 2 * 7'340'032);
}

TEST(ReportTest, LatencyOnlyWithARate) {
  Scenario scenario = MakeScenario();
  for (SubjectResult& subject : scenario.subjects) {
    for (Round& round : subject.rounds) round.window = 31;
  }
  EXPECT_THAT(FormatScenario(scenario), Not(HasSubstr("12.3")));
  EXPECT_THAT(FormatScenario(scenario), HasSubstr("flat out, window 31 trains"));
  scenario.traffic.rate = 1000;
  EXPECT_THAT(FormatScenario(scenario), HasSubstr("12.3"));
}

TEST(ReportTest, HeaderSaysWhereAndHow) {
  const Environment environment = DescribeEnvironment({{0}, {1}, false}, 1 << 16);
  const std::string header = FormatHeader(environment, *ParseOptions(std::array{"forward"}));
  EXPECT_THAT(header, HasSubstr("measured: core 1"));
  EXPECT_THAT(header, HasSubstr("Linux"));
  EXPECT_THAT(header, HasSubstr("rx_buffers=64"));
  EXPECT_GT(environment.receive_buffer, 0u);
  EXPECT_GT(environment.send_buffer, 0u);
}

}  // namespace
}  // namespace ringsock::bench
