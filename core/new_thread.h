// Starting a thread where the lack of one is an error like any other.
#ifndef RINGSOCK_CORE_NEW_THREAD_H_
#define RINGSOCK_CORE_NEW_THREAD_H_

#include <system_error>
#include <thread>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"

namespace ringsock {

// Runs `main` on a new thread. ResourceExhausted, with the cure, where std::thread throws.
template <typename Main>
absl::StatusOr<std::thread> NewThread(Main&& main) {
  try {
    return std::thread(std::forward<Main>(main));
  } catch (const std::system_error& error) {
    return absl::ResourceExhaustedError(
        absl::StrCat("no thread could be started (", error.code().message(),
                     "): raise the limit of processes (ulimit -u, TasksMax), or set fewer shards"));
  }
}

}  // namespace ringsock

#endif  // RINGSOCK_CORE_NEW_THREAD_H_
