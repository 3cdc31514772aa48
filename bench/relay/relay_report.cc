// What a run of the relay benchmark says to people.
#include "bench/relay/relay_report.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"

namespace ringsock::bench {
namespace {

Summary OfField(const RelaySubjectResult& subject, uint64_t RelayRound::*field) {
  std::vector<double> values;
  for (const RelayRound& round : subject.rounds) {
    values.push_back(static_cast<double>(round.*field));
  }
  return Summarize(values);
}

// For a column of 6.
std::string Short(double value) {
  if (value >= 100) return absl::StrFormat("%.0f", value);
  if (value >= 10) return absl::StrFormat("%.1f", value);
  return absl::StrFormat("%.2f", value);
}

// For a column of 10.
std::string Range(const Summary& summary) {
  if (summary.max < 10'000) return absl::StrFormat("%.0f-%.0f", summary.min, summary.max);
  return absl::StrFormat("%.0fk-%.0fk", summary.min / 1e3, summary.max / 1e3);
}

std::string Percent(double share) {
  if (share == 0) return "0";
  return share < 0.001 ? absl::StrFormat("%.3f%%", 100 * share)
                       : absl::StrFormat("%.1f%%", 100 * share);
}

std::string Microseconds(const RelaySubjectResult& subject, uint64_t RelayRound::*field) {
  const double median = OfField(subject, field).median;
  return median == 0 ? "-" : Short(median / 1000);
}

const RelaySubjectResult* Floor(const RelayScenario& scenario) {
  for (const RelaySubjectResult& subject : scenario.subjects) {
    if (subject.spec.is_floor()) return &subject;
  }
  return nullptr;
}

std::string FormatRow(const RelayScenario& scenario, const RelaySubjectResult& subject) {
  const Summary delivered = OfRelayRounds(subject, &RelayRound::DeliveredPerSecond);
  const Summary cost = OfRelayRounds(subject, &RelayRound::NsPerPacket);
  if (cost.count == 0) return absl::StrFormat("  %-14s delivered no packets\n", subject.spec.name);
  const Summary ratio = Summarize(RatiosToFloor(scenario, subject));
  return absl::StrFormat(
      "  %-14s%8.1f%8.1f%10s%7s%10s%4.0f%%%4.0f%%%6s%6s%7s%7s%5s\n", subject.spec.name,
      OfRelayRounds(subject, &RelayRound::OfferedPerSecond).median / 1e3, delivered.median / 1e3,
      absl::StrFormat("%.0f-%.0f", delivered.min / 1e3, delivered.max / 1e3), Short(cost.median),
      Range(cost), 100 * OfRelayRounds(subject, &RelayRound::Busy).median,
      100 * OfRelayRounds(subject, &RelayRound::LoadBusy).median,
      Percent(OfRelayRounds(subject, &RelayRound::LostShare).median),
      Percent(OfRelayRounds(subject, &RelayRound::HeldBackShare).median),
      Microseconds(subject, &RelayRound::latency_p50),
      Microseconds(subject, &RelayRound::latency_p99),
      ratio.count == 0 ? "-" : absl::StrFormat("%.2f", ratio.median));
}

// Losses over all rounds, and whatever else was not as it should be.
std::string FormatNotes(const RelaySubjectResult& subject) {
  StreamTotals totals;
  Metrics losses;
  uint64_t closed = 0;
  uint64_t late = 0;
  double stolen = 0;
  for (const RelayRound& round : subject.rounds) {
    totals += round.total.received;
    closed += round.total.closed;
    late += round.total.late;
    for (const auto& [name, value] : round.losses) losses[name] += value;
    stolen = std::max(stolen,
                      static_cast<double>(round.stolen_ns) / (round.seconds * 1e9 * round.cores));
  }
  std::string out;
  for (const auto& [name, value] : losses) {
    absl::StrAppendFormat(&out, "    %s: %.0f\n", name, value);
  }
  const std::pair<const char*, uint64_t> faults[] = {
      {"duplicates", totals.duplicates},
      {"reordered", totals.reordered},
      {"misdelivered", totals.misdelivered},
      {"invalid", totals.invalid},
      {"resyncs", totals.resyncs},
      {"connections it closed", closed},
      {"due and not offered, for want of the load's time", late}};
  for (const auto& [name, count] : faults) {
    if (count > 0) absl::StrAppend(&out, "    ", name, ": ", count, "\n");
  }
  if (stolen > 0.03) {
    absl::StrAppendFormat(&out, "    the hypervisor took up to %.0f%% of its cores\n",
                          100 * stolen);
  }
  const double load = OfRelayRounds(subject, &RelayRound::LoadBusy).median;
  const double busy = OfRelayRounds(subject, &RelayRound::Busy).median;
  if (load > 0.95 && busy < 0.95) {
    absl::StrAppend(&out, "    the load was the limit, not the subject\n");
  }
  if (!subject.error.empty()) absl::StrAppend(&out, "    not measured: ", subject.error, "\n");
  return out.empty() ? out : absl::StrCat("  ", subject.spec.name, ":\n", out);
}

constexpr char kColumns[] = "%8s%8s%10s%7s%10s%5s%5s%6s%6s%7s%7s%5s\n";

std::string ColumnNames(const std::string& first) {
  return absl::StrFormat("  %-14s", first) +
         absl::StrFormat(kColumns, "offered", "arrived", "range", "ns/p", "range", "busy", "load",
                         "lost", "held", "p50us", "p99us", "xflr");
}

}  // namespace

Summary OfRelayRounds(const RelaySubjectResult& subject, double (RelayRound::*figure)() const) {
  std::vector<double> values;
  for (const RelayRound& round : subject.rounds) values.push_back((round.*figure)());
  return Summarize(values);
}

std::vector<double> RatiosToFloor(const RelayScenario& scenario,
                                  const RelaySubjectResult& subject) {
  std::vector<double> ratios;
  const RelaySubjectResult* floor = Floor(scenario);
  if (floor == nullptr || floor == &subject) return ratios;
  for (size_t i = 0; i < std::min(floor->rounds.size(), subject.rounds.size()); ++i) {
    ratios.push_back(floor->rounds[i].NsPerPacket() / subject.rounds[i].NsPerPacket());
  }
  return ratios;
}

std::string ReferenceFigures(const RelayTraffic& t) {
  if (t.one_in_flight || t.extra != RelayTraffic::Extra::kNone) return "";
  const bool large = t.size == 1400;
  const bool flat_out = t.rate == 0;
  std::string known;
  if (t.senders == 1 && t.receivers == 1 && (large || t.size == 64)) {
    known = large ? "5900 ns/pkt" : "6800 ns/pkt";
    if (t.rate == 40'000) absl::StrAppend(&known, ", 20% lost at 40,000/s");
    if (flat_out) absl::StrAppend(&known, ", flat out 580,000/s offered, 2,000/s delivered");
  } else if (t.senders == 20 && t.receivers == 20 && large) {
    known = "6600-10000 ns/pkt";
    if (t.rate == 120'000) absl::StrAppend(&known, ", nothing lost at 120,000/s");
    if (flat_out) absl::StrAppend(&known, ", flat out 243,000/s offered, 5,700/s delivered");
  }
  if (known.empty()) return "";
  return absl::StrCat("  the reference relay, one core: ", known,
                      large ? "\n  wanted here: 1200 ns/pkt or less\n" : "\n");
}

std::string FormatRelayHeader(const Environment& environment, const RelayOptions& options) {
  std::string out = absl::StrCat("ringsock-relay-bench on ", environment.machine, ", ",
                                 environment.cores, " cores, ", environment.kernel, "\n");
  absl::StrAppend(&out, "measured on core ", absl::StrJoin(environment.assigned.subject, ","),
                  "; load on core ", absl::StrJoin(environment.assigned.load, ","), "\n");
  if (environment.assigned.shared) {
    absl::StrAppend(&out, "only one core: load and subject share it, rates mean little\n");
  }
  absl::StrAppendFormat(&out, "%d rounds in turn, %g s each after %g s\n", options.rounds,
                        options.seconds, options.warmup);
  for (const RelaySubjectSpec& spec : options.subjects) {
    if (!spec.command.empty()) absl::StrAppend(&out, spec.name, ": ", spec.command, "\n");
  }
  return absl::StrCat(out, "rates in thousands of packets a second\n");
}

std::string FormatRelayScenario(const RelayScenario& scenario) {
  const RelayTraffic& t = scenario.traffic;
  std::string pace = "flat out";
  if (t.one_in_flight) {
    pace = "one packet in flight";
    if (t.rate > 0) absl::StrAppendFormat(&pace, ", at most %g/s", t.rate);
  } else if (t.rate > 0) {
    pace = absl::StrFormat("%g/s in bursts of %g ms", t.rate,
                           std::chrono::duration<double, std::milli>(t.tick).count());
  }
  std::string out = absl::StrFormat("\n%s: %d to %d, %d B, %s\n", scenario.name, t.senders,
                                    t.receivers, t.size, pace);
  out += ReferenceFigures(t);
  out += ColumnNames("");
  for (const RelaySubjectResult& subject : scenario.subjects) {
    if (!subject.rounds.empty()) out += FormatRow(scenario, subject);
  }
  for (const RelaySubjectResult& subject : scenario.subjects) out += FormatNotes(subject);
  return out;
}

std::string FormatSweep(const Sweep& sweep) {
  if (sweep.points.empty()) return "";
  const RelayTraffic& t = sweep.points.front().scenario.traffic;
  std::string out = absl::StrFormat("\nsweep: %d to %d, %d B; capacity %.0f packets/s\n", t.senders,
                                    t.receivers, t.size, sweep.capacity);
  out += ColumnNames("load");
  std::string notes;
  for (const SweepPoint& point : sweep.points) {
    for (const RelaySubjectResult& subject : point.scenario.subjects) {
      RelaySubjectResult named = subject;
      named.spec.name = point.scenario.name;
      if (!subject.rounds.empty()) out += FormatRow(point.scenario, named);
      notes += FormatNotes(named);
    }
  }
  absl::StrAppendFormat(&out, "  delivered, of what was due or of the best, %.0f/s:\n   ",
                        sweep.Best());
  for (const SweepPoint& point : sweep.points) {
    const std::string load =
        point.factor == 0 ? "flat out" : absl::StrFormat("%.1fx", point.factor);
    absl::StrAppendFormat(&out, " %s %.2f", load, sweep.Share(point));
  }
  return absl::StrCat(out, "\n", notes);
}

std::string FormatMemory(const MemoryResult& r) {
  std::string out = absl::StrFormat("\nmemory, %d idle clients of %s\n", r.clients, r.spec.name);
  if (!r.error.empty()) absl::StrAppend(&out, "  ", r.error, "\n");
  if (r.clients == 0) return out;
  const auto each = [&](uint64_t MemoryReading::*field) {
    return (static_cast<double>(r.after.*field) - static_cast<double>(r.before.*field)) /
           r.clients / 1024;
  };
  absl::StrAppendFormat(&out,
                        "  process, KiB a client: resident %.2f, proportional %.2f, page "
                        "tables %.2f\n",
                        each(&MemoryReading::rss), each(&MemoryReading::pss),
                        each(&MemoryReading::page_tables));
  absl::StrAppendFormat(&out,
                        "  kernel, KiB a connection, both ends: slabs %.2f, TCP buffers %.2f; "
                        "the relay's end is about half\n",
                        each(&MemoryReading::slab), each(&MemoryReading::tcp_buffers));
  absl::StrAppendFormat(&out, "  before: resident %.1f MiB; after: %.1f MiB\n",
                        static_cast<double>(r.before.rss) / 1048576,
                        static_cast<double>(r.after.rss) / 1048576);
  absl::StrAppendFormat(&out, "  connected in %.1f s; idle it used %.2f%% of a core\n",
                        r.connect_seconds, 100 * r.idle_cpu);
  return absl::StrCat(out, "  the best public figure of the reference relay: 14.5 KB a client; ",
                      "wanted here: under 12 KB\n");
}

}  // namespace ringsock::bench
