// Rebinds: has every shard put new sockets in the place of its old ones, at an order or because a
// socket is dead, and says what was lost (spec: EP-8). Part of the control thread.
//
//   Request ──RunOnShard──▶ EngineShard::Rebind on every shard ──outcomes──▶ Run() ──▶ `rebound`
#ifndef RINGSOCK_CORE_REBINDER_H_
#define RINGSOCK_CORE_REBINDER_H_

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "base/clock.h"
#include "core/control.h"
#include "core/control_part.h"
#include "core/shard_link.h"

namespace ringsock {

// How often send errors may cause a rebind. Sockets that die again and again, or that cannot be
// replaced, do not cause them for ever at the full rate: the interval doubles each time, up to
// kMostDoublings times, and is the shortest again after a time without such errors.
class RebindThrottle {
 public:
  static constexpr int kMostDoublings = 6;

  explicit RebindThrottle(Duration shortest) : shortest_(shortest), interval_(shortest) {}
  // When the next one may begin.
  Instant next() const { return next_; }
  void Rebound(Instant now) {
    const bool quiet = next_ == Instant::min() || now - next_ > kQuietIntervals * interval_;
    interval_ = quiet ? shortest_ : std::min(interval_ * 2, shortest_ * (1 << kMostDoublings));
    next_ = now + interval_;
  }
  // The network is another one.
  void Reset() { *this = RebindThrottle(shortest_); }

 private:
  static constexpr int kQuietIntervals = 4;

  Duration shortest_;
  Duration interval_;
  Instant next_ = Instant::min();
};

// What came of a rebind.
struct RebindResult {
  std::string reason;
  absl::Status status;           // the first failure of any shard; its old socket is still there
  bool replaced = false;         // any socket
  uint16_t port = 0;             // from now on
  uint64_t lost = 0;             // packets in the old sockets
  bool exact = true;             // false: at least so many
  std::string ToString() const;  // for the log
};

// For the control thread.
class Rebinder final : public ControlPart {
 public:
  struct Environment {
    Control* control = nullptr;
    std::vector<ShardLink*> links;  // of the shards
    uint16_t port = 0;              // that they have
    bool fixed_port = false;        // another one would not do
    bool one_by_one = false;  // one shard at a time: which one has which place in the group counts
    Duration min_interval{};  // of rebinds for send errors
    std::function<void(const RebindResult&)> rebound = nullptr;  // after each
  };
  using Done = std::function<void(const absl::Status&)>;

  explicit Rebinder(Environment environment);
  ~Rebinder() override;

  // Rebinds now, or after the rebind that is under way. `done`, if given, is called at its end.
  void Request(absl::string_view reason, Done done = nullptr);
  // The network is another one: what was tried in vain counts no more.
  void OnLinkChange() { throttle_.Reset(); }
  // Ends what waits, with an error. Nothing happens any more.
  void Close();

  bool Run() override;
  Instant NextDeadline() const override;

  uint64_t rebinds() const { return rebinds_; }
  const std::string& last() const { return last_; }  // RebindResult::ToString() of the last

 private:
  struct Round;
  // Which shards are asked for which port.
  enum class Step { kSamePort, kFirstOnNewPort, kOthersOnNewPort };

  void Start();
  void StartRound(Step step, uint16_t port, size_t first, size_t end);
  void SendCommands();
  void EndRound();
  void Finish();
  // Of any shard; null: all are well.
  const SocketHealth* DeadSocket() const;
  void CheckSockets(Instant now);

  const Environment env_;
  uint16_t port_;
  RebindThrottle throttle_;
  bool closed_ = false;
  bool wanted_ = false;
  std::string reason_;         // of the one wanted
  std::vector<Done> waiting_;  // for the one wanted
  std::shared_ptr<Round> round_;
  Step step_ = Step::kSamePort;
  int tries_ = 0;  // of new ports
  RebindResult result_;
  std::vector<Done> running_;  // for the one under way
  uint64_t rebinds_ = 0;
  std::string last_;
};

}  // namespace ringsock

#endif  // RINGSOCK_CORE_REBINDER_H_
