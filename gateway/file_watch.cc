#include "gateway/file_watch.h"

#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <cstdlib>
#include <cstring>
#include <set>

namespace ringsock::gateway {
namespace {

constexpr uint32_t kEvents = IN_CLOSE_WRITE | IN_MODIFY | IN_ATTRIB | IN_CREATE | IN_DELETE |
                             IN_MOVED_FROM | IN_MOVED_TO | IN_DELETE_SELF | IN_MOVE_SELF |
                             IN_ONLYDIR;

std::string FolderOf(const std::string& file) {
  const size_t slash = file.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : file.substr(0, slash);
}

int64_t Nanoseconds(const timespec& time) {
  return int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec;
}

}  // namespace

FileWatch::FileWatch() : inotify_(inotify_init1(IN_NONBLOCK | IN_CLOEXEC)) {
  if (!inotify_.valid()) error_ = std::strerror(errno);
}

FileWatch::Identity FileWatch::Look(const std::string& file) {
  struct stat info;
  if (stat(file.c_str(), &info) != 0) return {};
  return {info.st_dev, info.st_ino, info.st_size, Nanoseconds(info.st_mtim),
          Nanoseconds(info.st_ctim)};
}

void FileWatch::SetFiles(const std::vector<std::string>& files, Instant now) {
  std::map<std::string, Identity> next;
  for (const std::string& file : files) {
    const auto before = files_.find(file);
    next[file] = before != files_.end() ? before->second : Look(file);
  }
  files_ = std::move(next);
  WatchFolders(now);
}

void FileWatch::WatchFolders(Instant now) {
  if (!ok()) return;
  std::set<std::string> wanted;
  for (const auto& [file, identity] : files_) {
    wanted.insert(FolderOf(file));
    // Where a symbolic link leads, the file is written or replaced too.
    char* real = realpath(file.c_str(), nullptr);
    if (real != nullptr) wanted.insert(FolderOf(real));
    std::free(real);
  }
  std::map<int, std::string> folders;
  missing_ = false;
  for (const std::string& folder : wanted) {
    // The same descriptor for a folder that is watched already.
    const int watch = inotify_add_watch(inotify_.get(), folder.c_str(), kEvents);
    if (watch < 0) {
      missing_ = true;
    } else {
      folders.emplace(watch, folder);
    }
  }
  for (const auto& [watch, folder] : folders_) {
    if (!folders.contains(watch)) inotify_rm_watch(inotify_.get(), watch);
  }
  folders_ = std::move(folders);
  if (missing_) deadline_ = std::min(deadline_, now + kMissingInterval);
}

void FileWatch::ReadEvents(Instant now) {
  alignas(inotify_event) std::array<char, 4096> block;
  bool any = false;
  while (read(inotify_.get(), block.data(), block.size()) > 0) any = true;
  if (any) LookSoon(now);
}

void FileWatch::LookSoon(Instant now) {
  first_ = std::min(first_, now);
  deadline_ = std::min(now + kSettle, first_ + kMaxSettle);
}

bool FileWatch::Changed(Instant now) {
  if (now < deadline_) return false;
  first_ = deadline_ = Instant::max();
  WatchFolders(now);  // a folder may have been replaced, a link may lead elsewhere
  bool changed = false;
  for (auto& [file, identity] : files_) {
    const Identity seen = Look(file);
    changed = changed || !(seen == identity);
    identity = seen;
  }
  return changed;
}

void FileWatch::Forget() {
  for (auto& [file, identity] : files_) identity = Look(file);
}

}  // namespace ringsock::gateway
