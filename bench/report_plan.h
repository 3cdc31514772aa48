// What `ringsock-bench report` measures: charts, their points, and the options of each run.
#ifndef RINGSOCK_BENCH_REPORT_PLAN_H_
#define RINGSOCK_BENCH_REPORT_PLAN_H_

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "bench/options.h"
#include "bench/study.h"

namespace ringsock::bench {

// The command line of `ringsock-bench report`.
struct ReportOptions {
  bool help = false;
  std::string out;    // folder, or a file ending in .html
  std::string from;   // JSON of an earlier report: nothing is measured
  std::string chart;  // file for the main chart alone, as SVG
  std::string plan = "quick";
  std::vector<std::string> only;  // ids of charts; empty: all
  uint32_t rounds = 0;            // 0: as the plan has it
  double seconds = 0;             // 0: as the plan has it
  io::LoopOptions engine;
};
// `arguments` are those after "report".
absl::StatusOr<ReportOptions> ParseReportOptions(std::span<const char* const> arguments);
std::string ReportHelpText();
// The command as it was given, without what does not change figures.
std::string ReportCommand(const ReportOptions& options);

struct PlannedPoint {
  double x = 0;
  std::string label;
  Options options;  // what RunScenario() is to be given
};
struct PlannedChart {
  StudyChart head;  // without points
  std::vector<PlannedPoint> points;
};

struct PlanLimits {
  uint32_t cores = 1;       // that this process may use
  bool namespaces = false;  // may make veth pairs; else all is on loopback
};
std::vector<PlannedChart> MakePlan(const ReportOptions& options, const PlanLimits& limits);
// Ids of all charts there are, in order.
std::vector<std::string> ChartIds();

// "forward, 1400 B, trains of 46, 64 peers and 10000 idle ones, veth, 1 shard".
std::string TrafficText(const Options& options);
// The command that measures the same alone.
std::string PointCommand(const Options& options);

}  // namespace ringsock::bench

#endif  // RINGSOCK_BENCH_REPORT_PLAN_H_
