// A study as one page that needs nothing else: pictures, tables, machine and options.
#ifndef RINGSOCK_BENCH_HTML_REPORT_H_
#define RINGSOCK_BENCH_HTML_REPORT_H_

#include <string>

#include "absl/status/statusor.h"
#include "bench/study.h"
#include "bench/svg_chart.h"

namespace ringsock::bench {

// Well-formed as XML too. It loads nothing: no script, style, font or image from anywhere.
std::string HtmlReport(const Study& study);

// The main chart as an SVG file. An error if the study has none.
absl::StatusOr<std::string> MainChart(const Study& study);

// What a subject is called on the page: "ringsock, io_uring".
std::string SubjectText(absl::string_view name);

// One chart of a study, ready to draw.
LineChart ToLineChart(const StudyChart& chart);
BarChart ToBarChart(const StudyChart& chart);

}  // namespace ringsock::bench

#endif  // RINGSOCK_BENCH_HTML_REPORT_H_
