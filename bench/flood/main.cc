// ringsock-flood: what a flood takes from good traffic. One core forwards for good peers, flat out;
// beside them strangers send at a fixed rate. Measured for the engine and for loops written by hand
// in the same rounds:
//   good       packets a second of the good peers, and what is left of them beside the flood
//   fair       what would be left if a stranger's packet cost what receiving it costs the bare loop
//              of the same run: the strangers' share of the core
//   ns/flood   CPU time that a stranger's packet takes from the core
// Where there are two cores only, load and flood together are more work than what is measured. So a
// thread that just spins shares the measured core, which leaves the subject half of it.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <map>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/clock.h"
#include "bench/cpu_meter.h"
#include "bench/flags.h"
#include "bench/flood/flooder.h"
#include "bench/load.h"
#include "bench/sockets.h"
#include "bench/statistics.h"
#include "bench/subject.h"
#include "bench/topology.h"

namespace ringsock::bench {
namespace {

// Of the strangers: away from the good peers', which are at 127.x too.
constexpr uint32_t kStrangers = (127u << 24) | (200u << 16) | 1;

struct FloodOptions {
  Traffic traffic;
  std::vector<SubjectSpec> subjects;
  std::vector<FloodKind> floods;
  double rate = 50e3;
  bool whole_core = false;  // nobody spins beside the subject
  uint32_t rounds = 5;
  double seconds = 1;
  double warmup = 0.3;
};

struct Sample {
  double good_per_second = 0;
  double cpu_per_second = 0;  // of the core: 1 is all
  double flood_per_second = 0;
  uint64_t lost = 0;  // good packets that did not come back
  SubjectTotals totals;
};

// Takes half of a core from whoever runs there, while it lives.
class Spinner {
 public:
  explicit Spinner(int core)
      : thread_([this, core] {
          PinThisThread({core});
          while (!stop_.load(std::memory_order_relaxed)) continue;
        }) {}
  ~Spinner() {
    stop_.store(true);
    thread_.join();
  }

