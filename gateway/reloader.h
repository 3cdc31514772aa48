// Keeps a running gateway at what its files say: the configuration, the relay map and the private
// key. What is wrong with a new state of them is logged, and the old one stays.
#ifndef RINGSOCK_GATEWAY_RELOADER_H_
#define RINGSOCK_GATEWAY_RELOADER_H_

#include <algorithm>
#include <functional>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "base/clock.h"
#include "gateway/config.h"
#include "gateway/file_watch.h"

namespace ringsock::gateway {

class Reloader {
 public:
  // However quiet the folders are: links in the middle of a path, and network file systems, change
  // without an event.
  static constexpr Duration kLookAgain = std::chrono::seconds(5);

  // Brings a configuration, which has been read whole, into force. An error is logged.
  using Apply = std::function<absl::Status(const Config&)>;

  // `config` was read from `file` and is in force.
  Reloader(const std::string& file, const Config& config, Apply apply, Instant now);

  // For poll(): readable when a folder changed; -1 if nobody tells, which was logged: changes are
  // then seen every kLookAgain.
  int fd() const { return watch_.fd(); }
  void OnReadable(Instant now) { watch_.ReadEvents(now); }
  Instant NextDeadline() const { return std::min(watch_.NextDeadline(), look_again_); }
  // Reads the files if they have changed and settled.
  void Advance(Instant now);
  // Reads the files in any case; `reason` is for the log.
  void Reload(absl::string_view reason, Instant now);

 private:
  void WatchFilesOf(const Config& config, Instant now);
  void LookAtRefused(Instant now);
  // What is wrong with the files as they are; "" for nothing.
  std::string Read() const;

  const std::string file_;
  const Apply apply_;
  FileWatch watch_;
  Instant look_again_;
  std::string failure_;  // why the files could not be read the last time; empty: they could
  // What they said since, if that is another thing: to be read again when it has settled.
  std::optional<std::string> unsettled_;
};

}  // namespace ringsock::gateway

#endif  // RINGSOCK_GATEWAY_RELOADER_H_
