// `ringsock-bench report`: measures a plan, or reads what was measured, and writes page, figures
// and picture.
#ifndef RINGSOCK_BENCH_REPORT_COMMAND_H_
#define RINGSOCK_BENCH_REPORT_COMMAND_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "bench/report_plan.h"
#include "bench/runner.h"
#include "bench/study.h"

namespace ringsock::bench {

// A scenario's figures without what a report has no use for.
StudyPoint ToStudyPoint(const PlannedPoint& planned, const Scenario& scenario);

// Where the page and the figures go for --out; "" if they are not wanted.
struct ReportFiles {
  std::string html;
  std::string json;
};
ReportFiles FilesOf(const std::string& out);

// Says on standard output what it measures and writes.
absl::Status RunReport(const ReportOptions& options);

}  // namespace ringsock::bench

#endif  // RINGSOCK_BENCH_REPORT_COMMAND_H_
