// ringsock-gateway: runs beside a WireGuard implementation and carries its packets over the best
// path to each peer. See docs/gateway.md.
#include <getopt.h>
#include <pthread.h>

#include <csignal>
#include <cstdio>
#include <string>

#include "base/log.h"
#include "gateway/config.h"
#include "gateway/gateway.h"

namespace ringsock::gateway {
namespace {

constexpr int kExitStart = 1;   // could not start: a port in use, no permission, no memory
constexpr int kExitConfig = 2;  // bad command line or configuration

constexpr char kUsage[] =
    "usage: ringsock-gateway --config FILE [--check]\n"
    "  --config FILE  the configuration, JSON (docs/gateway.md describes it)\n"
    "  --check        check it, print the `wg set` lines, and stop\n"
    "SIGINT and SIGTERM stop it, SIGUSR1 logs status and counters.\n";

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
  for (const std::string& line : WgSetLines(config, **addresses)) std::puts(line.c_str());
  return 0;
}

void LogStatus(const Gateway& gateway) {
  for (const std::string& line : gateway.Status()) Log().info("status: {}", line);
  Log().flush();
}

// Returns the signal that asks to stop.
int Serve(const sigset_t& signals, Gateway* gateway) {
  const timespec interval = {
      std::chrono::duration_cast<std::chrono::seconds>(Gateway::kWatchInterval).count(), 0};
  while (true) {
    const int signal = sigtimedwait(&signals, nullptr, &interval);
    if (signal == SIGUSR1) LogStatus(*gateway);
    if (signal == SIGINT || signal == SIGTERM) return signal;
    gateway->Watch();  // the time is up, or some other signal came
  }
}

int Run(const Config& config) {
  // Blocked here, so in every thread that is started: they only ever arrive at sigwait().
  sigset_t signals;
  sigemptyset(&signals);
  for (const int signal : {SIGINT, SIGTERM, SIGUSR1}) sigaddset(&signals, signal);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);

  for (const std::string& warning : config.warnings) Log().warn("{}", warning);
  const auto gateway = Gateway::Start(config);
  if (!gateway.ok()) {
    Log().error("cannot start: {}", Fmt(gateway.status().message()));
    return kExitStart;
  }
  for (const std::string& line : (*gateway)->WgSetLines()) std::puts(line.c_str());
  std::fflush(stdout);
  Log().info("gateway: peers on port {}, WireGuard {}:{}, local port {}, addresses {}",
             (*gateway)->port(), config.wireguard_address.ToString(), config.wireguard_port,
             config.local_port, config.range.ToString());
  Log().flush();
  const int signal = Serve(signals, gateway->get());
  Log().info("gateway: stopping on {}", signal == SIGINT ? "SIGINT" : "SIGTERM");
  (*gateway)->Stop();
  LogStatus(**gateway);
  return 0;
}

int Main(int argc, char** argv) {
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
  Log().set_level(
      spdlog::level::from_str(config->log_level == "error" ? "err" : config->log_level));
  return command.check ? Check(*config) : Run(*config);
}

}  // namespace
}  // namespace ringsock::gateway

int main(int argc, char** argv) { return ringsock::gateway::Main(argc, argv); }
