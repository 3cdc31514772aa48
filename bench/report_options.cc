// The command line of `ringsock-bench report`.
#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "bench/flags.h"
#include "bench/report_plan.h"

namespace ringsock::bench {
namespace {

absl::Status ParseCharts(absl::string_view flag, absl::string_view text,
                         std::vector<std::string>* out) {
  const std::vector<std::string> known = ChartIds();
  for (const absl::string_view item : absl::StrSplit(text, ',')) {
    if (std::find(known.begin(), known.end(), item) == known.end()) {
      return BadFlag(flag, item,
                     absl::StrCat("no such chart; known are ", absl::StrJoin(known, ", ")));
    }
    out->push_back(std::string(item));
  }
  return absl::OkStatus();
}

FlagTable Flags(ReportOptions* o) {
  const Setter plan = [=](absl::string_view flag, absl::string_view value) {
    if (value != "quick" && value != "full") return BadFlag(flag, value, "must be quick or full");
    o->plan = std::string(value);
    return absl::OkStatus();
  };
  const Setter only = [=](absl::string_view flag, absl::string_view value) {
    return ParseCharts(flag, value, &o->only);
  };
  const Setter engine = [=](auto, auto value) { return ParseEngineOptions(value, &o->engine); };
  return {
      {"--out", {TextFlag("must be a folder, or a file ending in .html or .json", &o->out)}},
      {"--from", {TextFlag("must be a file", &o->from)}},
      {"--chart", {TextFlag("must be a file", &o->chart)}},
      {"--plan", {plan}},
      {"--only", {only}},
      {"--rounds", {UintFlag(1, 1000, &o->rounds)}},
      {"--seconds", {NumberFlag(0.05, 3600, &o->seconds)}},
      {"--engine-options", {engine}},
  };
}

}  // namespace

absl::StatusOr<ReportOptions> ParseReportOptions(std::span<const char* const> arguments) {
  ReportOptions options;
  const absl::Status status = ParseFlags(arguments, Flags(&options));
  if (absl::IsCancelled(status)) {
    options.help = true;
    return options;
  }
  if (!status.ok()) return status;
  if (options.out.empty() && options.chart.empty()) {
    return absl::InvalidArgumentError("report: needs --out DIR, or --from FILE --chart FILE");
  }
  if (options.out.empty() && options.from.empty()) {
    return absl::InvalidArgumentError(
        "report: --chart alone would lose what was measured; add --out DIR, or --from FILE");
  }
  if (!options.from.empty() && absl::EndsWith(options.out, ".json")) {
    return BadFlag("--out", options.out, "the figures are in --from already; a folder, or a .html");
  }
  return options;
}

std::string ReportCommand(const ReportOptions& options) {
  std::string out = absl::StrCat("ringsock-bench report --plan ", options.plan);
  if (!options.only.empty()) {
    absl::StrAppend(&out, " --only ", absl::StrJoin(options.only, ","));
  }
  if (options.rounds > 0) absl::StrAppend(&out, " --rounds ", options.rounds);
  if (options.seconds > 0) absl::StrAppend(&out, " --seconds ", options.seconds);
  std::string engine = EngineOptionsText(options.engine);
  if (engine != EngineOptionsText({})) {
    std::replace(engine.begin(), engine.end(), ' ', ',');
    absl::StrAppend(&out, " --engine-options ", engine);
  }
  return absl::StrCat(out, " --out DIR");
}

std::string ReportHelpText() {
  return absl::StrCat(R"(ringsock-bench report: measures along several axes and writes a page

usage: ringsock-bench report --out DIR [FLAGS]
       ringsock-bench report --from FILE.json [--out DIR] [--chart FILE.svg]

  --out DIR|FILE        where the page goes, and the figures behind it: DIR/report.html and
                        DIR/report.json; for FILE.html that and FILE.json; for FILE.json the figures
                        alone. The page needs nothing else
  --from FILE.json      draws from an earlier report's figures; nothing is measured
  --chart FILE.svg      the main chart alone, as a picture
  --plan quick|full     quick takes a few minutes; full measures more points, more often, for
                        longer: half an hour (quick)
  --only LIST           charts: )",
                      absl::StrJoin(ChartIds(), ","), R"( (all)
  --rounds N            in place of the plan's
  --seconds S           of one measurement, in place of the plan's
  --engine-options      as the other commands take them

Between two network namespaces when run as root, else on loopback, which the page says.
)");
}

}  // namespace ringsock::bench
