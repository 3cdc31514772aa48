// The peers of a lockstep benchmark, on the thread of what is measured: they send a burst, wait for
// nothing, and take what has come back when they are told to.
#ifndef RINGSOCK_BENCH_LOCKSTEP_LOAD_H_
#define RINGSOCK_BENCH_LOCKSTEP_LOAD_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/endpoint.h"
#include "base/random.h"
#include "bench/lockstep/flood.h"
#include "bench/options.h"

namespace ringsock::bench {

struct LockstepLoadConfig {
  Traffic traffic;
  uint32_t burst = 32;         // trains; Mode::kSend: trains that come back
  uint32_t first_address = 0;  // of the first peer, host order
  int socket_buffer = io::kDefaultSocketBuffer;
  // Packets of a flood in each burst that SendBurst() is asked to put strangers in.
  FloodKind flood = FloodKind::kNone;
  uint32_t strangers = 0;
  // Whether a peer may be at this address; null: anywhere.
  std::function<bool(const Endpoint&)> wanted = nullptr;
};

class LockstepLoad {
 public:
  // Opens the sockets in the calling thread's network namespace.
  static absl::StatusOr<std::unique_ptr<LockstepLoad>> Create(const LockstepLoadConfig& config);
  ~LockstepLoad();

  // By number.
  const std::vector<Endpoint>& peers() const { return peers_; }

  struct Burst {
    uint64_t packets = 0;  // that the measured side has to send, or, Mode::kReceive, to take
    uint64_t bytes = 0;    // that have to come back
    uint64_t strangers = 0;
  };
  // Sends the next burst. Strangers' packets lie between the trains; the last packet is a peer's.
  absl::StatusOr<Burst> SendBurst(const Endpoint& target, bool with_strangers);
  // Takes all that has come, and returns how many bytes it was.
  uint64_t Drain();

 private:
  struct Train {
    uint32_t peer;
    uint32_t packets;
    uint32_t size;  // of each
  };

  explicit LockstepLoad(const LockstepLoadConfig& config);
  absl::Status Open();
  Train NextTrain();
  bool SendTrain(const Train& train, const Endpoint& target);
  bool SendStranger(const Endpoint& target);

  const LockstepLoadConfig config_;
  std::vector<int> sockets_;
  std::vector<Endpoint> peers_;
  std::vector<int> stranger_sockets_;
  std::vector<std::string> stranger_packets_;
  std::vector<std::byte> payload_;
  SeededRandom random_{1};
  uint64_t trains_ = 0;
  uint64_t strangers_ = 0;
};

}  // namespace ringsock::bench

#endif  // RINGSOCK_BENCH_LOCKSTEP_LOAD_H_
