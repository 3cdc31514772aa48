// The page is whole in itself, well-formed, and holds the figures.
#include "bench/html_report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>

#include "tests/bench/study_fixture.h"
#include "tests/bench/xml_check.h"

namespace ringsock::bench {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

void ExpectWhole(const std::string& page) {
  const XmlCheck check(page);
  EXPECT_EQ(check.error(), "");
  EXPECT_THAT(page, Not(HasSubstr("@import")));
  EXPECT_THAT(page, Not(HasSubstr("url(")));
  for (const char* away : {"http:", "https:", "\"//", "(//"}) {
    EXPECT_THAT(page, Not(HasSubstr(away)));
  }
  for (const char* name : {"script", "link", "img", "image", "iframe", "use", "object", "embed"}) {
    EXPECT_EQ(check.Count(name), 0u) << name;
  }
  for (const XmlElement& element : check.elements()) {
    for (const char* loads : {"src", "href", "xlink:href", "srcset", "data", "action"}) {
      EXPECT_FALSE(element.attributes.contains(loads)) << element.name << " " << loads;
    }
    for (const auto& [name, value] : element.attributes) {
      EXPECT_FALSE(name.starts_with("on")) << element.name << " " << name;
    }
  }
}

TEST(HtmlReportTest, IsWholeAndHoldsTheFigures) {
  const std::string page = HtmlReport(MadeStudy());
  ExpectWhole(page);
  EXPECT_EQ(XmlCheck(page).Count("svg"), 3u);  // bars, lines, and what clips the lines
  EXPECT_EQ(XmlCheck(page).Count("table"), 2u);
  for (const char* text :
       {"A Machine", "Linux 6.18", "2026-01-02T03:04:05Z", "gso=1 gro=1", "measured: 1; load: 0",
        "receive 14680064", "ringsock-bench report --plan quick --out DIR",
        "ringsock-bench forward --train 46", "Length of trains", "Longer is better.",
        "1.10 × the best loop by hand", "210–228", "prefers-color-scheme:dark"}) {
    EXPECT_THAT(page, HasSubstr(text)) << text;
  }
}

TEST(HtmlReportTest, WhatWasNotMeasuredIsSaid) {
  Study study = MadeStudy();
  study.charts[0].points[0].subjects.clear();
  study.charts[0].points[0].error = "no right to do it";
  study.charts[1].points[0].subjects = {MadeSubject("uring", {}), MadeSubject("ringsock", {})};
  study.charts[1].points[0].subjects[0].error = "the loop crashed";
  const std::string page = HtmlReport(study);
  ExpectWhole(page);
  EXPECT_THAT(page, HasSubstr("not measured: no right to do it"));
  EXPECT_THAT(page, HasSubstr("the loop crashed"));
  EXPECT_THAT(page, HasSubstr("moved no packets"));
}

TEST(HtmlReportTest, EmptyStudiesAndCharts) {
  ExpectWhole(HtmlReport({}));
  Study study = MadeStudy();
  for (StudyChart& chart : study.charts) chart.points.clear();
  ExpectWhole(HtmlReport(study));
  study.charts.erase(study.charts.begin());
  ExpectWhole(HtmlReport(study));
}

// All text comes from a file that anybody may have written.
TEST(HtmlReportTest, TextCannotBreakOut) {
  const std::string evil = "\"><script>x</script><img src='y'/>&\xff\x01";
  Study study = MadeStudy();
  study.date = study.machine = study.kernel = study.plan = study.engine_options = study.command =
      evil;
  for (StudyChart& chart : study.charts) {
    chart.title = chart.text = chart.x_label = evil;
    for (StudyPoint& point : chart.points) {
      point.label = point.traffic = point.command = point.error = evil;
      point.subjects[0].name = evil;
      point.subjects.push_back(MadeSubject(evil, {}));
      point.subjects.back().error = evil;
    }
  }
  study.charts[1].id = evil;
  ExpectWhole(HtmlReport(study));
  const auto chart = MainChart(study);
  ASSERT_TRUE(chart.ok());
  EXPECT_EQ(XmlCheck(*chart).error(), "");
  EXPECT_EQ(XmlCheck(*chart).Count("script"), 0u);
}

TEST(MainChartTest, ShowsTheBestBatchAndTheRatio) {
  const auto svg = MainChart(MadeStudy());
  ASSERT_TRUE(svg.ok());
  EXPECT_EQ(XmlCheck(*svg).error(), "");
  EXPECT_THAT(*svg, HasSubstr("recvmmsg, GRO/GSO (8)"));
  EXPECT_THAT(*svg, Not(HasSubstr("recvmmsg, GRO/GSO (4)")));
  EXPECT_THAT(*svg, HasSubstr("1.10 × best (1.00–1.20)"));
  EXPECT_THAT(*svg, HasSubstr("; recvfrom/sendto: 5,000 ns"));  // too long for a bar
  EXPECT_THAT(*svg, HasSubstr("A Machine, 2 cores, Linux 6.18; 2026-01-02"));
  Study study = MadeStudy();
  study.charts.erase(study.charts.begin());
  EXPECT_THAT(MainChart(study).status().message(), HasSubstr("no main chart"));
}

TEST(LineChartOfStudyTest, OursBesideTheBestByHand) {
  const StudyChart chart = MadeStudy().charts[1];
  const LineChart lines = ToLineChart(chart);
  ASSERT_EQ(lines.lines.size(), 3u);
  EXPECT_EQ(lines.lines[0].name, "best by hand");
  EXPECT_EQ(lines.lines[0].points[0].y, 200);
  EXPECT_EQ(lines.lines[1].name, "ringsock, mmsg");
  EXPECT_EQ(lines.lines[2].name, "ringsock, io_uring");
  EXPECT_EQ(lines.lines[2].points[1].y, 220);
  EXPECT_EQ(lines.lines[2].points[1].high, 228);
  EXPECT_EQ(lines.x_scale, Scale::kLog);
  EXPECT_EQ(lines.y_scale, Scale::kLinear);
}

TEST(LineChartOfStudyTest, FiguresFarApartGetALogarithmicAxis) {
  StudyChart chart = MadeStudy().charts[1];
  chart.points[0].subjects = {MadeSubject("uring", {4000}), MadeSubject("ringsock", {4100})};
  const LineChart lines = ToLineChart(chart);
  EXPECT_EQ(lines.y_scale, Scale::kLog);
  EXPECT_EQ(lines.lines[1].points.size(), 1u);  // mmsg has the other point only
}

}  // namespace
}  // namespace ringsock::bench
