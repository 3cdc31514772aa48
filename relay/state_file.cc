#include "relay/state_file.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace ringsock::relay {
namespace {

constexpr mode_t kOthers = 07;
constexpr mode_t kGroup = 070;

std::string Reason(int error) { return std::strerror(error); }

absl::Status Failed(const std::string& path, absl::string_view what, int error) {
  return absl::UnavailableError(absl::StrCat(path, ": ", what, ": ", Reason(error)));
}

absl::Status CheckSecrecy(const std::string& path, const struct stat& info, Secrecy secrecy) {
  if (secrecy == Secrecy::kPublic) return absl::OkStatus();
  const bool owner_only = secrecy == Secrecy::kOwnerOnly;
  if ((info.st_mode & (owner_only ? kGroup | kOthers : kOthers)) != 0) {
    return absl::PermissionDeniedError(absl::StrFormat(
        "%s: is a secret but has mode %04o: others can use it; if it never left this host, "
        "chmod %s %s, else make a new one",
        path, info.st_mode & 07777, owner_only ? "600" : "o=", path));
  }
  if (owner_only && info.st_uid != geteuid() && info.st_uid != 0) {
    return absl::PermissionDeniedError(
        absl::StrCat(path, ": is a secret but belongs to user ", info.st_uid, ", who is neither ",
                     "root nor the user this runs as (", geteuid(), "); chown it"));
  }
  return absl::OkStatus();
}

std::string DirectoryOf(const std::string& path) {
  const size_t slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

absl::Status WriteAll(int fd, absl::string_view text) {
  while (!text.empty()) {
    const ssize_t written = write(fd, text.data(), text.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return absl::UnavailableError(Reason(errno));
    text.remove_prefix(static_cast<size_t>(written));
  }
  if (fsync(fd) != 0) return absl::UnavailableError(Reason(errno));
  return absl::OkStatus();
}

// Gives the file its name unless there is one already. Not every file system can rename so; those
// that cannot have hard links.
int RenameNoReplace(const std::string& from, const std::string& to) {
  if (renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), RENAME_NOREPLACE) == 0) return 0;
  if (errno != EINVAL && errno != ENOSYS) return errno;
  if (link(from.c_str(), to.c_str()) != 0) return errno;
  unlink(from.c_str());
  return 0;
}

}  // namespace

absl::StatusOr<std::string> ReadStateFile(const std::string& path, size_t max_bytes,
                                          Secrecy secrecy) {
  // Without O_NONBLOCK a FIFO would hold us until somebody writes to it.
  const io::Fd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!fd.valid()) {
    const std::string why = absl::StrCat(path, ": cannot be read: ", Reason(errno));
    return errno == ENOENT ? absl::NotFoundError(why) : absl::PermissionDeniedError(why);
  }
  struct stat info = {};
  if (fstat(fd.get(), &info) != 0) return Failed(path, "cannot be read", errno);
  if (!S_ISREG(info.st_mode)) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": is no regular file"));
  }
  if (absl::Status secret = CheckSecrecy(path, info, secrecy); !secret.ok()) return secret;
  std::string text;
  // At once, since a text that moves leaves a copy of what may be a secret behind.
  text.reserve(max_bytes + 1);
  // One more than may be, to see that it is too long; the size in `info` may be old by now.
  for (size_t size = 0;;) {
    text.resize(std::min(max_bytes + 1, size + 65536));
    const ssize_t got = read(fd.get(), text.data() + size, text.size() - size);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return Failed(path, "cannot be read", errno);
    size += static_cast<size_t>(got);
    if (size > max_bytes) {
      return absl::InvalidArgumentError(
          absl::StrCat(path, ": is larger than ", max_bytes, " bytes"));
    }
    if (got == 0) {
      text.resize(size);
      return text;
    }
  }
}

absl::Status MakeStateFile(const std::string& path, absl::string_view text) {
  std::string temporary = path + ".XXXXXX";
  // mkostemp makes a file that was not there (O_EXCL) with mode 0600.
  const io::Fd fd(mkostemp(temporary.data(), O_CLOEXEC));
  if (!fd.valid()) return Failed(path, "cannot be made", errno);
  if (const absl::Status written = WriteAll(fd.get(), text); !written.ok()) {
    unlink(temporary.c_str());
    return absl::UnavailableError(absl::StrCat(path, ": cannot be written: ", written.message()));
  }
  if (const int error = RenameNoReplace(temporary, path); error != 0) {
    unlink(temporary.c_str());
    if (error == EEXIST) return absl::AlreadyExistsError(absl::StrCat(path, ": is there already"));
    return Failed(path, "cannot be made", error);
  }
  const io::Fd directory(open(DirectoryOf(path).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!directory.valid() || fsync(directory.get()) != 0) {
    return Failed(path, "its directory cannot be synced", errno);
  }
  return absl::OkStatus();
}

absl::Status PrepareStateDirectory(const std::string& path) {
  if (mkdir(path.c_str(), 0700) != 0 && errno != EEXIST) {
    return absl::UnavailableError(
        absl::StrCat("state directory ", path, ": cannot be made: ", Reason(errno),
                     "; make it and give it to the user this runs as, or choose another one with "
                     "--state-dir"));
  }
  struct stat info = {};
  if (stat(path.c_str(), &info) != 0) return Failed(path, "cannot be looked at", errno);
  if (!S_ISDIR(info.st_mode)) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": is no directory"));
  }
  // Who may write to it may put a key of his own in place of ours.
  if (info.st_uid != geteuid() && info.st_uid != 0) {
    return absl::PermissionDeniedError(absl::StrCat(
        "state directory ", path, ": belongs to user ", info.st_uid,
        ", who can replace the keys in it; chown it to the user this runs as (", geteuid(), ")"));
  }
  if ((info.st_mode & 022) != 0 && (info.st_mode & S_ISVTX) == 0) {
    return absl::PermissionDeniedError(absl::StrFormat(
        "state directory %s: has mode %04o, so others can replace the keys in it; chmod 700 %s",
        path, info.st_mode & 07777, path));
  }
  return absl::OkStatus();
}

absl::StatusOr<io::Fd> LockStateDirectory(const std::string& path) {
  io::Fd fd(open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd.valid()) return Failed(path, "cannot be opened", errno);
  if (flock(fd.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) return Failed(path, "cannot be locked", errno);
    return absl::FailedPreconditionError(
        absl::StrCat("state directory ", path,
                     ": another ringsock-relay uses it; stop that one, or choose another "
                     "directory with --state-dir (each relay needs a key of its own)"));
  }
  return fd;
}

}  // namespace ringsock::relay
