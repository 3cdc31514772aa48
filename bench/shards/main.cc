// ringsock-shards: what a second shard costs. The same traffic is forwarded on the same two cores
// by one engine with two shards and by two engines with one each, which share nothing, in turns:
// the ratio of their CPU times per packet is the cost of sharing. On a machine with two cores the
// load runs beside the shards, in all cases alike; its time is not counted. What a load thread
// sends reaches either shard of the one engine, so half of it goes to the other core; of two
// engines it reaches one: they run once with the one on its own core and once with the other.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <memory>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "bench/cpu_meter.h"
#include "bench/flags.h"
#include "bench/load.h"
#include "bench/sockets.h"
#include "bench/statistics.h"
#include "bench/subject.h"
#include "bench/topology.h"

namespace ringsock::bench {
namespace {

constexpr size_t kShards = 2;
enum Layout : size_t { kStraight, kCrossed, kTogether, kLayouts };

struct ShardOptions {
  Traffic traffic;  // rate: of both shards together
  std::vector<SubjectSpec> subjects;
  uint32_t rounds = 9;
  double seconds = 0.5;
  double warmup = 0.2;
};

struct Sample {
  double packets_per_second = 0;
  double ns_per_packet = 0;
  uint64_t lost = 0;
};

// A load thread for each half of the peers, and one process for both, or one for each.
class Run {
 public:
  Run(const ShardOptions& options, const SubjectSpec& spec, Layout layout, const Topology& topology)
      : options_(options), spec_(spec), layout_(layout), topology_(topology) {}
  ~Run() { StopLoad(); }

  absl::Status Start(const std::vector<int>& cores) {
    static uint64_t run = 1;
    ++run;
    const uint32_t half = options_.traffic.peers / kShards;
    std::vector<std::vector<Endpoint>> peers(kShards);
    for (uint32_t i = 0; i < kShards; ++i) {
      LoadConfig config{.traffic = options_.traffic,
                        .first_peer = i * half,
                        .peers = half,
                        .first_address = topology_.first_peer_address(),
                        .run = run,
                        .socket_buffer = io::kDefaultSocketBuffer,
                        .core = cores[i]};
      config.traffic.rate = options_.traffic.rate / kShards;
      auto load = LoadGenerator::Create(config);
      if (!load.ok()) return load.status();
      for (uint32_t n = 0; n < half; ++n) {
        peers[i].push_back({.ip = IpAddress::V4(config.first_address + config.first_peer + n),
                            .port = (*load)->port(n)});
      }
      loads_.push_back(*std::move(load));
    }
    const bool together = layout_ == kTogether;
    if (together) {
      peers[0].insert(peers[0].end(), peers[1].begin(), peers[1].end());
      peers.pop_back();
    }
    for (size_t i = 0; i < peers.size(); ++i) {
      SubjectConfig config;
      config.spec = spec_;
      config.traffic = options_.traffic;
      config.address = topology_.subject_address();
      config.cores = together ? cores : std::vector<int>{cores[layout_ == kCrossed ? 1 - i : i]};
      config.peers = peers[i];
      auto subject = SubjectProcess::Start(config, topology_.subject());
      if (!subject.ok()) return subject.status();
      meters_.emplace_back((*subject)->pid(), std::vector<int>{}, std::vector<int>{});
      subjects_.push_back(*std::move(subject));
    }
    for (size_t i = 0; i < kShards; ++i) {
      loads_[i]->SetTarget(
          {.ip = topology_.subject_address(), .port = subjects_[together ? 0 : i]->port()});
    }
    for (auto& load : loads_) threads_.emplace_back(&LoadGenerator::Run, load.get());
    return absl::OkStatus();
  }

  Sample Measure() {
    Wait(options_.warmup);
    std::vector<CpuMeter::Reading> before, after;
    for (const CpuMeter& meter : meters_) before.push_back(meter.Read());
    const uint64_t first = Received();
    Wait(options_.seconds);
    const auto packets = static_cast<double>(Received() - first);
    for (const CpuMeter& meter : meters_) after.push_back(meter.Read());
    double cpu = 0;
    for (size_t i = 0; i < meters_.size(); ++i) {
      cpu += static_cast<double>(meters_[i].Used(before[i], after[i]));
    }
    Sample sample;
    sample.packets_per_second =
        packets / std::chrono::duration<double>(after[0].at - before[0].at).count();
    sample.ns_per_packet = cpu / packets;
    StopLoad();
    for (const auto& load : loads_) {
      const LoadTotals totals = load->Totals();
      sample.lost += totals.sent - std::min(totals.sent, totals.distinct);
    }
    return sample;
  }

