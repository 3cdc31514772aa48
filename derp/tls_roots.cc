// Reads the roots of trust from files.
#include <openssl/err.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <system_error>
#include <vector>

#include "absl/strings/str_cat.h"
#include "derp/tls_certificate.h"
#include "derp/tls_verify.h"

namespace ringsock::derp {
namespace {

// Where distributions keep their roots: Debian and its kin, Fedora, SUSE, Alpine.
constexpr const char* kSystemFiles[] = {
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
};
constexpr const char* kSystemDirectory = "/etc/ssl/certs";
// A hundred times what systems have.
constexpr size_t kMaxFileSize = 32 << 20;

absl::StatusOr<std::string> ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return absl::NotFoundError(absl::StrCat("roots ", path, ": cannot be opened"));
  std::string text;
  char part[16384];
  while (file.read(part, sizeof(part)), file.gcount() > 0 && text.size() <= kMaxFileSize) {
    text.append(part, static_cast<size_t>(file.gcount()));
  }
  if (file.bad()) return absl::UnavailableError(absl::StrCat("roots ", path, ": cannot be read"));
  if (text.size() > kMaxFileSize) {
    return absl::InvalidArgumentError(absl::StrCat("roots ", path, ": over 32 MiB"));
  }
  return text;
}

}  // namespace

absl::Status TlsRoots::AddFile(const std::string& path) {
  const absl::StatusOr<std::string> text = ReadFile(path);
  if (!text.ok()) return text.status();
  const auto certificates = ReadPemChain(*text);
  if (!certificates.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat("roots ", path, ": ", certificates.status().message()));
  }
  // What this library cannot read, it could not verify with either: system files have such.
  for (const TlsCertificate& certificate : *certificates) {
    const bssl::UniquePtr<X509> x509 = ParseCertificate(certificate.get());
    if (x509 == nullptr) continue;
    if (X509_STORE_add_cert(store_.get(), x509.get())) ++size_;
    ERR_clear_error();
  }
  return absl::OkStatus();
}

absl::Status TlsRoots::AddDirectory(const std::string& path) {
  std::error_code error;
  std::vector<std::string> files;
  for (std::filesystem::directory_iterator it(path, error), end; !error && it != end;
       it.increment(error)) {
    std::error_code ignored;
    if (it->is_regular_file(ignored)) files.push_back(it->path().string());
  }
  if (error) {
    return absl::NotFoundError(
        absl::StrCat("roots directory ", path, ": cannot be read: ", error.message()));
  }
  // In one order everywhere. Other files lie in such directories too: they are passed over.
  std::sort(files.begin(), files.end());
  for (const std::string& file : files) AddFile(file).IgnoreError();
  return absl::OkStatus();
}

void TlsRoots::AddSystem() {
  source_ = "the system's";
  for (const char* file : kSystemFiles) {
    if (AddFile(file).ok() && size_ > 0) return;
  }
  AddDirectory(kSystemDirectory).IgnoreError();
}

absl::StatusOr<TlsRoots> TlsRoots::Load(const std::string& file, const std::string& directory) {
  TlsRoots roots;
  roots.store_.reset(X509_STORE_new());
  if (roots.store_ == nullptr) return absl::ResourceExhaustedError("out of memory");
  if (file.empty() && directory.empty()) {
    roots.AddSystem();
    return roots;
  }
  if (!file.empty()) {
    if (absl::Status status = roots.AddFile(file); !status.ok()) return status;
    roots.source_ = file;
  }
  if (!directory.empty()) {
    if (absl::Status status = roots.AddDirectory(directory); !status.ok()) return status;
    absl::StrAppend(&roots.source_, roots.source_.empty() ? "" : " and ", directory);
  }
  if (roots.size_ == 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("roots ", roots.source_, ": no usable certificate in it"));
  }
  return roots;
}

}  // namespace ringsock::derp
