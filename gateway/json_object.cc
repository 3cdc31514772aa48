#include "gateway/json_object.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace ringsock::gateway {
namespace {

using nlohmann::json;

// Characters of a value that an error shows, and of one that may be a secret.
constexpr size_t kShownCharacters = 64;
constexpr size_t kShownOfSecret = 4;
constexpr size_t kShownOfMessage = 256;

// A key has 43 characters of base64 (and one to fill up) or 64 of hex; a few fewer are as good as
// all.
constexpr size_t kLooksLikeKey = 40;

bool IsKeyCharacter(char c) {
  return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '+' || c == '/' || c == '=';
}

std::string Quote(absl::string_view text, size_t shown) {
  const std::string masked = MaskKeys(text);
  return absl::StrCat("\"", absl::CHexEscape(absl::string_view(masked).substr(0, shown)),
                      masked.size() > shown ? "...\"" : "\"");
}

// What another module says, which may repeat the text it was given.
std::string OneSafeLine(absl::string_view message) {
  std::string line = MaskKeys(message);
  if (line.size() > kShownOfMessage) line = line.substr(0, kShownOfMessage) + "...";
  for (char& c : line) {
    if (absl::ascii_iscntrl(static_cast<unsigned char>(c))) c = '?';
  }
  return line;
}

std::string Position(absl::string_view text, size_t byte) {
  const absl::string_view before = text.substr(0, std::min(byte, text.size()));
  const size_t line = 1 + static_cast<size_t>(std::count(before.begin(), before.end(), '\n'));
  const size_t newline = before.rfind('\n');
  const size_t column = before.size() - (newline == absl::string_view::npos ? 0 : newline + 1) + 1;
  return absl::StrCat("line ", line, ", column ", column);
}

// More than any format has; writing an object as text takes stack for each level.
constexpr int kMaxDepth = 32;

bool IsDeeper(const json& value, int levels) {
  if (!value.is_structured()) return false;
  return levels == 0 || std::any_of(value.begin(), value.end(), [levels](const json& item) {
           return IsDeeper(item, levels - 1);
         });
}

// Finds what the library lets pass: the same key twice in one object, of which it keeps the last.
class DuplicateKeys {
 public:
  bool operator()(int, json::parse_event_t event, json& parsed) {
    if (event == json::parse_event_t::object_start) {
      open_.emplace_back();
    } else if (event == json::parse_event_t::object_end) {
      open_.pop_back();
    } else if (event == json::parse_event_t::key) {
      const std::string& key = parsed.get_ref<const std::string&>();
      if (!open_.back().insert(key).second && duplicate_.empty()) duplicate_ = key;
    }
    return true;
  }
  // The key, or "" if there is no duplicate.
  const std::string& duplicate() const { return duplicate_; }

 private:
  std::vector<std::set<std::string>> open_;
  std::string duplicate_;
};

}  // namespace

std::string MaskKeys(absl::string_view text) {
  std::string masked;
  for (size_t at = 0; at < text.size();) {
    const bool key = IsKeyCharacter(text[at]);
    size_t end = at + 1;
    while (end < text.size() && IsKeyCharacter(text[end]) == key) ++end;
    const absl::string_view run = text.substr(at, end - at);
    if (key && run.size() >= kLooksLikeKey) {
      absl::StrAppend(&masked, run.substr(0, kShownOfSecret), "...");
    } else {
      absl::StrAppend(&masked, run);
    }
    at = end;
  }
  return masked;
}

const json* JsonObject::Find(absl::string_view key) const {
  if (!status_->ok()) return nullptr;
  const auto it = value_->find(std::string(key));
  return it == value_->end() ? nullptr : &*it;
}

bool JsonObject::Has(absl::string_view key) const { return Find(key) != nullptr; }

void JsonObject::Fail(absl::string_view key, absl::string_view why) {
  if (!status_->ok()) return;
  std::string field = absl::StrCat(path_, key);
  if (key.empty() && !field.empty()) field.pop_back();  // the object itself: no trailing dot
  *status_ = absl::InvalidArgumentError(absl::StrCat(field, field.empty() ? "" : ": ", why));
}

void JsonObject::FailType(absl::string_view key, absl::string_view wanted, const json& got) {
  Fail(key, absl::StrCat("must be ", wanted, ", not ", got.type_name()));
}

void JsonObject::AllowKeys(std::initializer_list<absl::string_view> keys) {
  for (const auto& item : value_->items()) {
    if (std::find(keys.begin(), keys.end(), absl::string_view(item.key())) != keys.end()) continue;
    // The value is not shown: it may be somebody's private key.
    Fail(Quote(item.key(), kShownCharacters),
         absl::StrCat("unknown key; known here are ", absl::StrJoin(keys, ", ")));
  }
}

void JsonObject::Require(absl::string_view key) {
  if (status_->ok() && !Has(key)) Fail(key, "is missing");
}

void JsonObject::Bool(absl::string_view key, bool* out) {
  const json* value = Find(key);
  if (value == nullptr) return;
  if (!value->is_boolean()) return FailType(key, "true or false", *value);
  *out = value->get<bool>();
}

