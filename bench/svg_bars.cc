// Charts as SVG: bars in panels, one under the other.
#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "bench/svg_canvas.h"

namespace ringsock::bench {
namespace {

constexpr double kWidth = 760;
constexpr double kLeft = 176;   // where bars begin
constexpr double kRight = 560;  // where the axis ends; figures may stand beyond it
constexpr double kRow = 28;
constexpr double kBarHeight = 18;
constexpr double kPanelHead = 46;
constexpr double kPanelFoot = 30;
constexpr double kLabelRoom = 22;
constexpr double kTitleRoom = 34;
constexpr double kNoteRoom = 20;

double PanelHeight(const BarPanel& panel) {
  return kPanelHead + kRow * static_cast<double>(panel.bars.size()) + kPanelFoot;
}

bool Fits(double value) { return std::isfinite(value) && value >= 0; }

void DrawBar(const Bar& bar, double y, double scale, Canvas* canvas) {
  canvas->Text("", kLeft - 10, y + kBarHeight - 5, Anchor::kEnd, bar.name);
  if (!Fits(bar.value)) {
    canvas->Text("soft", kLeft + 6, y + kBarHeight - 5, Anchor::kStart,
                 bar.note.empty() ? "not measured" : bar.note);
    return;
  }
  const double low = Fits(bar.low) ? bar.low : bar.value;
  const double high = Fits(bar.high) ? bar.high : bar.value;
  canvas->Box(absl::StrCat("f", static_cast<int>(bar.tone)), kLeft, y, bar.value * scale,
              kBarHeight,
              absl::StrCat(bar.name, ": ", FigureText(bar.value), " (", FigureText(low), " to ",
                           FigureText(high), ")"));
  const double middle = y + kBarHeight / 2;
  // Beyond the axis a whisker goes on to its edge only.
  const double end = std::min(kLeft + high * scale, kRight + 8);
  canvas->Segment("whisker", kLeft + low * scale, middle, end, middle);
  canvas->Segment("whisker", kLeft + low * scale, middle - 4, kLeft + low * scale, middle + 4);
  if (kLeft + high * scale <= kRight + 8) {
    canvas->Segment("whisker", end, middle - 4, end, middle + 4);
  }
  const double text = std::max(end, kLeft + bar.value * scale) + 8;
  const std::string value = FigureText(bar.value);
  canvas->Text("strong", text, y + kBarHeight - 5, Anchor::kStart, value);
  canvas->Text("soft", text + 1.2 * TextWidth(value) + 7, y + kBarHeight - 5, Anchor::kStart,
               bar.note);
}

void DrawPanel(const BarPanel& panel, Canvas* canvas) {
  double top = 0;
  double largest = 0;
  for (const Bar& bar : panel.bars) {
    if (!Fits(bar.value)) continue;
    top = std::max(top, bar.value);
    if (Fits(bar.high)) largest = std::max(largest, bar.high);
  }
  top = std::max(top, std::min(largest, top * 1.4));
  const std::vector<double> ticks = NiceTicks(top);
  const double scale = (kRight - kLeft) / ticks.back();
  const double bottom = kPanelHead + kRow * static_cast<double>(panel.bars.size());
  canvas->Text("strong", 12, 18, Anchor::kStart, panel.title);
  canvas->Text("soft small", 12, 35, Anchor::kStart, panel.note);
  for (const double tick : ticks) {
    const double x = kLeft + tick * scale;
    canvas->Segment("grid", x, kPanelHead - 4, x, bottom);
    canvas->Text("soft small", x, bottom + 14, Anchor::kMiddle, FigureTickText(tick));
  }
  canvas->Segment("axis", kLeft, kPanelHead - 4, kLeft, bottom);
  double y = kPanelHead + (kRow - kBarHeight) / 2 - 2;
  for (const Bar& bar : panel.bars) {
    DrawBar(bar, y, scale, canvas);
    y += kRow;
  }
}

}  // namespace

std::string DrawBarChart(const BarChart& chart, Placement placement) {
  const bool alone = placement == Placement::kAlone;
  const double head = alone ? kTitleRoom + (chart.note.empty() ? 0 : kNoteRoom) : 0;
  double height = head + kLabelRoom;
  for (const BarPanel& panel : chart.panels) height += PanelHeight(panel);
  Canvas canvas(kWidth, height, chart.title, placement);
  if (alone) {
    canvas.Text("title", 12, 26, Anchor::kStart, chart.title);
    if (!chart.note.empty()) canvas.Text("soft", 12, 46, Anchor::kStart, chart.note);
  }
  double y = head;
  for (const BarPanel& panel : chart.panels) {
    canvas.Open(0, y);
    DrawPanel(panel, &canvas);
    canvas.Close();
    y += PanelHeight(panel);
  }
  canvas.Text("soft", (kLeft + kRight) / 2, y + 8, Anchor::kMiddle, chart.x_label);
  return std::move(canvas).Finish();
}

}  // namespace ringsock::bench
