// The options of `report`, and that every run it plans is one the other commands would take.
#include "bench/report_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <set>

#include "absl/strings/str_split.h"

namespace ringsock::bench {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::StartsWith;

template <typename... Arguments>
absl::StatusOr<ReportOptions> Parse(Arguments... arguments) {
  const std::array<const char*, sizeof...(arguments)> list = {arguments...};
  return ParseReportOptions(list);
}

template <typename... Arguments>
std::string ErrorOf(Arguments... arguments) {
  const auto options = Parse(arguments...);
  return options.ok() ? "" : std::string(options.status().message());
}

TEST(ReportOptionsTest, TakesItsFlags) {
  const auto options =
      Parse("--out", "folder", "--plan=full", "--only=train,main", "--rounds", "5", "--seconds=0.4",
            "--engine-options", "gso=0", "--chart", "a.svg", "--from", "b.json");
  ASSERT_TRUE(options.ok()) << options.status();
  EXPECT_EQ(options->out, "folder");
  EXPECT_EQ(options->plan, "full");
  EXPECT_THAT(options->only, ElementsAre("train", "main"));
  EXPECT_EQ(options->rounds, 5u);
  EXPECT_EQ(options->seconds, 0.4);
  EXPECT_FALSE(options->engine.gso);
  EXPECT_EQ(options->chart, "a.svg");
  EXPECT_EQ(options->from, "b.json");
  EXPECT_EQ(ReportCommand(*options).find("--from"), std::string::npos);
  EXPECT_THAT(ReportCommand(*options),
              StartsWith("ringsock-bench report --plan full --only train,main --rounds 5 --seconds "
                         "0.4 --engine-options gso=0,gro=1"));
}

TEST(ReportOptionsTest, MistakesAreNamed) {
  EXPECT_EQ(ErrorOf("--out", "x", "--plan", "long"), "--plan=long: must be quick or full");
  EXPECT_THAT(ErrorOf("--out", "x", "--only", "main,speed"),
              HasSubstr("--only=speed: no such chart; known are main, train"));
  EXPECT_THAT(ErrorOf("--out", "x", "--rounds", "0"), HasSubstr("--rounds=0"));
  EXPECT_THAT(ErrorOf("--out", ""), HasSubstr("must be a folder"));
  EXPECT_THAT(ErrorOf("--size", "64"), HasSubstr("no such flag"));
  EXPECT_THAT(ErrorOf(), HasSubstr("needs --out DIR"));
  EXPECT_THAT(ErrorOf("--from", "a.json"), HasSubstr("needs --out DIR"));
  EXPECT_THAT(ErrorOf("--chart", "a.svg"), HasSubstr("would lose what was measured"));
  EXPECT_EQ(ErrorOf("--chart", "a.svg", "--from", "a.json"), "");
  EXPECT_THAT(ErrorOf("--from", "a.json", "--out", "b.json"), HasSubstr("--from already"));
  EXPECT_TRUE(Parse("--help")->help);
  for (const std::string& id : ChartIds()) EXPECT_THAT(ReportHelpText(), HasSubstr(id));
}

std::vector<PlannedChart> PlanOf(const std::string& plan, const PlanLimits& limits) {
  ReportOptions options;
  options.plan = plan;
  return MakePlan(options, limits);
}

// The command of every point is one line that ringsock-bench reads as the very options of the run.
TEST(ReportPlanTest, EveryPointIsWhatItsCommandSays) {
  for (const char* plan : {"quick", "full"}) {
    for (const PlannedChart& chart : PlanOf(plan, {.cores = 4, .namespaces = true})) {
      ASSERT_FALSE(chart.points.empty());
      for (const PlannedPoint& point : chart.points) {
        const std::string command = PointCommand(point.options);
        SCOPED_TRACE(command);
        const std::vector<std::string> words = absl::StrSplit(command, ' ');
        std::vector<const char*> arguments;
        for (size_t i = 1; i < words.size(); ++i) arguments.push_back(words[i].c_str());
        const auto options = ParseOptions(arguments);
        ASSERT_TRUE(options.ok()) << options.status();
        EXPECT_EQ(PointCommand(*options), command);
        EXPECT_EQ(TrafficText(*options), TrafficText(point.options));
        EXPECT_FALSE(point.label.empty());
      }
    }
  }
}

TEST(ReportPlanTest, AxesGoFromEndToEnd) {
  for (const char* plan : {"quick", "full"}) {
    for (const PlannedChart& chart : PlanOf(plan, {.cores = 6, .namespaces = true})) {
      SCOPED_TRACE(chart.head.id);
      std::vector<double> xs;
      for (const PlannedPoint& point : chart.points) xs.push_back(point.x);
      EXPECT_TRUE(std::is_sorted(xs.begin(), xs.end()));
      EXPECT_EQ(std::set<double>(xs.begin(), xs.end()).size(), xs.size());
      if (chart.head.id == "train") {
        EXPECT_EQ(xs.front(), 1);
        EXPECT_EQ(xs.back(), 46);
      }
      if (chart.head.id == "size") {
        EXPECT_EQ(xs.front(), 64);
        EXPECT_EQ(xs.back(), 9000);
      }
      if (chart.head.id == "peers") {
        EXPECT_EQ(xs.back(), 1'000'000);
      }
      if (chart.head.id == "shards") {
        EXPECT_THAT(xs, ElementsAre(1, 2, 4, 6));
      }
    }
  }
  for (const PlannedChart& chart : PlanOf("quick", {.cores = 1, .namespaces = true})) {
    if (chart.head.id == "shards") {
      EXPECT_EQ(chart.points.size(), 1u);
    }
  }
}

TEST(ReportPlanTest, WithoutNamespacesAllIsOnLoopback) {
  size_t others = 0;
  for (const PlannedChart& chart : PlanOf("full", {.cores = 2, .namespaces = true})) {
    for (const PlannedPoint& point : chart.points) {
      others += point.options.topology == TopologyKind::kLoopback ? 0 : 1;
    }
  }
  EXPECT_GT(others, 0u);
  for (const PlannedChart& chart : PlanOf("full", {.cores = 2, .namespaces = false})) {
    for (const PlannedPoint& point : chart.points) {
      EXPECT_EQ(point.options.topology, TopologyKind::kLoopback);
    }
  }
}

TEST(ReportPlanTest, OptionsReachTheRuns) {
  ReportOptions options;
  options.only = {"size"};
  options.rounds = 4;
  options.seconds = 0.33;
  options.engine.gro = false;
  const auto plan = MakePlan(options, {.cores = 2, .namespaces = true});
  ASSERT_EQ(plan.size(), 1u);
  EXPECT_EQ(plan[0].head.id, "size");
  for (const PlannedPoint& point : plan[0].points) {
    EXPECT_EQ(point.options.rounds, 4u);
    EXPECT_EQ(point.options.seconds, 0.33);
    EXPECT_FALSE(point.options.engine.gro);
    std::vector<std::string> names;
    for (const SubjectSpec& spec : point.options.subjects) names.push_back(spec.name);
    EXPECT_THAT(names, Contains("ringsock"));
    EXPECT_THAT(names, Contains("ringsock-mmsg"));
    EXPECT_THAT(names, Contains("uring"));
  }
}

}  // namespace
}  // namespace ringsock::bench
