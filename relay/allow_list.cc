#include "relay/allow_list.h"

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "relay/state_file.h"

namespace ringsock::relay {
namespace {

constexpr size_t kShownCharacters = 4;

absl::Status BadLine(size_t line, absl::string_view text, absl::string_view why) {
  return absl::InvalidArgumentError(
      absl::StrCat("line ", line, ": \"", absl::CHexEscape(text.substr(0, kShownCharacters)),
                   text.size() > kShownCharacters ? "...\": " : "\": ", why));
}

}  // namespace

absl::StatusOr<AllowList> ParseAllowList(absl::string_view text) {
  AllowList allowed;
  for (size_t number = 1; !text.empty(); ++number) {
    const size_t end = text.find('\n');
    absl::string_view line = text.substr(0, end);
    text.remove_prefix(end == absl::string_view::npos ? text.size() : end + 1);
    line = absl::StripAsciiWhitespace(line.substr(0, line.find('#')));
    if (line.empty()) continue;
    const absl::StatusOr<PublicKey> key = PublicKey::Parse(line);
    if (!key.ok()) return BadLine(number, line, "is no public key (base64 or hex)");
    if (key->IsZero()) return BadLine(number, line, "is the key of all zeroes");
    if (allowed.size() == kMaxAllowedKeys) {
      return absl::InvalidArgumentError(
          absl::StrCat("line ", number, ": more than ", kMaxAllowedKeys, " keys"));
    }
    allowed.insert(*key);
  }
  return allowed;
}

absl::StatusOr<AllowList> LoadAllowList(const std::string& path) {
  const absl::StatusOr<std::string> text = ReadStateFile(path, kMaxAllowFile, Secrecy::kPublic);
  if (!text.ok()) return text.status();
  absl::StatusOr<AllowList> keys = ParseAllowList(*text);
  if (keys.ok()) return keys;
  return absl::InvalidArgumentError(absl::StrCat(path, " ", keys.status().message()));
}

}  // namespace ringsock::relay
