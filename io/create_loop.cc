// Which backend a process gets, and the one log line that says why.
#include <memory>
#include <string>
#include <utility>

#include "base/log.h"
#include "io/loop.h"
#include "io/mmsg_loop.h"
#include "io/uring.h"
#include "io/uring_loop.h"

namespace ringsock::io {

BackendChoice ChooseBackend(const LoopOptions& options) {
  if (options.backend != Backend::kAuto) return {options.backend, "the options say so"};
  const absl::Status probe = ProbeUring();
  if (!probe.ok()) return {Backend::kMmsg, std::string(probe.message())};
  return {Backend::kUring, "this host allows io_uring and has all that is needed of it"};
}

absl::StatusOr<std::unique_ptr<Loop>> CreateLoop(const LoopOptions& options,
                                                 BackendChoice* choice) {
  BackendChoice chosen = ChooseBackend(options);
  absl::StatusOr<std::unique_ptr<Loop>> loop;
  if (chosen.backend == Backend::kUring) {
    loop = MakeUringLoop(options);
    if (!loop.ok() && options.backend == Backend::kAuto) {
      chosen = {Backend::kMmsg, std::string(loop.status().message())};
    }
  }
  if (chosen.backend == Backend::kMmsg) loop = MakeMmsgLoop(options);
  if (!loop.ok()) return loop;
  if (choice != nullptr) {
    *choice = std::move(chosen);
  } else {
    LogBackend(chosen);
  }
  return loop;
}

void LogBackend(const BackendChoice& choice) {
  Log().info("io: backend {} because {}",
             choice.backend == Backend::kUring ? "io_uring" : "recvmmsg/sendmmsg", choice.reason);
}

}  // namespace ringsock::io
