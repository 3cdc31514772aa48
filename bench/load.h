// The load: one thread that plays many peers, each with its own address and one of a few ports (a
// socket each, among which the peers are dealt in turn). It sends their trains, each from the
// peer's own loopback (or local) address, takes what the measured side sends to those addresses,
// and checks every sequence number.
//
// It has to be cheaper than what it measures. So a train leaves as one UDP_SEGMENT send, returns as
// one GRO receive, and only one of `check` received trains is copied whole; of the others the
// kernel copies the first packet's header and says how long the train was.
#ifndef RINGSOCK_BENCH_LOAD_H_
#define RINGSOCK_BENCH_LOAD_H_

#include <netinet/in.h>
#include <sys/socket.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/clock.h"
#include "base/endpoint.h"
#include "bench/options.h"
#include "bench/pacer.h"
#include "bench/sequence_tracker.h"
#include "bench/statistics.h"

namespace ringsock::bench {

struct LoadConfig {
  Traffic traffic;             // rate: of this thread
  uint32_t first_peer = 0;     // this thread plays [first_peer, first_peer + peers), both even
  uint32_t peers = 0;          // when forwarding
  uint32_t first_address = 0;  // of peer 0, host order; peer n has this plus n
  uint32_t check = 8;
  uint64_t run = 0;  // WireHeader::run
  int socket_buffer = 0;
  int core = -1;  // -1: not pinned
};

struct LoadTotals {
  uint64_t sent = 0;      // packets the kernel took; Mode::kSend: that were asked for
  uint64_t not_sent = 0;  // packets due that the kernel refused (socket buffer full)
  uint64_t received = 0;  // packets, with duplicates
  uint64_t distinct = 0;
  uint64_t duplicates = 0;
  uint64_t reordered = 0;
  uint64_t misdelivered = 0;  // reached the wrong peer
  uint64_t invalid = 0;       // not of this run, or damaged
  int64_t latest_ns = 0;      // open loop: how late the latest train left

  LoadTotals& operator+=(const LoadTotals& other);
};

class LoadGenerator {
 public:
  // Opens the sockets in the calling thread's network namespace.
  static absl::StatusOr<std::unique_ptr<LoadGenerator>> Create(const LoadConfig& config);
  ~LoadGenerator();

  // UDP port of the thread's n-th peer.
  uint16_t port(uint32_t peer) const { return sockets_[peer % sockets_.size()].port; }
  // Flat out: trains under way at one time; 0 for no bound.
  uint32_t window() const {
    return config_.traffic.flood || config_.traffic.rate > 0
               ? 0
               : static_cast<uint32_t>(window_ / config_.traffic.train);
  }
  // Before Run().
  void SetTarget(const Endpoint& subject);
  // Receive mode: how many packets the measured side has taken, from shared memory.
  void SetFeedback(const std::atomic<uint64_t>* packets) { feedback_ = packets; }

  // The thread's main function: sends until StopSending(), receives until nothing more comes.
  void Run();

  // Any thread.
  void StopSending() { sending_.store(false, std::memory_order_relaxed); }
  uint64_t received() const { return received_.load(std::memory_order_relaxed); }
  // Latencies are recorded only while this is on.
  void RecordLatency(bool on) { recording_.store(on, std::memory_order_relaxed); }

  // After Run().
  LoadTotals Totals() const;
  const Histogram& latency() const { return latency_; }
  const absl::Status& status() const { return status_; }

 private:
  // Whose train comes next. Peers take turns in groups: each of a group sends one train, then each
  // its second one, and so on (Traffic::interleave).
  struct Turn {
    uint32_t group = 0;  // its first peer
    uint32_t step = 0;   // trains of the group's turn that have left
  };
  // A peer belongs to the socket whose index is the peer's modulo their number.
  struct Socket {
    int fd = -1;
    uint16_t port = 0;
    Turn turn;  // that sends next
  };
  struct Slots;  // message headers and buffers of one sendmmsg and one recvmmsg

  explicit LoadGenerator(const LoadConfig& config);
  absl::Status Open();
  uint32_t AutoWindow() const;
  uint64_t UnderWay() const;
  uint64_t PacketsPerSend() const;
  uint64_t Budget(Instant now);
  void SendTrains(uint32_t trains, Instant now);
  void SetShape(uint32_t slot, uint32_t size, uint32_t packets);
  void Mix(uint32_t slot);
  void FillTrain(uint32_t slot, uint32_t peer, Instant due);
  void PrepareReceive();
  uint32_t ReceiveTrains();
  uint32_t ReceiveFrom(int fd);
  uint32_t PeerOf(const Turn& turn) const;
  Turn After(Turn turn) const;
  bool asks() const { return config_.traffic.mode == Mode::kSend; }
  // What one train of ours brings back.
  uint64_t PacketsFor(uint32_t slot) const;
  void OnTrain(const mmsghdr& message, const std::byte* data, bool whole, int64_t now);
  void Drain();

  const LoadConfig config_;
  std::unique_ptr<Slots> slots_;
  std::vector<Socket> sockets_;
  size_t next_to_send_ = 0;
  size_t next_to_receive_ = 0;
  uint64_t window_ = 0;  // packets
  const std::atomic<uint64_t>* feedback_ = nullptr;
  std::unique_ptr<Pacer> pacer_;
  std::vector<uint64_t> next_counter_;  // by peer
  std::vector<SequenceTracker> trackers_;
  uint64_t random_ = 1;    // of Mix()
  uint64_t given_up_ = 0;  // packets no longer waited for
  uint64_t last_back_ = 0;
  Instant last_progress_;
  LoadTotals totals_;
  Histogram latency_;
  absl::Status status_;
  std::atomic<bool> sending_{true};
  std::atomic<bool> recording_{false};
  alignas(64) std::atomic<uint64_t> received_{0};
};

}  // namespace ringsock::bench

#endif  // RINGSOCK_BENCH_LOAD_H_
