// Which backend a process gets, and the one log line that says why.
#include "absl/strings/str_cat.h"
#include "base/log.h"
#include "io/loop.h"
#include "io/mmsg_loop.h"

namespace ringsock::io {

BackendChoice ChooseBackend(const LoopOptions& options) {
  if (options.backend == Backend::kMmsg) return {Backend::kMmsg, "the options say so"};
  return {Backend::kMmsg, "io_uring is not built in"};
}

absl::StatusOr<std::unique_ptr<Loop>> CreateLoop(const LoopOptions& options) {
  const BackendChoice choice = ChooseBackend(options);
  if (options.backend == Backend::kUring && choice.backend != Backend::kUring) {
    return absl::FailedPreconditionError(absl::StrCat("io_uring was asked for: ", choice.reason));
  }
  Log().info("io: backend recvmmsg/sendmmsg because {}", choice.reason);
  return MakeMmsgLoop(options);
}

}  // namespace ringsock::io
