// The loops one would write by hand, to be beaten. Each is a plain file: it finds the peer of a
// source address, sends the packets on, and does nothing else. No change of a peer's address, no
// rules for paths, no reasons for a loss: whatever the engine does beyond moving packets, they are
// faster by.
#ifndef RINGSOCK_BENCH_BASELINE_BASELINE_H_
#define RINGSOCK_BENCH_BASELINE_BASELINE_H_

#include <netinet/in.h>

#include <atomic>
#include <cstdint>
#include <latch>
#include <memory>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"

namespace ringsock::bench {

// Where packets of a source go. IPv4 only.
class RouteTable {
 public:
  void Add(const sockaddr_in& from, const sockaddr_in& to) { routes_[Key(from)] = to; }
  // Null for an unknown source.
  const sockaddr_in* Find(const sockaddr_in& from) const {
    const auto found = routes_.find(Key(from));
    return found == routes_.end() ? nullptr : &found->second;
  }

 private:
  static uint64_t Key(const sockaddr_in& address) {
    return uint64_t{address.sin_addr.s_addr} << 16 | address.sin_port;
  }
  absl::flat_hash_map<uint64_t, sockaddr_in> routes_;
};

// What a loop sends when it is asked to: the same train to one peer after the other.
struct Source {
  std::vector<sockaddr_in> targets;
  size_t next = 0;
  uint32_t trains_per_request = 0;
  uint32_t train = 0;    // packets
  uint32_t segment = 0;  // bytes of each
  std::vector<char> bytes;

  sockaddr_in* Next() {
    sockaddr_in* target = &targets[next];
    if (++next == targets.size()) next = 0;
    return target;
  }
};

// Packets of one loop.
struct alignas(64) BaselineTotals {
  uint64_t received = 0;
  uint64_t sent = 0;
  uint64_t unknown = 0;  // source not in the table
  uint64_t failed = 0;   // the kernel refused to send
};

struct Baseline {
  int fd = -1;  // bound and blocking, with a receive timeout, so that `stop` is seen
  const RouteTable* routes = nullptr;
  bool receive_only = false;
  Source* source = nullptr;  // send only: each received packet is a request; null: no
  uint32_t batch = 1;
  bool spin = false;  // ask again and again instead of sleeping
  const std::atomic<bool>* stop = nullptr;
  std::atomic<uint64_t>* feedback = nullptr;  // of receive_only: packets taken, for the load
  BaselineTotals* totals = nullptr;
  std::latch* ready = nullptr;  // counted down when the loop has been set up

  void Ready() const { ready->count_down(); }
  void Received(uint64_t packets) const {
    totals->received += packets;
    if (receive_only) feedback->fetch_add(packets, std::memory_order_relaxed);
  }
};

// A loop that can be run a turn at a time.
class BareLoop {
 public:
  virtual ~BareLoop() = default;
  virtual absl::Status Open() = 0;  // once, first
  // Takes what has arrived, a batch of it, and sends it on; waits if there is nothing.
  virtual void Turn() = 0;
};
// `baseline` outlives them.
std::unique_ptr<BareLoop> NewRecvmmsgGro(const Baseline& baseline);
std::unique_ptr<BareLoop> NewUring(const Baseline& baseline);

// Run until stopped; an error is one of setting up, before Ready() was called.
absl::Status RunRecvfrom(const Baseline& baseline);     // recvfrom -> sendto
absl::Status RunRecvmmsg(const Baseline& baseline);     // recvmmsg -> sendmmsg
absl::Status RunRecvmmsgGro(const Baseline& baseline);  // ... with UDP_GRO -> UDP_SEGMENT
absl::Status RunUring(const Baseline& baseline);        // io_uring multishot, GRO -> GSO

}  // namespace ringsock::bench

#endif  // RINGSOCK_BENCH_BASELINE_BASELINE_H_
