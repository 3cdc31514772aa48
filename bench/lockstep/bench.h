// Measures subjects in turns, each in lockstep with its load: one thread sends a burst, lets the
// subject handle all of it, and takes what came back; only the CPU time of the middle part counts.
// No other thread has a part, nobody sleeps, and the subjects change every few milliseconds, so
// two runs agree on ratios to 0.02 to 0.04 within seconds, where `ringsock-bench`, whose load
// runs beside what is measured, needs minutes. What wake-ups cost is not in it, nor what it costs
// that packets come from another core's cache.
#ifndef RINGSOCK_BENCH_LOCKSTEP_BENCH_H_
#define RINGSOCK_BENCH_LOCKSTEP_BENCH_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "bench/lockstep/flood.h"
#include "bench/options.h"

namespace ringsock::bench {

struct LockstepOptions {
  Traffic traffic;
  TopologyKind topology = TopologyKind::kLoopback;  // not kNicLike, which has threads of its own
  std::vector<SubjectSpec> subjects;
  uint32_t burst = 32;  // trains
  uint32_t rounds = 50;
  uint32_t bursts = 20;  // of each subject in each round
  uint32_t idle_peers = 10'000;
  uint32_t shards = 1;  // 2: what a second one costs
  FloodKind flood = FloodKind::kNone;
  uint32_t strangers = 32;  // packets of the flood in each burst
  io::LoopOptions engine;
};

// What one subject did in one round.
struct LockstepSample {
  double cpu_ns = 0;
  uint64_t packets = 0;
  uint64_t strangers = 0;
  double NsPerPacket() const { return cpu_ns / static_cast<double>(packets); }
};

// A way in which a subject is run, and its rounds.
struct LockstepCase {
  enum class Layout : uint8_t {
    kAlone,     // one shard on one core; the other core has nothing to do
    kFlooded,   // likewise, with strangers
    kApart,     // two subjects of one shard each, at the same time
    kTogether,  // one subject with two shards
  };
  size_t subject = 0;  // of LockstepOptions::subjects
  Layout layout = Layout::kAlone;
  std::vector<LockstepSample> rounds;
};

// The calling thread must be the only one of the process that uses network namespaces. An error
// says what did not come back.
absl::StatusOr<std::vector<LockstepCase>> RunLockstep(const LockstepOptions& options);
// The table of what was measured.
std::string LockstepText(const LockstepOptions& options, const std::vector<LockstepCase>& cases);

}  // namespace ringsock::bench

#endif  // RINGSOCK_BENCH_LOCKSTEP_BENCH_H_
