// Runs subjects in alternating rounds under one load and collects what was measured.
#ifndef RINGSOCK_BENCH_RUNNER_H_
#define RINGSOCK_BENCH_RUNNER_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "bench/load.h"
#include "bench/options.h"
#include "bench/subject.h"
#include "bench/topology.h"

namespace ringsock::bench {

// One subject in one round.
struct Round {
  double seconds = 0;         // of the measurement
  uint64_t packets = 0;       // that reached their receiver in it
  uint64_t cpu_ns = 0;        // the measured side's
  uint64_t core_busy_ns = 0;  // the same by /proc/stat, in ticks, with anything else on the cores
  uint64_t stolen_ns = 0;     // from the measured cores by the hypervisor
  uint32_t cores = 1;
  uint32_t window = 0;  // flat out: trains under way at one time per load thread; 0: no bound
  // Of the whole run, from start to the last packet.
  LoadTotals load;
  SubjectTotals subject;
  // Nanoseconds, of packets that came in the measurement; 0 if none had a time stamp. Flat out it
  // says how long the queues are that the window fills, not what a packet of its own would take.
  uint64_t latency_p50 = 0;
  uint64_t latency_p99 = 0;
  uint64_t latency_p999 = 0;
  Mode mode = Mode::kForward;

  double PacketsPerSecond() const;
  double NsPerPacket() const;  // not finite if nothing moved
  double CoreNsPerPacket() const;
  double Busy() const;  // share of the measured cores' time, 1 is all
  // Packets that left the load and never reached a receiver, and where they ended.
  uint64_t Lost() const;
  uint64_t LostBeforeSubject() const;  // the subject's receive buffer, or a device
  uint64_t LostInSubject() const;
  uint64_t LostAfterSubject() const;  // the load's receive buffer, or a device
};

struct SubjectResult {
  SubjectSpec spec;
  std::vector<Round> rounds;
  std::string error;  // why there are no (more) rounds
};

struct Scenario {
  Traffic traffic;
  std::vector<SubjectResult> subjects;
};

struct Cores {
  std::vector<int> load;
  std::vector<int> subject;
  bool shared = false;  // there is only one, so both sides share it
};
// The last `shards` cores are measured, so that core 0, which gets most interrupts, is not.
absl::StatusOr<Cores> AssignCores(const std::vector<int>& allowed, uint32_t shards,
                                  uint32_t load_threads);

// Prints a progress line on standard error if that is a terminal. A subject that fails is left out
// of later rounds. An error means that nothing could be measured at all.
absl::StatusOr<Scenario> RunScenario(const Options& options, const Traffic& traffic,
                                     const Cores& cores, const Topology& topology);

}  // namespace ringsock::bench

#endif  // RINGSOCK_BENCH_RUNNER_H_
