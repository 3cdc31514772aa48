// What a netcheck found out, and what follows from the last five minutes of reports: the region to
// be at home in (spec: stun-netcheck.md, NC-6 to NC-12).
#ifndef RINGSOCK_STUN_REPORT_H_
#define RINGSOCK_STUN_REPORT_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <string>

#include "absl/functional/function_ref.h"
#include "base/clock.h"
#include "base/endpoint.h"

namespace ringsock::stun {

enum class Answer : uint8_t { kUnknown, kNo, kYes };
const char* AnswerName(Answer answer);  // "unknown", "no", "yes"

// Round trips to one region, the best of each kind.
struct RegionLatency {
  Duration best{};             // over any family, or over HTTPS
  std::optional<Duration> v4;  // over UDP
  std::optional<Duration> v6;

  friend bool operator==(const RegionLatency&, const RegionLatency&) = default;
};

struct Report {
  Instant started{};
  bool full = false;                         // made with the full plan (spec: NC-2)
  bool udp = false;                          // anything answered over UDP
  bool ipv6 = false;                         // anything answered over IPv6
  Answer mapping_varies = Answer::kUnknown;  // by destination, over IPv4
  Answer hairpin = Answer::kUnknown;         // over IPv4
  RegionId preferred = 0;                    // 0: none
  std::map<RegionId, RegionLatency> latency;
  Endpoint global_v4;  // none if not known
  Endpoint global_v6;

  friend bool operator==(const Report&, const Report&) = default;
};

// Totals, in datagrams. What is ignored changes nothing (spec: NC-11).
struct NetcheckStats {
  uint64_t probes_sent = 0;
  uint64_t probes_spared = 0;  // they would have brought nothing new (spec: NC-5)
  uint64_t answers = 0;        // that were used
  uint64_t malformed = 0;
  uint64_t unknown_id = 0;    // forged, or of a report before the last one
  uint64_t late = 0;          // of the last report, after its end
  uint64_t repeated = 0;      // second answer to one probe
  uint64_t wrong_source = 0;  // from another address than was asked
  uint64_t wrong_family = 0;  // tells an address of the other family
  uint64_t refused = 0;       // error responses
  uint64_t unresolved = 0;    // probes without an address to go to
};

// The one line of the log (spec: NC-12):
// udp=yes v6=no mapvarydest=no hair=unknown v4a=192.0.2.1:41641 v6a=- derp=1 latency=1-v4:12.3ms
std::string ToLogLine(const Report& report);

// How far back latencies count.
inline constexpr Duration kHistory = std::chrono::minutes(5);
// A change of home must gain both: this much, and a third of the old latency.
inline constexpr Duration kMinGain = std::chrono::milliseconds(10);
// How long a frame from the home counts as an answer of it.
inline constexpr Duration kSignOfLife = std::chrono::seconds(8);
// How long the home is kept without data of any region.
inline constexpr Duration kKeepWithoutData = std::chrono::seconds(120);

// What a choice depends on beside the reports.
struct HomeState {
  RegionId home = 0;                  // 0: none
  std::optional<Instant> last_frame;  // that came from it
};

// The latencies of the last reports.
class ReportHistory {
 public:
  // Reports come every 20 s at most; the oldest go when somebody asks more often.
  static constexpr size_t kMaxReports = 64;

  // Takes a finished report in and returns the region to prefer now (spec: NC-10). `eligible` says
  // which regions may be a home at all.
  RegionId AddAndChoose(const Report& report, const HomeState& home, Instant now,
                        absl::FunctionRef<bool(RegionId)> eligible);
  // Best latency of each region in the reports that still count.
  std::map<RegionId, Duration> BestLatencies() const;
  void Clear() { entries_.clear(); }

 private:
  struct Entry {
    Instant at;
    std::map<RegionId, Duration> latency;
  };
  void Add(const Report& report, Instant now);

  std::deque<Entry> entries_;
};

}  // namespace ringsock::stun

#endif  // RINGSOCK_STUN_REPORT_H_
