// How an engine of a benchmark comes to use the relay beside the load.
#ifndef RINGSOCK_BENCH_RELAY_ACCESS_H_
#define RINGSOCK_BENCH_RELAY_ACCESS_H_

#include <cstdint>

#include "absl/status/status.h"
#include "bench/subject.h"
#include "core/engine.h"

namespace ringsock::bench {

// Whether what the peers 2 * pair and 2 * pair + 1 send is relayed: `percent` of any hundred pairs,
// evenly spread.
bool IsRelayedPair(uint32_t pair, uint32_t percent);

// Bytes that may wait for one relay connection: more than any window, since what is lost on the way
// would be lost to a bound of ours.
inline constexpr uint32_t kRelayQueueBytes = 64 << 20;

// Lets an engine talk to the relay, with room for all that the load has under way.
void PrepareForRelay(EngineOptions* options);
// Sets key and map, and waits until the connection to the relay is up.
absl::Status ConnectToRelay(const RelayPart& part, Engine* engine);

}  // namespace ringsock::bench

#endif  // RINGSOCK_BENCH_RELAY_ACCESS_H_
