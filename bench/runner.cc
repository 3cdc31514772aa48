// Runs subjects in alternating rounds under one load.
#include "bench/runner.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <limits>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "bench/cpu_meter.h"
#include "bench/far_side.h"
#include "bench/sockets.h"

namespace ringsock::bench {
namespace {

uint64_t Less(uint64_t a, uint64_t b) { return a > b ? a - b : 0; }

// One line on a terminal, written over again and again.
class Progress {
 public:
  explicit Progress(std::string prefix) : prefix_(std::move(prefix)), on_(isatty(2) == 1) {}
  ~Progress() {
    if (on_) std::fputs("\r\033[K", stderr);
  }
  void Show(double packets_per_second) const {
    if (!on_) return;
    std::fprintf(stderr, "\r\033[K%s  %.3f M packets/s", prefix_.c_str(), packets_per_second / 1e6);
    std::fflush(stderr);
  }

 private:
  const std::string prefix_;
  const bool on_;
};

// The load's threads, for one subject and round.
class Load {
 public:
  absl::Status Open(const Options& options, const Traffic& traffic, const Cores& cores,
                    const Topology& topology);
  std::vector<Endpoint> Peers(const Topology& topology) const;
  void Start(const Endpoint& subject, const std::atomic<uint64_t>* feedback);
  void Stop();
  uint64_t Received() const;
  void RecordLatency(bool on) {
    for (auto& generator : generators_) generator->RecordLatency(on);
  }
  absl::Status Collect(Round* round) const;
  ~Load() { Stop(); }

