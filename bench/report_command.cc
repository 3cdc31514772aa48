// `ringsock-bench report`.
#include "bench/report_command.h"

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <fstream>
#include <memory>
#include <sstream>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "bench/html_report.h"
#include "bench/report.h"
#include "bench/sockets.h"
#include "bench/svg_chart.h"
#include "bench/topology.h"

namespace ringsock::bench {
namespace {

std::string NowText() {
  const std::time_t now = std::time(nullptr);
  std::tm utc = {};
  gmtime_r(&now, &utc);
  char text[32];
  std::strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &utc);
  return text;
}

absl::StatusOr<std::string> ReadFile(const std::string& path) {
  std::ifstream file(path);
  if (!file) return absl::NotFoundError(absl::StrCat(path, ": ", std::strerror(errno)));
  std::stringstream text;
  text << file.rdbuf();
  if (file.bad() || text.bad()) return absl::DataLossError(absl::StrCat(path, ": cannot be read"));
  return text.str();
}

absl::Status WriteFile(const std::string& path, const std::string& text) {
  std::ofstream file(path, std::ios::trunc);
  file << text;
  file.close();
  if (!file.good()) return absl::UnavailableError(absl::StrCat(path, ": cannot be written"));
  std::printf("wrote %s (%zu KB)\n", path.c_str(), text.size() / 1000);
  return absl::OkStatus();
}

// Cores for a run. With as many shards as there are cores, both sides share them.
absl::StatusOr<Cores> CoresFor(const Options& options, const std::vector<int>& allowed) {
  if (allowed.size() > 1 && options.shards >= allowed.size()) {
    return Cores{{allowed.front()}, {allowed.end() - options.shards, allowed.end()}, true};
  }
  return AssignCores(allowed, options.shards, options.load_threads);
}

// The network of a run, made anew only for a run that needs another one.
class Networks {
 public:
  absl::StatusOr<const Topology*> For(const Options& options, const Cores& cores) {
    const uint32_t mtu = std::max(options.traffic.size + 28, 1500u);
    const std::string key = absl::StrCat(TopologyName(options.topology), " ", mtu, " ",
                                         cores.load.size(), " ", cores.subject.size());
    if (topology_ == nullptr || key != key_) {
      topology_.reset();
      auto made = Topology::Create(options.topology, mtu, cores.load, cores.subject);
      if (!made.ok()) return made.status();
      topology_ = *std::move(made);
      key_ = key;
    }
    return topology_.get();
  }

