// What authenticated packets teach about the way to their peers: the path changes at once, on the
// thread that learned it, and those changes that are worth a line of the log go on to control.
#ifndef RINGSOCK_CORE_PATH_LEARNER_H_
#define RINGSOCK_CORE_PATH_LEARNER_H_

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <mutex>

#include "base/clock.h"
#include "base/endpoint.h"
#include "base/key.h"
#include "base/log.h"
#include "core/address_set.h"
#include "core/peer_table.h"
#include "io/loop.h"

namespace ringsock {

// A peer's path as ConfirmPath() changed it, for the log.
struct PathReport {
  PublicKey key;
  PathChange change = PathChange::kUnchanged;
  Endpoint from;
  Endpoint previous;
  uint64_t left_out = 0;  // roaming addresses that came and went unreported since the last report
};

// One for each thread that learns. Its calls are for that thread, as an online reader of the table.
class PathLearner {
 public:
  explicit PathLearner(PeerTable* peers) : peers_(*peers) {}

  // The peer, if a packet from `from` is news; null for nearly every packet (spec: PATH-2).
  Peer* News(PeerId id, const Endpoint& from) const {
    Peer* peer = peers_.FindById(id);
    return peer == nullptr || peer->addresses().IsCurrent(from) ? nullptr : peer;
  }
  // Learns it (spec: PATH-1 to PATH-5). True if *report is one for the log: what every packet of a
  // busy lower path says, and what a peer says that sends from two places, is told once a second.
  bool Learn(Peer* peer, const Endpoint& from, Instant now, PathReport* report);

 private:
  PeerTable& peers_;
  RateLimit lower_path_log_{std::chrono::seconds(1)};  // spec: PATH-5
  RateLimit roam_log_{std::chrono::seconds(1)};
  uint64_t roams_left_out_ = 0;
};

// Reports from threads that are not shards to control. Any thread; not for every packet.
class PathReports {
 public:
  // More than this wait for nobody: what is lost is a line of the log.
  static constexpr size_t kMaxWaiting = 64;

  // Wakes `control_loop`, which outlives this, when there is a report.
  explicit PathReports(io::Loop* control_loop) : control_loop_(*control_loop) {}
  void Push(const PathReport& report);
  // False if there is none.
  bool Pop(PathReport* report);

 private:
  io::Loop& control_loop_;
  std::mutex mutex_;
  std::deque<PathReport> waiting_;  // guarded by mutex_
};

}  // namespace ringsock

#endif  // RINGSOCK_CORE_PATH_LEARNER_H_
