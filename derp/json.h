// JSON from the network, bounded before it is built: bytes, depth, number of values, no key twice.
// Kept apart because its header is a large one: include it in sources only.
#ifndef RINGSOCK_DERP_JSON_H_
#define RINGSOCK_DERP_JSON_H_

#include <cstddef>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace ringsock::derp {

struct JsonLimits {
  size_t bytes;   // of text
  size_t depth;   // of nested objects and arrays
  size_t values;  // scalars, objects, arrays and keys
};

// The value of a whole text, which must be an object. Errors say where: a place in the text, or the
// path of a key that is there twice.
absl::StatusOr<nlohmann::json> ParseJsonObject(absl::string_view text, const JsonLimits& limits);

// Reads one field of `object` into `out`, which keeps its value if the field is absent or null.
// Another type, or a number outside [min, max], is an error that names `path` and the field.
absl::Status ReadField(const nlohmann::json& object, absl::string_view path, const char* field,
                       std::string* out);
absl::Status ReadField(const nlohmann::json& object, absl::string_view path, const char* field,
                       bool* out);
absl::Status ReadField(const nlohmann::json& object, absl::string_view path, const char* field,
                       int64_t min, int64_t max, int64_t* out);

// Text of others made fit for a log line or an error: one line of printable ASCII, at most `max`
// characters.
std::string CleanText(absl::string_view text, size_t max);

}  // namespace ringsock::derp

#endif  // RINGSOCK_DERP_JSON_H_
