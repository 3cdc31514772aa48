// Tells when one of a few files has changed: written in place, or replaced by a rename, directly or
// through a symbolic link, as configuration tools do. The folders are watched with inotify; an
// event in one only says when to look at the files again, so events that belong to other files, or
// got lost, do no harm.
#ifndef RINGSOCK_GATEWAY_FILE_WATCH_H_
#define RINGSOCK_GATEWAY_FILE_WATCH_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "base/clock.h"
#include "io/fd.h"

namespace ringsock::gateway {

class FileWatch {
 public:
  // No event for this long, and what is being written is thought to be whole.
  static constexpr Duration kSettle = std::chrono::milliseconds(200);
  // Events that do not end are looked at after this long.
  static constexpr Duration kMaxSettle = std::chrono::seconds(2);
  // A folder that is missing is looked for this often.
  static constexpr Duration kMissingInterval = std::chrono::seconds(1);

  // Without inotify (too many instances for this user, say) nothing is noticed but by LookSoon();
  // ok() is false then, and error() says why.
  FileWatch();
  bool ok() const { return inotify_.valid(); }
  const std::string& error() const { return error_; }

  // Watches exactly these files from now on. Those watched before keep what was seen of them, so a
  // change that was not told yet is told. A file may be missing.
  void SetFiles(const std::vector<std::string>& files, Instant now);

  // Readable when something happened in a folder; for poll(). -1 if !ok().
  int fd() const { return inotify_.get(); }
  // To be called when fd() is readable; never waits.
  void ReadEvents(Instant now);
  // As if something had happened.
  void LookSoon(Instant now);
  // When Changed() is wanted; Instant::max() for not before an event.
  Instant NextDeadline() const { return deadline_; }
  // True once for each change that has settled. A file that has gone missing is a change too.
  bool Changed(Instant now);
  // What there is now is no change (any more): somebody has just read it.
  void Forget();

 private:
  // What tells one content of a file from the next without reading it.
  struct Identity {
    uint64_t device = 0;  // all 0: missing
    uint64_t inode = 0;
    int64_t size = 0;
    int64_t modified_ns = 0;
    int64_t changed_ns = 0;

    friend bool operator==(const Identity&, const Identity&) = default;
  };
  static Identity Look(const std::string& file);
  // Adds the folders of all files, by name and behind symbolic links. Later calls cost nothing new.
  void WatchFolders(Instant now);

  io::Fd inotify_;
  std::string error_;
  std::map<std::string, Identity> files_;
  std::map<int, std::string> folders_;  // by watch descriptor
  bool missing_ = false;                // a folder could not be watched
  Instant first_ = Instant::max();      // event since the last look
  Instant deadline_ = Instant::max();
};

}  // namespace ringsock::gateway

#endif  // RINGSOCK_GATEWAY_FILE_WATCH_H_
