// Every packet that enters the engine is counted once where it ends: delivered or sent by path, or
// dropped by reason. Nothing is lost without one of these saying so.
#ifndef RINGSOCK_CORE_COUNTERS_H_
#define RINGSOCK_CORE_COUNTERS_H_

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string>

namespace ringsock {

// The way a packet travelled.
enum class PathKind : uint8_t { kDirectV4, kDirectV6, kRelay, kCount };
const char* PathKindName(PathKind kind);  // "direct4", "direct6", "relay"

// Why a packet went no further.
enum class Drop : uint8_t {
  // received
  kRxEmpty,      // no bytes at all
  kRxTruncated,  // larger than the receive buffer (spec: RECV-6)
  kRxStun,       // STUN, and no netcheck wants it (spec: RECV-1)
  kRxKernel,     // the socket's buffer overflowed
  kRxQueueFull,  // the embedder takes packets from a queue (core/bind.h), and too slowly
  kRxPeerGone,   // the peer was removed while the packet waited in that queue, or for its shard
  kRxRelayFull,  // a relay brought it faster than its shard took it
  kRxRelaySelf,  // a relay brought us what is our own
  kRxRebind,     // was in a socket that gave way to a new one
  // sent
  kTxUnknownPeer,
  kTxNoDestination,  // spec: SEND-4; or for an address that nothing can be sent to
  kTxNoSocket,       // every destination is of a family that is off (spec: SEND-6)
  kTxQueueFull,      // the ring of the Sender, or to the relays, is full (spec: SEND-7)
  kTxNoRelay,        // for a relay, and there is no relay map, no private key, or no such region
  kTxRelayFull,      // pushed out by newer ones: the relay takes packets too slowly
  kTxRelayAged,      // waited for the relay until it was too old
  kTxRelayRate,      // over the rate that the relay allows us
  kTxRelayBroken,    // waited for, or was on its way to, a relay when the connection ended
  kTxTooLarge,
  kTxRelayNotAllowed,  // spec: SEND-8
  kTxMessageSize,      // EMSGSIZE: larger than the path takes
  kTxBufferFull,       // EAGAIN, ENOBUFS: the socket or the device is full
  kTxUnreachable,      // ENETUNREACH, EHOSTUNREACH, ECONNREFUSED
  kTxRefused,          // EPERM, EACCES: a firewall
  kTxError,            // any other error
  kClosed,             // the engine stopped first
  kCount
};
const char* DropName(Drop drop);  // "rx_stun", "tx_no_destination", ...

inline constexpr size_t kPathKinds = static_cast<size_t>(PathKind::kCount);
inline constexpr size_t kDrops = static_cast<size_t>(Drop::kCount);

// A copy of the counters at one moment.
struct CounterSnapshot {
  struct Path {
    uint64_t rx_packets = 0;
    uint64_t rx_bytes = 0;
    uint64_t tx_packets = 0;  // per destination: a spray counts once for each
    uint64_t tx_bytes = 0;
  };
  std::array<Path, kPathKinds> paths{};
  std::array<uint64_t, kDrops> drops{};
  uint64_t rx_unknown_source = 0;    // of the received: from an address no peer owns (spec: RECV-4)
  uint64_t sprays = 0;               // sends that went to every endpoint (spec: SEND-2, SEND-3)
  uint64_t tx_zero_copy = 0;         // trains that left without a copy
  uint64_t tx_zero_copy_copied = 0;  // trials of that which the kernel copied after all

  CounterSnapshot& operator+=(const CounterSnapshot& other);
  std::string ToString() const;  // only what is not zero
};

// One shard's counters: written by its thread only, read by any. Relaxed loads and stores compile
// to plain moves; no read-modify-write is on the packet path.
class alignas(64) ShardCounters {
 public:
  void AddRx(PathKind path, uint64_t packets, uint64_t bytes) {
    Add(paths_[Index(path)].rx_packets, packets);
    Add(paths_[Index(path)].rx_bytes, bytes);
  }
  void AddTx(PathKind path, uint64_t packets, uint64_t bytes) {
    Add(paths_[Index(path)].tx_packets, packets);
    Add(paths_[Index(path)].tx_bytes, bytes);
  }
  // For packets that were counted as sent and then refused. Added modulo 2^64, so it subtracts.
  void TakeBackTx(PathKind path, uint64_t packets, uint64_t bytes) {
    AddTx(path, 0 - packets, 0 - bytes);
  }
  void AddDrop(Drop drop, uint64_t packets) { Add(drops_[static_cast<size_t>(drop)], packets); }
  void AddUnknownSource(uint64_t packets) { Add(rx_unknown_source_, packets); }
  void AddSpray() { Add(sprays_, 1); }
  void AddZeroCopy(uint64_t trains, uint64_t copied) {
    Add(zero_copy_, trains);
    Add(zero_copy_copied_, copied);
  }
  CounterSnapshot Snapshot() const;

 private:
  using Cell = std::atomic<uint64_t>;
  struct PathCells {
    Cell rx_packets{0}, rx_bytes{0}, tx_packets{0}, tx_bytes{0};
  };
  static size_t Index(PathKind path) { return static_cast<size_t>(path); }
  static void Add(Cell& cell, uint64_t n) {
    cell.store(cell.load(std::memory_order_relaxed) + n, std::memory_order_relaxed);
  }

  std::array<PathCells, kPathKinds> paths_;
  std::array<Cell, kDrops> drops_{};
  Cell rx_unknown_source_{0};
  Cell sprays_{0};
  Cell zero_copy_{0};
  Cell zero_copy_copied_{0};
};

}  // namespace ringsock

#endif  // RINGSOCK_CORE_COUNTERS_H_
