// What a relay counts as a page for Prometheus. prometheus-cpp writes the text; its registry and
// its web server are not used, since the numbers live elsewhere and a page is made when asked for.
#ifndef RINGSOCK_RELAY_METRICS_H_
#define RINGSOCK_RELAY_METRICS_H_

#include <array>
#include <cstdint>
#include <optional>
#include <string>

#include "relay/counters.h"
#include "stun/server.h"

namespace ringsock::relay {

// Files that SIGHUP reads again.
enum class ReloadedFile : uint8_t { kCertificate, kAllowList };
inline constexpr size_t kReloadedFiles = 2;
const char* ReloadedFileName(ReloadedFile file);  // "certificate", ...

struct ReloadCounts {
  uint64_t ok = 0;
  uint64_t refused = 0;
};

// Of this process, from /proc; what is 0 could not be read.
struct ProcessStats {
  double cpu_seconds = 0;
  uint64_t resident_bytes = 0;
  uint64_t open_fds = 0;
  uint64_t max_fds = 0;
  double start_time = 0;  // Unix time
};
ProcessStats ReadProcessStats();

struct MetricsInput {
  Stats server;
  std::optional<stun::ServerStats> stun;         // none: off
  std::optional<int64_t> certificate_not_after;  // Unix time; none: no TLS
  std::array<ReloadCounts, kReloadedFiles> reloads{};
  uint64_t max_clients = 0;
  uint64_t allowed_keys = 0;  // with an allow-list
  bool allow_list = false;
  ProcessStats process;
};

// The page in the text format 0.0.4. docs/relay.md has the table of its names.
std::string MetricsText(const MetricsInput& input);

}  // namespace ringsock::relay

#endif  // RINGSOCK_RELAY_METRICS_H_
