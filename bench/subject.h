// A measured side: a process of its own, so that its CPU time is its own, pinned to its cores, in
// its network namespace. It runs one of the hand-written loops or the engine.
#ifndef RINGSOCK_BENCH_SUBJECT_H_
#define RINGSOCK_BENCH_SUBJECT_H_

#include <sys/types.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/endpoint.h"
#include "base/key.h"
#include "bench/options.h"
#include "bench/topology.h"

namespace ringsock::bench {

// An engine's part in traffic over a relay.
struct RelayPart {
  uint32_t percent = 0;  // Traffic::relayed
  PrivateKey key;        // its own
  PublicKey other;       // of the engine on the other side of the relay
  uint16_t port = 0;     // of the relay, on 127.0.0.1
  std::string pin;       // of the relay's certificate
};

struct SubjectConfig {
  SubjectSpec spec;
  Traffic traffic;
  std::vector<Endpoint> peers;  // by number
  uint32_t idle_peers = 0;      // more of them, which nothing comes from; only of the engine
  IpAddress address;            // to bind
  std::vector<int> cores;       // one thread on each
  io::LoopOptions engine;
  int socket_buffer = io::kDefaultSocketBuffer;
  std::shared_ptr<const RelayPart> relay = nullptr;  // null: nothing is relayed
};

// What a subject says of itself when it has stopped. In memory shared with its parent.
struct SubjectTotals {
  static constexpr size_t kMaxReasons = 32;
  struct Reason {
    std::array<char, 32> name{};
    uint64_t packets = 0;
  };
  uint64_t received = 0;
  uint64_t sent = 0;
  std::array<Reason, kMaxReasons> reasons{};  // losses; up to the first without a name
  std::array<char, 256> note{};               // such as the backend in use

  void AddReason(const char* name, uint64_t packets);  // nothing if it is 0 packets
};

// Between parent and child.
struct SubjectShared {
  std::atomic<uint16_t> port{0};
  std::array<char, 512> error{};
  alignas(64) std::atomic<uint64_t> received{0};  // while it runs; receive mode's feedback
  SubjectTotals totals;
};

// Runs inside the child: starts, writes shared->port, calls ready(), runs until wait() returns,
// stops and writes shared->totals.
struct SubjectHooks {
  void (*ready)(void* context);
  void (*wait)(void* context);
  void* context;
};
absl::Status RunBaselineSubject(const SubjectConfig& config, SubjectShared* shared,
                                const SubjectHooks& hooks);
absl::Status RunEngineSubject(const SubjectConfig& config, SubjectShared* shared,
                              const SubjectHooks& hooks);
using SubjectMain = absl::Status (*)(const SubjectConfig& config, SubjectShared* shared,
                                     const SubjectHooks& hooks);
// Which of the two runs `kind`.
SubjectMain MainOf(SubjectKind kind);

class SubjectProcess {
 public:
  // Forks; the caller must be the only thread of its process. Returns when the subject is ready.
  // `main`: null is the one of the config's kind.
  static absl::StatusOr<std::unique_ptr<SubjectProcess>> Start(const SubjectConfig& config,
                                                               const Namespace& ns,
                                                               SubjectMain main = nullptr);
  ~SubjectProcess();  // kills it if it was not stopped

  pid_t pid() const { return pid_; }
  // What it said of itself before it was ready.
  std::string note() const { return shared_->totals.note.data(); }
  uint16_t port() const { return shared_->port.load(); }
  const std::atomic<uint64_t>* received() const { return &shared_->received; }
  // Ends it and takes its account. An error if it crashed or hung.
  absl::StatusOr<SubjectTotals> Stop();

 private:
  SubjectProcess() = default;
  [[noreturn]] void Child(const SubjectConfig& config, const Namespace& ns, SubjectMain main);

  SubjectShared* shared_ = nullptr;
  pid_t pid_ = -1;
  int ready_pipe_[2] = {-1, -1};  // the child writes a byte
  int stop_pipe_[2] = {-1, -1};   // the parent closes its end
};

}  // namespace ringsock::bench

#endif  // RINGSOCK_BENCH_SUBJECT_H_
