// ringsock-relay: a relay server (DERP). See --help and docs/relay.md.
#include <pthread.h>
#include <sodium.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <ctime>
#include <memory>
#include <span>
#include <string>

#include "base/clock.h"
#include "base/log.h"
#include "relay/app.h"
#include "relay/config.h"

namespace ringsock::relay {
namespace {

constexpr int kExitStart = 1;   // could not start: a port in use, a bad file, no permission
constexpr int kExitConfig = 2;  // bad command line or configuration
// How often to look for what comes with time, such as a certificate about to expire.
constexpr Duration kLookAgain = std::chrono::hours(24);

sigset_t Signals() {
  sigset_t signals;
  sigemptyset(&signals);
  for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGUSR1}) sigaddset(&signals, signal);
  return signals;
}

int CannotStart(const absl::Status& why) {
  Log().error("cannot start: {}", Fmt(why.message()));
  return kExitStart;
}

// Until a signal says stop; which one.
int Serve(App* app, const sigset_t& signals) {
  const Clock& clock = SystemClock();
  Instant look_again = clock.Now() + kLookAgain;
  for (;;) {
    const auto left = std::chrono::ceil<std::chrono::seconds>(look_again - clock.Now());
    const timespec patience{std::max<time_t>(left.count(), 0), 0};
    const int signal = sigtimedwait(&signals, nullptr, &patience);
    if (signal == SIGINT || signal == SIGTERM) return signal;
    if (signal == SIGHUP) app->Reload();
    if (signal == SIGUSR1) app->LogStatus();
    if (clock.Now() < look_again) continue;
    app->LogWarnings();
    look_again += kLookAgain;
  }
}

int Run(const Config& config) {
  // Blocked here, so in every thread that is started: they only ever arrive at sigtimedwait().
  const sigset_t signals = Signals();
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  std::signal(SIGPIPE, SIG_IGN);

  Log().info("options: {}", config.ToString());
  absl::StatusOr<std::unique_ptr<App>> app = App::Prepare(config);
  if (!app.ok()) return CannotStart(app.status());
  if (config.check) {
    std::puts((*app)->MapJson().c_str());
    return 0;
  }
  if (const absl::Status started = (*app)->Start(); !started.ok()) return CannotStart(started);
  for (const std::string& line : (*app)->Banner()) Log().info("relay: {}", line);
  std::puts((*app)->MapJson().c_str());
  std::fflush(stdout);
  Log().info("relay: serving; the line of JSON on standard output is its relay map");
  Log().flush();
  const int signal = Serve(app->get(), signals);
  Log().info("relay: stopping on {}", signal == SIGINT ? "SIGINT" : "SIGTERM");
  Log().flush();
  (*app)->Stop();
  return 0;
}

int Main(int argc, char** argv) {
  if (sodium_init() < 0) return kExitStart;
  const absl::StatusOr<Config> config =
      ParseConfig(std::span<char* const>(argv, static_cast<size_t>(argc)));
  if (!config.ok()) {
    std::fprintf(stderr, "ringsock-relay: %s\nringsock-relay --help tells the flags.\n",
                 std::string(config.status().message()).c_str());
    return kExitConfig;
  }
  if (config->help) {
    std::fputs(Usage().c_str(), stdout);
    return 0;
  }
  Log().set_level(
      spdlog::level::from_str(config->log_level == "error" ? "err" : config->log_level));
  return Run(*config);
}

}  // namespace
}  // namespace ringsock::relay

int main(int argc, char** argv) { return ringsock::relay::Main(argc, argv); }
