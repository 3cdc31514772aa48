// The relay's own key, made on first start and kept; and other keys of 32 bytes in files.
#ifndef RINGSOCK_RELAY_KEY_FILE_H_
#define RINGSOCK_RELAY_KEY_FILE_H_

#include <string>

#include "absl/status/statusor.h"
#include "base/key.h"

namespace ringsock::relay {

// The key in `path`: its first line, base64 or hex. If there is no such file, one with a fresh key
// and mode 0600 is made, and *made is set. Errors name the file and the cure and never show the
// key: readable by others, damaged, no permission. A damaged one is never replaced, since clients
// know the relay by its key.
absl::StatusOr<PrivateKey> LoadOrMakeKey(const std::string& path, bool* made);

// A secret of 32 bytes that is shared with others by hand: the same file, never made. A group may
// have it: service managers hand over root's files so.
absl::StatusOr<PrivateKey> LoadKey(const std::string& path);

}  // namespace ringsock::relay

#endif  // RINGSOCK_RELAY_KEY_FILE_H_
