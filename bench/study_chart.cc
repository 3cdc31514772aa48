// What of a study is drawn, and how.
#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "bench/html_report.h"

namespace ringsock::bench {
namespace {

constexpr char kUring[] = "ringsock";
constexpr char kMmsg[] = "ringsock-mmsg";
constexpr char kReference[] = "recvfrom";  // what everybody writes first
// Figures of a wider range than this need a logarithmic axis to be told apart.
constexpr double kWideRange = 6;

absl::string_view Family(absl::string_view name) { return name.substr(0, name.find(':')); }

Tone ToneOf(const StudySubject& subject) {
  if (subject.bare) return Tone::kBaseline;
  return subject.name == kMmsg ? Tone::kSecond : Tone::kFirst;
}

void AddPoint(double x, const StudySubject* subject, Line* line) {
  if (subject == nullptr) return;
  const Summary cost = subject->NsPerPacket();
  if (cost.count == 0) return;
  line->points.push_back({.x = x, .y = cost.median, .low = cost.min, .high = cost.max});
}

Bar ToBar(const StudySubject& subject, const StudySubject* best) {
  const Summary cost = subject.NsPerPacket();
  Bar bar = {.name = SubjectText(subject.name),
             .tone = ToneOf(subject),
             .value = cost.median,
             .low = cost.min,
             .high = cost.max,
             .note = {}};
  if (cost.count == 0) {
    bar.value = -1;
    bar.note = subject.error.empty() ? "moved no packets" : subject.error;
  } else if (&subject == best) {
    bar.note = "best by hand";
  } else if (best != nullptr) {
    const Summary ratio = CostRatio(subject, *best);
    bar.note = absl::StrFormat("%.2f × best (%.2f–%.2f)", ratio.median, ratio.min, ratio.max);
  }
  return bar;
}

// Of several batch sizes of one loop the best only.
bool IsBeaten(const StudyPoint& point, const StudySubject& subject) {
  const double mine = subject.NsPerPacket().count == 0 ? -1 : subject.NsPerPacket().median;
  for (const StudySubject& other : point.subjects) {
    if (&other == &subject || Family(other.name) != Family(subject.name)) continue;
    const Summary theirs = other.NsPerPacket();
    if (theirs.count == 0) continue;
    if (mine < 0 || theirs.median < mine || (theirs.median == mine && &other < &subject)) {
      return true;
    }
  }
  return false;
}

BarPanel ToPanel(const StudyPoint& point) {
  BarPanel panel = {.title = point.label, .note = point.traffic, .bars = {}};
  if (!point.error.empty()) absl::StrAppend(&panel.note, ": not measured: ", point.error);
  const StudySubject* best = point.BestBare();
  for (const StudySubject& subject : point.subjects) {
    if (IsBeaten(point, subject)) continue;
    const Summary cost = subject.NsPerPacket();
    // A bar many times as long as the others would hide their differences.
    if (subject.name == kReference && best != nullptr && &subject != best && cost.count > 0 &&
        cost.median > 3 * best->NsPerPacket().median) {
      absl::StrAppend(&panel.note, absl::StrFormat("; %s: %s ns", SubjectText(subject.name),
                                                   FigureText(cost.median)));
      continue;
    }
    panel.bars.push_back(ToBar(subject, best));
  }
  return panel;
}

}  // namespace

std::string SubjectText(absl::string_view name) {
  const absl::string_view family = Family(name);
  std::string batch;
  if (family.size() < name.size()) batch = absl::StrCat(" (", name.substr(family.size() + 1), ")");
  if (family == kUring) return "ringsock, io_uring";
  if (family == kMmsg) return "ringsock, mmsg";
  if (family == "uring") return "io_uring by hand";
  if (family == kReference) return "recvfrom/sendto";
  if (family == "recvmmsg") return absl::StrCat("recvmmsg/sendmmsg", batch);
  if (family == "recvmmsg+gro") return absl::StrCat("recvmmsg, GRO/GSO", batch);
  return std::string(name);
}

LineChart ToLineChart(const StudyChart& chart) {
  Line best = {.name = "best by hand", .tone = Tone::kBaseline, .points = {}};
  Line uring = {.name = SubjectText(kUring), .tone = Tone::kFirst, .points = {}};
  Line mmsg = {.name = SubjectText(kMmsg), .tone = Tone::kSecond, .points = {}};
  for (const StudyPoint& point : chart.points) {
    AddPoint(point.x, point.BestBare(), &best);
    AddPoint(point.x, point.Find(kUring), &uring);
    AddPoint(point.x, point.Find(kMmsg), &mmsg);
  }
  LineChart out = {.title = chart.title,
                   .x_label = chart.x_label,
                   .y_label = "CPU ns per packet",
                   .x_scale = chart.log_x ? Scale::kLog : Scale::kLinear,
                   .y_scale = Scale::kLinear,
                   .lines = {}};
  double low = 0;
  double high = 0;
  for (const Line* line : {&best, &mmsg, &uring}) {
    if (line->points.empty()) continue;
    for (const LinePoint& point : line->points) {
      low = low == 0 ? point.y : std::min(low, point.y);
      high = std::max(high, point.y);
    }
    out.lines.push_back(*line);
  }
  if (low > 0 && high > kWideRange * low) out.y_scale = Scale::kLog;
  return out;
}

BarChart ToBarChart(const StudyChart& chart) {
  BarChart out = {.title = chart.title, .note = {}, .x_label = chart.x_label, .panels = {}};
  for (const StudyPoint& point : chart.points) out.panels.push_back(ToPanel(point));
  return out;
}

absl::StatusOr<std::string> MainChart(const Study& study) {
  const StudyChart* chart = study.Find("main");
  if (chart == nullptr || chart->points.empty()) {
    return absl::NotFoundError("the report has no main chart to draw; it was made with --only");
  }
  BarChart bars = ToBarChart(*chart);
  bars.note = absl::StrCat(study.machine, ", ", study.cores, " cores, ", study.kernel, "; ",
                           study.date.substr(0, study.date.find('T')));
  return DrawBarChart(bars, Placement::kAlone);
}

}  // namespace ringsock::bench
