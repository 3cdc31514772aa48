// The datagrams of the load: shaped like WireGuard transport data, with our bookkeeping where the
// ciphertext would be. All fields little endian, as on the hosts this runs on.
#ifndef RINGSOCK_BENCH_WIRE_H_
#define RINGSOCK_BENCH_WIRE_H_

#include <bit>
#include <cstdint>
#include <cstring>
#include <type_traits>

namespace ringsock::bench {

struct WireHeader {
  uint32_t type = 4;      // transport data: 4 and three zero bytes
  uint32_t receiver = 0;  // WireGuard's receiver index; here the number of the sending peer
  uint64_t counter = 0;   // per peer, from 0
  int64_t stamp = 0;      // when the train was due to leave, CLOCK_MONOTONIC nanoseconds
  uint64_t run = 0;       // tells this run's packets from strays
};
static_assert(sizeof(WireHeader) == 32 && std::is_trivially_copyable_v<WireHeader>);
static_assert(std::endian::native == std::endian::little);

// The smallest datagram: WireGuard's keep-alive.
inline constexpr uint32_t kMinSize = sizeof(WireHeader);

}  // namespace ringsock::bench

#endif  // RINGSOCK_BENCH_WIRE_H_
