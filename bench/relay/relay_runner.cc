// Runs relays and the floor in alternating rounds under one load.
#include "bench/relay/relay_runner.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <limits>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "bench/cpu_meter.h"
#include "bench/statistics.h"

namespace ringsock::bench {
namespace {

constexpr double kSearchStart = 50'000;  // packets a second
constexpr double kSearchStep = 1.5;
constexpr double kMaxRate = 2e7;

Duration Seconds(double seconds) { return Duration(static_cast<int64_t>(seconds * 1e9)); }

double Share(uint64_t part, uint64_t whole) {
  return whole == 0 ? 0 : static_cast<double>(part) / static_cast<double>(whole);
}

uint64_t Less(uint64_t a, uint64_t b) { return a > b ? a - b : 0; }

void ShowProgress(const std::string& line) {
  if (isatty(2) != 1) return;
  std::fprintf(stderr, "\r\033[K%s", line.c_str());
  std::fflush(stderr);
}

uint64_t NextRun() {
  static uint64_t run = static_cast<uint64_t>(getpid()) << 32;
  return ++run;
}

absl::StatusOr<Metrics> ReadMetrics(const RelayProcess& subject) {
  if (!subject.metrics()) return Metrics();
  return FetchMetrics(*subject.metrics());
}

double Delivered(const SweepPoint& point) {
  std::vector<double> rates;
  for (const RelayRound& round : point.scenario.subjects.front().rounds) {
    rates.push_back(round.DeliveredPerSecond());
  }
  return Summarize(rates).median;
}

// A subject that has failed is left out.
void AddRound(const RelayOptions& options, const RelayTraffic& traffic, const Cores& cores,
              RelaySubjectResult* subject) {
  if (!subject->error.empty()) return;
  auto round = RunRelayRound(options, traffic, subject->spec, cores);
  if (round.ok()) {
    subject->rounds.push_back(*std::move(round));
  } else {
    subject->error = std::string(round.status().message());
  }
}

}  // namespace

double RelayRound::NsPerPacket() const {
  const uint64_t packets = delivered + delivered_extra;
  if (packets == 0) return std::numeric_limits<double>::infinity();
  return static_cast<double>(cpu_ns) / static_cast<double>(packets);
}

double RelayRound::Busy() const { return static_cast<double>(cpu_ns) / (seconds * 1e9 * cores); }

double RelayRound::LoadBusy() const { return static_cast<double>(load_busy_ns) / (seconds * 1e9); }

double RelayRound::LostShare() const {
  return Share(Less(total.sent - total.sent_extra, total.received.packets),
               total.offered - total.sent_extra);
}

double RelayRound::HeldBackShare() const {
  return Share(total.held_back, total.offered - total.sent_extra);
}

absl::StatusOr<RelayRound> RunRelayRound(const RelayOptions& options, const RelayTraffic& traffic,
                                         const RelaySubjectSpec& spec, const Cores& cores) {
  auto subject = RelayProcess::Start(spec, cores.subject);
  if (!subject.ok()) return subject.status();
  const auto metrics_before = ReadMetrics(**subject);
  if (!metrics_before.ok()) return metrics_before.status();
  auto load = RelayLoad::Create({.traffic = traffic,
                                 .target = (*subject)->target(),
                                 .derp = !(*subject)->is_floor(),
                                 .check = traffic.one_in_flight ? 1 : options.check,
                                 .run = NextRun()});
  if (!load.ok()) {
    const absl::Status alive = (*subject)->CheckAlive();
    return alive.ok() ? load.status() : alive;
  }
  const CpuMeter meter((*subject)->pid(), cores.subject, {});
  (*load)->RunFor(Seconds(options.warmup), false);
  const CpuMeter::Reading before = meter.Read();
  const RelayLoadTotals first = (*load)->Totals();
  (*load)->RunFor(Seconds(options.seconds), true);
  const RelayLoadTotals last = (*load)->Totals();
  const CpuMeter::Reading after = meter.Read();
  (*load)->Drain();

  RelayRound round;
  round.seconds = std::chrono::duration<double>(after.at - before.at).count();
  round.offered = last.offered - last.sent_extra - (first.offered - first.sent_extra);
  round.delivered = last.received.packets - first.received.packets;
  round.delivered_extra = last.received_extra - first.received_extra;
  round.cpu_ns = (*subject)->pid() > 0 ? meter.Used(before, after) : 0;
  round.stolen_ns = after.cores.stolen - before.cores.stolen;
  round.load_busy_ns = last.busy_ns - first.busy_ns;
  round.cores = static_cast<uint32_t>(cores.subject.size());
  round.latency_p50 = (*load)->latency().Percentile(50);
  round.latency_p99 = (*load)->latency().Percentile(99);
  round.latency_p999 = (*load)->latency().Percentile(99.9);
  round.total = (*load)->Totals();
  const absl::Status alive = (*subject)->CheckAlive();
  if (!alive.ok()) return alive;
  const auto metrics_after = ReadMetrics(**subject);
  if (metrics_after.ok()) round.losses = LossesBetween(*metrics_before, *metrics_after);
  return round;
}

RelayScenario RunRelayScenario(const RelayOptions& options, const std::string& name,
                               const RelayTraffic& traffic, const Cores& cores) {
  RelayScenario scenario{.name = name, .traffic = traffic, .subjects = {}};
  for (const RelaySubjectSpec& spec : options.subjects) {
    scenario.subjects.push_back({.spec = spec, .rounds = {}, .error = {}});
  }
  const size_t count = scenario.subjects.size();
  for (uint32_t i = 0; i < options.rounds; ++i) {
    // Each begins a round in turn, so that none always runs after the same other one.
    for (size_t n = 0; n < count; ++n) {
      RelaySubjectResult& subject = scenario.subjects[(i + n) % count];
      ShowProgress(
          absl::StrFormat("%s  round %d/%d  %s", name, i + 1, options.rounds, subject.spec.name));
      AddRound(options, traffic, cores, &subject);
    }
  }
  ShowProgress("");
  return scenario;
}

absl::StatusOr<Sweep> RunSweep(const RelayOptions& all, const Cores& cores) {
  RelayOptions options = all;
  std::erase_if(options.subjects, [](const RelaySubjectSpec& spec) { return spec.is_floor(); });
  if (options.subjects.empty()) return absl::InvalidArgumentError("a sweep needs a relay");
  const RelaySubjectSpec& spec = options.subjects.front();
  Sweep sweep{.capacity = options.capacity, .points = {}};
  RelayTraffic traffic = options.traffic;
  // Upwards until less than nine tenths come, or the load has no time left to offer more.
  for (traffic.rate = kSearchStart; options.capacity == 0 && traffic.rate < kMaxRate;
       traffic.rate *= kSearchStep) {
    ShowProgress(absl::StrFormat("looking for the capacity: %.0f packets/s", traffic.rate));
    const auto round = RunRelayRound(options, traffic, spec, cores);
    if (!round.ok()) return round.status();
    sweep.capacity = std::max(sweep.capacity, round->DeliveredPerSecond());
    if (round->DeliveredPerSecond() < 0.9 * traffic.rate) break;
  }
  for (const double factor : {0.5, 0.8, 1.0, 1.5, 2.0, 4.0, 0.0}) {
    traffic.rate = factor * sweep.capacity;
    const std::string name = factor == 0 ? "flat out" : absl::StrFormat("%.1f x capacity", factor);
    sweep.points.push_back(
        {factor, {.name = name, .traffic = traffic, .subjects = {{spec, {}, {}}}}});
  }
  // Point by point in each round, so that a machine that changes its speed does it to all of them.
  for (uint32_t i = 0; i < options.rounds; ++i) {
    for (SweepPoint& point : sweep.points) {
      RelayScenario& scenario = point.scenario;
      ShowProgress(absl::StrFormat("%s  round %d/%d", scenario.name, i + 1, options.rounds));
      AddRound(options, scenario.traffic, cores, &scenario.subjects.front());
    }
  }
  ShowProgress("");
  return sweep;
}

double Sweep::Best() const {
  double best = 0;
  for (const SweepPoint& point : points) best = std::max(best, Delivered(point));
  return best;
}

double Sweep::Share(const SweepPoint& point) const {
  const double due = point.scenario.traffic.rate;
  const double best = Best();
  const double possible = due == 0 ? best : std::min(due, best);
  return possible == 0 ? 0 : Delivered(point) / possible;
}

MemoryResult RunMemory(const RelayOptions& options, const RelaySubjectSpec& spec,
                       const Cores& cores) {
  MemoryResult result{.spec = spec, .clients = 0, .before = {}, .after = {}, .error = {}};
  auto subject = RelayProcess::Start(spec, cores.subject);
  if (!subject.ok()) {
    result.error = std::string(subject.status().message());
    return result;
  }
  std::vector<std::unique_ptr<Link>> links;
  links.reserve(options.clients + 1);
  const Clock& clock = SystemClock();
  const Duration settle = Seconds(options.settle);
  Instant begin = clock.Now();
  // The first one makes what is made once.
  for (uint32_t i = 0; i <= options.clients; ++i) {
    if (i % 100 == 0) ShowProgress(absl::StrFormat("%s: %d clients", spec.name, i));
    auto link = Link::Open((*subject)->target());
    absl::Status status = link.status();
    if (status.ok() && !(*subject)->is_floor()) {
      status = (*link)->Login((*subject)->target(), PrivateKey::Generate());
    }
    if (!status.ok()) {
      result.error = absl::StrCat("client ", i, ": ", status.message());
      break;
    }
    links.push_back(*std::move(link));
    if (i == 0) {
      std::this_thread::sleep_for(settle);
      result.before = ReadMemory((*subject)->pid());
      begin = clock.Now();
    }
  }
  result.clients = links.empty() ? 0 : static_cast<uint32_t>(links.size()) - 1;
  result.connect_seconds = std::chrono::duration<double>(clock.Now() - begin).count();
  std::this_thread::sleep_for(settle);
  const CpuMeter meter((*subject)->pid(), cores.subject, {});
  const CpuMeter::Reading before = meter.Read();
  std::this_thread::sleep_for(settle);
  const CpuMeter::Reading after = meter.Read();
  result.idle_cpu = static_cast<double>(after.process - before.process) /
                    static_cast<double>((after.at - before.at).count());
  result.after = ReadMemory((*subject)->pid());
  ShowProgress("");
  return result;
}

}  // namespace ringsock::bench
