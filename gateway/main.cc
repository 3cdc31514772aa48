// ringsock-gateway: runs beside a WireGuard implementation and carries its packets over the best
// path to each peer. See docs/gateway.md.
#include <getopt.h>
#include <poll.h>
#include <pthread.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/log.h"
#include "gateway/config.h"
#include "gateway/endpoints_publisher.h"
#include "gateway/gateway.h"
#include "gateway/reloader.h"
#include "io/fd.h"

namespace ringsock::gateway {
namespace {

constexpr int kExitStart = 1;   // could not start: a port in use, no permission, no memory
constexpr int kExitConfig = 2;  // bad command line or configuration

constexpr char kUsage[] =
    "usage: ringsock-gateway --config FILE [--check]\n"
    "  --config FILE  the configuration, JSON (docs/gateway.md describes it)\n"
    "  --check        check it, print the `wg set` lines, and stop\n"
    "SIGINT and SIGTERM stop it, SIGUSR1 logs status and counters, SIGHUP reads the\n"
    "configuration again, which also happens when its files change.\n";

struct CommandLine {
  std::string config;
  bool check = false;
};

// False on a bad command line, which has been explained.
bool ParseCommandLine(int argc, char** argv, CommandLine* out, bool* help) {
  static const option kOptions[] = {{"config", required_argument, nullptr, 'c'},
                                    {"check", no_argument, nullptr, 'n'},
                                    {"help", no_argument, nullptr, 'h'},
                                    {nullptr, 0, nullptr, 0}};
  int choice = 0;
  while ((choice = getopt_long(argc, argv, "", kOptions, nullptr)) != -1) {
    if (choice == 'c') out->config = optarg;
    if (choice == 'n') out->check = true;
    if (choice == 'h') *help = true;
    if (choice == '?') return false;
  }
  if (*help) return true;
  if (optind < argc) std::fprintf(stderr, "unexpected argument \"%s\"\n", argv[optind]);
  if (out->config.empty()) std::fprintf(stderr, "--config FILE is missing\n");
  return optind == argc && !out->config.empty();
}

int Check(const Config& config) {
  for (const std::string& warning : config.warnings) {
    std::fprintf(stderr, "warning: %s\n", warning.c_str());
  }
  const auto addresses = PathAddresses::Create(config.range, config.peers);
  if (!addresses.ok()) {
    std::fprintf(stderr, "%s\n", std::string(addresses.status().message()).c_str());
    return kExitStart;
  }
  for (const std::string& line : WgSetLines(config, PeerRoster(config.peers), **addresses)) {
    std::puts(line.c_str());
  }
  return 0;
}

void LogStatus(const Gateway& gateway) {
  for (const std::string& line : gateway.Status()) Log().info("status: {}", line);
  Log().flush();
}

void PrintLines(const std::vector<std::string>& lines) {
  for (const std::string& line : lines) std::puts(line.c_str());
  std::fflush(stdout);
}

void SetLogLevel(const Config& config) {
  Log().set_level(spdlog::level::from_str(config.log_level == "error" ? "err" : config.log_level));
}

PublishOptions PublishOptionsOf(const Config& config) {
  PublishOptions options;
  options.file = config.endpoints_file;
  options.command = config.endpoints_command;
  return options;
}

// Hands on what the engine finds out about us.
class Publisher final : public NetworkObserver {
 public:
  explicit Publisher(EndpointsPublisher* to) : to_(to) {}
  void OnEndpoints(std::span<const OwnEndpoint> endpoints) override {
    to_->SetEndpoints(endpoints);
  }
  void OnNetInfo(const NetInfo& info) override { to_->SetNetInfo(info); }

