// The SVG elements that charts are drawn with.
#include "bench/svg_canvas.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace ringsock::bench {
namespace {

constexpr char kNamespace[] = "http://www.w3.org/2000/svg";

std::string Class(absl::string_view classes) {
  return classes.empty() ? "" : absl::StrCat(" class=\"", classes, "\"");
}

const char* AnchorName(Anchor anchor) {
  switch (anchor) {
    case Anchor::kStart:
      return "start";
    case Anchor::kMiddle:
      return "middle";
    case Anchor::kEnd:
      return "end";
  }
  return "start";
}

}  // namespace

std::vector<double> NiceTicks(double top) {
  if (!std::isfinite(top) || top < 1e-9) return {0, 1};
  const double rough = top / 5;
  const double decade = std::pow(10, std::floor(std::log10(rough)));
  double step = 10 * decade;
  for (const double factor : {5.0, 2.5, 2.0, 1.0}) {
    if (factor * decade >= rough * 0.999) step = factor * decade;
  }
  std::vector<double> ticks;
  for (int i = 0; i == 0 || ticks.back() < top * 0.999; ++i) ticks.push_back(i * step);
  return ticks;
}

std::string FigureTickText(double value) {
  if (std::abs(value) >= 100) return FigureText(value);
  return absl::StrFormat("%g", value);
}

// Of the usual fonts; no viewer tells a file's writer what it has.
double TextWidth(absl::string_view text) { return 6.6 * static_cast<double>(text.size()); }

Canvas::Canvas(double width, double height, const std::string& title, Placement placement) {
  // In a page the parser knows what an svg element is; a file has to say so.
  const bool alone = placement == Placement::kAlone;
  out_ = absl::StrFormat(
      "<svg%s class=\"chart\" viewBox=\"0 0 %.0f %.0f\"%s role=\"img\">",
      alone ? absl::StrCat(" xmlns=\"", kNamespace, "\"") : "", width, height,
      alone ? absl::StrFormat(" width=\"%.0f\" height=\"%.0f\"", width, height) : "");
  absl::StrAppend(&out_, "<title>", EscapeXml(title), "</title>\n");
  if (!alone) return;
  absl::StrAppend(&out_, "<style>", SvgStyleSheet(), "</style>\n");
  absl::StrAppendFormat(&out_,
                        "<rect class=\"back\" width=\"%.0f\" height=\"%.0f\" rx=\"8\"></rect>\n",
                        width, height);
}

void Canvas::Segment(absl::string_view classes, double x1, double y1, double x2, double y2) {
  absl::StrAppendFormat(&out_, "<line%s x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\"></line>\n",
                        Class(classes), x1, y1, x2, y2);
}

void Canvas::Polyline(absl::string_view classes, const std::string& points) {
  absl::StrAppend(&out_, "<polyline", Class(classes), " points=\"", points, "\"></polyline>\n");
}

void Canvas::Polygon(absl::string_view classes, const std::string& points) {
  absl::StrAppend(&out_, "<polygon", Class(classes), " points=\"", points, "\"></polygon>\n");
}

void Canvas::Dot(absl::string_view classes, double x, double y, const std::string& tip) {
  absl::StrAppendFormat(&out_,
                        "<circle%s cx=\"%.1f\" cy=\"%.1f\" r=\"3.5\"><title>%s</title></circle>\n",
                        Class(classes), x, y, EscapeXml(tip));
}

void Canvas::Box(absl::string_view classes, double x, double y, double width, double height,
                 const std::string& tip) {
  absl::StrAppendFormat(&out_,
                        "<rect%s x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" rx=\"2\">"
                        "<title>%s</title></rect>\n",
                        Class(classes), x, y, std::max(width, 0.0), height, EscapeXml(tip));
}

void Canvas::Text(absl::string_view classes, double x, double y, Anchor anchor,
                  absl::string_view text) {
  absl::StrAppendFormat(&out_, "<text%s x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\">%s</text>\n",
                        Class(classes), x, y, AnchorName(anchor), EscapeXml(text));
}

void Canvas::Open(double x, double y) {
  absl::StrAppendFormat(&out_, "<g transform=\"translate(%.1f %.1f)\">\n", x, y);
}

// A nested svg element clips what leaves its box, and needs no name that must be unique in a page.
void Canvas::OpenClipped(double x, double y, double width, double height) {
  absl::StrAppendFormat(&out_,
                        "<g><svg x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" "
                        "viewBox=\"%.1f %.1f %.1f %.1f\">\n",
                        x, y, width, height, x, y, width, height);
  clipped_ = true;
}

void Canvas::Close() {
  absl::StrAppend(&out_, clipped_ ? "</svg></g>\n" : "</g>\n");
  clipped_ = false;
}

std::string Canvas::Finish() && { return std::move(out_) + "</svg>\n"; }

}  // namespace ringsock::bench