void JsonObject::Integer(absl::string_view key, int64_t min, int64_t max, int64_t* out) {
  const json* value = Find(key);
  if (value == nullptr) return;
  if (!value->is_number()) return FailType(key, "a whole number", *value);
  const std::string range = absl::StrCat("is not a whole number from ", min, " to ", max);
  if (!value->is_number_integer() ||
      (value->is_number_unsigned() && value->get<uint64_t>() > static_cast<uint64_t>(max)) ||
      value->get<int64_t>() < min || value->get<int64_t>() > max) {
    return Fail(key, absl::StrCat(value->dump(), " ", range));
  }
  *out = value->get<int64_t>();
}

void JsonObject::Text(absl::string_view key, bool secret, const TextParser& parse) {
  const json* value = Find(key);
  if (value == nullptr) return;
  if (!value->is_string()) return FailType(key, "a string", *value);
  const std::string& text = value->get_ref<const std::string&>();
  const absl::Status status = parse(text);
  if (status.ok()) return;
  Fail(key, absl::StrCat(Quote(text, secret ? kShownOfSecret : kShownCharacters), ": ",
                         OneSafeLine(status.message())));
}

void JsonObject::Texts(absl::string_view key, size_t max_items, const TextParser& parse) {
  const json* value = Find(key);
  if (value == nullptr) return;
  if (!value->is_array()) return FailType(key, "a list of strings", *value);
  if (value->size() > max_items) {
    return Fail(key, absl::StrCat("has ", value->size(), " items, at most ", max_items, " can be"));
  }
  for (size_t i = 0; i < value->size() && ok(); ++i) {
    const std::string item = absl::StrCat(key, "[", i, "]");
    const json& element = (*value)[i];
    if (!element.is_string()) return FailType(item, "a string", element);
    const std::string& text = element.get_ref<const std::string&>();
    const absl::Status status = parse(text);
    if (!status.ok()) {
      Fail(item, absl::StrCat(Quote(text, kShownCharacters), ": ", OneSafeLine(status.message())));
    }
  }
}

void JsonObject::Object(absl::string_view key, const Reader& read) {
  const json* value = Find(key);
  if (value == nullptr) return;
  if (!value->is_object()) return FailType(key, "an object", *value);
  JsonObject object(value, absl::StrCat(path_, key, "."), status_);
  read(object);
}

void JsonObject::TextOrObject(absl::string_view key, const TextParser& parse_text,
                              const TextParser& parse_object) {
  const json* value = Find(key);
  if (value == nullptr) return;
  if (value->is_string()) return Text(key, false, parse_text);
  if (!value->is_object()) return FailType(key, "a string or an object", *value);
  if (IsDeeper(*value, kMaxDepth)) return Fail(key, "is nested too deeply");
  const absl::Status status = parse_object(value->dump());
  if (!status.ok()) Fail(key, OneSafeLine(status.message()));
}

void JsonObject::Objects(absl::string_view key, size_t max_items, const Reader& read) {
  const json* value = Find(key);
  if (value == nullptr) return;
  if (!value->is_array()) return FailType(key, "a list of objects", *value);
  if (value->size() > max_items) {
    return Fail(key, absl::StrCat("has ", value->size(), " items, at most ", max_items, " can be"));
  }
  for (size_t i = 0; i < value->size() && ok(); ++i) {
    const std::string item = absl::StrCat(key, "[", i, "]");
    const json& element = (*value)[i];
    if (!element.is_object()) return FailType(item, "an object", element);
    JsonObject object(&element, absl::StrCat(path_, item, "."), status_);
    read(object);
  }
}

absl::Status ReadJson(absl::string_view file, absl::string_view text,
                      const JsonObject::Reader& read) {
  const auto error = [file](absl::string_view what) {
    return absl::InvalidArgumentError(absl::StrCat(file, ": ", what));
  };
  json document;
  DuplicateKeys duplicates;
  try {
    document = json::parse(text.begin(), text.end(), std::ref(duplicates));
  } catch (const json::parse_error& e) {
    // The library's own words repeat the text it stumbled over, which may be a secret. Its `byte`
    // counts from 1.
    const size_t byte = e.byte == 0 ? 0 : e.byte - 1;
    return error(absl::StrCat(
        Position(text, byte), ": ",
        byte >= text.size() ? "the JSON text ends too early" : "not valid JSON from here"));
  } catch (const std::exception&) {  // a number that no double holds
    return error("not valid JSON: a number is out of range");
  }
  if (!duplicates.duplicate().empty()) {
    return error(absl::StrCat(Quote(duplicates.duplicate(), kShownCharacters),
                              ": the same key twice in one object"));
  }
  if (!document.is_object()) {
    return error(absl::StrCat("must be one JSON object, not ", document.type_name()));
  }
  absl::Status status;
  JsonObject root(&document, "", &status);
  read(root);
  return status.ok() ? status : error(status.message());
}

}  // namespace ringsock::gateway
