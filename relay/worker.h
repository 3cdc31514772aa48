// One thread of the relay: its loop, its listeners, its connections, and its replica of the routes.
// A turn: the loop delivers what came, which fills queues; what other workers sent is taken; timers
// run; then every queue that got something is sealed and handed to its stream. Streams are written
// before they are read (io/loop.h), so that a worker with too much to do reads less, and TCP holds
// the senders back.
#ifndef RINGSOCK_RELAY_WORKER_H_
#define RINGSOCK_RELAY_WORKER_H_

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "base/timer_queue.h"
#include "derp/server_session.h"
#include "io/stream.h"
#include "relay/client.h"
#include "relay/connection.h"
#include "relay/counters.h"
#include "relay/frame_ring.h"
#include "relay/mailbox.h"
#include "relay/mesh_link.h"
#include "relay/options.h"
#include "relay/registry.h"
#include "relay/route.h"

namespace ringsock::relay {

// What the workers of a server share; outlives them.
struct WorkerShared {
  const Options* options = nullptr;
  Registry* registry = nullptr;
  Random* random = nullptr;
  derp::ServerSessionConfig session;
  std::vector<Worker*> workers;
};

// Made by any thread; from the first Turn() on for one thread, but for mailbox(), counters(),
// Wake() and queued_bytes().
class Worker final : private io::ListenHandler {
 public:
  Worker(WorkerShared* shared, uint32_t index, std::unique_ptr<io::Loop> loop);
  ~Worker() override;

  // Fills `endpoints` with where it listens.
  absl::Status Listen(const std::vector<ListenAddress>& addresses,
                      std::vector<Endpoint>* endpoints);
  // Rings to the other workers, once all are there.
  void OpenRings();
  // Waits for something to do, at most until `deadline`, and does it.
  void Turn(Instant deadline);
  // When Turn() has something to do even if nothing comes.
  Instant NextDeadline() const {
    return dirty_.empty() ? std::min(timers_.NextDeadline(), stop_deadline_) : now_;
  }
  // Turns until stopped.
  void Run();
  // Closes everything, and the loop: on its own thread.
  void End();

  // Dials the other servers of its region, with `key`.
  void OpenMesh(const std::vector<MeshPeer>& peers, const PrivateKey* key);
  // Asks clients to go and ends when they are gone, or at the deadline.
  void BeginStop(Instant deadline);
  bool stopping() const { return stopping_; }
  bool stopped() const { return stopped_; }
  // The allow-list has changed.
  void CloseDenied();
  void AppendStatus(size_t max, std::vector<ClientStatus>* out) const;

  Mailbox& mailbox() { return mailbox_; }
  const Counters& counters() const { return counters_; }
  // Until it has ended, which is after all have stopped.
  void Wake() {
    if (loop_ != nullptr) loop_->Wake();
  }
  uint64_t queued_bytes() const { return queued_bytes_.load(std::memory_order_relaxed); }

  // ---- For its connections ----
  io::StreamLoop* streams() const { return streams_; }
  TimerQueue* timers() { return &timers_; }
  FrameChunkPool* pool() { return &pool_; }
  Counters& counters() { return counters_; }
  Registry& registry() { return *shared_->registry; }
  Random* random() const { return shared_->random; }
  const Options& options() const { return *shared_->options; }
  const Limits& limits() const { return options().limits; }
  const QueueLimits& queue_limits_all() const { return options().queues; }
  const FrameQueue::Limits& queue_limits() const { return queue_limits_; }
  const derp::ServerSessionConfig& session_config() const { return shared_->session; }
  // As of this turn.
  Instant now() const { return now_; }
  // Bytes have come. What other workers told before they were sent is known from here on.
  Instant BeginReceive();
  void AddDirty(Connection* connection) { dirty_.push_back(connection); }
  // A connection that has closed; its memory goes at the end of the turn.
  void Bury(Connection* connection);

  // The way to a key; kNone if there is none. Changes with routes_version().
  const Route& FindRoute(const PublicKey& key) const;
  uint64_t routes_version() const { return routes_version_; }
  // Queues a frame of one part or two for a connection, here or of another worker. False: it is
  // gone.
  bool Deliver(const ConnectionRef& to, derp::Bytes first, derp::Bytes second, Instant now);
  // As Deliver(), as a ForwardPacket frame to a meshed server.
  bool Forward(const ConnectionRef& link, const PublicKey& source, const PublicKey& destination,
               derp::Bytes packet, Instant now);
  // Null: it has gone, or is a link to a meshed server.
  Client* FindClient(const ConnectionRef& ref) const;
  MeshLink* AddMeshLink(MeshDialer* dialer);
  // A packet of `source`, a client of a meshed server, has gone to a client here, who is told when
  // `source` goes.
  void NoteForwarded(const PublicKey& source, const ConnectionRef& to);
  // For one more peer that a client remembers. False: there are too many.
  bool TakePeer() {
    if (remembered_peers_ >= limits().max_peers_of_worker) return false;
    ++remembered_peers_;
    return true;
  }
  void ReleasePeers(size_t count) { remembered_peers_ -= count; }
  void AddWatcher(Client* client);
  void RemoveWatcher(Client* client) { std::erase(watchers_, client); }

 private:
  struct Slot {
    std::unique_ptr<Connection> connection;
    uint32_t generation = 1;
    Client* client = nullptr;  // the same, if it is one
  };
  struct Listener {
    io::StreamId id;
    bool tls;
  };

  io::StreamHandler* OnAccept(io::StreamId listener, io::StreamId stream,
                              const Endpoint& from) override;
  bool Admit();
  ConnectionRef NewRef();
  Connection* Find(const ConnectionRef& ref) const;
  void ReadMail();
  void OnNotice(const Notice& notice);
  void SetRoute(const PublicKey& key, const Route& route);
  void TellForwardedGone(const PublicKey& source);
  void DrainRings();
  void FlushDirty();
  void PublishRings();
  void CollectDead();
  void CheckStop();

  WorkerShared* const shared_;
  const uint32_t index_;
  const FrameQueue::Limits queue_limits_;
  Counters counters_;
  std::atomic<uint64_t> queued_bytes_{0};
  Mailbox mailbox_;
  FrameChunkPool pool_;
  TimerQueue timers_;
  std::unique_ptr<io::Loop> loop_;
  io::StreamLoop* const streams_;
  Instant now_;

  std::vector<Listener> listeners_;
  std::vector<Slot> slots_;
  std::vector<uint32_t> free_slots_;
  std::vector<Connection*> dirty_, flushing_;
  std::vector<std::unique_ptr<Connection>> dead_;
  std::vector<Client*> watchers_;
  std::vector<std::unique_ptr<MeshDialer>> dialers_;
  // Who got packets from clients of meshed servers; `forwarded_pairs_` in all.
  absl::flat_hash_map<PublicKey, std::vector<ConnectionRef>> forwarded_;
  size_t forwarded_pairs_ = 0;
  size_t remembered_peers_ = 0;  // by all clients

  absl::flat_hash_map<PublicKey, Route> routes_;
  uint64_t routes_version_ = 1;
  // By worker; those to and from itself are not there.
  std::vector<std::unique_ptr<FrameRing>> rings_in_;

  bool stopping_ = false;
  bool stopped_ = false;
  Instant stop_deadline_ = Instant::max();
};

}  // namespace ringsock::relay

#endif  // RINGSOCK_RELAY_WORKER_H_
