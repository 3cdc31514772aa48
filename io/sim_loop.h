// The I/O seam on a simulated network: sockets, trains, and the faults a test asks for.
#ifndef RINGSOCK_IO_SIM_LOOP_H_
#define RINGSOCK_IO_SIM_LOOP_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/clock.h"
#include "base/endpoint.h"
#include "io/loop.h"
#include "io/sim_streams.h"
#include "io/sim_types.h"
#include "io/train.h"

namespace ringsock::io {

class SimNetwork;

// How datagrams that wait in a socket become trains. Never across senders or unequal sizes.
enum class GroMode {
  kAsSent,  // what was sent as one train arrives as one, as far as it was not lost or overtaken
  kMerge,   // as long as possible, also what was sent apart
  kSplit,   // one datagram each
  kRandom,  // each seam of kMerge is cut with probability 1/2
};

// What goes wrong at one socket. May be changed at any time between two calls of its loop.
struct SocketFaults {
  struct Send {
    int error = 0;             // positive errno
    uint32_t count = 1;        // hand-overs to the kernel (a train or a datagram) that fail with it
    bool trains_only = false;  // single datagrams pass: the train is refused because it is one
  };
  std::deque<Send> sends = {};    // used up from the front
  uint32_t starved_polls = 0;     // so many Poll() find no buffer to receive into
  uint32_t truncated_trains = 0;  // so many received trains are larger than the buffer: dropped
  GroMode gro = GroMode::kAsSent;
};

// A socket as host and loop know it.
struct SimSocket {
  HostId host{};
  UdpHandler* handler = nullptr;
  UdpConfig config;
  Endpoint local;
  bool open = true;
  GsoMemory gso{true};
  std::deque<Datagram> queue;
  size_t queued_bytes = 0;
  UdpStats stats;
  SocketFaults faults;
};

// Made by SimNetwork::CreateLoop, which outlives it. Every call but Wake() belongs to the thread
// that drives the network. Bytes shown to a handler are overwritten once they are no longer its
// own, so that a view kept too long is noticed.
class SimLoop final : public Loop {
 public:
  SimLoop(SimNetwork* network, HostId host, const LoopOptions& options);
  ~SimLoop() override;

  const char* name() const override { return "simulated"; }
  const Clock& clock() const override;
  absl::StatusOr<SocketId> OpenUdp(const UdpConfig& config, UdpHandler* handler) override;
  void CloseUdp(SocketId socket) override;
  absl::StatusOr<Reopened> ReopenUdp(SocketId socket, uint16_t port) override;
  Endpoint LocalEndpoint(SocketId id) const override {
    const SimSocket* socket = Find(id);
    return socket == nullptr ? Endpoint{} : socket->local;
  }
  UdpStats Stats(SocketId id) const override {
    const SimSocket* socket = Find(id);
    return socket == nullptr ? UdpStats{} : socket->stats;
  }
  void Send(SocketId socket, const TxTrain& train) override;
  void Flush() override;
  TxSlab* AcquireSlab() override;
  void ReleaseSlab(TxSlab* slab) override;
  StreamLoop* streams() override { return &streams_; }
  size_t Poll(Instant deadline) override;
  void Wake() override { woken_.store(true, std::memory_order_release); }

  SocketFaults& faults(SocketId socket) { return sockets_[socket]->faults; }
  // While on, sent slabs stay with the kernel, as after zero-copy sends on a slow device.
  void HoldSlabs(bool hold);
  // Whether a Poll() would find something to do now.
  bool HasWork() const;
  HostId host() const { return host_; }

 private:
  struct Slab {
    TxSlab view;
    std::unique_ptr<std::byte[]> memory;
  };
  struct Queued {
    SocketId socket;
    TxTrain train;
  };

  // Null if it was never opened, or is closed.
  SimSocket* Find(SocketId id) const {
    SimSocket* socket = id < sockets_.size() ? sockets_[id].get() : nullptr;
    return socket != nullptr && socket->open ? socket : nullptr;
  }
  void SendTrain(SocketId id, SimSocket* socket, TxTrain train);
  void SendPart(SocketId id, SimSocket* socket, const TxTrain& part);
  int HandOver(SimSocket* socket, const TxTrain& part);
  size_t Receive(SocketId id, SimSocket* socket);
  bool TakeTrain(SimSocket* socket, size_t* available, std::byte* buffer, RxTrain* train);
  bool Joins(const SimSocket& socket, const Datagram& first, const Datagram& next);

  SimNetwork* const network_;
  const HostId host_;
  const LoopOptions options_;
  std::vector<std::unique_ptr<SimSocket>> sockets_;  // by SocketId
  std::vector<Queued> tx_;
  std::vector<std::unique_ptr<Slab>> slabs_;
  std::vector<TxSlab*> free_slabs_;
  std::vector<TxSlab*> held_slabs_;
  bool hold_slabs_ = false;
  std::vector<std::unique_ptr<std::byte[]>> rx_buffers_;
  std::atomic<bool> woken_{false};
  SimStreams streams_;
};

}  // namespace ringsock::io

#endif  // RINGSOCK_IO_SIM_LOOP_H_
