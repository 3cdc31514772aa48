// ringsock-cat's work: packets out from lines or a generator, packets in to the printer.
#ifndef RINGSOCK_CAT_CAT_H_
#define RINGSOCK_CAT_CAT_H_

#include <atomic>
#include <map>
#include <memory>
#include <shared_mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "absl/status/status.h"
#include "cat/events.h"
#include "cat/options.h"
#include "core/engine.h"

namespace ringsock::cat {

// How a run ended; the values are the program's exit statuses.
enum class Outcome : int { kDone = 0, kFailed = 1, kUsage = 2, kTimeUp = 3 };

// An eventfd that any thread (or signal handler) raises once and poll() sees.
class StopSignal {
 public:
  StopSignal();
  ~StopSignal();
  StopSignal(const StopSignal&) = delete;
  StopSignal& operator=(const StopSignal&) = delete;
  void Raise();  // async-signal-safe
  bool Raised() const { return raised_.load(std::memory_order_acquire); }
  int fd() const { return fd_; }

 private:
  int fd_;
  std::atomic<bool> raised_{false};
};

class Cat final : public Handler, private NetworkObserver {
 public:
  // `options`, `events` and `stop` outlive this.
  Cat(const Options& options, Events* events, StopSignal* stop);

  // Runs to the end of input, a count, the time limit, or `stop`. Reads lines from `input_fd`.
  Outcome Run(int input_fd);

  // Handler, on the shard's thread.
  void OnReceive(Shard& shard, std::span<const ReceivedTrain> trains) override;

 private:
  // NetworkObserver, on the control thread.
  void OnEndpoints(std::span<const OwnEndpoint> endpoints) override {
    events_->Endpoints(endpoints);
  }
  void OnNetInfo(const NetInfo& info) override { events_->Network(info); }

  struct Target {
    PublicKey key;
    PeerId id;
  };

  absl::Status Start();
  absl::Status StartRelays(const PrivateKey& key);
  // Prints what has become of relay connections since it last looked, which is now and then.
  void LookAtRelays(Instant now);
  void ReceiveOne(const ReceivedTrain& train, std::span<const std::byte> packet);
  // These return when their input is used up or stop() is true.
  void SendLines(int input_fd);
  void SendGenerated();
  void SendToTargets(std::span<const std::byte> packet);
  SendResult SendUntilTaken(PeerId peer, const PacketTrain& packet);
  // Waits until `until`, for `fd` (or nothing, -1) to be readable, or for a reason to stop. True if
  // `fd` is readable.
  bool WaitFor(int fd, Instant until);
  bool Stopped() const { return stop_->Raised() || SystemClock().Now() >= deadline_; }
  Outcome Finish();

  const Options& options_;
  Events* const events_;
  StopSignal* const stop_;
  Instant deadline_ = Instant::max();

  // Read by shards while Start() still adds peers.
  mutable std::shared_mutex names_mutex_;
  std::unordered_map<uint64_t, PublicKey> names_;

  std::unique_ptr<Engine> engine_;
  std::unique_ptr<Sender> sender_;
  std::vector<Target> targets_;
  // Of each relay as last printed.
  struct Seen {
    bool up = false;
    std::string error;
  };
  std::map<RegionId, Seen> relays_;
  Instant next_look_ = Instant::max();  // never without relays
  uint64_t sent_ = 0;
  uint64_t not_sent_ = 0;
  std::atomic<uint64_t> received_{0};
  std::atomic<uint64_t> received_bytes_{0};
};

}  // namespace ringsock::cat

#endif  // RINGSOCK_CAT_CAT_H_
