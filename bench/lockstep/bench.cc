#include "bench/lockstep/bench.h"

#include <sched.h>
#include <time.h>

#include <atomic>
#include <barrier>
#include <chrono>
#include <memory>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/clock.h"
#include "bench/lockstep/load.h"
#include "bench/lockstep/subject.h"
#include "bench/sockets.h"
#include "bench/topology.h"
#include "io/steering.h"

namespace ringsock::bench {
namespace {

using Layout = LockstepCase::Layout;

// After which what has not come back is lost.
constexpr auto kGiveUp = std::chrono::seconds(20);
// To fill the caches again after another subject's turn.
constexpr uint32_t kWarmBursts = 4;

double ThreadCpuNs() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) * 1e9 + static_cast<double>(now.tv_nsec);
}

// A core with its load.
struct Lane {
  int core = 0;
  std::unique_ptr<LockstepLoad> load;
  absl::Status status;
  LockstepSample sample;  // of the round under way
};

// Where a lane's packets go in one case.
struct Seat {
  LockstepSubject* subject = nullptr;  // null: the lane has nothing to do
  uint32_t place = 0;
  bool strangers = false;
};

class Bench {
 public:
  explicit Bench(const LockstepOptions& options)
      : options_(options), start_(options.shards), end_(options.shards) {}
  absl::Status Open();
  absl::StatusOr<std::vector<LockstepCase>> Run();

 private:
  absl::Status OpenLoads();
  absl::Status OpenSubjects(size_t index);
  absl::StatusOr<LockstepSubject*> NewSubject(size_t index, const std::vector<uint32_t>& lanes);
  void AddCase(size_t subject, Layout layout, std::vector<Seat> seats) {
    cases_.push_back({.subject = subject, .layout = layout, .rounds = {}});
    seats_.push_back(std::move(seats));
  }
  void StartSubjects(uint32_t lane);
  void LaneMain(uint32_t lane);
  void RunTurn(Lane* lane, const Seat& seat);
  absl::Status RunBurst(Lane* lane, const Seat& seat, LockstepSample* sample);

  const LockstepOptions options_;
  std::unique_ptr<Topology> topology_;
  std::vector<Lane> lanes_;
  std::vector<std::unique_ptr<LockstepSubject>> subjects_;
  std::vector<LockstepCase> cases_;
  std::vector<std::vector<Seat>> seats_;  // of each case, by lane
  std::barrier<> start_, end_;
  size_t current_ = 0;             // case; cases_.size(): the end. Written between end_ and start_
  std::atomic<uint32_t> busy_{0};  // lanes that have not finished their part of the turn
};

