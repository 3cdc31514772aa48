// What a run of the benchmark says: a table for people, JSON for programs.
#ifndef RINGSOCK_BENCH_REPORT_H_
#define RINGSOCK_BENCH_REPORT_H_

#include <string>
#include <vector>

#include "bench/options.h"
#include "bench/runner.h"

namespace ringsock::bench {

// Where and how it was measured.
struct Environment {
  std::string machine;  // processor
  uint32_t cores = 0;
  std::string kernel;
  Cores assigned;
  // What the kernel grants of the socket buffers that are asked for, in bytes; it counts twice what
  // it was asked for.
  uint32_t receive_buffer = 0;
  uint32_t send_buffer = 0;
};
// `socket_buffer`: bytes to be asked for.
Environment DescribeEnvironment(const Cores& assigned, int socket_buffer);

// Index of the hand-written loop with the least CPU per packet (median), or -1.
int BestBareLoop(const Scenario& scenario);
// By round, CPU per packet of `best` over that of `subject`. Rounds that either lacks are left out.
std::vector<double> RatiosToBest(const SubjectResult& best, const SubjectResult& subject);

// Lines of at most 100 columns, each ending in a newline.
std::string FormatHeader(const Environment& environment, const Options& options);
// Of several batch sizes of one loop only the best is a row.
std::string FormatScenario(const Scenario& scenario);
// Every round of every subject.
std::string FormatJson(const Environment& environment, const Options& options,
                       const std::vector<Scenario>& scenarios);

}  // namespace ringsock::bench

#endif  // RINGSOCK_BENCH_REPORT_H_
