// The command line of ringsock-relay-bench.
#ifndef RINGSOCK_BENCH_RELAY_RELAY_OPTIONS_H_
#define RINGSOCK_BENCH_RELAY_RELAY_OPTIONS_H_

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "bench/relay/relay_load.h"
#include "bench/relay/relay_process.h"

namespace ringsock::bench {

struct RelayOptions {
  std::string
      command;  // "quick", "throughput", "all", "sweep", "latency", "memory", "stall", "help"
  RelayTraffic traffic;
  // Empty: what the command's scenarios have.
  bool shape_given = false;
  std::vector<RelaySubjectSpec> subjects;  // the floor last
  uint32_t rounds = 5;
  double seconds = 1;
  double warmup = 0.3;       // seconds of load before each measurement
  uint32_t check = 8;        // open one of this many received records
  double settle = 3;         // of `memory`: seconds of quiet before and while it is read
  uint32_t clients = 10000;  // of `memory`
  double capacity = 0;       // of `sweep`, packets a second; 0: searched for
  std::string json;          // file, or "-" for standard output; "": none
};

// `arguments` are those after the program's name; `program` is its path, beside which
// ringsock-relay is looked for. Errors are one line that names the flag, the value and what would
// be right.
absl::StatusOr<RelayOptions> ParseRelayOptions(std::span<const char* const> arguments,
                                               const std::string& program);
std::string RelayHelpText();

}  // namespace ringsock::bench

#endif  // RINGSOCK_BENCH_RELAY_RELAY_OPTIONS_H_
