// What the packet path asks of the kernel: every system call of a thread is seen by a tracer
// (ptrace(2)), which is another process. A shard that echoes packets uses the ring alone on
// io_uring; now and then it looks at a socket's drop counter, and it sets the socket to another
// segment size when most trains have one. A Sender wakes shards that sleep.
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <thread>

#include "absl/strings/str_cat.h"
#include "core/engine.h"
#include "gtest/gtest.h"
#include "tests/core/engine_fixture.h"

namespace ringsock {
namespace {

constexpr int kTrains = 500;
constexpr int kSegments = 20;
constexpr int kSingles = 500;

// What the two processes say to one another.
struct Shared {
  enum Phase : int { kStarting, kCounting, kDone };
  std::atomic<int> phase{kStarting};
  std::atomic<pid_t> thread{0};  // the traced one
  std::atomic<bool> traced{false};
};

class Echo final : public Handler {
 public:
  explicit Echo(Shared* shared) : shared_(shared) {}
  absl::Status OnShardStart(Shard&) override {
    shared_->thread = gettid();
    return absl::OkStatus();
  }
  void OnReceive(Shard& shard, std::span<const ReceivedTrain> trains) override {
    for (const ReceivedTrain& train : trains) {
      shard.ConfirmPath(train.peer, train.from);
      shard.Send(train.peer, train.packets);
    }
  }

 private:
  Shared* const shared_;
};

void Exchange(RemoteHost* host, uint16_t port, int trains, int singles) {
  for (int i = 0; i < trains; ++i) {
    std::string train;
    for (int k = 0; k < kSegments; ++k) train += Message(4, std::string(996, 'x'));
    host->SendTrain(port, train, 1000);
    for (int k = 0; k < kSegments; ++k) host->Receive();
  }
  for (int i = 0; i < singles; ++i) {
    host->Send(port, Message(4, "one"));
    host->Receive();
  }
}

// The traced process. Its exit status is 0 if all went well.
int RunEngine(io::Backend backend, Shared* shared) {
  EngineOptions options;
  options.shards = 1;
  options.pin_threads = false;
  options.io.backend = backend;
  Echo echo(shared);
  auto engine = Engine::Start(options, &echo);
  RemoteHost host;
  if (!engine.ok() || !host.ok()) return 2;
  if (!(*engine)->CreateEndpoint(KeyNumber(1), host.text()).ok()) return 3;
  Exchange(&host, (*engine)->port(), 10, 10);
  if (!WaitUntil([shared] { return shared->traced.load(); })) return 4;
  Exchange(&host, (*engine)->port(), 1, 1);
  shared->phase = Shared::kCounting;
  Exchange(&host, (*engine)->port(), kTrains, kSingles);
  shared->phase = Shared::kDone;
  (*engine)->Close();
  return testing::Test::HasFailure() ? 5 : 0;
}

class Silent final : public Handler {
 public:
  void OnReceive(Shard&, std::span<const ReceivedTrain>) override {}
};

// The traced thread, in the other process, sends to a shard that looks for work without a pause, or
// that sleeps as soon as it may.
int RunSender(io::Backend backend, bool asleep, Shared* shared) {
  EngineOptions options;
  options.shards = 1;
  options.pin_threads = false;
  options.io.backend = backend;
  options.io.spin = asleep ? Duration::zero() : std::chrono::hours(1);
  Silent silent;
  auto engine = Engine::Start(options, &silent);
  RemoteHost host;
  if (!engine.ok() || !host.ok()) return 2;
  const auto peer = (*engine)->CreateEndpoint(KeyNumber(1), host.text());
  if (!peer.ok()) return 3;
  bool failed = false;
  std::thread([&] {
    const auto sender = *(*engine)->NewSender();
    const std::string packet = Message(4, "out");
    const auto send = [&] {
      failed |= sender->Send(*peer, TrainOf(packet)) != SendResult::kOk;
      sender->Flush();
    };
    send();  // its shard is awake from here on, unless it sleeps again
    host.Receive();
    shared->thread = gettid();
    failed |= !WaitUntil([shared] { return shared->traced.load(); });
    shared->phase = Shared::kCounting;
    for (int i = 0; i < kSingles; ++i) {
      send();
      if (asleep) host.Receive();
    }
    shared->phase = Shared::kDone;
  }).join();
  failed |= !WaitUntil([&] {
    const auto path = static_cast<size_t>(PathKind::kDirectV4);
    return (*engine)->Counters().paths[path].tx_packets == kSingles + 1;
  });
  (*engine)->Close();
  return failed || testing::Test::HasFailure() ? 5 : 0;
}

// By number, the system calls of the thread between the two phases.
std::map<long, int> Trace(Shared* shared) {
  std::map<long, int> calls;
  if (!WaitUntil([shared] { return shared->thread.load() != 0; })) return calls;
  const pid_t tid = shared->thread;
  if (ptrace(PTRACE_SEIZE, tid, nullptr, PTRACE_O_TRACESYSGOOD) != 0 ||
      ptrace(PTRACE_INTERRUPT, tid, nullptr, nullptr) != 0) {
    ADD_FAILURE() << "ptrace: " << strerror(errno);
    return calls;
  }
  int status = 0;
  while (waitpid(tid, &status, __WALL) == tid && WIFSTOPPED(status)) {
    shared->traced = true;
    const int phase = shared->phase;
    __ptrace_syscall_info info{};
    if (WSTOPSIG(status) == (SIGTRAP | 0x80) && phase == Shared::kCounting &&
        ptrace(PTRACE_GET_SYSCALL_INFO, tid, sizeof(info), &info) > 0 &&
        info.op == PTRACE_SYSCALL_INFO_ENTRY) {
      ++calls[static_cast<long>(info.entry.nr)];
    }
    if (phase == Shared::kDone) {
      ptrace(PTRACE_DETACH, tid, nullptr, nullptr);
      break;
    }
    ptrace(PTRACE_SYSCALL, tid, nullptr, nullptr);
  }
  return calls;
}

class SystemCallsTest : public testing::TestWithParam<io::Backend> {
 protected:
  void SetUp() override {
    if (const auto loop = io::CreateLoop({.backend = GetParam()}); !loop.ok()) {
      GTEST_SKIP() << loop.status().ToString();
    }
    void* const memory =
        mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ASSERT_NE(memory, MAP_FAILED);
    shared_ = new (memory) Shared;
  }
  void TearDown() override {
    if (shared_ != nullptr) munmap(shared_, sizeof(Shared));
  }
  // What the thread that `run` names asked for, in a process of its own.
  std::map<long, int> CallsOf(const std::function<int()>& run) {
    const pid_t child = fork();
    EXPECT_GE(child, 0);
    if (child == 0) _exit(run());
    std::map<long, int> calls = Trace(shared_);
    int status = 0;
    EXPECT_EQ(waitpid(child, &status, 0), child);
    EXPECT_EQ(status, 0);
    return calls;
  }
  bool uring() const { return GetParam() == io::Backend::kUring; }

