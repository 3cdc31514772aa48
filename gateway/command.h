// Runs a program of the operator's: without a shell, bounded in time and in output, and with all
// that it started gone at the end, as far as we may end it.
#ifndef RINGSOCK_GATEWAY_COMMAND_H_
#define RINGSOCK_GATEWAY_COMMAND_H_

#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "base/clock.h"

namespace ringsock::gateway {

struct CommandResult {
  bool ok = false;      // it exited with status 0 in time
  std::string problem;  // else: "exit status 3", "killed, as ...", "cannot be started: ..."
  std::string output;   // of both its outputs, the first kMaxCommandOutput bytes
};
inline constexpr size_t kMaxCommandOutput = 4096;
// Of programs that could not be killed so many may run; while they do, no other is started.
inline constexpr size_t kMaxCommandsLeftBehind = 8;

// Runs `argv` (looked up in PATH), with `input` on its standard input and `environment` added to
// ours, and waits for it: until it has exited, for at most `timeout`, or until `stop_fd` (if not
// -1) is readable. Its process group is killed in any case, so nothing of it is left but what has
// left the group, and a program that we may not kill (one that has become another user's): that is
// left behind, and collected by a later call when it has ended. Any thread; signals are not blocked
// in the program even if they are here.
CommandResult RunCommand(const std::vector<std::string>& argv, absl::string_view input,
                         const std::vector<std::string>& environment, Duration timeout,
                         int stop_fd);

}  // namespace ringsock::gateway

#endif  // RINGSOCK_GATEWAY_COMMAND_H_
