// Packets that nobody asked for, as an attacker or a stranger sends them.
#ifndef RINGSOCK_BENCH_LOCKSTEP_FLOOD_H_
#define RINGSOCK_BENCH_LOCKSTEP_FLOOD_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace ringsock::bench {

enum class FloodKind : uint8_t {
  kNone,
  kUnknown,    // WireGuard data of unknown sessions
  kStun,       // binding responses
  kHandshake,  // initiations
  kGarbage,    // any bytes, of any length up to that of the good packets
};
const char* FloodName(FloodKind kind);
// One of the names but that of kNone.
absl::StatusOr<FloodKind> ParseFlood(absl::string_view name);

// `count` different packets, the same ones at every call. `size`: bytes, of kUnknown, and the most
// of kGarbage.
std::vector<std::string> FloodPackets(FloodKind kind, uint32_t size, size_t count);

}  // namespace ringsock::bench

#endif  // RINGSOCK_BENCH_LOCKSTEP_FLOOD_H_
