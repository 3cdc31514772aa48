#include "relay/certificate_store.h"

#include <sodium.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "relay/certificate_info.h"
#include "relay/state_file.h"

namespace ringsock::relay {
namespace {

constexpr absl::string_view kKeyMark = "PRIVATE KEY-----";
constexpr absl::string_view kBegin = "-----BEGIN ";

// The blocks of a PEM text that are private keys, or those that are not.
std::string Blocks(absl::string_view text, bool keys) {
  std::string found;
  for (size_t at = text.find(kBegin); at != absl::string_view::npos;) {
    const size_t next = text.find(kBegin, at + 1);
    const absl::string_view block = text.substr(at, next - at);
    const absl::string_view first_line = block.substr(0, block.find('\n'));
    if (absl::StrContains(first_line, kKeyMark) == keys) absl::StrAppend(&found, block);
    at = next;
  }
  return found;
}

}  // namespace

absl::StatusOr<std::string> CertificateStore::ReadOrMakeSelfSigned() {
  const std::string& file = source_.self_signed_file;
  absl::StatusOr<std::string> kept = ReadStateFile(file, kMaxCertificateFile, Secrecy::kOwnerOnly);
  // One that was there and is gone is not made again: its pin would be another one.
  if (kept.ok() || !absl::IsNotFound(kept.status()) || not_after() != 0) return kept;
  const int64_t now = unix_time_();
  absl::StatusOr<derp::SelfSignedCertificate> fresh = derp::MakeSelfSignedCertificate(
      source_.host_name, now - kSelfSignedBackdate, now + kSelfSignedSeconds);
  if (!fresh.ok()) return fresh.status();
  std::string text = absl::StrCat(fresh->chain_pem, fresh->key_pem);
  sodium_memzero(fresh->key_pem.data(), fresh->key_pem.size());
  const absl::Status status = MakeStateFile(file, text);
  if (status.ok()) {
    made_ = true;
    return text;
  }
  sodium_memzero(text.data(), text.size());
  if (!absl::IsAlreadyExists(status)) return status;
  return ReadStateFile(file, kMaxCertificateFile, Secrecy::kOwnerOnly);
}

absl::StatusOr<CertificateStore::Text> CertificateStore::Read() {
  Text text;
  if (source_.self_signed()) {
    absl::StatusOr<std::string> both = ReadOrMakeSelfSigned();
    if (!both.ok()) return both.status();
    text.chain = Blocks(*both, false);
    text.key = Blocks(*both, true);
    sodium_memzero(both->data(), both->size());
    return text;
  }
  absl::StatusOr<std::string> chain =
      ReadStateFile(source_.chain_file, kMaxCertificateFile, Secrecy::kPublic);
  if (!chain.ok()) return chain.status();
  absl::StatusOr<std::string> key =
      ReadStateFile(source_.key_file, kMaxCertificateFile, Secrecy::kNotOthers);
  if (!key.ok()) return key.status();
  text.chain = *std::move(chain);
  text.key = *std::move(key);
  return text;
}

absl::Status CertificateStore::Use(const Text& text) {
  const std::string name = source_.self_signed() ? source_.self_signed_file : source_.chain_file;
  const auto bad = [&](absl::string_view why) {
    return absl::InvalidArgumentError(absl::StrCat(
        name, ": ", why,
        source_.self_signed() ? "; move the file away for a new one (its pin will be another one)"
                              : ""));
  };
  const absl::StatusOr<CertificateInfo> info = ReadCertificateInfo(text.chain, source_.host_name);
  if (!info.ok()) return bad(info.status().message());
  const int64_t now = unix_time_();
  if (now >= info->not_after) {
    return bad(absl::StrCat("the certificate expired on ", DateText(info->not_after)));
  }
  if (now < info->not_before) {
    return bad(absl::StrCat("the certificate is valid from ", DateText(info->not_before),
                            " on only; is this host's clock right?"));
  }
  const auto pin = derp::CertificatePin(text.chain);
  if (!pin.ok()) return bad(pin.status().message());
  if (const absl::Status loaded = context_->Load(text.chain, text.key); !loaded.ok()) {
    return bad(absl::StrCat(
        loaded.message(),
        source_.self_signed() ? "" : absl::StrCat(" (key file ", source_.key_file, ")")));
  }
  pin_ = *pin;
  not_after_.store(info->not_after, std::memory_order_relaxed);
  for_host_ = info->for_host;
  return absl::OkStatus();
}

std::vector<std::string> CertificateStore::warnings() const {
  const std::string& name = source_.self_signed() ? source_.self_signed_file : source_.chain_file;
  std::vector<std::string> warnings;
  if (const int64_t left = not_after() - unix_time_(); left < kExpiryWarning) {
    warnings.push_back(absl::StrCat(name, ": the certificate ", left > 0 ? "expires" : "expired",
                                    " on ", DateText(not_after())));
  }
  if (!for_host_) {
    warnings.push_back(absl::StrCat(name, ": the certificate is not for \"", source_.host_name,
                                    "\" (--hostname); clients may refuse it"));
  }
  return warnings;
}

absl::Status CertificateStore::Load() {
  absl::StatusOr<Text> text = Read();
  if (!text.ok()) return text.status();
  const absl::Status used = Use(*text);
  sodium_memzero(text->key.data(), text->key.size());
  return used;
}

}  // namespace ringsock::relay