 private:
  EndpointsPublisher* const to_;
};

absl::Status Reload(const Config& config, Gateway* gateway, EndpointsPublisher* publisher) {
  const absl::StatusOr<Gateway::ReloadResult> result = gateway->Reload(config);
  if (!result.ok()) return result.status();
  SetLogLevel(config);
  publisher->SetKey(config.wireguard_key);
  publisher->SetOptions(PublishOptionsOf(config));
  PrintLines(result->wg_set);
  for (const std::string& line : result->changes) Log().info("reload: changed {}", line);
  for (const std::string& line : result->refused) Log().error("reload: {}", line);
  if (result->changes.empty()) Log().info("reload: nothing has changed");
  return absl::OkStatus();
}

// A descriptor from which the signals are read, which are blocked in this thread and all that are
// started from now on.
io::Fd BlockSignals() {
  sigset_t signals;
  sigemptyset(&signals);
  for (const int signal : {SIGINT, SIGTERM, SIGUSR1, SIGHUP}) sigaddset(&signals, signal);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  return io::Fd(signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK));
}

// The next signal that came; 0 for none.
int NextSignal(int fd) {
  signalfd_siginfo info;
  return read(fd, &info, sizeof(info)) == sizeof(info) ? static_cast<int>(info.ssi_signo) : 0;
}

// Returns the signal that asks to stop.
int Serve(int signals, Gateway* gateway, Reloader* reloader, EndpointsPublisher* publisher) {
  const Clock& clock = SystemClock();
  while (true) {
    gateway->Watch();
    publisher->SetHome(gateway->home());
    const Instant now = clock.Now();
    const Duration wait =
        std::clamp<Duration>(reloader->NextDeadline() - now, Duration(0), Gateway::kWatchInterval);
    pollfd fds[] = {{signals, POLLIN, 0}, {reloader->fd(), POLLIN, 0}};
    // A millisecond more, so that the deadline has passed when it returns.
    poll(fds, std::size(fds),
         static_cast<int>(std::chrono::duration_cast<std::chrono::milliseconds>(wait).count()) + 1);
    while (const int signal = NextSignal(signals)) {
      if (signal == SIGUSR1) LogStatus(*gateway);
      if (signal == SIGHUP) reloader->Reload("SIGHUP", clock.Now());
      if (signal == SIGINT || signal == SIGTERM) return signal;
    }
    if (fds[1].revents != 0) reloader->OnReadable(clock.Now());
    reloader->Advance(clock.Now());
  }
}

int Run(const std::string& file, const Config& config) {
  const io::Fd signals = BlockSignals();
  if (!signals.valid()) {
    Log().error("cannot start: signalfd: {}", std::strerror(errno));
    return kExitStart;
  }
  for (const std::string& warning : config.warnings) Log().warn("{}", warning);
  EndpointsPublisher publisher;
  publisher.SetKey(config.wireguard_key);
  publisher.SetOptions(PublishOptionsOf(config));
  Publisher observer(&publisher);
  // Before the start, which may take its time: what changes meanwhile is read afterwards.
  Gateway* running = nullptr;
  Reloader reloader(
      file, config,
      [&running, &publisher](const Config& next) { return Reload(next, running, &publisher); },
      SystemClock().Now());
  const auto started = Gateway::Start(config, &observer);
  if (!started.ok()) {
    Log().error("cannot start: {}", Fmt(started.status().message()));
    return kExitStart;
  }
  Gateway& gateway = **started;
  running = &gateway;
  PrintLines(gateway.WgSetLines());
  Log().info("gateway: peers on port {}, WireGuard {}:{}, local port {}, addresses {}",
             gateway.port(), config.wireguard_address.ToString(), config.wireguard_port,
             config.local_port, config.range.ToString());
  Log().flush();
  const int signal = Serve(signals.get(), &gateway, &reloader, &publisher);
  Log().info("gateway: stopping on {}", signal == SIGINT ? "SIGINT" : "SIGTERM");
  LogStatus(gateway);  // relays and peers are gone once it has stopped
  gateway.Stop();
  return 0;
}

int Main(int argc, char** argv) {
  // Whoever reads our output may go; packets do not depend on it.
  std::signal(SIGPIPE, SIG_IGN);
  CommandLine command;
  bool help = false;
  if (!ParseCommandLine(argc, argv, &command, &help)) {
    std::fputs(kUsage, stderr);
    return kExitConfig;
  }
  if (help) {
    std::fputs(kUsage, stdout);
    return 0;
  }
  const absl::StatusOr<Config> config = LoadConfig(command.config);
  if (!config.ok()) {
    std::fprintf(stderr, "%s\n", std::string(config.status().message()).c_str());
    return kExitConfig;
  }
  SetLogLevel(*config);
  return command.check ? Check(*config) : Run(command.config, *config);
}

}  // namespace
}  // namespace ringsock::gateway

int main(int argc, char** argv) { return ringsock::gateway::Main(argc, argv); }
