// The engine for embedders with threads of their own: a pull-style adapter in the shape of
// WireGuard's Bind (open, receive a batch, send a batch, close). It costs a copy and a queue each
// way; an embedder that can work in a Handler on the shards' threads does without both.
#ifndef RINGSOCK_CORE_BIND_H_
#define RINGSOCK_CORE_BIND_H_

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/endpoint.h"
#include "base/key.h"
#include "core/engine.h"
#include "core/packet_ring.h"

namespace ringsock {

namespace internal {
class EngineImpl;
struct PeerState;
}  // namespace internal

// Where a packet came from or goes to: a peer and the address it used (from Bind::Receive), a peer
// alone (from CreateEndpoint), or an address alone (from ParseEndpoint, or an unknown source). A
// plain value, good for as long as the Bind has the peer, however often that is closed and opened.
struct BindEndpoint {
  PeerId peer = PeerId::kNone;
  Endpoint address;

  std::string ToString() const;
};

// A buffer of the caller, and what was received into it.
struct BindPacket {
  std::byte* data = nullptr;
  uint32_t capacity = 0;
  // Out:
  uint32_t size = 0;       // of the packet, also if it did not fit
  bool too_large = false;  // larger than `capacity`: nothing was written (spec: RECV-6)
  BindEndpoint from;
};

struct BindOptions {
  EngineOptions engine;
  NetworkObserver* observer = nullptr;  // may be null; outlives the Bind
  // Received packets that may wait for Receive(): at least so many trains per shard and source, of
  // PacketRing::kBytesPerRecord on average. What finds no room is counted as Drop::kRxQueueFull.
  // At most 65536.
  uint32_t queue_packets = 1024;
};

// Safe from every thread. Receive() of one source serves one thread at a time; others wait. May be
// opened again after Close(), as WireGuard does when its port changes: the peers, and the paths to
// them, stay.
class Bind {
 public:
  // What Receive() takes from. Each has queues of its own, so none starves another (spec: RECV-5).
  enum class Source : uint8_t { kV4, kV6, kRelay, kCount };

  explicit Bind(const BindOptions& options);
  ~Bind();
  Bind(const Bind&) = delete;
  Bind& operator=(const Bind&) = delete;

  // Starts the engine on `port` (0: the kernel chooses) and returns the port. FailedPrecondition if
  // it is open; else as Engine::Start(). What was not received before it was closed is gone.
  absl::StatusOr<uint16_t> Open(uint16_t port);

  // Waits for packets and returns how many of `packets`, in order, were filled: at least 1 (0 only
  // if there are no buffers). Cancelled once the bind is closed.
  absl::StatusOr<size_t> Receive(Source source, std::span<BindPacket> packets);

  // Queues the packets, in order. Packets of one peer, or for one address, leave in the order they
  // were sent in. All are tried; returns the first error. Never waits for the network.
  absl::Status Send(std::span<const std::span<const std::byte>> packets, const BindEndpoint& to);

  // "ip:port" to an endpoint for that address alone.
  static absl::StatusOr<BindEndpoint> ParseEndpoint(absl::string_view text);
  // A peer and its addresses (spec: PEER-1), as Engine::CreateEndpoint().
  absl::StatusOr<BindEndpoint> CreateEndpoint(const PublicKey& key, absl::string_view endpoints);
  // WireGuard authenticated a packet of `peer` that came as `from` (spec: PATH-1 to PATH-5). For
  // every packet.
  void ConfirmPath(PeerId peer, const BindEndpoint& from);

  // Makes every Receive() that waits, and all later ones, return Cancelled, and stops the engine.
  // The first call does the work, later ones return at once (spec: RECV-7). A Receive() that began
  // before is Cancelled even if the bind is open again by the time it looks.
  void Close();

  // The engine's, and what was dropped here, since the last Open().
  CounterSnapshot Counters() const;
  // For status and peer updates; null before the first Open(), and another one after each. Once
  // UpdatePeers() has returned, no packet of a removed peer is received, also of those that waited.
  std::shared_ptr<Engine> engine() const;
  // Calls of Receive() that wait at this moment.
  size_t waiting() const { return waiting_.load(std::memory_order_acquire); }

 private:
  static constexpr size_t kSources = static_cast<size_t>(Source::kCount);
  // Threads that can send at the same time. A peer always uses the same one, for the order.
  static constexpr uint32_t kSenders = 8;

  class Receiver;
  struct Queue;
  struct LockedSender {
    std::mutex mutex;
    std::unique_ptr<Sender> sender;
  };

  size_t Take(Queue& queue, std::span<BindPacket> packets);
  absl::Status StartEngine(const EngineOptions& options);
  // Odd while open; 0 before the first Open().
  uint64_t Session() const { return session_.load(std::memory_order_acquire); }
  static bool IsOpen(uint64_t session) { return session % 2 == 1; }
  static absl::Status WhyNotOpen(uint64_t session);

  BindOptions options_;
  std::shared_ptr<internal::PeerState> peers_;  // passes from engine to engine
  std::array<std::unique_ptr<Queue>, kSources> queues_;
  std::unique_ptr<Receiver> receiver_;
  std::mutex open_mutex_;            // held by Open() and Close()
  mutable std::mutex engine_mutex_;  // guards the next, and lanes against Counters()
  std::shared_ptr<internal::EngineImpl> engine_;
  std::array<LockedSender, kSenders> senders_;  // after engine_: they go first
  std::atomic<uint64_t> session_{0};
  std::atomic<size_t> waiting_{0};
};

}  // namespace ringsock

#endif  // RINGSOCK_CORE_BIND_H_
