// What a run of the relay benchmark says: tables for people, JSON for programs.
#ifndef RINGSOCK_BENCH_RELAY_RELAY_REPORT_H_
#define RINGSOCK_BENCH_RELAY_RELAY_REPORT_H_

#include <string>
#include <vector>

#include "bench/relay/relay_options.h"
#include "bench/relay/relay_runner.h"
#include "bench/report.h"
#include "bench/statistics.h"

namespace ringsock::bench {

// Everything one run measured.
struct RelayResults {
  std::vector<RelayScenario> scenarios;
  std::vector<Sweep> sweeps;
  std::vector<MemoryResult> memory;
};

// What is known of the reference relay, and what this project asks of its own, in one line; empty
// for other loads.
std::string ReferenceFigures(const RelayTraffic& traffic);

Summary OfRelayRounds(const RelaySubjectResult& subject, double (RelayRound::*figure)() const);
// By round, the floor's CPU per packet over that of `subject`; rounds that either lacks are left
// out.
std::vector<double> RatiosToFloor(const RelayScenario& scenario, const RelaySubjectResult& subject);

// Lines of at most 100 columns, each ending in a newline.
std::string FormatRelayHeader(const Environment& environment, const RelayOptions& options);
std::string FormatRelayScenario(const RelayScenario& scenario);
std::string FormatSweep(const Sweep& sweep);
std::string FormatMemory(const MemoryResult& result);

std::string FormatRelayJson(const Environment& environment, const RelayOptions& options,
                            const RelayResults& results);

}  // namespace ringsock::bench

#endif  // RINGSOCK_BENCH_RELAY_RELAY_REPORT_H_
