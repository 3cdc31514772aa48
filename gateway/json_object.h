// Reading a JSON text strictly: no unknown and no duplicate key, no value of another type or out of
// range, and every error with the place. The first error wins; what follows it does nothing. This
// pair of files is the only one that knows the JSON library.
#ifndef RINGSOCK_GATEWAY_JSON_OBJECT_H_
#define RINGSOCK_GATEWAY_JSON_OBJECT_H_

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace ringsock::gateway {

// `text` with whatever is long enough to be a key in base64 or hex cut to its first characters:
// what is shown to people and may hold somebody's private key.
std::string MaskKeys(absl::string_view text);

// A view of one object of the document. Lives only inside the callbacks of ReadJson().
class JsonObject {
 public:
  // Reads one object; errors are reported through it.
  using Reader = std::function<void(JsonObject&)>;

  JsonObject(const nlohmann::json* value, std::string path, absl::Status* status)
      : value_(value), path_(std::move(path)), status_(status) {}

  // Fails on any key that is not one of these. Call it first: a misspelt key then says so, rather
  // than that the right one is missing.
  void AllowKeys(std::initializer_list<absl::string_view> keys);
  void Require(absl::string_view key);
  bool Has(absl::string_view key) const;

  // Each leaves `out` as it is when the key is absent.
  void Bool(absl::string_view key, bool* out);
  // A whole number from `min` to `max`.
  void Integer(absl::string_view key, int64_t min, int64_t max, int64_t* out);
  // `parse` says what is wrong with the text; the error shows the text unless `secret`, when it
  // shows only the first characters.
  using TextParser = std::function<absl::Status(absl::string_view)>;
  void Text(absl::string_view key, bool secret, const TextParser& parse);
  void Texts(absl::string_view key, size_t max_items, const TextParser& parse);
  void Object(absl::string_view key, const Reader& read);
  // A string, or an object in a format that is another module's: that one gets the object as JSON
  // text, at most 32 levels deep.
  void TextOrObject(absl::string_view key, const TextParser& parse_text,
                    const TextParser& parse_object);
  void Objects(absl::string_view key, size_t max_items, const Reader& read);

  // An error about `key` of this object ("" for the object itself).
  void Fail(absl::string_view key, absl::string_view why);
  bool ok() const { return status_->ok(); }

 private:
  const nlohmann::json* Find(absl::string_view key) const;
  void FailType(absl::string_view key, absl::string_view wanted, const nlohmann::json& got);

  const nlohmann::json* value_;
  std::string path_;  // "" or "peers[2]."
  absl::Status* status_;
};

// Parses `text` as one JSON object and hands it to `read`. The errors name `file`; those of syntax
// name line and column.
absl::Status ReadJson(absl::string_view file, absl::string_view text,
                      const JsonObject::Reader& read);

}  // namespace ringsock::gateway

#endif  // RINGSOCK_GATEWAY_JSON_OBJECT_H_
