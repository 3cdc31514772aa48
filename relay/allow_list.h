// The keys of clients that may use the relay: a file, one key a line.
#ifndef RINGSOCK_RELAY_ALLOW_LIST_H_
#define RINGSOCK_RELAY_ALLOW_LIST_H_

#include <cstddef>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "relay/options.h"

namespace ringsock::relay {

// A million clients are more than one relay serves; a line has about 60 bytes.
inline constexpr size_t kMaxAllowedKeys = 1u << 20;
inline constexpr size_t kMaxAllowFile = size_t{128} << 20;

// One public key a line, base64 or hex; '#' begins a comment, empty lines are skipped. An error
// names the line and shows no more than the beginning of what stands there, since people paste
// private keys by mistake. No key at all is fine: then nobody is allowed.
absl::StatusOr<AllowList> ParseAllowList(absl::string_view text);

// Reads `path` and parses it; errors name the file too.
absl::StatusOr<AllowList> LoadAllowList(const std::string& path);

}  // namespace ringsock::relay

#endif  // RINGSOCK_RELAY_ALLOW_LIST_H_