 private:
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

// One subject beside one flood. The load and the flood share the first core, the subject has the
// last.
absl::StatusOr<Sample> Measure(const FloodOptions& options, const SubjectSpec& spec,
                               FloodKind flood, const std::vector<int>& allowed,
                               const Topology& topology) {
  static uint64_t run = 1;
  LoadConfig config{.traffic = options.traffic,
                    .first_peer = 0,
                    .peers = options.traffic.peers,
                    .first_address = topology.first_peer_address(),
                    .run = ++run,
                    .socket_buffer = io::kDefaultSocketBuffer,
                    .core = allowed.front()};
  auto load = LoadGenerator::Create(config);
  if (!load.ok()) return load.status();
  SubjectConfig subject_config;
  subject_config.spec = spec;
  subject_config.traffic = options.traffic;
  subject_config.address = topology.subject_address();
  subject_config.cores = {allowed.back()};
  for (uint32_t i = 0; i < options.traffic.peers; ++i) {
    subject_config.peers.push_back(
        {.ip = IpAddress::V4(topology.first_peer_address() + i), .port = (*load)->port(i)});
  }
  auto subject = SubjectProcess::Start(subject_config, topology.subject());
  if (!subject.ok()) return subject.status();
  const Endpoint target{.ip = topology.subject_address(), .port = (*subject)->port()};
  const CpuMeter meter((*subject)->pid(), {allowed.back()}, {});
  (*load)->SetTarget(target);
  std::thread loading(&LoadGenerator::Run, load->get());
  std::optional<Spinner> spinner;
  if (!options.whole_core) spinner.emplace(allowed.back());
  auto flooder = Flooder::Start({.kind = flood,
                                 .rate = options.rate,
                                 .size = options.traffic.size,
                                 .first_address = kStrangers,
                                 .target = target,
                                 .core = allowed.front()});
  const auto wait = [](double seconds) {
    std::this_thread::sleep_for(Duration(static_cast<int64_t>(seconds * 1e9)));
  };
  Sample sample;
  if (flooder.ok()) {
    wait(options.warmup);
    const CpuMeter::Reading before = meter.Read();
    const uint64_t good = (*load)->received(), bad = (*flooder)->sent();
    wait(options.seconds);
    const double seconds_good = static_cast<double>((*load)->received() - good);
    const double bad_sent = static_cast<double>((*flooder)->sent() - bad);
    const CpuMeter::Reading after = meter.Read();
    const double seconds = std::chrono::duration<double>(after.at - before.at).count();
    sample.good_per_second = seconds_good / seconds;
    sample.flood_per_second = bad_sent / seconds;
    sample.cpu_per_second = static_cast<double>(meter.Used(before, after)) / 1e9 / seconds;
    (*flooder).reset();
  }
  spinner.reset();
  (*load)->StopSending();
  loading.join();
  if (!flooder.ok()) return flooder.status();
  const LoadTotals totals = (*load)->Totals();
  sample.lost = totals.sent - std::min(totals.sent, totals.distinct);
  auto account = (*subject)->Stop();
  if (!account.ok()) return account.status();
  sample.totals = *account;
  return sample;
}

// By subject and flood.
using Samples = std::map<std::pair<size_t, FloodKind>, std::vector<Sample>>;

double CpuPerGood(const Sample& alone) { return alone.cpu_per_second / alone.good_per_second; }

// CPU seconds that one packet of the flood took: what is used beyond what the good ones use.
double CpuPerBad(const Sample& alone, const Sample& beside) {
  return (beside.cpu_per_second - beside.good_per_second * CpuPerGood(alone)) /
         beside.flood_per_second;
}

std::string Losses(const Sample& sample) {
  std::string text;
  for (const SubjectTotals::Reason& reason : sample.totals.reasons) {
    if (reason.name[0] == '\0') break;
    absl::StrAppend(&text, " ", reason.name.data(), "=", reason.packets);
  }
  return text;
}

Summary Over(size_t rounds, const auto& value) {
  std::vector<double> values;
  for (size_t i = 0; i < rounds; ++i) values.push_back(value(i));
  return Summarize(values);
}

void Print(const FloodOptions& options, Samples& samples) {
  std::printf("%-12s %-10s %10s %6s  %-18s  %-18s %9s %6s\n", "subject", "flood", "good/s", "busy",
              "good left", "of fair share", "ns/flood", "lost");
  for (const FloodKind flood : options.floods) {
    for (size_t n = 0; n < options.subjects.size(); ++n) {
      const auto& alone = samples[{n, FloodKind::kNone}];
      const auto& beside = samples[{n, flood}];
      const auto& bare_alone = samples[{0, FloodKind::kNone}];
      const auto& bare = samples[{0, flood}];
      const size_t rounds = std::min({alone.size(), beside.size(), bare_alone.size(), bare.size()});
      const auto left = [&](size_t i) {
        return beside[i].good_per_second / alone[i].good_per_second;
      };
      const Summary kept = Over(rounds, left);
      const Summary fair = Over(rounds, [&](size_t i) {
        const double taken = beside[i].flood_per_second * CpuPerBad(bare_alone[i], bare[i]);
        return left(i) / (1 - taken / beside[i].cpu_per_second);
      });
      const Summary cost =
          Over(rounds, [&](size_t i) { return CpuPerBad(alone[i], beside[i]) * 1e9; });
      const Summary good = Over(rounds, [&](size_t i) { return beside[i].good_per_second; });
      const Summary busy = Over(rounds, [&](size_t i) { return beside[i].cpu_per_second * 100; });
      uint64_t lost = 0;
      for (const Sample& sample : beside) lost += sample.lost;
      std::printf("%-12s %-10s %10.0f %5.0f%%  %.3f (%.3f-%.3f)  %.3f (%.3f-%.3f) %9.0f %6llu\n",
                  options.subjects[n].Label().c_str(), FloodName(flood), good.median, busy.median,
                  kept.median, kept.min, kept.max, fair.median, fair.min, fair.max, cost.median,
                  static_cast<unsigned long long>(lost));
      if (!beside.empty()) std::printf("             %s\n", Losses(beside.back()).c_str());
    }
  }
}

absl::StatusOr<FloodOptions> Parse(std::vector<const char*> arguments) {
  FloodOptions options;
  options.traffic.train = 1;
  // The first one's cost of a stranger's packet is the measure of the fair share.
  std::string subjects = "recvmmsg+gro:8,ringsock,ringsock-mmsg", floods = "all";
  const FlagTable flags = {{"--size", {UintFlag(32, 65507, &options.traffic.size)}},
                           {"--train", {UintFlag(1, 64, &options.traffic.train)}},
                           {"--peers", {UintFlag(2, 4096, &options.traffic.peers)}},
                           {"--subjects", {TextFlag("a list", &subjects)}},
                           {"--floods", {TextFlag("a list", &floods)}},
                           {"--rate", {RateFlag(&options.rate)}},
                           {"--whole-core", SwitchFlag(&options.whole_core)},
                           {"--rounds", {UintFlag(1, 1000, &options.rounds)}},
                           {"--seconds", {NumberFlag(0.1, 600, &options.seconds)}}};
  if (absl::Status status = ParseFlags(arguments, flags); !status.ok()) return status;
  auto specs = ParseSubjects(subjects);
  if (!specs.ok()) return specs.status();
  options.subjects = *specs;
  auto kinds = ParseFloods(floods);
  if (!kinds.ok()) return kinds.status();
  options.floods = *kinds;
  return options;
}

int Main(int argc, char** argv) {
  const auto options = Parse({argv + std::min(argc, 1), argv + argc});
  if (!options.ok()) {
    const bool help = absl::IsCancelled(options.status());
    std::fprintf(stderr,
                 "%s\nusage: ringsock-flood [--floods unknown,stun,handshake,garbage] [--rate PPS] "
                 "[--size BYTES] [--train N] [--peers N] [--subjects LIST] [--rounds N] "
                 "[--seconds S] [--whole-core]\n",
                 help ? "" : std::string(options.status().message()).c_str());
    return help ? 0 : 2;
  }
  const std::vector<int> allowed = AllowedCores();
  PinThisThread({allowed.front()});
  const auto topology =
      Topology::Create(TopologyKind::kLoopback, 1500, {allowed.front()}, {allowed.back()});
  if (!topology.ok()) return 1;
  std::vector<FloodKind> kinds = options->floods;
  kinds.insert(kinds.begin(), FloodKind::kNone);
  Samples samples;
  for (uint32_t round = 0; round < options->rounds; ++round) {
    for (const FloodKind flood : kinds) {
      for (size_t n = 0; n < options->subjects.size(); ++n) {
        const size_t subject = (n + round) % options->subjects.size();
        const auto sample =
            Measure(*options, options->subjects[subject], flood, allowed, **topology);
        if (!sample.ok()) {
          std::fprintf(stderr, "ringsock-flood: %s\n", sample.status().ToString().c_str());
          return 1;
        }
        samples[{subject, flood}].push_back(*sample);
      }
    }
  }
  std::printf(
      "%u peers forward %u bytes in trains of %u, flat out, on one core; strangers send "
      "%.0f packets/s; %u rounds of %.1f s, medians and ranges\n",
      options->traffic.peers, options->traffic.size, options->traffic.train, options->rate,
      options->rounds, options->seconds);
  Print(*options, samples);
  return 0;
}

}  // namespace
}  // namespace ringsock::bench

int main(int argc, char** argv) { return ringsock::bench::Main(argc, argv); }
