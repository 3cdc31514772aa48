// A study as one page that needs nothing else.
#include "bench/html_report.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"

namespace ringsock::bench {
namespace {

constexpr char kPageStyle[] = R"(
:root{color-scheme:light dark;--page:#f5f6f8;--card:#ffffff;--text:#1f2733;--soft:#5b6676;
--rule:#e1e5eb;--accent:#2563eb;--code:#f0f2f5}
@media (prefers-color-scheme:dark){:root{--page:#0b0f15;--card:#12171f;--text:#e6eaf0;
--soft:#9aa6b6;--rule:#2a323e;--accent:#6aa5ff;--code:#1a212b}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--text);line-height:1.5;font:15px/1.5 system-ui,
-apple-system,'Segoe UI',Roboto,'Helvetica Neue',Arial,sans-serif}
main{max-width:1180px;margin:0 auto;padding:36px 24px 64px}
h1{font-size:28px;line-height:1.2;margin:0 0 6px;letter-spacing:-.01em}
h2{font-size:18px;margin:0 0 4px}
p{margin:0 0 12px}
.soft,.lead{color:var(--soft)}
.lead{margin-bottom:24px}
.figures{display:grid;grid-template-columns:repeat(auto-fit,minmax(250px,1fr));gap:16px;
margin-bottom:20px}
.card{background:var(--card);border:1px solid var(--rule);border-radius:10px;padding:20px}
.figure b{display:block;font-size:30px;line-height:1.2;letter-spacing:-.02em}
.figure b small{font-size:15px;font-weight:500;color:var(--soft);letter-spacing:0}
.figure span{display:block;font-size:13px;color:var(--soft)}
.figure .name{color:var(--text);font-weight:600;margin-bottom:6px}
.grid{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(480px,100%),1fr));gap:20px;
margin-top:20px;align-items:start}
.wide{grid-column:1/-1}
svg.chart{display:block;width:100%;height:auto;max-width:860px}
.scroll{overflow-x:auto}
details{margin-top:10px;border-top:1px solid var(--rule);padding-top:10px}
summary{cursor:pointer;color:var(--accent);font-size:14px}
table{border-collapse:collapse;width:100%;margin:10px 0;font-size:13px;
font-variant-numeric:tabular-nums}
th,td{padding:5px 10px 5px 0;border-bottom:1px solid var(--rule);text-align:right;
white-space:nowrap}
th{color:var(--soft);font-weight:500}
th:first-child,td:first-child,td.left,th.left{text-align:left}
tr.ours td{font-weight:600}
code,pre{font:12px/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}
pre{background:var(--code);border-radius:6px;padding:10px 12px;overflow-x:auto;margin:8px 0 0}
.bad{color:#c2410c}
dl{display:grid;grid-template-columns:max-content 1fr;gap:4px 20px;margin:12px 0 0;font-size:14px}
dt{color:var(--soft)}
dd{margin:0;overflow-wrap:anywhere}
@media print{body{background:#fff}.card{break-inside:avoid}}
)";

std::string Range(const Summary& s) {
  return absl::StrCat(FigureText(s.min), "–", FigureText(s.max));
}

std::string Gigabits(const StudyPoint& point, const StudySubject& subject) {
  return FigureText(subject.PacketsPerSecond().median * point.size * 8 / 1e9);
}

std::string LostText(const StudySubject& subject) {
  const double share = subject.LostShare();
  return share == 0 ? "0" : absl::StrFormat("%.3f %%", 100 * share);
}

std::string Row(const StudyPoint& point, const StudySubject& subject, const StudySubject* best,
                bool first) {
  const Summary cost = subject.NsPerPacket();
  std::string out = absl::StrCat("<tr", subject.bare ? "" : " class=\"ours\"", "><td>",
                                 first ? EscapeXml(point.label) : "", "</td><td class=\"left\">",
                                 EscapeXml(SubjectText(subject.name)), "</td>");
  if (cost.count == 0) {
    return absl::StrCat(out, "<td class=\"left bad\" colspan=\"7\">",
                        EscapeXml(subject.error.empty() ? "moved no packets" : subject.error),
                        "</td></tr>\n");
  }
  std::string ratio = "–";
  std::string ratio_range = "–";
  if (best != nullptr) {
    const Summary r = CostRatio(subject, *best);
    ratio = FigureText(r.median);
    ratio_range = Range(r);
  }
  return absl::StrCat(out, "<td>", FigureText(cost.median), "</td><td>", Range(cost), "</td><td>",
                      ratio, "</td><td>", ratio_range, "</td><td>",
                      FigureText(subject.PacketsPerSecond().median / 1e6), "</td><td>",
                      Gigabits(point, subject), "</td><td>", LostText(subject), "</td></tr>\n");
}

std::string Table(const StudyChart& chart) {
  std::string out =
      "<div class=\"scroll\"><table><thead><tr><th></th><th class=\"left\">measured</th>"
      "<th>ns/packet</th><th>range</th><th>× best by hand</th><th>range</th><th>M packets/s</th>"
      "<th>Gb/s</th><th>lost</th></tr></thead>\n<tbody>\n";
  for (const StudyPoint& point : chart.points) {
    const StudySubject* best = point.BestBare();
    bool first = true;
    for (const StudySubject& subject : point.subjects) {
      out += Row(point, subject, best, first);
      first = false;
    }
    if (first) {
      absl::StrAppend(&out, "<tr><td>", EscapeXml(point.label),
                      "</td><td class=\"left bad\" colspan=\"8\">not measured: ",
                      EscapeXml(point.error), "</td></tr>\n");
    }
  }
  return out + "</tbody></table></div>\n";
}

std::string Commands(const StudyChart& chart) {
  std::string out;
  for (const StudyPoint& point : chart.points) {
    if (!point.command.empty()) absl::StrAppend(&out, EscapeXml(point.command), "\n");
  }
  return out.empty() ? "" : absl::StrCat("<pre>", out, "</pre>\n");
}

std::string ChartCard(const StudyChart& chart) {
  const std::string picture = chart.bars ? DrawBarChart(ToBarChart(chart), Placement::kInPage)
                                         : DrawLineChart(ToLineChart(chart), Placement::kInPage);
  std::string out = absl::StrCat(
      "<section class=\"card", chart.bars ? " wide" : "", "\" id=\"chart-", EscapeXml(chart.id),
      "\">\n<h2>", EscapeXml(chart.title), "</h2>\n<p class=\"soft\">", EscapeXml(chart.text));
  // Panels say it themselves; of a line all points are alike but for x.
  if (!chart.bars && !chart.points.empty()) {
    absl::StrAppend(&out, " First point: ", EscapeXml(chart.points.front().traffic), ".");
  }
  return absl::StrCat(out, "</p>\n", picture, "<details><summary>Figures and commands</summary>\n",
                      Table(chart), Commands(chart), "</details>\n</section>\n");
}

// One number to take away for each panel of the main chart.
std::string Headline(const StudyPoint& point) {
  const StudySubject* ours = point.Find("ringsock");
  if (ours == nullptr || ours->NsPerPacket().count == 0) ours = point.Find("ringsock-mmsg");
  if (ours == nullptr || ours->NsPerPacket().count == 0) return "";
  const StudySubject* best = point.BestBare();
  std::string out = absl::StrCat(
      "<div class=\"card figure\"><span class=\"name\">", EscapeXml(point.label), "</span><b>",
      FigureText(ours->NsPerPacket().median), " <small>ns of CPU per packet</small></b>");
  if (best != nullptr) {
    const Summary ratio = CostRatio(*ours, *best);
    absl::StrAppend(&out, "<span>", FigureText(ratio.median), " × the best loop by hand (",
                    Range(ratio), ")</span>");
  }
  return absl::StrCat(out, "<span>", FigureText(ours->PacketsPerSecond().median / 1e6),
                      " M packets/s, ", Gigabits(point, *ours), " Gb/s, core ",
                      absl::StrFormat("%.0f", 100 * ours->Busy().median), " % busy</span></div>\n");
}

std::string CoreList(const std::vector<int>& cores) { return absl::StrJoin(cores, ", "); }

std::string Fact(absl::string_view name, absl::string_view value) {
  return absl::StrCat("<dt>", EscapeXml(name), "</dt><dd>", EscapeXml(value), "</dd>\n");
}

std::string Method(const Study& study) {
  return absl::StrCat(
      "<section class=\"card\" style=\"margin-top:20px\">\n<h2>How it was measured</h2>\n"
      "<p class=\"soft\">CPU time of the measured side per packet that reached its receiver: all "
      "threads of its process, and the kernel's threads bound to its cores. Subjects take turns "
      "in rounds, and each begins a round once. Dots and bars are medians; bands, whiskers and "
      "ranges go from the least to the most of all rounds, and ratios are taken round by round. "
      "Each figure is of a process of its own, under load that keeps as many trains under way as "
      "the socket buffers take. The engine looks peers up in its tables, keeps path rules, looks "
      "for STUN, confirms paths and counts; the loops by hand do not.</p>\n<dl>\n",
      Fact("date", study.date),
      Fact("machine", absl::StrCat(study.machine, ", ", study.cores, " cores")),
      Fact("kernel", study.kernel),
      Fact("cores", absl::StrCat("measured: ", CoreList(study.subject_cores),
                                 "; load: ", CoreList(study.load_cores))),
      Fact("rounds", absl::StrCat("at least ", study.rounds, ", of ", study.seconds, " s after ",
                                  study.warmup, " s")),
      Fact("socket buffers",
           absl::StrCat("receive ", study.receive_buffer, ", send ", study.send_buffer, " bytes")),
      Fact("engine options", study.engine_options), Fact("plan", study.plan), "</dl>\n<pre>",
      EscapeXml(study.command), "</pre>\n</section>\n");
}

}  // namespace

std::string HtmlReport(const Study& study) {
  std::string out = absl::StrCat(
      "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n"
      "<title>ringsock: what a packet costs</title>\n<style>",
      kPageStyle, SvgStyleSheet(), "</style>\n</head>\n<body>\n<main>\n",
      "<h1>ringsock: what a packet costs</h1>\n<p class=\"lead\">", EscapeXml(study.machine), ", ",
      study.cores, " cores, ", EscapeXml(study.kernel), ". Measured ", EscapeXml(study.date),
      ".</p>\n");
  const StudyChart* first = study.Find("main");
  if (first != nullptr) {
    out += "<div class=\"figures\">\n";
    for (const StudyPoint& point : first->points) out += Headline(point);
    absl::StrAppend(&out, "</div>\n", ChartCard(*first));
  }
  out += "<div class=\"grid\">\n";
  for (const StudyChart& chart : study.charts) {
    if (&chart != first) out += ChartCard(chart);
  }
  return absl::StrCat(out, "</div>\n", Method(study), "</main>\n</body>\n</html>\n");
}

}  // namespace ringsock::bench
