#include "stun/report.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"

namespace ringsock::stun {
namespace {

std::string Milliseconds(Duration duration) {
  return absl::StrFormat("%.1fms", std::chrono::duration<double, std::milli>(duration).count());
}

std::string AddressOrDash(const Endpoint& endpoint) {
  return endpoint.IsNone() ? "-" : endpoint.ToString();
}

const char* YesNo(bool yes) { return yes ? "yes" : "no"; }

}  // namespace

const char* AnswerName(Answer answer) {
  return answer == Answer::kUnknown ? "unknown" : YesNo(answer == Answer::kYes);
}

std::string ToLogLine(const Report& report) {
  std::vector<std::string> latencies;
  for (const auto& [region, latency] : report.latency) {
    if (latency.v4) latencies.push_back(absl::StrCat(region, "-v4:", Milliseconds(*latency.v4)));
    if (latency.v6) latencies.push_back(absl::StrCat(region, "-v6:", Milliseconds(*latency.v6)));
    if (!latency.v4 && !latency.v6) {
      latencies.push_back(absl::StrCat(region, "-https:", Milliseconds(latency.best)));
    }
  }
  return absl::StrCat("udp=", YesNo(report.udp), " v6=", YesNo(report.ipv6),
                      " mapvarydest=", AnswerName(report.mapping_varies),
                      " hair=", AnswerName(report.hairpin),
                      " v4a=", AddressOrDash(report.global_v4),
                      " v6a=", AddressOrDash(report.global_v6), " derp=", report.preferred,
                      " latency=", latencies.empty() ? "-" : absl::StrJoin(latencies, ","));
}

void ReportHistory::Add(const Report& report, Instant now) {
  while (!entries_.empty() &&
         (now - entries_.front().at > kHistory || entries_.size() >= kMaxReports)) {
    entries_.pop_front();
  }
  Entry entry{now, {}};
  for (const auto& [region, latency] : report.latency) entry.latency[region] = latency.best;
  entries_.push_back(std::move(entry));
}

std::map<RegionId, Duration> ReportHistory::BestLatencies() const {
  std::map<RegionId, Duration> best;
  for (const Entry& entry : entries_) {
    for (const auto& [region, latency] : entry.latency) {
      const auto [at, added] = best.emplace(region, latency);
      if (!added) at->second = std::min(at->second, latency);
    }
  }
  return best;
}

RegionId ReportHistory::AddAndChoose(const Report& report, const HomeState& home, Instant now,
                                     absl::FunctionRef<bool(RegionId)> eligible) {
  Add(report, now);
  const std::map<RegionId, Duration> best = BestLatencies();
  RegionId candidate = 0;
  for (const auto& [region, latency] : report.latency) {
    if (!eligible(region)) continue;
    if (candidate == 0 || best.at(region) < best.at(candidate)) candidate = region;
  }
  const auto frame_within = [&](Duration age) {
    return home.last_frame.has_value() && now - *home.last_frame <= age;
  };
  if (home.home == 0 || candidate == home.home || !eligible(home.home)) return candidate;
  if (candidate == 0) return frame_within(kKeepWithoutData) ? home.home : 0;
  const bool alive = report.latency.contains(home.home) || frame_within(kSignOfLife) ||
                     (home.last_frame.has_value() && *home.last_frame >= report.started);
  if (!alive) return candidate;
  const auto old = best.find(home.home);
  // Alive, but never measured in these five minutes: nothing says that another one is better.
  if (old == best.end()) return home.home;
  const Duration gain = old->second - best.at(candidate);
  const bool better = gain >= kMinGain && best.at(candidate) * 3 < old->second * 2;
  return better ? candidate : home.home;
}

}  // namespace ringsock::stun
