// Charts as SVG, written out by hand: lines with bands for the spread, and bars with whiskers. No
// script, font or image from elsewhere; colours follow the reader's light or dark scheme.
#ifndef RINGSOCK_BENCH_SVG_CHART_H_
#define RINGSOCK_BENCH_SVG_CHART_H_

#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace ringsock::bench {

// Text for XML, between tags and inside quotes. Bytes that XML 1.0 has no place for (controls,
// broken UTF-8) become '?'.
std::string EscapeXml(absl::string_view text);

// A figure for people: three significant digits, thousands apart: "0.95", "12.3", "5,381". "-" if
// it is not finite.
std::string FigureText(double value);
// A whole number with a unit prefix where it is round: "64", "1.4k", "10k", "1M".
std::string TickText(double value);

// Colours: one for what is compared with, the others for what is compared.
enum class Tone { kBaseline, kFirst, kSecond, kThird };

enum class Scale { kLinear, kLog };

// Values that are not finite (on a logarithmic axis: not above zero) are left out.
struct LinePoint {
  double x = 0;
  double y = 0;
  double low = 0;  // the spread, drawn as a band
  double high = 0;
};
struct Line {
  std::string name;
  Tone tone = Tone::kFirst;
  std::vector<LinePoint> points;  // in the order of x
};
struct LineChart {
  std::string title;  // also read out by screen readers
  std::string x_label;
  std::string y_label;
  Scale x_scale = Scale::kLinear;
  Scale y_scale = Scale::kLinear;
  std::vector<Line> lines;
};

struct Bar {
  std::string name;
  Tone tone = Tone::kFirst;
  double value = 0;
  double low = 0;  // the spread, drawn as a whisker
  double high = 0;
  std::string note;  // beside the value
};
// Bars that share an axis, which starts at 0.
struct BarPanel {
  std::string title;
  std::string note;  // one line under the title
  std::vector<Bar> bars;
};
struct BarChart {
  std::string title;
  std::string note;     // one line under the title of a chart that stands alone
  std::string x_label;  // with the unit
  std::vector<BarPanel> panels;
};

// Whether the picture is part of a page, which shows its title and has SvgStyleSheet(), or a file
// of its own, which brings both.
enum class Placement { kInPage, kAlone };

std::string DrawLineChart(const LineChart& chart, Placement placement);
std::string DrawBarChart(const BarChart& chart, Placement placement);

// The CSS rules of the charts, light and dark.
std::string SvgStyleSheet();

}  // namespace ringsock::bench

#endif  // RINGSOCK_BENCH_SVG_CHART_H_
