// Finds for which of very many peers a handshake message of WireGuard is, on a thread of its own:
// trying all keys takes 0.4 ms per 1,000 peers, too long for a thread that moves packets.
#ifndef RINGSOCK_GATEWAY_PEER_FINDER_H_
#define RINGSOCK_GATEWAY_PEER_FINDER_H_

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <thread>
#include <vector>

#include "base/spsc_ring.h"
#include "core/engine.h"
#include "core/quiescence.h"
#include "gateway/counters.h"
#include "gateway/path_addresses.h"
#include "gateway/wireguard_message.h"

namespace ringsock::gateway {

class GatewayTables;

// Teaches the tables that `message`, which WireGuard sent to `address`, is for `owner`: the session
// index, and whose the address is where the message proves it. Any thread.
void LearnOwner(GatewayTables* tables, PathAddress* address, PeerIndex owner,
                std::span<const std::byte> message);

class PeerFinder {
 public:
  // With no more peers than this a shard looks itself: 0.1 ms.
  static constexpr size_t kFewPeers = 256;

  // Starts the thread. `tables` must outlive it and have a view; `reader` is of them, `sender` of
  // the engine.
  PeerFinder(GatewayTables* tables, uint32_t shards, Quiescence::Reader reader,
             std::unique_ptr<Sender> sender);
  ~PeerFinder();
  PeerFinder(const PeerFinder&) = delete;
  PeerFinder& operator=(const PeerFinder&) = delete;

  // On the thread of shard `shard`: looks for whom `message` is and teaches the tables; if
  // `deliver`, also sends it to that peer. Copies the message. False when too many wait.
  bool Find(uint32_t shard, const PathAddress& address, std::span<const std::byte> message,
            bool deliver);
  // Ends the thread; what still waits is dropped.
  void Stop();

  GatewaySnapshot Counters() const { return counters_.Snapshot(); }

 private:
  // Messages that wait, per shard. WireGuard repeats a handshake after 5 s.
  static constexpr size_t kWaiting = 64;
  struct Request {
    PathAddress address;
    bool deliver = false;
    uint32_t size = 0;
    std::array<std::byte, kInitiationSize> message;
  };

  void Run();
  void Handle(const Request& request);

  GatewayTables& tables_;
  Quiescence::Reader reader_;
  const std::unique_ptr<Sender> sender_;
  std::vector<std::unique_ptr<SpscRing<Request>>> rings_;
  GatewayCounters counters_;  // this thread's
  std::atomic<uint32_t> pushed_{0};
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

}  // namespace ringsock::gateway

#endif  // RINGSOCK_GATEWAY_PEER_FINDER_H_
