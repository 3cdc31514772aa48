// The control thread: the one writer of the peer tables, owner of timers, and the place where all
// that is not a direct WireGuard packet is done (logs, STUN, relays).
// It has a loop of its own and two-way rings to every shard.
#ifndef RINGSOCK_CORE_CONTROL_H_
#define RINGSOCK_CORE_CONTROL_H_

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/log.h"
#include "base/timer_queue.h"
#include "core/control_part.h"
#include "core/engine.h"
#include "core/path_learner.h"
#include "core/peer_table.h"
#include "core/quiescence.h"
#include "core/shard_link.h"
#include "io/loop.h"

namespace ringsock {

class Control {
 public:
  // Gets STUN packets with the number of the shard they came to. On the control thread.
  using StunHandler = std::function<void(uint32_t shard, const StunPacket& packet)>;
  struct NewPeer {
    PublicKey key;
    std::vector<Endpoint> endpoints;
  };
  // What many peers are asked for is done in groups of so many, about 0.2 ms each, between which
  // control does what else there is: relays have timers and packets that wait.
  static constexpr size_t kPeersAtOnce = 256;

  // `loop` is control's own, `shard_loops` are only woken; all outlive this, and `links` (one for
  // each shard) too.
  Control(io::Loop* loop, PeerTable* peers, Quiescence* quiescence, PathReports* path_reports,
          std::vector<io::Loop*> shard_loops, std::vector<ShardLink*> links);
  ~Control();

  // Starts the thread. Without it, whoever calls Step() is the control thread. ResourceExhausted if
  // the system has no thread left.
  absl::Status StartThread();
  // Runs what was asked for and ends the thread. From then on Execute() runs nothing.
  void Stop();

  // Any thread: runs `task` on the control thread and returns when it has run; on the control
  // thread itself at once. False if control has stopped and it will not. A task must not wait,
  // least of all for a shard, which may be waiting here. It may run while an observer is called.
  bool Execute(const std::function<void()>& task);
  // Whether this is the control thread's own thread.
  bool OnThread() const;

  // Control thread: runs what is queued and due; if that is nothing, waits for more until
  // `deadline`.
  void Step(Instant deadline);
  // When Step() has something to do of itself.
  Instant NextDeadline() const;

  // Any thread but a shard's. Spec: PEER-1, PEER-2, PEER-4. FailedPrecondition after Stop().
  absl::StatusOr<PeerId> CreateEndpoint(const PublicKey& key, std::span<const Endpoint> endpoints);
  // Creates all of them and adds their ids to `ids`, or those before the first that is refused.
  absl::Status CreateEndpoints(std::span<const NewPeer> peers, std::vector<PeerId>* ids);
  absl::Status RemovePeers(std::span<const PublicKey> keys);
  absl::Status UpdatePeers(std::span<const PublicKey> keys);
  // A shard's thread too. Adds what is to be known of each peer (spec: PEER-4). False if control
  // has stopped meanwhile.
  bool AddPeers(std::vector<PeerStatus>* out);

  // The rest is for the control thread.
  // Also for another one after Stop(), if nobody writes to the table then.
  void AddPeersNow(std::vector<PeerStatus>* out) const;
  TimerQueue& timers() { return timers_; }
  Instant now() const { return loop_.clock().Now(); }
  // Null: nobody wants STUN, and shards count it as dropped (spec: RECV-1).
  void SetStunHandler(StunHandler handler);
  // Runs `part` in every turn from now on, and tells it of peers. It outlives this.
  void AddPart(ControlPart* part) { parts_.push_back(part); }
  // Queues one datagram for the shard's socket. False if its ring is full.
  bool SendTo(uint32_t shard, const Endpoint& to, std::span<const std::byte> datagram);
  // Runs `command` on the shard's thread between two batches. False if its ring is full.
  bool RunOnShard(uint32_t shard, ShardCommand command);

 private:
  struct Task {
    const std::function<void()>* run;
    bool done = false;
  };

  void ThreadMain();
  void RunTasks();
  void RunReports();
  bool RunParts();
  absl::StatusOr<PeerId> Create(const PublicKey& key, std::span<const Endpoint> endpoints);
  // The last removal of peers, for WaitForShards().
  uint64_t NoteRemoved(size_t removed);
  void TellPeerChange(const Peer* before, const Peer* now);
  void LogPath(const PathReport& report);
  void WaitForShards(uint64_t epoch);

  io::Loop& loop_;
  PeerTable& peers_;
  Quiescence& quiescence_;
  PathReports& path_reports_;
  const std::vector<io::Loop*> shard_loops_;
  const std::vector<ShardLink*> links_;
  TimerQueue timers_;
  StunHandler stun_handler_;
  std::vector<ControlPart*> parts_;
  uint64_t removal_epoch_ = 0;  // of the last removal of peers; control thread's
  RateLimit failure_log_{std::chrono::minutes(1)};     // spec: SEND-5
  RateLimit lower_path_log_{std::chrono::seconds(1)};  // spec: PATH-5

  std::thread thread_;
  mutable std::mutex mutex_;
  std::condition_variable done_;
  std::deque<Task*> tasks_;  // guarded by mutex_
  bool threaded_ = false;    // guarded by mutex_
  bool stopping_ = false;    // guarded by mutex_
};

}  // namespace ringsock

#endif  // RINGSOCK_CORE_CONTROL_H_
