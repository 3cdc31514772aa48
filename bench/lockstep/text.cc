// What was measured in lockstep, as a table: medians, and the middle half of the rounds.
#include <algorithm>
#include <functional>
#include <limits>
#include <optional>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "bench/lockstep/bench.h"

namespace ringsock::bench {
namespace {

using Layout = LockstepCase::Layout;

struct Quartiles {
  double low = 0, median = 0, high = 0;
};

Quartiles Over(size_t rounds, const std::function<double(size_t)>& value) {
  std::vector<double> values;
  for (size_t i = 0; i < rounds; ++i) values.push_back(value(i));
  if (values.empty()) return {};
  std::sort(values.begin(), values.end());
  const auto at = [&](double share) {
    return values[static_cast<size_t>(share * static_cast<double>(values.size() - 1) + 0.5)];
  };
  return {at(0.25), at(0.5), at(0.75)};
}

class Table {
 public:
  Table(const LockstepOptions& options, const std::vector<LockstepCase>& cases)
      : options_(options), cases_(cases), best_(FindBest()) {}
  std::string Text() const;

 private:
  const LockstepCase& Find(size_t subject, Layout layout) const {
    return *std::find_if(cases_.begin(), cases_.end(), [&](const LockstepCase& c) {
      return c.subject == subject && c.layout == layout;
    });
  }
  size_t Rounds() const { return cases_.front().rounds.size(); }
  double Ns(size_t subject, Layout layout, size_t round) const {
    return Find(subject, layout).rounds[round].NsPerPacket();
  }
  Quartiles Cost(size_t subject, Layout layout) const {
    return Over(Rounds(), [&](size_t i) { return Ns(subject, layout, i); });
  }
  Quartiles Ratio(size_t subject, Layout layout, size_t other, Layout other_layout) const {
    return Over(Rounds(),
                [&](size_t i) { return Ns(subject, layout, i) / Ns(other, other_layout, i); });
  }
  // CPU time that one packet of the flood took.
  double Stranger(size_t subject, size_t round) const {
    const LockstepSample& flooded = Find(subject, Layout::kFlooded).rounds[round];
    const double good = Ns(subject, Layout::kAlone, round) * static_cast<double>(flooded.packets);
    return (flooded.cpu_ns - good) / static_cast<double>(flooded.strangers);
  }
  std::optional<size_t> FindBest() const;
  std::string Row(size_t subject) const;

  const LockstepOptions& options_;
  const std::vector<LockstepCase>& cases_;
  const std::optional<size_t> best_;  // the hand-written loop to compare with
};

std::string Show(const Quartiles& q) {
  return absl::StrFormat("  %.3f (%.3f-%.3f)", q.median, q.low, q.high);
}

std::optional<size_t> Table::FindBest() const {
  std::optional<size_t> best;
  double least = std::numeric_limits<double>::max();
  for (size_t i = 0; i < options_.subjects.size(); ++i) {
    if (!options_.subjects[i].is_bare()) continue;
    const double cost = Cost(i, Layout::kAlone).median;
    if (cost >= least) continue;
    least = cost;
    best = i;
  }
  return best;
}

std::string Table::Row(size_t n) const {
  const Quartiles cost = Cost(n, Layout::kAlone);
  std::string row = absl::StrFormat("%-24s %8.1f (%.1f-%.1f)", options_.subjects[n].Label(),
                                    cost.median, cost.low, cost.high);
  if (best_.has_value()) row += Show(Ratio(n, Layout::kAlone, *best_, Layout::kAlone));
  if (options_.shards > 1) {
    row += Show(Ratio(n, Layout::kApart, n, Layout::kAlone));
    row += Show(Ratio(n, Layout::kTogether, n, Layout::kAlone));
    row += Show(Ratio(n, Layout::kTogether, n, Layout::kApart));
  }
  if (options_.flood != FloodKind::kNone) {
    const Quartiles ns = Over(Rounds(), [&](size_t i) { return Stranger(n, i); });
    absl::StrAppendFormat(&row, "  %6.0f (%.0f-%.0f)", ns.median, ns.low, ns.high);
    if (best_.has_value()) {
      row += Show(Over(Rounds(), [&](size_t i) { return Stranger(n, i) / Stranger(*best_, i); }));
    }
  }
  return row + "\n";
}

std::string Table::Text() const {
  const Traffic& t = options_.traffic;
  std::string text = absl::StrFormat(
      "%s on %s: %u peers, %u bytes in trains of %u%s%s, bursts of %u trains; %u rounds of %u "
      "bursts; medians and the middle half\n",
      ModeName(t.mode), TopologyName(options_.topology), t.peers, t.size, t.train,
      t.mix ? ", mixed" : "", t.interleave > 1 ? absl::StrCat(", interleaved ", t.interleave) : "",
      options_.burst, options_.rounds, options_.bursts);
  absl::StrAppendFormat(&text, "%-24s %8s", "subject", "ns/packet");
  if (best_.has_value()) absl::StrAppend(&text, ", of ", options_.subjects[*best_].Label());
  if (options_.shards > 1) text += ", two apart of one, two shards of one, two shards of two apart";
  if (options_.flood != FloodKind::kNone) {
    absl::StrAppend(&text, ", ns/", FloodName(options_.flood), ", of the best loop's");
  }
  text += "\n";
  for (size_t i = 0; i < options_.subjects.size(); ++i) text += Row(i);
  return text;
}

}  // namespace

std::string LockstepText(const LockstepOptions& options, const std::vector<LockstepCase>& cases) {
  return Table(options, cases).Text();
}

}  // namespace ringsock::bench
