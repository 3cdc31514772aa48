#include "base/file.h"

#include <fcntl.h>
#include <sodium.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"

namespace ringsock {
namespace {

// A key has 64 characters at most; the rest is room for white space.
constexpr size_t kMaxKeyFile = 1024;

class File {
 public:
  explicit File(const std::string& path) : fd_(open(path.c_str(), O_RDONLY | O_CLOEXEC)) {}
  ~File() {
    if (fd_ >= 0) close(fd_);
  }
  File(const File&) = delete;
  File& operator=(const File&) = delete;

  int fd() const { return fd_; }

  // Fills `out` as far as the file goes; -1 is an error in errno.
  ssize_t Read(char* out, size_t size) const {
    size_t have = 0;
    while (have < size) {
      const ssize_t got = read(fd_, out + have, size - have);
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) return -1;
      if (got == 0) break;
      have += static_cast<size_t>(got);
    }
    return static_cast<ssize_t>(have);
  }

 private:
  const int fd_;
};

absl::Status Unreadable(const std::string& path, absl::string_view why) {
  return absl::NotFoundError(absl::StrCat(path, ": cannot be read: ", why));
}

absl::Status CheckMode(const std::string& path, int fd) {
  struct stat info;
  if (fstat(fd, &info) != 0) return Unreadable(path, std::strerror(errno));
  if ((info.st_mode & (S_IROTH | S_IWOTH)) == 0) return absl::OkStatus();
  char mode[8];
  std::snprintf(mode, sizeof(mode), "%04o", info.st_mode & 07777u);
  return absl::PermissionDeniedError(
      absl::StrCat(path, ": every user may read or write it (mode ", mode, "), and it is for a ",
                   "private key; chmod 600 it, and make a new key if somebody may have seen it"));
}

}  // namespace

absl::StatusOr<std::string> ReadFile(const std::string& path, size_t max_bytes) {
  const File file(path);
  if (file.fd() < 0) return Unreadable(path, std::strerror(errno));
  std::string text;
  std::array<char, 1 << 14> block;
  while (true) {
    const ssize_t got = file.Read(block.data(), block.size());
    if (got < 0) return Unreadable(path, std::strerror(errno));
    if (got == 0) return text;
    text.append(block.data(), static_cast<size_t>(got));
    if (text.size() > max_bytes) {
      return absl::OutOfRangeError(
          absl::StrCat(path, ": has more than ", max_bytes, " bytes, the most it may have"));
    }
  }
}

absl::StatusOr<PrivateKey> ReadPrivateKeyFile(const std::string& path) {
  const File file(path);
  if (file.fd() < 0) return Unreadable(path, std::strerror(errno));
  if (absl::Status mode = CheckMode(path, file.fd()); !mode.ok()) return mode;
  std::array<char, kMaxKeyFile> text;
  const ssize_t got = file.Read(text.data(), text.size());
  if (got < 0) return Unreadable(path, std::strerror(errno));
  const absl::string_view all(text.data(), static_cast<size_t>(got));
  absl::StatusOr<PrivateKey> key = PrivateKey::Parse(absl::StripAsciiWhitespace(all));
  sodium_memzero(text.data(), text.size());
  if (all.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": is empty; `wg genkey` makes a key"));
  }
  if (all.size() == text.size()) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": too large for a file with one key"));
  }
  if (!key.ok()) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": ", key.status().message()));
  }
  return key;
}

}  // namespace ringsock
