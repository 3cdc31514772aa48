// A shard: one thread, one loop, one socket per family. Each packet runs to completion on it: from
// the socket through the tables to the handler, and what the handler sends goes out at the end of
// the batch. Reading order of the data path: OnReceive, ReceiveTrain, Send, Route. What relays
// brought joins it in RunQueues.
#ifndef RINGSOCK_CORE_SHARD_H_
#define RINGSOCK_CORE_SHARD_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/log.h"
#include "core/counters.h"
#include "core/engine.h"
#include "core/path_learner.h"
#include "core/peer_table.h"
#include "core/quiescence.h"
#include "core/relay_queue.h"
#include "core/sender.h"
#include "core/shard_link.h"
#include "core/shard_loop.h"
#include "core/train_builder.h"
#include "io/loop.h"

namespace ringsock {

// What a shard works with. All of it outlives the shard.
struct ShardEnvironment {
  uint32_t index = 0;
  io::Loop* loop = nullptr;
  Handler* handler = nullptr;
  PeerTable* peers = nullptr;
  SenderQueues* senders = nullptr;
  ShardLink* link = nullptr;
  io::Loop* control_loop = nullptr;  // to wake
  RelayQueue* relay = nullptr;       // null or closed: packets for relays are counted drops
  bool gso = true;                   // LoopOptions::gso: whether trains are worth building
};

// What became of a shard's sockets when it was told to rebind.
struct RebindOutcome {
  absl::Status status;    // the first failure; that socket is still the old one
  bool replaced = false;  // any of them
  uint16_t port = 0;
  uint64_t lost = 0;  // packets; Reopened::lost
  bool exact = true;  // Reopened::exact
};

class EngineShard final : public Shard, private io::UdpHandler, private BatchScope {
 public:
  EngineShard(const ShardEnvironment& environment, Quiescence::Reader reader);

  // Before the thread starts: opens the socket of the family of `config.bind`.
  absl::StatusOr<Endpoint> OpenSocket(const io::UdpConfig& config);
  void CloseSocket(bool v6);
  void CloseSockets();
  // Where the socket of a family is bound, if there is one. Before the thread starts, and from
  // control while no Rebind() is under way.
  std::optional<Endpoint> BoundTo(bool v6) const;

  // The shard's thread: Start() once, Step() again and again, Stop() once.
  absl::Status Start();
  // Runs what is queued and what has arrived; if that is nothing, waits for more until `deadline`
  // (on a simulated loop: does not wait). Returns how many trains it handled.
  size_t Step(Instant deadline);
  // The last Step() left something that waits for the next one.
  bool has_more() const { return has_more_; }
  // Closes all sockets, after telling the handler if its OnShardStart() was well.
  void Stop(bool tell_handler);

  // Shard's thread, from a ShardCommand: new sockets in the place of the old ones, on `port`; 0:
  // one that the kernel chooses (spec: EP-8). What the old ones had received is delivered
  // meanwhile.
  RebindOutcome Rebind(uint16_t port);
  // Likewise: control is woken before the shard next sleeps.
  void TellControl() { wake_control_ = true; }

  // Any thread.
  CounterSnapshot Counters() const { return counters_.Snapshot(); }

  // Shard, for the handler on this thread.
  uint32_t index() const override { return env_.index; }
  Instant now() const override { return now_; }
  io::Loop& loop() override { return embedder_loop_; }
  SendResult Send(PeerId peer, const PacketTrain& packets) override;
  SendResult SendTo(const Endpoint& to, const PacketTrain& packets) override;
  void ConfirmPath(PeerId peer, const Endpoint& from) override;

 private:
  // Trains shown to the handler in one call; a batch with more pieces is shown in several.
  static constexpr size_t kMaxViews = 64;
  // Source addresses looked up together.
  static constexpr size_t kLookups = 32;
  // Trains taken from each Sender between two looks at the sockets.
  static constexpr size_t kSenderBudget = 64;
  // Of what relays brought, taken between two looks at the sockets (spec: RECV-5).
  static constexpr size_t kRelayTrains = 256;
  static constexpr size_t kRelayBytes = 256 << 10;

  // A socket and how much of its statistics has been counted.
  struct Socket {
    io::SocketId id;
    bool bound = false;  // to one address
    uint64_t truncated = 0;
    uint64_t kernel_drops = 0;
    uint64_t zero_copy = 0;
    uint64_t zero_copy_copied = 0;
  };

  void OnReceive(io::SocketId socket, std::span<const io::RxTrain> trains) override;
  void OnSendFailure(io::SocketId socket, const io::SendFailure& failure) override;
  void BeginBatch() override;
  void EndBatch() override;

  // `owner`: the peer at its source address, or kNone.
  void ReceiveTrain(const io::RxTrain& train, PeerId owner);
  void AddView(PeerId peer, const Endpoint& from, PathKind path, const PacketTrain& packets);
  void DeliverViews();
  void TakeStun(const io::RxTrain& train, const PacketTrain& packet);

  SendResult SendToPeer(Peer& peer, const PacketTrain& packets);
  SendResult Spray(Peer& peer, const PacketTrain& packet);
  SendResult Route(const Peer* peer, const Endpoint& to, const PacketTrain& packets);
  SendResult Fail(Drop drop, const PacketTrain& packets, SendResult result);

  bool RunQueues();
  void ReceiveRelayed(PacketRing* ring);
  void WakeControl();
  void CountSocketDrops();

  ShardEnvironment env_;
  io::Loop& loop_;
  Quiescence::Reader reader_;
  ShardLoop embedder_loop_;
  TrainBuilder builder_;
  PathLearner learner_;
  ShardCounters counters_;
  std::optional<Socket> v4_;
  std::optional<Socket> v6_;
  Instant now_;
  Instant counted_;  // when the sockets' own counters were last looked at
  std::array<ReceivedTrain, kMaxViews> views_;
  size_t view_count_ = 0;
  Destinations destinations_;
  bool wake_control_ = false;
  bool relay_unflushed_ = false;
  bool uncounted_ = false;  // there have been turns since
  bool has_more_ = false;
  bool stopping_ = false;
  RateLimit failure_log_{std::chrono::minutes(1)};  // spec: SEND-5
};

}  // namespace ringsock

#endif  // RINGSOCK_CORE_SHARD_H_
