// Reading the files that a person names in a configuration or on a command line: whole, bounded,
// and private keys only if nobody else can read them.
#ifndef RINGSOCK_BASE_FILE_H_
#define RINGSOCK_BASE_FILE_H_

#include <cstddef>
#include <string>

#include "absl/status/statusor.h"
#include "base/key.h"

namespace ringsock {

// The bytes of `path`, at most `max_bytes`. Errors are one line that begins with the path. Blocks
// until the file has been read; for start and reload.
absl::StatusOr<std::string> ReadFile(const std::string& path, size_t max_bytes);

// The private key in `path`: base64 as `wg genkey` writes it, or hex, with white space around it.
// A file that all users may read or write is refused, and the error names the cure; a group may
// have it. No error repeats what is in the file, and no copy of it stays in memory.
absl::StatusOr<PrivateKey> ReadPrivateKeyFile(const std::string& path);

}  // namespace ringsock

#endif  // RINGSOCK_BASE_FILE_H_
