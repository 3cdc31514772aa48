// The load of a relay: one thread that plays all its clients. Senders send SendPacket frames to
// their receivers, receivers count what comes.
//
// Flat out, a sender always has bytes for TCP to take. Paced, the packets that are due in each tick
// (a millisecond) leave in one go, on an open-loop schedule: what TCP does not take waits up to a
// bound, as in a client's write queue, and is then held back for good and counted. So every packet
// that was offered was delivered, or held back, or lost in between.
#ifndef RINGSOCK_BENCH_RELAY_RELAY_LOAD_H_
#define RINGSOCK_BENCH_RELAY_RELAY_LOAD_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/clock.h"
#include "bench/relay/frame_burst.h"
#include "bench/relay/link.h"
#include "bench/relay/stream_counter.h"
#include "bench/statistics.h"

namespace ringsock::bench {

struct RelayTraffic {
  uint32_t senders = 1;
  uint32_t receivers = 1;      // a multiple of senders; sender i has the i-th part of them
  uint32_t size = 1400;        // bytes of a packet, kMinSize to kMaxRelayPacket
  double rate = 0;             // packets a second over all senders; 0: flat out
  bool one_in_flight = false;  // the next packet leaves when the one before has come
  Duration tick = std::chrono::milliseconds(1);
  // One more receiver, to which every sender sends as to one of its own.
  enum class Extra : uint8_t { kNone, kReads, kStalls };
  Extra extra = Extra::kNone;
};

struct RelayLoadConfig {
  RelayTraffic traffic;
  LinkTarget target;
  bool derp = true;    // false: baseline/tls_forwarder.h
  uint32_t check = 8;  // StreamCounterConfig
  uint64_t run = 0;
};

// Since the start. Packets are whole.
struct RelayLoadTotals {
  uint64_t offered = 0;     // were due, or left
  uint64_t held_back = 0;   // were due, and never written: TCP did not take more
  uint64_t late = 0;        // were due, and not offered: this thread had no time left
  uint64_t sent = 0;        // written
  uint64_t sent_extra = 0;  // of them, to the extra receiver
  // By receivers, the extra one aside.
  StreamTotals received;
  uint64_t received_extra = 0;
  uint64_t closed = 0;   // connections that the other side ended
  uint64_t busy_ns = 0;  // of this thread: turns in which there was something to do
};

class RelayLoad {
 public:
  // Connects and logs in all clients, one after the other.
  static absl::StatusOr<std::unique_ptr<RelayLoad>> Create(const RelayLoadConfig& config);
  ~RelayLoad();

  // Sends and receives for so long on the calling thread. May be called again and again; the
  // schedule begins with the first call. Latencies are noted if `record`.
  void RunFor(Duration duration, bool record);
  // Sends no more; receives what is still under way until nothing comes for a while.
  void Drain();

  RelayLoadTotals Totals() const;
  const Histogram& latency() const { return latency_; }

 private:
  struct Client;

  explicit RelayLoad(const RelayLoadConfig& config);
  absl::Status Open();
  absl::Status OpenReceivers();
  absl::Status OpenSender(uint32_t index);
  absl::StatusOr<std::unique_ptr<Client>> OpenClient(uint32_t index, int receive_buffer);
  absl::Status Greet(Client& client, uint32_t first, uint32_t destinations);
  absl::Status Watch(Client& client);
  void WantWritable(Client& client, bool on);
  bool Turn(Instant now, bool sending);
  bool SendSome(Instant now);
  bool Pace(Client& sender, Instant now);
  bool FlatOut(Client& sender, Instant now);
  void Queue(Client& sender, uint32_t packets, int64_t due);
  void Write(Client& sender);
  bool ReceiveSome();
  void ReceiveFrom(Client& client);
  void OnClosed(Client& client);
  uint64_t Delivered() const;

  const RelayLoadConfig config_;
  const uint32_t fan_out_;       // destinations of a sender
  const uint32_t most_packets_;  // in one write
  int epoll_ = -1;
  std::vector<std::unique_ptr<Client>> receivers_;  // the extra one last
  std::vector<std::unique_ptr<Client>> senders_;
  std::vector<std::byte> buffer_;
  Histogram latency_;
  bool recording_ = false;
  bool started_ = false;
  Instant start_;
  size_t next_sender_ = 0;
  RelayLoadTotals totals_;
};

}  // namespace ringsock::bench

#endif  // RINGSOCK_BENCH_RELAY_RELAY_LOAD_H_