  Shared* shared_ = nullptr;
};

TEST_P(SystemCallsTest, AShardMakesOnlyThoseOfTheLoop) {
  const Instant start = SystemClock().Now();
  const std::map<long, int> calls = CallsOf([&] { return RunEngine(GetParam(), shared_); });
  const auto took = (SystemClock().Now() - start) / std::chrono::milliseconds(1);

  const std::set<long> loops = uring() ? std::set<long>{SYS_io_uring_enter}
                                       : std::set<long>{SYS_recvmmsg, SYS_sendmmsg, SYS_epoll_wait,
                                                        SYS_epoll_pwait2, SYS_ppoll};
  int of_loop = 0;
  for (const auto& [number, count] : calls) {
    if (loops.contains(number)) {
      of_loop += count;
    } else if (number == SYS_getsockopt) {
      // The drop counters of two sockets, at most every 10 ms.
      EXPECT_LE(count, 2 * (took / 10 + 1));
    } else if (number == SYS_clock_gettime) {
      // Where the kernel does not trust the processor's clock, the time is a system call.
      RecordProperty("clock_calls", count);
    } else if (number == SYS_setsockopt && uring()) {
      // The socket is set to the size of the trains, all of which are alike here.
      EXPECT_EQ(count, 1);
    } else {
      ADD_FAILURE() << count << " system calls of number " << number;
    }
  }
  EXPECT_GT(of_loop, 0);
  // A train, or a single packet, that comes alone: one call to wait for it and one to send it; the
  // other backend asks until there is nothing left. The rest is leave for interrupted waits.
  const int per_turn = uring() ? 3 : 6;
  // Each look at the drop counters may end a wait that goes on afterwards: of a busy machine many.
  EXPECT_LE(of_loop, per_turn * (kTrains + kSingles) + took / 10);
  RecordProperty("calls", of_loop);
}

TEST_P(SystemCallsTest, ASenderMakesNoneWhileItsShardIsAwake) {
  const std::map<long, int> calls =
      CallsOf([&] { return RunSender(GetParam(), /*asleep=*/false, shared_); });
  for (const auto& [number, count] : calls) {
    ADD_FAILURE() << count << " system calls of number " << number;
  }
}

// The eventfd is written once for a sleep, however many packets follow.
TEST_P(SystemCallsTest, ASenderWakesASleeperOnce) {
  std::map<long, int> calls =
      CallsOf([&] { return RunSender(GetParam(), /*asleep=*/true, shared_); });
  EXPECT_GT(calls[SYS_write], 0);
  EXPECT_LE(calls[SYS_write], kSingles);
}

INSTANTIATE_TEST_SUITE_P(All, SystemCallsTest,
                         testing::Values(io::Backend::kMmsg, io::Backend::kUring),
                         [](const testing::TestParamInfo<io::Backend>& info) {
                           return info.param == io::Backend::kUring ? "Uring" : "Mmsg";
                         });

}  // namespace
}  // namespace ringsock
