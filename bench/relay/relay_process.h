// What is measured: a relay, or the forwarder that is the floor for one, as a process of its own,
// pinned to its cores.
#ifndef RINGSOCK_BENCH_RELAY_RELAY_PROCESS_H_
#define RINGSOCK_BENCH_RELAY_RELAY_PROCESS_H_

#include <sys/types.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/endpoint.h"
#include "bench/relay/link.h"
#include "io/fd.h"

namespace ringsock::bench {

struct RelaySubjectSpec {
  enum class Kind : uint8_t {
    kFloor,    // baseline/tls_forwarder.h
    kCommand,  // a program that is started
    kRunning,  // one that runs already, wherever
  };
  Kind kind = Kind::kFloor;
  std::string name;
  // kCommand: words split at blanks. {port}, {metrics} become free TCP ports, {dir} a fresh
  // directory that goes with the process.
  std::string command;
  // kRunning: where; else only tls, host and pin count.
  LinkTarget target;
  pid_t pid = 0;                    // kRunning: for its CPU time and memory; 0: not measured
  std::optional<Endpoint> metrics;  // Prometheus text at /metrics; kCommand: from {metrics}

  bool is_floor() const { return kind == Kind::kFloor; }
};

class RelayProcess {
 public:
  // Returns when it listens. The caller must be the only thread of its process. `cores` are those
  // it may use; empty: any.
  static absl::StatusOr<std::unique_ptr<RelayProcess>> Start(const RelaySubjectSpec& spec,
                                                             const std::vector<int>& cores);
  // Ends what Start() started.
  ~RelayProcess();

  pid_t pid() const { return pid_; }
  const LinkTarget& target() const { return target_; }
  const std::optional<Endpoint>& metrics() const { return metrics_; }
  bool is_floor() const { return floor_; }
  // An error, with the end of what it printed, if it is no longer there.
  absl::Status CheckAlive();

 private:
  RelayProcess() = default;
  absl::Status StartFloor(const std::vector<int>& cores);
  absl::Status StartCommand(const std::string& command, const std::vector<int>& cores);
  absl::Status WaitUntilItListens(const Endpoint& at);
  std::string EndOfOutput() const;

  pid_t pid_ = 0;
  bool ours_ = false;
  bool floor_ = false;
  LinkTarget target_;
  std::optional<Endpoint> metrics_;
  io::Fd stop_;            // the floor ends when this is closed
  std::string directory_;  // of kCommand
};

}  // namespace ringsock::bench

#endif  // RINGSOCK_BENCH_RELAY_RELAY_PROCESS_H_