 private:
  static void Wait(double seconds) {
    std::this_thread::sleep_for(Duration(static_cast<int64_t>(seconds * 1e9)));
  }
  uint64_t Received() const {
    uint64_t received = 0;
    for (const auto& load : loads_) received += load->received();
    return received;
  }
  void StopLoad() {
    for (auto& load : loads_) load->StopSending();
    for (std::thread& thread : threads_) thread.join();
    threads_.clear();
  }

  const ShardOptions& options_;
  const SubjectSpec& spec_;
  const Layout layout_;
  const Topology& topology_;
  std::vector<std::unique_ptr<LoadGenerator>> loads_;
  std::vector<std::thread> threads_;
  std::vector<std::unique_ptr<SubjectProcess>> subjects_;
  std::vector<CpuMeter> meters_;
};

absl::StatusOr<ShardOptions> Parse(const std::vector<const char*>& arguments) {
  ShardOptions options;
  std::string subjects = "ringsock,ringsock-mmsg,recvmmsg+gro:8";
  const FlagTable flags = {{"--size", {UintFlag(32, 65507, &options.traffic.size)}},
                           {"--train", {UintFlag(1, 64, &options.traffic.train)}},
                           {"--peers", {UintFlag(4, 4096, &options.traffic.peers)}},
                           {"--rate", {RateFlag(&options.traffic.rate)}},
                           {"--subjects", {TextFlag("a list", &subjects)}},
                           {"--rounds", {UintFlag(1, 1000, &options.rounds)}},
                           {"--seconds", {NumberFlag(0.1, 600, &options.seconds)}}};
  if (absl::Status status = ParseFlags(arguments, flags); !status.ok()) return status;
  options.traffic.peers &= ~3u;  // pairs of peers in each half
  auto specs = ParseSubjects(subjects);
  if (!specs.ok()) return specs.status();
  options.subjects = *specs;
  return options;
}

int Fail(const absl::Status& status) {
  std::fprintf(stderr, "ringsock-shards: %s\n", status.ToString().c_str());
  return 1;
}

int Compare(const ShardOptions& options, const std::vector<int>& cores, const Topology& topology) {
  std::printf(
      "%u peers forward %u bytes in trains of %u; %u rounds of %.1f s, medians and ranges\n"
      "%-16s %12s %12s %10s  %-20s %6s\n",
      options.traffic.peers, options.traffic.size, options.traffic.train, options.rounds,
      options.seconds, "subject", "packets/s", "1+1 ns/pkt", "2 ns/pkt", "ratio", "lost");
  for (const SubjectSpec& spec : options.subjects) {
    std::vector<double> ratio, apart, together, speed;
    uint64_t lost = 0;
    for (uint32_t round = 0; round < options.rounds; ++round) {
      Sample samples[kLayouts];
      for (size_t turn = 0; turn < kLayouts; ++turn) {
        const auto layout = static_cast<Layout>((turn + round) % kLayouts);
        Run run(options, spec, layout, topology);
        if (absl::Status status = run.Start(cores); !status.ok()) return Fail(status);
        samples[layout] = run.Measure();
        lost += samples[layout].lost;
      }
      apart.push_back((samples[kStraight].ns_per_packet + samples[kCrossed].ns_per_packet) / 2);
      together.push_back(samples[kTogether].ns_per_packet);
      ratio.push_back(together.back() / apart.back());
      speed.push_back(samples[kTogether].packets_per_second);
    }
    const Summary all = Summarize(ratio);
    std::printf("%-16s %12.0f %12.1f %10.1f  %.3f (%.3f-%.3f) %6llu\n", spec.Label().c_str(),
                Summarize(speed).median, Summarize(apart).median, Summarize(together).median,
                all.median, all.min, all.max, static_cast<unsigned long long>(lost));
    std::fflush(stdout);
  }
  return 0;
}

int Main(int argc, char** argv) {
  const auto options = Parse({argv + std::min(argc, 1), argv + argc});
  if (!options.ok()) {
    std::fprintf(stderr,
                 "%s\nusage: ringsock-shards [--size BYTES] [--train N] [--peers N] "
                 "[--rate PPS] [--subjects LIST] [--rounds N] [--seconds S]\n",
                 std::string(options.status().message()).c_str());
    return 2;
  }
  std::vector<int> cores = AllowedCores();
  if (cores.size() < kShards) return Fail(absl::UnavailableError("needs two cores"));
  cores.assign(cores.end() - kShards, cores.end());
  const auto topology = Topology::Create(TopologyKind::kLoopback, 1500, cores, cores);
  if (!topology.ok()) return Fail(topology.status());
  return Compare(*options, cores, **topology);
}

}  // namespace
}  // namespace ringsock::bench

int main(int argc, char** argv) { return ringsock::bench::Main(argc, argv); }