 private:
  struct Share {
    uint32_t first;
    uint32_t peers;
  };
  std::vector<std::unique_ptr<LoadGenerator>> generators_;
  std::vector<Share> shares_;
  std::vector<std::thread> threads_;
  const std::atomic<uint64_t>* feedback_ = nullptr;
};

absl::Status Load::Open(const Options& options, const Traffic& traffic, const Cores& cores,
                        const Topology& topology) {
  static uint64_t run = static_cast<uint64_t>(getpid()) << 32;
  ++run;
  auto scope = ScopedNamespace::Enter(topology.load());
  if (!scope.ok()) return scope.status();
  // Pairs stay together. A thread without a pair is not started.
  const uint32_t pairs = std::max(traffic.peers / 2, 1u);
  // Requests are answered to all peers in turn, which must be one thread's for it to know its pace.
  const auto threads = traffic.mode == Mode::kSend
                           ? 1u
                           : std::min<uint32_t>(static_cast<uint32_t>(cores.load.size()), pairs);
  for (uint32_t i = 0; i < threads; ++i) {
    const uint32_t first = 2 * (pairs * i / threads);
    const uint32_t end = i + 1 == threads ? traffic.peers : 2 * (pairs * (i + 1) / threads);
    LoadConfig config{.traffic = traffic,
                      .first_peer = first,
                      .peers = end - first,
                      .first_address = topology.first_peer_address(),
                      .check = options.check,
                      .run = run,
                      .socket_buffer = options.socket_buffer,
                      .core = cores.load[i]};
    config.traffic.rate = traffic.rate * config.peers / traffic.peers;
    auto generator = LoadGenerator::Create(config);
    if (!generator.ok()) return generator.status();
    generators_.push_back(*std::move(generator));
    shares_.push_back({first, end - first});
  }
  return absl::OkStatus();
}

std::vector<Endpoint> Load::Peers(const Topology& topology) const {
  std::vector<Endpoint> peers;
  for (size_t i = 0; i < generators_.size(); ++i) {
    for (uint32_t n = 0; n < shares_[i].peers; ++n) {
      peers.push_back({.ip = IpAddress::V4(topology.first_peer_address() + shares_[i].first + n),
                       .port = generators_[i]->port(n)});
    }
  }
  return peers;
}

void Load::Start(const Endpoint& subject, const std::atomic<uint64_t>* feedback) {
  feedback_ = feedback;
  for (auto& generator : generators_) {
    generator->SetTarget(subject);
    if (feedback != nullptr) generator->SetFeedback(feedback);
  }
  for (auto& generator : generators_) threads_.emplace_back(&LoadGenerator::Run, generator.get());
}

void Load::Stop() {
  for (auto& generator : generators_) generator->StopSending();
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
}

uint64_t Load::Received() const {
  if (feedback_ != nullptr) return feedback_->load(std::memory_order_relaxed);
  uint64_t received = 0;
  for (const auto& generator : generators_) received += generator->received();
  return received;
}

absl::Status Load::Collect(Round* round) const {
  Histogram latency;
  for (const auto& generator : generators_) {
    if (!generator->status().ok()) return generator->status();
    round->load += generator->Totals();
    round->window = generator->window();
    latency.Merge(generator->latency());
  }
  round->latency_p50 = latency.Percentile(50);
  round->latency_p99 = latency.Percentile(99);
  round->latency_p999 = latency.Percentile(99.9);
  return absl::OkStatus();
}

// Sleeps for `seconds`, showing the rate ten times a second.
void Watch(double seconds, const Load& load, const Progress& progress) {
  const Clock& clock = SystemClock();
  const Instant end = clock.Now() + Duration(static_cast<int64_t>(seconds * 1e9));
  uint64_t last_count = load.Received();
  for (Instant last = clock.Now(); last < end;) {
    std::this_thread::sleep_for(std::min<Duration>(end - last, std::chrono::milliseconds(100)));
    const Instant now = clock.Now();
    const uint64_t count = load.Received();
    const double elapsed = std::chrono::duration<double>(now - last).count();
    progress.Show(static_cast<double>(count - last_count) / elapsed);
    last = now;
    last_count = count;
  }
}

absl::StatusOr<Round> RunRound(const Options& options, const Traffic& traffic, const Cores& cores,
                               const Topology& topology, const SubjectSpec& spec,
                               const Progress& progress) {
  Load load;
  absl::Status status = load.Open(options, traffic, cores, topology);
  if (!status.ok()) return status;
  SubjectConfig config{.spec = spec,
                       .traffic = traffic,
                       .peers = load.Peers(topology),
                       .idle_peers = options.idle_peers,
                       .address = topology.subject_address(),
                       .cores = cores.subject,
                       .engine = options.engine,
                       .socket_buffer = options.subject_buffer > 0
                                            ? static_cast<int>(options.subject_buffer)
                                            : options.socket_buffer};
  if (!spec.variant.empty()) {
    status = ParseEngineOptions(spec.variant, &config.engine);
    if (!status.ok()) return status;
  }
  std::unique_ptr<FarSide> far;
  if (traffic.relayed > 0) {
    if (spec.is_bare()) return absl::UnimplementedError("it knows no relays");
    auto started = FarSide::Start(traffic.relayed, config.peers, cores.load);
    if (!started.ok()) return started.status();
    far = *std::move(started);
    config.relay = far->part();
  }
  auto subject = SubjectProcess::Start(config, topology.subject());
  if (!subject.ok()) return subject.status();
  const CpuMeter meter((*subject)->pid(), cores.subject, topology.subject_kernel_threads());
  const bool receive_only = traffic.mode == Mode::kReceive;
  load.Start({.ip = topology.subject_address(), .port = (*subject)->port()},
             receive_only ? (*subject)->received() : nullptr);
  Watch(options.warmup, load, progress);

  load.RecordLatency(true);
  const CpuMeter::Reading before = meter.Read();
  const uint64_t packets_before = load.Received();
  Watch(options.seconds, load, progress);
  const uint64_t packets_after = load.Received();
  const CpuMeter::Reading after = meter.Read();
  load.RecordLatency(false);

  load.Stop();
  Round round;
  round.mode = traffic.mode;
  round.seconds = std::chrono::duration<double>(after.at - before.at).count();
  round.packets = packets_after - packets_before;
  round.cpu_ns = meter.Used(before, after);
  round.core_busy_ns = after.cores.busy - before.cores.busy;
  round.stolen_ns = after.cores.stolen - before.cores.stolen;
  round.cores = static_cast<uint32_t>(cores.subject.size());
  status = load.Collect(&round);
  if (!status.ok()) return status;
  auto totals = (*subject)->Stop();
  if (!totals.ok()) return totals.status();
  round.subject = *totals;
  return round;
}

}  // namespace

double Round::PacketsPerSecond() const { return static_cast<double>(packets) / seconds; }

double Round::NsPerPacket() const {
  if (packets == 0) return std::numeric_limits<double>::infinity();
  return static_cast<double>(cpu_ns) / static_cast<double>(packets);
}

double Round::CoreNsPerPacket() const {
  if (packets == 0) return std::numeric_limits<double>::infinity();
  return static_cast<double>(core_busy_ns) / static_cast<double>(packets);
}

double Round::Busy() const { return static_cast<double>(cpu_ns) / (seconds * 1e9 * cores); }

uint64_t Round::Lost() const {
  return Less(load.sent, mode == Mode::kReceive ? subject.received : load.distinct);
}
uint64_t Round::LostBeforeSubject() const {
  return mode == Mode::kSend ? 0 : Less(load.sent, subject.received);
}
uint64_t Round::LostInSubject() const {
  if (mode == Mode::kReceive) return 0;
  return Less(mode == Mode::kSend ? load.sent : subject.received, subject.sent);
}
uint64_t Round::LostAfterSubject() const {
  return mode == Mode::kReceive ? 0 : Less(subject.sent, load.received);
}

absl::StatusOr<Cores> AssignCores(const std::vector<int>& allowed, uint32_t shards,
                                  uint32_t load_threads) {
  if (allowed.size() == 1 && shards == 1) return Cores{allowed, allowed, true};
  if (shards >= allowed.size()) {
    return absl::InvalidArgumentError(absl::StrCat("--shards=", shards, ": this process may use ",
                                                   allowed.size(),
                                                   " cores, and the load needs one of them"));
  }
  const uint32_t left = static_cast<uint32_t>(allowed.size()) - shards;
  const uint32_t wanted = load_threads == 0 ? std::min(left, 4u) : load_threads;
  if (wanted > left) {
    return absl::InvalidArgumentError(
        absl::StrCat("--load-threads=", wanted, ": ", left, " cores are left for the load"));
  }
  return Cores{{allowed.begin(), allowed.begin() + wanted},
               {allowed.end() - shards, allowed.end()}};
}

absl::StatusOr<Scenario> RunScenario(const Options& options, const Traffic& traffic,
                                     const Cores& cores, const Topology& topology) {
  Scenario scenario{.traffic = traffic, .subjects = {}};
  for (const SubjectSpec& spec : options.subjects) {
    scenario.subjects.push_back({.spec = spec, .rounds = {}, .error = {}});
  }
  for (uint32_t i = 0; i < options.rounds; ++i) {
    // Each begins a round in turn, so that none always runs after the same other one.
    for (size_t n = 0; n < scenario.subjects.size(); ++n) {
      SubjectResult& subject = scenario.subjects[(i + n) % scenario.subjects.size()];
      if (!subject.error.empty()) continue;
      const Progress progress(absl::StrFormat("%s %d B, trains of %d  round %d/%d  %s",
                                              ModeName(traffic.mode), traffic.size, traffic.train,
                                              i + 1, options.rounds, subject.spec.Label()));
      auto round = RunRound(options, traffic, cores, topology, subject.spec, progress);
      if (round.ok()) {
        subject.rounds.push_back(*std::move(round));
      } else {
        subject.error = std::string(round.status().message());
      }
    }
  }
  const auto has_rounds = [](const SubjectResult& subject) { return !subject.rounds.empty(); };
  if (std::any_of(scenario.subjects.begin(), scenario.subjects.end(), has_rounds)) return scenario;
  return absl::UnavailableError(scenario.subjects.front().error);
}

}  // namespace ringsock::bench
