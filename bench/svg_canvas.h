// The SVG elements that charts are drawn with.
#ifndef RINGSOCK_BENCH_SVG_CANVAS_H_
#define RINGSOCK_BENCH_SVG_CANVAS_H_

#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "bench/svg_chart.h"

namespace ringsock::bench {

enum class Anchor { kStart, kMiddle, kEnd };

// Round values from 0 to `top` or just above, about five of them.
std::vector<double> NiceTicks(double top);
// Of an axis with a unit: "1,000", "0.5".
std::string FigureTickText(double value);
// About how wide a text of 12 px is.
double TextWidth(absl::string_view text);

// Appends elements; all text is escaped here. Coordinates are in pixels from the top left.
class Canvas {
 public:
  Canvas(double width, double height, const std::string& title, Placement placement);

  void Segment(absl::string_view classes, double x1, double y1, double x2, double y2);
  // `points`: "x,y x,y ...".
  void Polyline(absl::string_view classes, const std::string& points);
  void Polygon(absl::string_view classes, const std::string& points);
  // With a text that shows when the pointer is over it.
  void Dot(absl::string_view classes, double x, double y, const std::string& tip);
  void Box(absl::string_view classes, double x, double y, double width, double height,
           const std::string& tip);
  void Text(absl::string_view classes, double x, double y, Anchor anchor, absl::string_view text);

  // A group moved by (x, y), or one that shows only what is inside a box. Until Close().
  void Open(double x, double y);
  void OpenClipped(double x, double y, double width, double height);
  void Close();

  std::string Finish() &&;

 private:
  std::string out_;
  bool clipped_ = false;  // of the group opened last
};

}  // namespace ringsock::bench

#endif  // RINGSOCK_BENCH_SVG_CANVAS_H_
