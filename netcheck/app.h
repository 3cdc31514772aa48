// ringsock-netcheck's work: the real loop, names, trust and router around a Checker, and what is
// printed.
#ifndef RINGSOCK_NETCHECK_APP_H_
#define RINGSOCK_NETCHECK_APP_H_

#include <atomic>
#include <cstdio>
#include <memory>

#include "absl/status/status.h"
#include "base/timer_queue.h"
#include "core/port_mapper.h"
#include "derp/resolver.h"
#include "derp/tls.h"
#include "io/loop.h"
#include "netcheck/checker.h"
#include "netcheck/options.h"

namespace ringsock::netcheck {

// The values are the program's exit statuses.
enum class Outcome : int { kWell = 0, kTrouble = 1, kFailed = 2 };

// For one thread, but for `stop`.
class App {
 public:
  // `options` and `stop` outlive it. `stop` may be set by a signal handler.
  App(const Options& options, const std::atomic<bool>* stop) : options_(options), stop_(*stop) {}

  // Errors are one line with the cure.
  absl::Status Open();
  // Reports until there are no more to make, or `stop`; kTrouble if the last one found some.
  Outcome Run(std::FILE* out);

 private:
  // False: stopped.
  bool Check(RegionId home, Findings* findings);
  bool WaitUntil(Instant until);
  void FinishPortMapping(Findings* findings);

  const Options& options_;
  const std::atomic<bool>& stop_;
  TimerQueue timers_;
  std::unique_ptr<io::Loop> loop_;
  std::unique_ptr<derp::TlsClientContext> tls_;
  std::unique_ptr<derp::Resolver> resolver_;
  std::unique_ptr<Checker> checker_;
  std::unique_ptr<PortMapper> mapper_;
};

}  // namespace ringsock::netcheck

#endif  // RINGSOCK_NETCHECK_APP_H_
