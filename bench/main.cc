// ringsock-bench: the load generator, and the engine measured beside loops written by hand.
#include <algorithm>
#include <cstdio>
#include <fstream>
#include <span>
#include <string>
#include <vector>

#include "bench/options.h"
#include "bench/report.h"
#include "bench/report_command.h"
#include "bench/runner.h"
#include "bench/sockets.h"
#include "bench/topology.h"

namespace ringsock::bench {
namespace {

constexpr int kUsage = 2;
constexpr int kFailed = 1;

int Fail(const absl::Status& status, int code) {
  const std::string message(status.message());
  std::fprintf(stderr, "ringsock-bench: %s\n", message.c_str());
  return code;
}

// What one command measures, one after the other.
std::vector<Traffic> Scenarios(const Options& options) {
  if (options.command != "quick") return {options.traffic};
  Traffic trains = options.traffic;
  Traffic singles = options.traffic;
  singles.train = 1;
  return {trains, singles};
}

// Tables go to standard error when JSON has standard output.
int WriteJson(const std::string& path, const std::string& json) {
  if (path == "-") {
    std::fputs(json.c_str(), stdout);
    return 0;
  }
  std::ofstream file(path);
  file << json;
  file.close();
  if (file.good()) return 0;
  return Fail(absl::UnavailableError("--json=" + path + ": cannot write"), kFailed);
}

int Measure(const Options& options) {
  const auto cores = AssignCores(AllowedCores(), options.shards, options.load_threads);
  if (!cores.ok()) return Fail(cores.status(), kUsage);
  PinThisThread(cores->load);
  const uint32_t mtu = std::max(options.traffic.size + 28, 1500u);
  const auto topology =
      Topology::Create(options.topology, mtu, cores->load, cores->subject, options.gro_flush_us);
  if (!topology.ok()) return Fail(topology.status(), kFailed);

  FILE* out = options.json == "-" ? stderr : stdout;
  const Environment environment = DescribeEnvironment(*cores, options.socket_buffer);
  std::fputs(FormatHeader(environment, options).c_str(), out);
  std::vector<Scenario> scenarios;
  for (const Traffic& traffic : Scenarios(options)) {
    std::fflush(out);
    auto scenario = RunScenario(options, traffic, *cores, **topology);
    if (!scenario.ok()) return Fail(scenario.status(), kFailed);
    std::fputs(FormatScenario(*scenario).c_str(), out);
    scenarios.push_back(*std::move(scenario));
  }
  if (options.json.empty()) return 0;
  return WriteJson(options.json, FormatJson(environment, options, scenarios));
}

// A command with flags of its own.
int Report(std::span<const char* const> arguments) {
  const auto options = ParseReportOptions(arguments);
  if (!options.ok()) return Fail(options.status(), kUsage);
  if (options->help) {
    std::fputs(ReportHelpText().c_str(), stdout);
    return 0;
  }
  const absl::Status status = RunReport(*options);
  return status.ok() ? 0 : Fail(status, kFailed);
}

int Main(int argc, char** argv) {
  const std::vector<const char*> arguments(argv + std::min(argc, 1), argv + argc);
  if (!arguments.empty() && arguments[0] == std::string("report")) {
    return Report(std::span(arguments).subspan(1));
  }
  const auto options = ParseOptions(arguments);
  if (!options.ok()) return Fail(options.status(), kUsage);
  if (options->command == "help") {
    std::fputs(HelpText().c_str(), stdout);
    return 0;
  }
  return Measure(*options);
}

}  // namespace
}  // namespace ringsock::bench

int main(int argc, char** argv) { return ringsock::bench::Main(argc, argv); }
