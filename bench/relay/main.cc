// ringsock-relay-bench: a relay measured beside a bare TLS forwarder.
#include <sys/resource.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <vector>

#include "absl/strings/str_cat.h"
#include "bench/relay/relay_options.h"
#include "bench/relay/relay_report.h"
#include "bench/relay/relay_runner.h"
#include "bench/sockets.h"

namespace ringsock::bench {
namespace {

constexpr int kUsage = 2;
constexpr int kFailed = 1;

int Fail(const absl::Status& status, int code) {
  const std::string message(status.message());
  std::fprintf(stderr, "ringsock-relay-bench: %s\n", message.c_str());
  return code;
}

// A descriptor per client at each end; what is started inherits the limit.
void RaiseFileLimit() {
  rlimit limit = {};
  getrlimit(RLIMIT_NOFILE, &limit);
  rlimit more = {.rlim_cur = 1 << 20, .rlim_max = 1 << 20};
  if (limit.rlim_max < more.rlim_max && setrlimit(RLIMIT_NOFILE, &more) == 0) return;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

struct Named {
  std::string name;
  RelayTraffic traffic;
};

// Paced as the reference relay was, or as fits the shape.
void AddShape(uint32_t senders, uint32_t receivers, uint32_t size, std::vector<double> rates,
              std::vector<Named>* out) {
  for (const double rate : rates) {
    RelayTraffic traffic = {.senders = senders, .receivers = receivers, .size = size, .rate = rate};
    out->push_back({rate > 0 ? "paced" : "flat out", traffic});
  }
}

std::vector<Named> Scenarios(const RelayOptions& options) {
  std::vector<Named> all;
  if (options.command == "throughput" || options.shape_given) {
    all.push_back({"throughput", options.traffic});
  } else if (options.command == "quick") {
    AddShape(1, 1, 1400, {40'000, 0}, &all);
    AddShape(20, 20, 1400, {120'000, 0}, &all);
  } else {
    for (const uint32_t size : {1400u, 64u}) {
      AddShape(1, 1, size, {40'000, 200'000, 0}, &all);
      AddShape(1, 100, size, {40'000, 0}, &all);
      AddShape(20, 20, size, {120'000, 0}, &all);
      AddShape(100, 100, size, {120'000, 0}, &all);
    }
  }
  return all;
}

std::vector<Named> LatencyScenarios(const RelayOptions& options) {
  RelayTraffic alone = options.traffic;
  alone.one_in_flight = true;
  RelayTraffic paced = alone;
  alone.rate = 0;
  if (paced.rate == 0) paced.rate = 1000;
  return {{"latency", alone}, {"latency", paced}};
}

std::vector<Named> StallScenarios(const RelayOptions& options) {
  RelayTraffic reads = options.traffic;
  reads.extra = RelayTraffic::Extra::kReads;
  RelayTraffic stalls = options.traffic;
  stalls.extra = RelayTraffic::Extra::kStalls;
  return {{"one more receiver reads", reads}, {"one more receiver stops reading", stalls}};
}

absl::Status RunAll(const RelayOptions& options, const Cores& cores, FILE* out,
                    RelayResults* results) {
  if (options.command == "memory") {
    for (const RelaySubjectSpec& spec : options.subjects) {
      results->memory.push_back(RunMemory(options, spec, cores));
      std::fputs(FormatMemory(results->memory.back()).c_str(), out);
    }
    return absl::OkStatus();
  }
  if (options.command == "sweep") {
    auto sweep = RunSweep(options, cores);
    if (!sweep.ok()) return sweep.status();
    std::fputs(FormatSweep(*sweep).c_str(), out);
    results->sweeps.push_back(*std::move(sweep));
    return absl::OkStatus();
  }
  RelayOptions plain = options;
  std::vector<Named> scenarios = Scenarios(options);
  if (options.command == "latency") scenarios = LatencyScenarios(options);
  if (options.command == "stall") {
    // A forwarder without queues is held up by one that does not read; nothing to compare.
    std::erase_if(plain.subjects, [](const RelaySubjectSpec& spec) { return spec.is_floor(); });
    scenarios = StallScenarios(options);
  }
  bool measured = false;
  for (const Named& scenario : scenarios) {
    RelayScenario result = RunRelayScenario(plain, scenario.name, scenario.traffic, cores);
    std::fputs(FormatRelayScenario(result).c_str(), out);
    std::fflush(out);
    for (const RelaySubjectResult& subject : result.subjects) measured |= !subject.rounds.empty();
    results->scenarios.push_back(std::move(result));
  }
  return measured ? absl::OkStatus() : absl::UnavailableError("nothing could be measured");
}

int WriteJson(const std::string& path, const std::string& json) {
  if (path.empty()) return 0;
  if (path == "-") {
    std::fputs(json.c_str(), stdout);
    return 0;
  }
  std::ofstream file(path);
  file << json;
  file.close();
  if (file.good()) return 0;
  return Fail(absl::UnavailableError(absl::StrCat("--json=", path, ": cannot write")), kFailed);
}

int Measure(const RelayOptions& options) {
  RaiseFileLimit();
  const auto cores = AssignCores(AllowedCores(), 1, 1);
  if (!cores.ok()) return Fail(cores.status(), kUsage);
  PinThisThread(cores->load);
  FILE* out = options.json == "-" ? stderr : stdout;
  const Environment environment = DescribeEnvironment(*cores, 0);
  std::fputs(FormatRelayHeader(environment, options).c_str(), out);
  std::fflush(out);
  RelayResults results;
  const absl::Status status = RunAll(options, *cores, out, &results);
  if (!status.ok()) return Fail(status, kFailed);
  return WriteJson(options.json, FormatRelayJson(environment, options, results));
}

int Main(int argc, char** argv) {
  const std::vector<const char*> arguments(argv + std::min(argc, 1), argv + argc);
  const auto options = ParseRelayOptions(arguments, argc > 0 ? argv[0] : "");
  if (!options.ok()) return Fail(options.status(), kUsage);
  if (options->command == "help") {
    std::fputs(RelayHelpText().c_str(), stdout);
    return 0;
  }
  return Measure(*options);
}

}  // namespace
}  // namespace ringsock::bench

int main(int argc, char** argv) { return ringsock::bench::Main(argc, argv); }
