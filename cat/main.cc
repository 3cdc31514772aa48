// ringsock-cat: netcat over the engine. See --help.
#include <signal.h>
#include <sodium.h>
#include <unistd.h>

#include <cstdio>
#include <span>

#include "cat/cat.h"
#include "cat/events.h"
#include "cat/options.h"

namespace {

ringsock::cat::StopSignal* stop_on_signal = nullptr;

void OnSignal(int) { stop_on_signal->Raise(); }

}  // namespace

int main(int argc, char** argv) {
  using ringsock::cat::Outcome;
  if (sodium_init() < 0) return static_cast<int>(Outcome::kFailed);
  const auto options = ringsock::cat::ParseOptions(std::span<char* const>(argv, argv + argc));
  if (!options.ok()) {
    std::fprintf(stderr, "ringsock-cat: %s\nringsock-cat --help tells the flags.\n",
                 std::string(options.status().message()).c_str());
    return static_cast<int>(Outcome::kUsage);
  }
  if (options->help) {
    std::fputs(ringsock::cat::Usage().c_str(), stdout);
    return static_cast<int>(Outcome::kDone);
  }
  ringsock::cat::StopSignal stop;
  stop_on_signal = &stop;
  struct sigaction action = {};
  action.sa_handler = OnSignal;
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
  // A reader that went away ends the output, not the program in the middle of a packet.
  action.sa_handler = SIG_IGN;
  sigaction(SIGPIPE, &action, nullptr);

  ringsock::cat::Events events(options->json, stdout, stderr);
  ringsock::cat::Cat cat(*options, &events, &stop);
  return static_cast<int>(cat.Run(STDIN_FILENO));
}
