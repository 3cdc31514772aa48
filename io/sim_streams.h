// Streams on the simulated network: a small TCP whose segments cross the same links and NAT boxes
// as datagrams. Loss is made good by retransmission, a rate limit or a partition holds bytes back,
// and a host that has forgotten a connection answers with a reset.
//
// As in a kernel: 256 KiB are buffered on each side, acknowledgements go out whether or not the
// loop is polled. Unlike one: no congestion control, no keep-alive probes, a connection is accepted
// when the listening loop is polled, and a loop that is destroyed sends nothing, as a crash.
#ifndef RINGSOCK_IO_SIM_STREAMS_H_
#define RINGSOCK_IO_SIM_STREAMS_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <span>
#include <utility>
#include <vector>

#include "io/loop.h"
#include "io/sim_types.h"
#include "io/stream_core.h"

namespace ringsock::io {

class SimNetwork;

// Bytes that are appended at one end and thrown away at the other, each moved at most once on
// average.
class SimBytes {
 public:
  size_t size() const { return bytes_.size() - begin_; }
  bool empty() const { return size() == 0; }
  std::span<const std::byte> At(size_t offset, size_t size) const {
    return {bytes_.data() + begin_ + offset, size};
  }
  void Append(std::span<const std::byte> bytes) {
    bytes_.insert(bytes_.end(), bytes.begin(), bytes.end());
  }
  void RemoveFront(size_t size) {
    begin_ += size;
    if (begin_ < bytes_.size() - begin_) return;
    bytes_.erase(bytes_.begin(), bytes_.begin() + static_cast<ptrdiff_t>(begin_));
    begin_ = 0;
  }

 private:
  std::vector<std::byte> bytes_;
  size_t begin_ = 0;
};

class SimStreams final : public StreamCore {
 public:
  SimStreams(SimNetwork* network, HostId host, const LoopOptions& options);
  ~SimStreams() override;

  // For the loop.
  size_t Deliver();
  bool HasSimWork() const;

  // For the network: the listener or stream a segment is for. False: not here.
  bool Owns(const Datagram& datagram) const;
  bool Listens(const Endpoint& local) const;
  void OnSegment(Datagram datagram);

 private:
  // Both ends as this host sees them.
  using Ends = std::pair<std::array<uint64_t, 3>, std::array<uint64_t, 3>>;

  struct SimStream final : Stream {
    explicit SimStream(SimStreams* owner) : owner(owner) {}
    ~SimStream() override { owner->Forget(*this); }

    uint64_t end() const { return acked + out.size(); }
    // How much more the simulated kernel takes.
    size_t room() const;
    bool all_acked() const { return out.empty() && (!fin || fin_acked); }

    SimStreams* const owner;
    bool registered = false;
    bool reuse_port = false;
    bool established = false;
    bool connected = false;  // to tell
    bool reset = false;      // to tell, after what came before it
    bool ready = false;      // in ready_
    bool orphan = false;     // released, still sending
    bool fin = false;        // our end, at end()
    bool fin_acked = false;
    bool fin_received = false;
    SimBytes out;  // from `acked` on
    uint64_t acked = 0;
    uint64_t next = 0;    // to be sent; end() + 1 when the FIN has been
    uint64_t window = 0;  // the highest position the other side takes
    uint32_t duplicates = 0;
    std::vector<std::byte> in;  // in order, not yet delivered
    uint64_t received = 0;
    Instant retransmit = Instant::max();
    Duration interval{};
    Instant waiting_since = Instant::max();  // for the oldest acknowledgement
  };
  struct Incoming {
    StreamId listener;
    Endpoint local;
    Endpoint remote;
    uint64_t window;
  };

  absl::StatusOr<std::unique_ptr<Stream>> OpenConnector(const ConnectConfig& config) override;
  absl::StatusOr<std::unique_ptr<Stream>> OpenListener(const ListenConfig& config) override;
  void StartConnect(Stream& stream) override;
  void StartAccepting(Stream& listener) override;
  void UpdateReceiving(Stream& stream) override;
  void Write(Stream& stream) override;
  void SendFin(Stream& stream) override;
  uint64_t Acked(const Stream& stream) const override {
    return static_cast<const SimStream&>(stream).acked;
  }
  void Release(Stream& stream, bool reset) override;
  void Refuse(Stream& unborn) override;
  void WakeAt(Instant when) override;

  static SimStream& Get(Stream& stream) { return static_cast<SimStream&>(stream); }
  static Ends KeyOf(const Endpoint& local, const Endpoint& remote) {
    return {local.Words(), remote.Words()};
  }
  const SimStream* FindListener(const Endpoint& to) const;
  void Register(SimStream& stream);
  void Forget(SimStream& stream);
  void MarkReady(SimStream& stream);
  void Transmit(const SimStream& stream, uint8_t flags, uint64_t from = 0, uint64_t size = 0);
  void Push(SimStream& stream);
  void SetRetransmit(SimStream& stream, Instant when);
  void OnRetransmit(SimStream& stream);
  void OnSyn(const Datagram& datagram);
  void OnAck(SimStream& stream, const SimSegment& segment, bool bare);
  void OnData(SimStream& stream, const Datagram& datagram);
  void OnReset(SimStream& stream);
  void FinishOrphan(SimStream& stream);
  void DeliverOne(SimStream& stream);
  void AcceptOne(const Incoming& incoming);
  uint16_t ChoosePort();

  SimNetwork* const network_;
  const HostId host_;
  std::map<Ends, SimStream*> connections_;
  std::vector<SimStream*> listeners_;
  std::vector<Incoming> incoming_;
  std::vector<SimStream*> ready_;
  std::set<std::pair<Instant, SimStream*>> retransmits_;
  Instant next_wake_ = Instant::max();
  uint16_t next_port_ = 32768;
};

}  // namespace ringsock::io

#endif  // RINGSOCK_IO_SIM_STREAMS_H_
