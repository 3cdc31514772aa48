// From figures in a file to the page and the picture; nothing is measured here.
#include "bench/report_command.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <sstream>

#include "tests/bench/study_fixture.h"

namespace ringsock::bench {
namespace {

using ::testing::HasSubstr;

std::string Path(const std::string& name) {
  return std::string(std::getenv("TEST_TMPDIR")) + "/" + name;
}

void Write(const std::string& path, const std::string& text) { std::ofstream(path) << text; }

std::string Read(const std::string& path) {
  std::stringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

TEST(ReportCommandTest, DrawsFromFiguresAgain) {
  Write(Path("figures.json"), StudyToJson(MadeStudy()));
  ReportOptions options;
  options.from = Path("figures.json");
  options.out = Path("report_folder/");
  options.chart = Path("main.svg");
  ASSERT_TRUE(RunReport(options).ok());
  EXPECT_THAT(Read(Path("report_folder/report.html")), HasSubstr("A Machine"));
  EXPECT_THAT(Read(Path("main.svg")), HasSubstr("<svg xmlns"));
  // What was not measured is not written.
  EXPECT_FALSE(std::ifstream(Path("report_folder/report.json")).good());

  options.out = Path("page.html");
  ASSERT_TRUE(RunReport(options).ok());
  EXPECT_EQ(Read(Path("page.html")), Read(Path("report_folder/report.html")));
}

TEST(ReportCommandTest, WhatCannotBeReadOrWrittenIsNamed) {
  ReportOptions options;
  options.from = Path("none.json");
  options.chart = Path("none.svg");
  EXPECT_THAT(RunReport(options).message(), HasSubstr("none.json: No such file"));

  Write(Path("bad.json"), "{\"format\": \"ringsock-bench report\", \"version\": 1}");
  options.from = Path("bad.json");
  EXPECT_THAT(RunReport(options).message(), HasSubstr("bad.json: charts: is missing"));

  Write(Path("figures.json"), StudyToJson(MadeStudy()));
  options.from = Path("figures.json");
  options.chart = "/nonexistent/main.svg";
  EXPECT_THAT(RunReport(options).message(), HasSubstr("/nonexistent/main.svg: cannot be written"));
  options.out = "/nonexistent/folder";
  EXPECT_THAT(RunReport(options).message(), HasSubstr("/nonexistent/folder: No such file"));
}

TEST(ReportCommandTest, FilesOfAFolderAndOfAName) {
  EXPECT_EQ(FilesOf("a").html, "a/report.html");
  EXPECT_EQ(FilesOf("a/").json, "a/report.json");
  EXPECT_EQ(FilesOf("a/b.html").html, "a/b.html");
  EXPECT_EQ(FilesOf("a/b.html").json, "a/b.json");
  EXPECT_EQ(FilesOf("a/b.json").html, "");
  EXPECT_EQ(FilesOf("a/b.json").json, "a/b.json");
}

TEST(ReportCommandTest, PointsHoldWhatWasMeasured) {
  Round round;
  round.seconds = 2;
  round.packets = 1'000'000;
  round.cpu_ns = 300'000'000;
  round.load.sent = 1'000'100;
  round.load.distinct = 1'000'000;
  Scenario scenario;
  scenario.subjects.push_back(
      {.spec = ParseSubjects("recvmmsg+gro:8")->front(), .rounds = {round, {}}, .error = "late"});
  PlannedPoint planned = {.x = 46, .label = "46", .options = {}};
  const StudyPoint point = ToStudyPoint(planned, scenario);
  EXPECT_EQ(point.x, 46);
  EXPECT_EQ(point.size, 1400u);
  ASSERT_EQ(point.subjects.size(), 1u);
  const StudySubject& subject = point.subjects[0];
  EXPECT_EQ(subject.name, "recvmmsg+gro:8");
  EXPECT_TRUE(subject.bare);
  EXPECT_EQ(subject.error, "late");
  ASSERT_EQ(subject.rounds.size(), 2u);
  EXPECT_EQ(subject.rounds[0].ns_per_packet, 300);
  EXPECT_EQ(subject.rounds[0].packets_per_second, 500'000);
  EXPECT_EQ(subject.rounds[0].lost, 100u);
  EXPECT_EQ(subject.NsPerPacket().count, 1u);  // the other round moved nothing
}

}  // namespace
}  // namespace ringsock::bench
