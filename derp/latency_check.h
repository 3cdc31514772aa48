// How far a relay is when UDP is blocked: the time its `GET /derp/latency-check` takes, from the
// request sent to the first byte of the answer, over TLS as relays are talked to (spec:
// stun-netcheck.md, NC-9). Names, TCP and TLS come before and do not count.
#ifndef RINGSOCK_DERP_LATENCY_CHECK_H_
#define RINGSOCK_DERP_LATENCY_CHECK_H_

#include <cstddef>
#include <deque>
#include <functional>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/clock.h"
#include "derp/node_dialer.h"
#include "derp/relay_map.h"
#include "derp/tls.h"

namespace ringsock::derp {

struct LatencyCheckOptions {
  Duration timeout = std::chrono::seconds(5);  // of a check, waiting for others included
  // Connections at one time, some 100 KiB each while TLS begins; more checks wait for one to end.
  size_t max_running = 32;
  size_t max_waiting = 1024;
  bool plain_http_for_tests = false;  // no TLS
};

// Checks of many relays at once. Not thread safe. Destroying it ends them all without a word.
class LatencyChecks {
 public:
  // The latency, or why there is none: what failed and where. Called from a timer or the loop's
  // turn, never from inside Start(); may call everything here, and may destroy this.
  using Done = std::function<void(absl::StatusOr<Duration>)>;

  // All outlive it; `tls` may be null only for plain HTTP.
  LatencyChecks(const DialContext& context, TlsClientContext* tls,
                const LatencyCheckOptions& options);
  ~LatencyChecks();
  LatencyChecks(const LatencyChecks&) = delete;
  LatencyChecks& operator=(const LatencyChecks&) = delete;

  // `done` is called once. ResourceExhausted, and it is not called: max_waiting are waiting.
  absl::Status Start(const RelayNode& node, Done done);
  // No `done` is called any more for what was started so far.
  void CancelAll();
  size_t running() const { return running_.size(); }
  size_t waiting() const { return waiting_.size(); }

 private:
  class Check;

  void StartWaiting();
  std::unique_ptr<Check> Take(Check* check);
  void Finish(Check* check, absl::StatusOr<Duration> result);

  const DialContext context_;
  TlsClientContext* const tls_;
  const LatencyCheckOptions options_;
  std::vector<std::unique_ptr<Check>> running_;
  std::deque<std::unique_ptr<Check>> waiting_;
};

}  // namespace ringsock::derp

#endif  // RINGSOCK_DERP_LATENCY_CHECK_H_
