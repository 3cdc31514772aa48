#include "gateway/reloader.h"

#include <utility>
#include <vector>

#include "base/log.h"

namespace ringsock::gateway {

Reloader::Reloader(const std::string& file, const Config& config, Apply apply, Instant now)
    : file_(file), apply_(std::move(apply)), look_again_(now + kLookAgain) {
  if (!watch_.ok()) {
    Log().warn("changes of {} are noticed only every {} s ({}); SIGHUP reads it at once", file_,
               std::chrono::duration_cast<std::chrono::seconds>(kLookAgain).count(),
               watch_.error());
  }
  WatchFilesOf(config, now);
}

void Reloader::WatchFilesOf(const Config& config, Instant now) {
  std::vector<std::string> files = {file_};
  if (!config.derp_map_file.empty()) files.push_back(config.derp_map_file);
  if (!config.private_key_file.empty()) files.push_back(config.private_key_file);
  watch_.SetFiles(files, now);
}

void Reloader::Advance(Instant now) {
  if (now >= look_again_) {
    look_again_ = now + kLookAgain;
    watch_.LookSoon(now);
    // A file that the refused configuration names may have come, of which no watch knows.
    if (!failure_.empty()) {
      std::string message = Read();
      if (message != failure_) unsettled_ = std::move(message);
    }
  }
  const bool settled = now >= watch_.NextDeadline();
  if (watch_.Changed(now)) return Reload("a file has changed", now);
  if (settled && unsettled_.has_value()) LookAtRefused(now);
}

// What came without an event may be half of it: it counts when it reads the same twice.
void Reloader::LookAtRefused(Instant now) {
  std::string message = Read();
  if (message == *unsettled_) return Reload("what was refused reads differently", now);
  unsettled_.reset();
  if (message == failure_) return;
  unsettled_ = std::move(message);
  watch_.LookSoon(now);
}

std::string Reloader::Read() const { return std::string(LoadConfig(file_).status().message()); }

void Reloader::Reload(absl::string_view reason, Instant now) {
  Log().info("reload: reading {} again: {}", file_, Fmt(reason));
  // Before it is read: what changes while we read is told again.
  watch_.Forget();
  unsettled_.reset();
  const absl::StatusOr<Config> config = LoadConfig(file_);
  absl::Status status = config.status();
  failure_ = std::string(status.message());  // of what could not even be read
  if (config.ok()) {
    // Also if it is refused: the error may be cured in any of its files.
    WatchFilesOf(*config, now);
    for (const std::string& warning : config->warnings) Log().warn("{}", warning);
    status = apply_(*config);
  }
  if (!status.ok()) {
    Log().error("reload: refused, the configuration of before stays in force: {}",
                Fmt(status.message()));
  }
  Log().flush();
}

}  // namespace ringsock::gateway
