// ringsock-netcheck: what kind of network this host is in. See --help and docs/netcheck.md.
#include <sodium.h>

#include <atomic>
#include <csignal>
#include <cstdio>
#include <span>
#include <string>

#include "base/log.h"
#include "netcheck/app.h"
#include "netcheck/options.h"

namespace {

std::atomic<bool> stop{false};

void OnSignal(int) { stop.store(true); }

int Fail(const absl::Status& why) {
  std::fprintf(stderr, "ringsock-netcheck: %s\n", std::string(why.message()).c_str());
  return static_cast<int>(ringsock::netcheck::Outcome::kFailed);
}

}  // namespace

int main(int argc, char** argv) {
  using ringsock::netcheck::App;
  using ringsock::netcheck::Outcome;
  if (sodium_init() < 0) return static_cast<int>(Outcome::kFailed);
  const auto options = ringsock::netcheck::ParseOptions(std::span<char* const>(argv, argv + argc));
  if (!options.ok()) {
    const int status = Fail(options.status());
    std::fputs("ringsock-netcheck --help tells the flags.\n", stderr);
    return status;
  }
  if (options->help) {
    std::fputs(ringsock::netcheck::Usage().c_str(), stdout);
    return static_cast<int>(Outcome::kWell);
  }
  // What matters is in the report.
  ringsock::Log().set_level(options->verbose ? spdlog::level::info : spdlog::level::err);
  for (const std::string& warning : options->warnings) {
    std::fprintf(stderr, "ringsock-netcheck: relay map: %s\n", warning.c_str());
  }
  struct sigaction action = {};
  action.sa_handler = OnSignal;
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
  action.sa_handler = SIG_IGN;
  sigaction(SIGPIPE, &action, nullptr);

  App app(*options, &stop);
  if (const absl::Status opened = app.Open(); !opened.ok()) return Fail(opened);
  return static_cast<int>(app.Run(stdout));
}
