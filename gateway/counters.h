// What happened on WireGuard's side of the gateway. The peers' side is in core/counters.h; a packet
// that got from one to the other is counted on both.
#ifndef RINGSOCK_GATEWAY_COUNTERS_H_
#define RINGSOCK_GATEWAY_COUNTERS_H_

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string>

namespace ringsock::gateway {

// In packets where nothing else is said. The names are in counters.cc and docs/gateway.md.
enum class Count : uint8_t {
  kToWireGuard,
  kToWireGuardBytes,
  kFromWireGuard,
  kFromWireGuardBytes,
  kConfirmed,        // times a path was confirmed to the engine
  kRecognisedMac1,   // handshakes of WireGuard whose peer was not the one the address stood for
  kRecognisedIndex,  // new sources whose session index told the peer
  kAnsweredUnknown,  // sent straight to an unknown source
  // Dropped on the way to WireGuard.
  kStarting,        // before all peers were known
  kMalformed,       // from an unknown source, and no message of WireGuard
  kNotForUs,        // initiation from an unknown source for another public key
  kUnknownRelayed,  // through a relay from a key that no peer has
  kNoAddress,       // no loopback address left for an unknown source
  kBufferFull,      // WireGuard's side of the loopback device is full
  kSendError,
  // Dropped on the way from WireGuard.
  kNotWireGuard,  // sent by another program
  kEmpty,
  kOutsideRange,    // to an address outside loopback_range
  kUnknownAddress,  // to an address that stands for nothing
  kUnknownPeer,     // handshake for a peer that is not configured, to an address of one that is
  kSearchesFull,    // handshake whose peer had to be looked for, with too many waiting for that
  kKernel,          // our socket's buffer was full
  kTruncated,
  // Not counted but measured: addresses in use.
  kPendingAddresses,
  kLiveAddresses,
  kCount
};
inline constexpr size_t kCounts = static_cast<size_t>(Count::kCount);
const char* CountName(Count count);  // "to_wireguard", "drop_malformed", ...

struct GatewaySnapshot {
  std::array<uint64_t, kCounts> values{};

  uint64_t operator[](Count count) const { return values[static_cast<size_t>(count)]; }
  GatewaySnapshot& operator+=(const GatewaySnapshot& other);
  std::string ToString() const;  // only what is not zero
};

// One shard's: written by its thread only, read by any.
class alignas(64) GatewayCounters {
 public:
  void Add(Count count, uint64_t n) {
    auto& cell = cells_[static_cast<size_t>(count)];
    cell.store(cell.load(std::memory_order_relaxed) + n, std::memory_order_relaxed);
  }
  // Undoes Add().
  void TakeBack(Count count, uint64_t n) { Add(count, 0 - n); }
  void Set(Count count, uint64_t value) {
    cells_[static_cast<size_t>(count)].store(value, std::memory_order_relaxed);
  }
  GatewaySnapshot Snapshot() const;

 private:
  std::array<std::atomic<uint64_t>, kCounts> cells_{};
};

}  // namespace ringsock::gateway

#endif  // RINGSOCK_GATEWAY_COUNTERS_H_
