// Runs relays and the floor in alternating rounds under one load and collects what was measured.
#ifndef RINGSOCK_BENCH_RELAY_RELAY_RUNNER_H_
#define RINGSOCK_BENCH_RELAY_RELAY_RUNNER_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "bench/relay/memory_meter.h"
#include "bench/relay/metrics_page.h"
#include "bench/relay/relay_load.h"
#include "bench/relay/relay_options.h"
#include "bench/relay/relay_process.h"
#include "bench/runner.h"

namespace ringsock::bench {

// One subject in one round.
struct RelayRound {
  double seconds = 0;
  uint64_t offered = 0;  // in it; the extra receiver's aside, as in the next
  uint64_t delivered = 0;
  uint64_t delivered_extra = 0;
  uint64_t cpu_ns = 0;     // of the subject's process, all its threads
  uint64_t stolen_ns = 0;  // from its cores by the hypervisor
  uint64_t load_busy_ns = 0;
  uint32_t cores = 1;
  // Of packets that were opened in the measurement; nanoseconds, 0: none.
  uint64_t latency_p50 = 0;
  uint64_t latency_p99 = 0;
  uint64_t latency_p999 = 0;
  // Of the whole run, from start to the last packet.
  RelayLoadTotals total;
  Metrics losses;  // what the subject says of them, of the whole run

  double OfferedPerSecond() const { return static_cast<double>(offered) / seconds; }
  double DeliveredPerSecond() const { return static_cast<double>(delivered) / seconds; }
  double NsPerPacket() const;  // not finite if nothing came
  double Busy() const;         // share of the subject's cores, 1 is all
  double LoadBusy() const;     // ... of the load's
  // Of the whole run: packets that were written and never came, and that were never written, as
  // shares of what was offered. The extra receiver's are left out.
  double LostShare() const;
  double HeldBackShare() const;
};

struct RelaySubjectResult {
  RelaySubjectSpec spec;
  std::vector<RelayRound> rounds;
  std::string error;  // why there are no (more) rounds
};

struct RelayScenario {
  std::string name;
  RelayTraffic traffic;
  std::vector<RelaySubjectResult> subjects;
};

// Needs a thread of its own for nothing: the load runs on the calling one. Prints a progress line
// on standard error if that is a terminal.
absl::StatusOr<RelayRound> RunRelayRound(const RelayOptions& options, const RelayTraffic& traffic,
                                         const RelaySubjectSpec& spec, const Cores& cores);
// A subject that fails is left out of later rounds.
RelayScenario RunRelayScenario(const RelayOptions& options, const std::string& name,
                               const RelayTraffic& traffic, const Cores& cores);

// The offered load from under the capacity to far over it.
struct SweepPoint {
  double factor = 0;  // of the capacity; 0: flat out
  RelayScenario scenario;
};
struct Sweep {
  double capacity = 0;  // packets a second: the best rate delivered while looking for it
  std::vector<SweepPoint> points;

  // Of the first subject. The best rate over all points, packets a second; of each point, the
  // median of its rounds.
  double Best() const;
  // What a point delivers of what could be: of what is due in it, or of the best, whichever is
  // less. What the load had no time to offer counts as if it had been offered.
  double Share(const SweepPoint& point) const;
};
absl::StatusOr<Sweep> RunSweep(const RelayOptions& options, const Cores& cores);

// Idle clients.
struct MemoryResult {
  RelaySubjectSpec spec;
  uint32_t clients = 0;
  MemoryReading before;
  MemoryReading after;
  double connect_seconds = 0;
  double idle_cpu = 0;  // share of a core used while nothing happened
  std::string error;
};
MemoryResult RunMemory(const RelayOptions& options, const RelaySubjectSpec& spec,
                       const Cores& cores);

}  // namespace ringsock::bench

#endif  // RINGSOCK_BENCH_RELAY_RELAY_RUNNER_H_