absl::Status Bench::Open() {
  const std::vector<int> cores = AllowedCores();
  if (cores.size() < options_.shards) return absl::UnavailableError("too few cores");
  lanes_.resize(options_.shards);
  // The last ones, as core 0 gets most interrupts.
  for (size_t i = 0; i < lanes_.size(); ++i) lanes_[i].core = cores[cores.size() - 1 - i];
  auto topology = Topology::Create(options_.topology, options_.traffic.size + 28, {}, {});
  if (!topology.ok()) return topology.status();
  topology_ = *std::move(topology);
  if (absl::Status status = OpenLoads(); !status.ok()) return status;
  for (size_t i = 0; i < options_.subjects.size(); ++i) {
    if (absl::Status status = OpenSubjects(i); !status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status Bench::OpenLoads() {
  auto scope = ScopedNamespace::Enter(topology_->load());
  if (!scope.ok()) return scope.status();
  for (uint32_t i = 0; i < lanes_.size(); ++i) {
    LockstepLoadConfig config{.traffic = options_.traffic,
                              .burst = options_.burst,
                              .first_address = topology_->first_peer_address(),
                              .flood = options_.flood};
    config.strangers = options_.flood == FloodKind::kNone ? 0 : options_.strangers;
    // The shard of its own core.
    if (lanes_.size() > 1) {
      config.wanted = [this, i](const Endpoint& peer) {
        return io::SteeredSocket(io::Steering::kSource, peer, {},
                                 static_cast<uint32_t>(lanes_.size())) == i;
      };
    }
    auto load = LockstepLoad::Create(config);
    if (!load.ok()) return load.status();
    lanes_[i].load = *std::move(load);
  }
  return absl::OkStatus();
}

absl::StatusOr<LockstepSubject*> Bench::NewSubject(size_t index,
                                                   const std::vector<uint32_t>& lanes) {
  SubjectConfig config;
  config.spec = options_.subjects[index];
  config.traffic = options_.traffic;
  config.idle_peers = options_.idle_peers;
  config.address = topology_->subject_address();
  config.engine = options_.engine;
  if (!config.spec.variant.empty()) {
    if (absl::Status status = ParseEngineOptions(config.spec.variant, &config.engine);
        !status.ok()) {
      return status;
    }
  }
  for (const uint32_t lane : lanes) {
    config.cores.push_back(lanes_[lane].core);
    const std::vector<Endpoint>& peers = lanes_[lane].load->peers();
    config.peers.insert(config.peers.end(), peers.begin(), peers.end());
  }
  auto subject = LockstepSubject::Create(config);
  if (!subject.ok()) return subject.status();
  subjects_.push_back(*std::move(subject));
  return subjects_.back().get();
}

absl::Status Bench::OpenSubjects(size_t index) {
  auto scope = ScopedNamespace::Enter(topology_->subject());
  if (!scope.ok()) return scope.status();
  std::vector<LockstepSubject*> single;
  for (uint32_t lane = 0; lane < lanes_.size(); ++lane) {
    const auto subject = NewSubject(index, {lane});
    if (!subject.ok()) return subject.status();
    single.push_back(*subject);
  }
  if (lanes_.size() == 1) {
    AddCase(index, Layout::kAlone, {{single[0], 0, false}});
    if (options_.flood != FloodKind::kNone) {
      AddCase(index, Layout::kFlooded, {{single[0], 0, true}});
    }
    return absl::OkStatus();
  }
  const auto both = NewSubject(index, {0, 1});
  if (!both.ok()) return both.status();
  AddCase(index, Layout::kAlone, {{single[0], 0}, {}});
  AddCase(index, Layout::kApart, {{single[0], 0}, {single[1], 0}});
  AddCase(index, Layout::kTogether, {{*both, 0}, {*both, 1}});
  return absl::OkStatus();
}

absl::Status Bench::RunBurst(Lane* lane, const Seat& seat, LockstepSample* sample) {
  const Endpoint target{topology_->subject_address(), seat.subject->port()};
  const uint64_t before = seat.subject->Done(seat.place);
  const auto burst = lane->load->SendBurst(target, seat.strangers);
  if (!burst.ok()) return burst.status();
  const Instant give_up = SystemClock().Now() + kGiveUp;
  const double start = ThreadCpuNs();
  while (seat.subject->Done(seat.place) - before < burst->packets) {
    seat.subject->Turn(seat.place);
    if (SystemClock().Now() < give_up) continue;
    return absl::DataLossError(absl::StrCat(options_.subjects[cases_[current_].subject].Label(),
                                            ": ", seat.subject->Done(seat.place) - before, " of ",
                                            burst->packets, " packets of a burst got through"));
  }
  sample->cpu_ns += ThreadCpuNs() - start;
  sample->packets += burst->packets;
  sample->strangers += burst->strangers;
  for (uint64_t bytes = 0; (bytes += lane->load->Drain()) != burst->bytes;) {
    std::this_thread::yield();
    if (SystemClock().Now() < give_up) continue;
    return absl::DataLossError(absl::StrCat(options_.subjects[cases_[current_].subject].Label(),
                                            ": ", bytes, " of ", burst->bytes,
                                            " bytes of a burst came back"));
  }
  return absl::OkStatus();
}

void Bench::RunTurn(Lane* lane, const Seat& seat) {
  LockstepSample ignored;
  lane->sample = {};
  for (uint32_t i = 0; lane->status.ok() && i < kWarmBursts; ++i) {
    lane->status = RunBurst(lane, seat, &ignored);
  }
  for (uint32_t i = 0; lane->status.ok() && i < options_.bursts; ++i) {
    lane->status = RunBurst(lane, seat, &lane->sample);
  }
  // What the other lane measures has this one beside it to the end.
  busy_.fetch_sub(1);
  while (lane->status.ok() && busy_.load() > 0) lane->status = RunBurst(lane, seat, &ignored);
}

// On the lane's thread: every subject of its seats.
void Bench::StartSubjects(uint32_t lane) {
  PinThisThread({lanes_[lane].core});
  for (const auto& seats : seats_) {
    const Seat& seat = seats[lane];
    if (seat.subject != nullptr) lanes_[lane].status.Update(seat.subject->Start(seat.place));
  }
}

void Bench::LaneMain(uint32_t index) {
  StartSubjects(index);
  while (true) {
    start_.arrive_and_wait();
    if (current_ == cases_.size()) break;
    const Seat& seat = seats_[current_][index];
    if (seat.subject != nullptr) RunTurn(&lanes_[index], seat);
    end_.arrive_and_wait();
  }
  for (size_t i = 0; i < cases_.size(); ++i) {
    const Seat& seat = seats_[i][index];
    if (seat.subject != nullptr) seat.subject->Close(seat.place);
  }
}

absl::StatusOr<std::vector<LockstepCase>> Bench::Run() {
  std::vector<std::thread> threads;
  for (uint32_t i = 1; i < lanes_.size(); ++i) threads.emplace_back(&Bench::LaneMain, this, i);
  StartSubjects(0);
  absl::Status status;
  for (uint32_t round = 0; status.ok() && round < options_.rounds; ++round) {
    for (size_t n = 0; status.ok() && n < cases_.size(); ++n) {
      current_ = (n + round) % cases_.size();
      uint32_t busy = 0;
      for (const Seat& seat : seats_[current_]) busy += seat.subject != nullptr;
      busy_.store(busy);
      start_.arrive_and_wait();
      RunTurn(&lanes_[0], seats_[current_][0]);
      end_.arrive_and_wait();
      LockstepSample sum;
      for (size_t lane = 0; lane < lanes_.size(); ++lane) {
        status.Update(lanes_[lane].status);
        if (seats_[current_][lane].subject == nullptr) continue;
        sum.cpu_ns += lanes_[lane].sample.cpu_ns;
        sum.packets += lanes_[lane].sample.packets;
        sum.strangers += lanes_[lane].sample.strangers;
      }
      cases_[current_].rounds.push_back(sum);
    }
  }
  current_ = cases_.size();
  start_.arrive_and_wait();
  for (std::thread& thread : threads) thread.join();
  if (!status.ok()) return status;
  return cases_;
}

}  // namespace

absl::StatusOr<std::vector<LockstepCase>> RunLockstep(const LockstepOptions& options) {
  struct Affinity {
    Affinity() { sched_getaffinity(0, sizeof(cores), &cores); }
    ~Affinity() { sched_setaffinity(0, sizeof(cores), &cores); }
    cpu_set_t cores;
  } const of_the_caller;
  if (options.subjects.empty() || options.rounds == 0 || options.shards == 0 ||
      options.shards > 2) {
    return absl::InvalidArgumentError("subjects, rounds, or 1 or 2 shards are missing");
  }
  Bench bench(options);
  if (absl::Status status = bench.Open(); !status.ok()) return status;
  return bench.Run();
}

}  // namespace ringsock::bench
