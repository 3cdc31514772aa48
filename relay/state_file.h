// Files that hold a relay's state and secrets: read whole within a bound, and made so that a crash
// or a second program leaves either no file or a whole one.
#ifndef RINGSOCK_RELAY_STATE_FILE_H_
#define RINGSOCK_RELAY_STATE_FILE_H_

#include <sys/types.h>

#include <cstddef>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "io/fd.h"

namespace ringsock::relay {

// Who may read a file that is a secret.
enum class Secrecy {
  kPublic,     // anybody
  kNotOthers,  // owner and group: TLS keys are often shared with a group
  kOwnerOnly,
};

// The whole text of a regular file. NotFound if there is none; other errors name the path, what is
// wrong and the cure: more than `max_bytes`, no permission, no regular file, readable by those it
// must be hidden from, or (kOwnerOnly) owned by neither root nor us.
absl::StatusOr<std::string> ReadStateFile(const std::string& path, size_t max_bytes,
                                          Secrecy secrecy);

// Makes `path` with this text, mode 0600, synced to disk. AlreadyExists if it is there by then,
// which then stays as it is: of two programs that make one file at one time, one wins, and both can
// read its text afterwards.
absl::Status MakeStateFile(const std::string& path, absl::string_view text);

// The directory for state: made with mode 0700 if its parent is there. An error if it cannot be
// used, or others may write to it.
absl::Status PrepareStateDirectory(const std::string& path);

// Held for as long as the program runs, so that no two relays use one directory. FailedPrecondition
// if another one has it.
absl::StatusOr<io::Fd> LockStateDirectory(const std::string& path);

}  // namespace ringsock::relay

#endif  // RINGSOCK_RELAY_STATE_FILE_H_
