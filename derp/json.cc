#include "derp/json.h"

#include <set>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

namespace ringsock::derp {
namespace {

// Walks the text without building anything and stops where a limit is passed.
class LimitChecker final : public nlohmann::json_sax<nlohmann::json> {
 public:
  explicit LimitChecker(const JsonLimits& limits) : limits_(limits) {}

  const std::string& error() const { return error_; }

  bool null() override { return Count(); }
  bool boolean(bool) override { return Count(); }
  bool number_integer(number_integer_t) override { return Count(); }
  bool number_unsigned(number_unsigned_t) override { return Count(); }
  bool number_float(number_float_t, const string_t&) override { return Count(); }
  bool string(string_t&) override { return Count(); }
  bool binary(binary_t&) override { return Fail("binary value"); }
  bool start_object(std::size_t) override { return Open(); }
  bool end_object() override { return Close(); }
  bool start_array(std::size_t) override { return Open(); }
  bool end_array() override { return Close(); }

  bool key(string_t& name) override {
    if (!keys_.back().insert(name).second) {
      return Fail(absl::StrCat("key \"", CleanText(name, 40), "\" is there twice"));
    }
    return Count();
  }

  bool parse_error(std::size_t position, const std::string&,
                   const nlohmann::json::exception&) override {
    return Fail(absl::StrCat("no JSON at byte ", position));
  }

 private:
  bool Fail(std::string error) {
    error_ = std::move(error);
    return false;
  }
  bool Count() {
    return ++values_ <= limits_.values ||
           Fail(absl::StrCat("more than ", limits_.values, " values"));
  }
  bool Open() {
    keys_.emplace_back();
    if (keys_.size() > limits_.depth) {
      return Fail(absl::StrCat("nested deeper than ", limits_.depth));
    }
    return Count();
  }
  bool Close() {
    keys_.pop_back();
    return true;
  }

  const JsonLimits limits_;
  size_t values_ = 0;
  std::vector<std::set<std::string>> keys_;  // of the objects that are open
  std::string error_;
};

std::string Name(absl::string_view path, const char* field) {
  return path.empty() ? std::string(field) : absl::StrCat(path, ".", field);
}

// The field's value, or null if it is absent or null.
const nlohmann::json* Find(const nlohmann::json& object, const char* field) {
  const auto found = object.find(field);
  return found == object.end() || found->is_null() ? nullptr : &*found;
}

}  // namespace

absl::StatusOr<nlohmann::json> ParseJsonObject(absl::string_view text, const JsonLimits& limits) {
  if (text.size() > limits.bytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("JSON of ", text.size(), " bytes, over ", limits.bytes));
  }
  LimitChecker checker(limits);
  if (!nlohmann::json::sax_parse(text.begin(), text.end(), &checker)) {
    return absl::InvalidArgumentError(checker.error());
  }
  nlohmann::json value = nlohmann::json::parse(text.begin(), text.end(), nullptr, false);
  if (!value.is_object()) return absl::InvalidArgumentError("not a JSON object");
  return value;
}

absl::Status ReadField(const nlohmann::json& object, absl::string_view path, const char* field,
                       std::string* out) {
  const nlohmann::json* value = Find(object, field);
  if (value == nullptr) return absl::OkStatus();
  if (!value->is_string()) {
    return absl::InvalidArgumentError(absl::StrCat(Name(path, field), ": not a string"));
  }
  *out = value->get_ref<const std::string&>();
  return absl::OkStatus();
}

absl::Status ReadField(const nlohmann::json& object, absl::string_view path, const char* field,
                       bool* out) {
  const nlohmann::json* value = Find(object, field);
  if (value == nullptr) return absl::OkStatus();
  if (!value->is_boolean()) {
    return absl::InvalidArgumentError(absl::StrCat(Name(path, field), ": not true or false"));
  }
  *out = value->get<bool>();
  return absl::OkStatus();
}

absl::Status ReadField(const nlohmann::json& object, absl::string_view path, const char* field,
                       int64_t min, int64_t max, int64_t* out) {
  const nlohmann::json* value = Find(object, field);
  if (value == nullptr) return absl::OkStatus();
  if (!value->is_number_integer()) {
    return absl::InvalidArgumentError(absl::StrCat(Name(path, field), ": not a whole number"));
  }
  // Numbers over INT64_MAX are of an unsigned kind and would wrap.
  const bool huge = value->is_number_unsigned() && value->get<uint64_t>() > INT64_MAX;
  const int64_t number = huge ? INT64_MAX : value->get<int64_t>();
  if (huge || number < min || number > max) {
    return absl::InvalidArgumentError(
        absl::StrCat(Name(path, field), ": ", value->dump(), " is not from ", min, " to ", max));
  }
  *out = number;
  return absl::OkStatus();
}

std::string CleanText(absl::string_view text, size_t max) {
  std::string clean(text.substr(0, max));
  for (char& c : clean) {
    if (c < 0x20 || c > 0x7e) c = c == '\n' || c == '\r' || c == '\t' ? ' ' : '?';
  }
  return clean;
}

}  // namespace ringsock::derp
