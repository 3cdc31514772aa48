// Charts are well-formed whatever their figures and names are, and hold what they were given.
#include "bench/svg_chart.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "tests/bench/xml_check.h"

namespace ringsock::bench {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

LineChart TwoLines() {
  return {.title = "Trains",
          .x_label = "packets in a train",
          .y_label = "ns",
          .x_scale = Scale::kLog,
          .y_scale = Scale::kLog,
          .lines = {{"by hand", Tone::kBaseline, {{1, 4000, 3900, 4100}, {46, 250, 240, 260}}},
                    {"ringsock", Tone::kFirst, {{1, 4200, 4100, 4300}, {46, 260, 250, 270}}}}};
}

BarChart OnePanel() {
  return {.title = "Cost",
          .note = "a machine",
          .x_label = "ns",
          .panels = {{"1400 B",
                      "veth",
                      {{"by hand", Tone::kBaseline, 250, 240, 260, "best"},
                       {"ringsock", Tone::kFirst, 260, 250, 400, "1.04 x"}}}}};
}

void ExpectDrawable(const std::string& svg) {
  EXPECT_EQ(XmlCheck(svg).error(), "") << svg;
  EXPECT_THAT(svg, Not(HasSubstr("nan")));
  EXPECT_THAT(svg, Not(HasSubstr("inf")));
}

TEST(XmlCheckTest, FindsWhatIsWrong) {
  EXPECT_EQ(XmlCheck("<a b=\"1 &amp; 2\"><c/>text &#39;</a>\n").error(), "");
  for (const char* bad : {"", "text", "<a>", "<a></b>", "<a b=1></a>", "<a b=\"1\" b=\"2\"></a>",
                          "<a>&nbsp;</a>", "<a>1 & 2</a>", "<a b=\"<\"></a>", "<a></a><b></b>",
                          "<a>x > y</a>", "<a>\x01</a>", "<a", "<a b=\"", "</a>"}) {
    EXPECT_NE(XmlCheck(bad).error(), "") << bad;
  }
}

TEST(EscapeXmlTest, MarkupControlsAndBrokenBytes) {
  EXPECT_EQ(EscapeXml("a<b>&\"'"), "a&lt;b&gt;&amp;&quot;&#39;");
  EXPECT_EQ(EscapeXml("µ – × 🙂"), "µ – × 🙂");
  EXPECT_EQ(EscapeXml(std::string("a\0b\x1b\x7f", 5)), "a?b?\x7f");
  EXPECT_EQ(EscapeXml("\xff\xc0\xaf|"), "???|");     // never a lead byte; overlong
  EXPECT_EQ(EscapeXml("\xe2\x82"), "??");            // cut off
  EXPECT_EQ(EscapeXml("\xed\xa0\x80"), "???");       // surrogate
  EXPECT_EQ(EscapeXml("\xf4\x90\x80\x80"), "????");  // above U+10FFFF
  EXPECT_EQ(EscapeXml("\xef\xbf\xbf"), "???");       // U+FFFF
  EXPECT_EQ(EscapeXml("]]>"), "]]&gt;");
}

TEST(NumberTextTest, ThreeDigits) {
  EXPECT_EQ(FigureText(0), "0.00");
  EXPECT_EQ(FigureText(0.954), "0.95");
  EXPECT_EQ(FigureText(9.999), "10.0");
  EXPECT_EQ(FigureText(99.97), "100");
  EXPECT_EQ(FigureText(999.9), "1,000");
  EXPECT_EQ(FigureText(-1234567), "-1,234,567");
  EXPECT_EQ(FigureText(-123), "-123");
  EXPECT_EQ(FigureText(kNan), "-");
  EXPECT_EQ(FigureText(-kInfinity), "-");
  EXPECT_EQ(TickText(64), "64");
  EXPECT_EQ(TickText(1400), "1.4k");
  EXPECT_EQ(TickText(1234), "1234");
  EXPECT_EQ(TickText(1e6), "1M");
  EXPECT_EQ(TickText(kNan), "-");
}

TEST(LineChartTest, HoldsItsPointsAndNames) {
  const std::string svg = DrawLineChart(TwoLines(), Placement::kAlone);
  ExpectDrawable(svg);
  const XmlCheck check(svg);
  EXPECT_EQ(check.Count("circle"), 4u);
  EXPECT_EQ(check.Count("polyline"), 2u);
  EXPECT_EQ(check.Count("polygon"), 2u);  // bands
  for (const char* text : {"Trains", "packets in a train", "by hand", "ringsock", "4,200",
                           "ringsock, 46: 260 (250 to 270)"}) {
    EXPECT_THAT(svg, HasSubstr(text));
  }
}

TEST(LineChartTest, NothingToDraw) {
  LineChart chart = TwoLines();
  for (Line& line : chart.lines) line.points.clear();
  ExpectDrawable(DrawLineChart(chart, Placement::kInPage));
  chart.lines.clear();
  const std::string svg = DrawLineChart(chart, Placement::kInPage);
  ExpectDrawable(svg);
  EXPECT_THAT(svg, HasSubstr("no figures"));
}

TEST(LineChartTest, SinglePoint) {
  LineChart chart = TwoLines();
  for (const Scale scale : {Scale::kLinear, Scale::kLog}) {
    chart.x_scale = chart.y_scale = scale;
    chart.lines = {{"one", Tone::kThird, {{64, 100, 90, 110}}}};
    const std::string svg = DrawLineChart(chart, Placement::kInPage);
    ExpectDrawable(svg);
    EXPECT_EQ(XmlCheck(svg).Count("circle"), 1u);
    EXPECT_EQ(XmlCheck(svg).Count("polyline"), 0u);
  }
}

TEST(LineChartTest, WhatIsNoFigureIsLeftOut) {
  LineChart chart = TwoLines();
  chart.lines = {{"one",
                  Tone::kFirst,
                  {{1, kNan, 1, 1},
                   {2, 5, kNan, kInfinity},
                   {kNan, 5, 5, 5},
                   {4, kInfinity, 5, 5},
                   {0, 5, 5, 5},  // no place on a logarithmic axis
                   {8, -5, 5, 5}}}};
  const std::string svg = DrawLineChart(chart, Placement::kInPage);
  ExpectDrawable(svg);
  EXPECT_EQ(XmlCheck(svg).Count("circle"), 1u);
  chart.x_scale = Scale::kLinear;
  EXPECT_EQ(XmlCheck(DrawLineChart(chart, Placement::kInPage)).Count("circle"), 2u);
}

TEST(LineChartTest, FiguresOfAnySize) {
  for (const double size : {0.0, 1e-300, 1e-9, 1.0, 1e15, 1e300}) {
    for (const Scale scale : {Scale::kLinear, Scale::kLog}) {
      LineChart chart = TwoLines();
      chart.y_scale = scale;
      chart.lines = {{"one", Tone::kFirst, {{1, size, 0, size}, {2, size * 2, size, size * 3}}}};
      EXPECT_EQ(XmlCheck(DrawLineChart(chart, Placement::kInPage)).error(), "") << size;
    }
  }
}

TEST(BarChartTest, HoldsItsBars) {
  const std::string svg = DrawBarChart(OnePanel(), Placement::kAlone);
  ExpectDrawable(svg);
  EXPECT_EQ(XmlCheck(svg).Count("rect"), 3u);  // one is the background
  for (const char* text : {"Cost", "a machine", "1400 B", "veth", "by hand", "1.04 x", "260"}) {
    EXPECT_THAT(svg, HasSubstr(text));
  }
}

TEST(BarChartTest, NothingAndNoFigures) {
  BarChart chart = OnePanel();
  chart.panels[0].bars = {{"one", Tone::kFirst, kNan, 1, 2, "why"},
                          {"two", Tone::kFirst, -1, 1, 2, ""},
                          {"three", Tone::kFirst, 0, kNan, kInfinity, ""}};
  std::string svg = DrawBarChart(chart, Placement::kInPage);
  ExpectDrawable(svg);
  EXPECT_THAT(svg, HasSubstr("why"));
  EXPECT_THAT(svg, HasSubstr("not measured"));
  EXPECT_EQ(XmlCheck(svg).Count("rect"), 1u);
  chart.panels[0].bars.clear();
  ExpectDrawable(DrawBarChart(chart, Placement::kInPage));
  chart.panels.clear();
  ExpectDrawable(DrawBarChart(chart, Placement::kAlone));
}

TEST(ChartTest, NamesCannotBreakOut) {
  const std::string evil = "</title><script>alert('1')</script> & \"\xff";
  LineChart lines = TwoLines();
  lines.title = lines.x_label = lines.y_label = lines.lines[0].name = evil;
  BarChart bars = OnePanel();
  bars.title = bars.note = bars.x_label = evil;
  bars.panels[0].title = bars.panels[0].note = evil;
  bars.panels[0].bars[0].name = bars.panels[0].bars[0].note = evil;
  for (const Placement placement : {Placement::kInPage, Placement::kAlone}) {
    for (const std::string& svg :
         {DrawLineChart(lines, placement), DrawBarChart(bars, placement)}) {
      EXPECT_EQ(XmlCheck(svg).error(), "");
      EXPECT_EQ(XmlCheck(svg).Count("script"), 0u);
    }
  }
}

// A picture that stands alone loads nothing; it names SVG's namespace, and follows the reader's
// colour scheme. In a page, the page does.
TEST(ChartTest, StandsAlone) {
  const std::string alone = DrawBarChart(OnePanel(), Placement::kAlone);
  EXPECT_EQ(XmlCheck(alone).elements()[0].attributes.at("xmlns"), "http://www.w3.org/2000/svg");
  EXPECT_THAT(alone, HasSubstr("prefers-color-scheme:dark"));
  for (const char* reference : {"href", "src=", "url(", "@import", "<image", "<script", "<use"}) {
    EXPECT_THAT(alone, Not(HasSubstr(reference)));
  }
  const std::string in_page = DrawBarChart(OnePanel(), Placement::kInPage);
  EXPECT_EQ(XmlCheck(in_page).Count("style"), 0u);
  EXPECT_THAT(in_page, Not(HasSubstr("http")));
}

}  // namespace
}  // namespace ringsock::bench
