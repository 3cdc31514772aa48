// Charts as SVG: lines over an axis.
#include <algorithm>
#include <cmath>
#include <limits>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "bench/svg_canvas.h"

namespace ringsock::bench {
namespace {

constexpr double kWidth = 640;
constexpr double kHeight = 340;
constexpr double kLeft = 62;
constexpr double kRight = 622;
constexpr double kTop = 40;
constexpr double kBottom = 288;
constexpr double kTitleRoom = 32;  // above a chart that stands alone
constexpr double kTickRoom = 34;   // between two labels of the x axis

bool Fits(double value, Scale scale) {
  return std::isfinite(value) && (scale == Scale::kLinear || value > 0);
}

// Maps values to a length of the picture.
class Axis {
 public:
  Axis(Scale scale, double low, double high, double start, double end)
      : scale_(scale), low_(Of(low)), high_(Of(high)), start_(start), end_(end) {
    if (high_ - low_ < 1e-9) {  // one value: in the middle
      low_ -= 1;
      high_ += 1;
    }
  }
  double At(double value) const {
    return start_ + (Of(value) - low_) / (high_ - low_) * (end_ - start_);
  }

 private:
  double Of(double value) const { return scale_ == Scale::kLog ? std::log10(value) : value; }

  const Scale scale_;
  double low_;
  double high_;
  const double start_;
  const double end_;
};

std::vector<LinePoint> Drawable(const LineChart& chart, const Line& line) {
  std::vector<LinePoint> points;
  for (LinePoint point : line.points) {
    if (!Fits(point.x, chart.x_scale) || !Fits(point.y, chart.y_scale)) continue;
    if (!Fits(point.low, chart.y_scale)) point.low = point.y;
    if (!Fits(point.high, chart.y_scale)) point.high = point.y;
    points.push_back(point);
  }
  return points;
}

// What both axes span, and where their labels are.
struct Frame {
  double x_low = 0, x_high = 1;
  double y_low = 0, y_high = 1;
  std::vector<double> x_ticks;
  std::vector<double> y_ticks;
};

void ChooseY(const LineChart& chart, double smallest, double largest, double largest_median,
             Frame* frame) {
  // A round that something else disturbed may not flatten all the others: the bands are cut.
  double top = std::max(largest_median * 1.15, std::min(largest, largest_median * 1.5));
  if (chart.y_scale == Scale::kLinear) {
    frame->y_ticks = NiceTicks(top);
    frame->y_low = 0;
    frame->y_high = std::max(top, frame->y_ticks.back());
    return;
  }
  const double bottom = std::max(smallest * 0.85, 1e-9);
  frame->y_low = bottom;
  frame->y_high = top;
  for (double decade = std::pow(10, std::floor(std::log10(bottom))); decade <= top; decade *= 10) {
    for (const double step : {1.0, 2.0, 5.0}) {
      const double tick = decade * step;
      if (tick >= bottom && tick <= top) frame->y_ticks.push_back(tick);
    }
  }
}

Frame FrameOf(const LineChart& chart) {
  Frame frame;
  double smallest = std::numeric_limits<double>::infinity();
  double largest = 0;
  double largest_median = 0;
  std::vector<double> xs;
  for (const Line& line : chart.lines) {
    for (const LinePoint& point : Drawable(chart, line)) {
      xs.push_back(point.x);
      smallest = std::min({smallest, point.y, point.low});
      largest = std::max(largest, point.high);
      largest_median = std::max(largest_median, point.y);
    }
  }
  if (xs.empty()) return frame;
  std::sort(xs.begin(), xs.end());
  xs.erase(std::unique(xs.begin(), xs.end()), xs.end());
  frame.x_low = xs.front();
  frame.x_high = xs.back();
  frame.x_ticks = xs;
  ChooseY(chart, smallest, largest, largest_median, &frame);
  return frame;
}

void DrawAxes(const LineChart& chart, const Frame& frame, const Axis& x, const Axis& y,
              Canvas* canvas) {
  for (const double tick : frame.y_ticks) {
    canvas->Segment("grid", kLeft, y.At(tick), kRight, y.At(tick));
    canvas->Text("soft", kLeft - 8, y.At(tick) + 4, Anchor::kEnd, FigureTickText(tick));
  }
  canvas->Segment("axis", kLeft, kBottom, kRight, kBottom);
  double last = -kTickRoom;
  for (const double tick : frame.x_ticks) {
    const double at = x.At(tick);
    canvas->Segment("axis", at, kBottom, at, kBottom + 4);
    if (at - last < kTickRoom) continue;
    last = at;
    canvas->Text("soft", at, kBottom + 18, Anchor::kMiddle, TickText(tick));
  }
  canvas->Text("", (kLeft + kRight) / 2, kBottom + 40, Anchor::kMiddle, chart.x_label);
  canvas->Text("", 8, 18, Anchor::kStart, chart.y_label);
}

void DrawLine(const std::vector<LinePoint>& points, const Line& line, const Axis& x, const Axis& y,
              Canvas* canvas) {
  const std::string tone = absl::StrCat(static_cast<int>(line.tone));
  std::string upper, lower, middle;
  for (size_t i = 0; i < points.size(); ++i) {
    const LinePoint& point = points[i];
    const LinePoint& back = points[points.size() - 1 - i];
    absl::StrAppendFormat(&upper, "%s%.1f,%.1f", i == 0 ? "" : " ", x.At(point.x),
                          y.At(point.high));
    absl::StrAppendFormat(&lower, " %.1f,%.1f", x.At(back.x), y.At(back.low));
    absl::StrAppendFormat(&middle, "%s%.1f,%.1f", i == 0 ? "" : " ", x.At(point.x), y.At(point.y));
  }
  if (points.size() > 1) {
    canvas->Polygon(absl::StrCat("band f", tone), upper + lower);
    canvas->Polyline(absl::StrCat("line s", tone), middle);
  }
  for (const LinePoint& point : points) {
    const double at = x.At(point.x);
    if (points.size() == 1) {
      canvas->Segment("whisker", at, y.At(point.low), at, y.At(point.high));
    }
    canvas->Dot(absl::StrCat("dot f", tone), at, y.At(point.y),
                absl::StrCat(line.name, ", ", TickText(point.x), ": ", FigureText(point.y), " (",
                             FigureText(point.low), " to ", FigureText(point.high), ")"));
  }
}

// Names above the picture, from the right.
void DrawLegend(const LineChart& chart, Canvas* canvas) {
  double at = kRight;
  for (auto line = chart.lines.rbegin(); line != chart.lines.rend(); ++line) {
    at -= TextWidth(line->name);
    canvas->Text("", at, 18, Anchor::kStart, line->name);
    canvas->Segment(absl::StrCat("line s", static_cast<int>(line->tone)), at - 28, 14, at - 6, 14);
    at -= 44;
  }
}

}  // namespace

std::string DrawLineChart(const LineChart& chart, Placement placement) {
  const double title = placement == Placement::kAlone ? kTitleRoom : 0;
  Canvas canvas(kWidth, kHeight + title, chart.title, placement);
  if (title > 0) canvas.Text("title", 8, 26, Anchor::kStart, chart.title);
  canvas.Open(0, title);
  const Frame frame = FrameOf(chart);
  const Axis x(chart.x_scale, frame.x_low, frame.x_high, kLeft + 14, kRight - 14);
  const Axis y(chart.y_scale, frame.y_low, frame.y_high, kBottom, kTop);
  DrawAxes(chart, frame, x, y, &canvas);
  DrawLegend(chart, &canvas);
  if (frame.x_ticks.empty()) {
    canvas.Text("soft", (kLeft + kRight) / 2, (kTop + kBottom) / 2, Anchor::kMiddle, "no figures");
  }
  canvas.OpenClipped(kLeft, kTop - 6, kRight - kLeft, kBottom - kTop + 6);
  for (const Line& line : chart.lines) DrawLine(Drawable(chart, line), line, x, y, &canvas);
  canvas.Close();
  canvas.Close();
  return std::move(canvas).Finish();
}

}  // namespace ringsock::bench
