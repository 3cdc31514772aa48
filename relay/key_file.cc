#include "relay/key_file.h"

#include <sodium.h>

#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "relay/state_file.h"

namespace ringsock::relay {
namespace {

// A key has 64 characters at most; the rest is for comments.
constexpr size_t kMaxKeyFile = 4096;

absl::StatusOr<PrivateKey> ReadKey(const std::string& path, Secrecy secrecy) {
  absl::StatusOr<std::string> text = ReadStateFile(path, kMaxKeyFile, secrecy);
  if (!text.ok()) return text.status();
  const absl::string_view all = *text;
  absl::StatusOr<PrivateKey> key =
      PrivateKey::Parse(absl::StripAsciiWhitespace(all.substr(0, all.find('\n'))));
  sodium_memzero(text->data(), text->size());
  // What is in the file is not shown.
  if (!key.ok() || key->IsZero()) {
    return absl::InvalidArgumentError(
        absl::StrCat(path,
                     ": its first line is no key (32 bytes in base64 or hex); restore it, or "
                     "move it away to begin with another key"));
  }
  return key;
}

}  // namespace

absl::StatusOr<PrivateKey> LoadKey(const std::string& path) {
  return ReadKey(path, Secrecy::kNotOthers);
}

absl::StatusOr<PrivateKey> LoadOrMakeKey(const std::string& path, bool* made) {
  *made = false;
  absl::StatusOr<PrivateKey> kept = ReadKey(path, Secrecy::kOwnerOnly);
  if (kept.ok() || !absl::IsNotFound(kept.status())) return kept;
  PrivateKey fresh = PrivateKey::Generate();
  std::string base64 = fresh.ToBase64();
  std::string text = absl::StrCat(base64, "\n");
  const absl::Status status = MakeStateFile(path, text);
  sodium_memzero(text.data(), text.size());
  sodium_memzero(base64.data(), base64.size());
  // Another program was faster: its key it is.
  if (absl::IsAlreadyExists(status)) return ReadKey(path, Secrecy::kOwnerOnly);
  if (!status.ok()) return status;
  *made = true;
  return fresh;
}

}  // namespace ringsock::relay