 private:
  std::string key_;
  std::unique_ptr<Topology> topology_;
};

// One line for those who wait.
void PrintPoint(const StudyPoint& point) {
  std::string line = absl::StrCat("  ", point.label, ": ");
  if (!point.error.empty()) absl::StrAppend(&line, "not measured: ", point.error);
  const StudySubject* best = point.BestBare();
  if (best != nullptr) {
    absl::StrAppend(&line, best->name, " ", FigureText(best->NsPerPacket().median), " ns");
  }
  for (const StudySubject& subject : point.subjects) {
    if (subject.bare || subject.NsPerPacket().count == 0) continue;
    absl::StrAppend(&line, ", ", subject.name, " ", FigureText(subject.NsPerPacket().median));
    if (best == nullptr) continue;
    absl::StrAppend(&line, " (", FigureText(CostRatio(subject, *best).median), " x)");
  }
  std::printf("%s\n", line.c_str());
  std::fflush(stdout);
}

StudyPoint MeasurePoint(const PlannedPoint& planned, const std::vector<int>& allowed,
                        Networks* networks) {
  const auto failed = [&](const absl::Status& status) {
    StudyPoint point = ToStudyPoint(planned, {});
    point.error = std::string(status.message());
    return point;
  };
  const auto cores = CoresFor(planned.options, allowed);
  if (!cores.ok()) return failed(cores.status());
  PinThisThread(cores->load);
  const auto topology = networks->For(planned.options, *cores);
  if (!topology.ok()) return failed(topology.status());
  const auto scenario = RunScenario(planned.options, planned.options.traffic, *cores, **topology);
  if (!scenario.ok()) return failed(scenario.status());
  return ToStudyPoint(planned, *scenario);
}

absl::StatusOr<Study> Measure(const ReportOptions& options) {
  const std::vector<int> allowed = AllowedCores();
  const auto cores = AssignCores(allowed, 1, 0);
  if (!cores.ok()) return cores.status();
  Networks networks;
  Options veth;
  veth.topology = TopologyKind::kVeth;
  const PlanLimits limits = {.cores = static_cast<uint32_t>(allowed.size()),
                             .namespaces = networks.For(veth, *cores).ok()};
  if (!limits.namespaces) std::printf("no right to make namespaces: all is on loopback\n");
  const std::vector<PlannedChart> plan = MakePlan(options, limits);
  const Environment environment = DescribeEnvironment(*cores, io::kDefaultSocketBuffer);
  const Options& first = plan.front().points.front().options;
  Study study = {.date = NowText(),
                 .plan = options.plan,
                 .machine = environment.machine,
                 .kernel = environment.kernel,
                 .cores = environment.cores,
                 .load_cores = cores->load,
                 .subject_cores = cores->subject,
                 .receive_buffer = environment.receive_buffer,
                 .send_buffer = environment.send_buffer,
                 .rounds = first.rounds,
                 .seconds = first.seconds,
                 .warmup = first.warmup,
                 .engine_options = EngineOptionsText(options.engine),
                 .command = ReportCommand(options),
                 .charts = {}};
  for (const PlannedChart& chart : plan) {
    std::printf("%s\n", chart.head.title.c_str());
    std::fflush(stdout);
    study.charts.push_back(chart.head);
    for (const PlannedPoint& point : chart.points) {
      study.charts.back().points.push_back(MeasurePoint(point, allowed, &networks));
      PrintPoint(study.charts.back().points.back());
    }
  }
  return study;
}

absl::StatusOr<Study> Load(const std::string& path) {
  const auto text = ReadFile(path);
  if (!text.ok()) return text.status();
  auto study = StudyFromJson(*text);
  if (study.ok()) return study;
  return absl::InvalidArgumentError(absl::StrCat(path, ": ", study.status().message()));
}

absl::Status MakeFolder(const std::string& out) {
  if (absl::EndsWith(out, ".html") || absl::EndsWith(out, ".json")) return absl::OkStatus();
  if (mkdir(out.c_str(), 0777) == 0 || errno == EEXIST) return absl::OkStatus();
  return absl::UnavailableError(absl::StrCat(out, ": ", std::strerror(errno)));
}

}  // namespace

StudyPoint ToStudyPoint(const PlannedPoint& planned, const Scenario& scenario) {
  StudyPoint point = {.x = planned.x,
                      .label = planned.label,
                      .traffic = TrafficText(planned.options),
                      .size = planned.options.traffic.mean_size(),
                      .command = PointCommand(planned.options),
                      .error = {},
                      .subjects = {}};
  for (const SubjectResult& result : scenario.subjects) {
    StudySubject subject = {.name = result.spec.Label(),
                            .bare = result.spec.is_bare(),
                            .rounds = {},
                            .error = result.error};
    for (const Round& round : result.rounds) {
      subject.rounds.push_back({.ns_per_packet = round.NsPerPacket(),
                                .packets_per_second = round.PacketsPerSecond(),
                                .busy = round.Busy(),
                                .sent = round.load.sent,
                                .lost = round.Lost()});
    }
    point.subjects.push_back(std::move(subject));
  }
  return point;
}

ReportFiles FilesOf(const std::string& out) {
  if (absl::EndsWith(out, ".html")) {
    return {out, absl::StrCat(absl::StripSuffix(out, ".html"), ".json")};
  }
  if (absl::EndsWith(out, ".json")) return {"", out};
  const absl::string_view folder = absl::StripSuffix(out, "/");
  return {absl::StrCat(folder, "/report.html"), absl::StrCat(folder, "/report.json")};
}

absl::Status RunReport(const ReportOptions& options) {
  // Before minutes of measuring.
  if (!options.out.empty()) {
    const absl::Status status = MakeFolder(options.out);
    if (!status.ok()) return status;
  }
  const auto study = options.from.empty() ? Measure(options) : Load(options.from);
  if (!study.ok()) return study.status();
  const ReportFiles files = FilesOf(options.out);
  absl::Status status;
  if (options.from.empty()) status = WriteFile(files.json, StudyToJson(*study));
  if (status.ok() && !options.out.empty() && !files.html.empty()) {
    status = WriteFile(files.html, HtmlReport(*study));
  }
  if (!status.ok() || options.chart.empty()) return status;
  const auto chart = MainChart(*study);
  if (!chart.ok()) return chart.status();
  return WriteFile(options.chart, *chart);
}

}  // namespace ringsock::bench
