// Programs that do as they should, and those that do not.
#include "gateway/command.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstddef>
#include <iterator>
#include <string>
#include <thread>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "io/fd.h"

namespace {

bool g_may_kill = true;
std::vector<pid_t> g_spared;  // that should have been killed

}  // namespace

// Stands before the C library's: the kernel refuses so where a program has become another user's,
// which takes root to try.
extern "C" int kill(pid_t pid, int signal) noexcept {
  if (g_may_kill) return static_cast<int>(syscall(SYS_kill, pid, signal));
  if (pid > 0) g_spared.push_back(pid);
  errno = EPERM;
  return -1;
}

namespace ringsock::gateway {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

constexpr Duration kLong = std::chrono::seconds(60);
constexpr Duration kShort = std::chrono::milliseconds(100);

CommandResult Shell(const std::string& script, absl::string_view input = "",
                    Duration timeout = kLong, int stop_fd = -1) {
  return RunCommand({"sh", "-c", script}, input, {"RINGSOCK_X=a b"}, timeout, stop_fd);
}

TEST(CommandTest, InputArgumentsAndEnvironment) {
  const CommandResult result = RunCommand({"sh", "-c", "cat; echo \"$0|$RINGSOCK_X\"", "a  $b;c"},
                                          "text\n", {"RINGSOCK_X=y"}, kLong, -1);
  EXPECT_TRUE(result.ok) << result.problem;
  EXPECT_EQ(result.output, "text\na  $b;c|y\n");
}

TEST(CommandTest, HowItEnded) {
  EXPECT_EQ(Shell("echo no >&2; exit 3").problem, "exit status 3");
  EXPECT_EQ(Shell("echo no >&2; exit 3").output, "no\n");
  EXPECT_EQ(Shell("kill -TERM $$").problem, "ended by signal 15");
  EXPECT_THAT(RunCommand({"/no/such/program"}, "", {}, kLong, -1).problem,
              HasSubstr("cannot be started: No such file"));
}

TEST(CommandTest, MuchOutputAndInputThatNobodyReads) {
  const std::string much(1 << 20, 'x');
  CommandResult result = Shell("true", much);
  EXPECT_TRUE(result.ok) << result.problem;
  result = Shell("head -c 10", much);
  EXPECT_EQ(result.output, "xxxxxxxxxx");
  result = Shell("cat", much);
  EXPECT_TRUE(result.ok) << result.problem;
  EXPECT_EQ(result.output.size(), kMaxCommandOutput);
}

// With all that it has started. Who holds its output open does not hold us up either.
TEST(CommandTest, OneThatHangsIsKilledWithItsChildren) {
  CommandResult result = Shell("sleep 1000 & echo $!; wait", "", kShort);
  EXPECT_THAT(result.problem, StartsWith("killed, as it had not ended after 100 ms"));
  // A busy machine takes longer to start it.
  for (Duration time = kShort; result.output.empty() && time < kLong; time *= 2) {
    result = Shell("sleep 1000 & echo $!; wait", "", time);
  }
  ASSERT_FALSE(result.output.empty());
  const pid_t child = std::stoi(result.output);
  // Gone, or dead and not yet collected by whoever inherits it.
  const Instant end = SystemClock().Now() + std::chrono::seconds(20);
  while (kill(child, 0) == 0 && SystemClock().Now() < end) {
    const CommandResult state = Shell("cut -d' ' -f3 /proc/" + std::to_string(child) + "/stat");
    if (!state.ok || state.output == "Z\n") break;
  }
  EXPECT_LT(SystemClock().Now(), end);
  result = Shell("sleep 1000 & exit 0", "", kLong);
  EXPECT_TRUE(result.ok) << result.problem;
}

TEST(CommandTest, IgnoresSignalsAndIsKilledAllTheSame) {
  EXPECT_THAT(Shell("trap '' TERM INT HUP; sleep 1000", "", kShort).problem, StartsWith("killed"));
}

TEST(CommandTest, StopsWhenAsked) {
  const io::Fd stop(eventfd(1, EFD_CLOEXEC));
  EXPECT_EQ(Shell("sleep 1000", "", kLong, stop.get()).problem, "killed, as the gateway stops");
}

// As a kernel before 5.3 does it, for this thread and what it starts. False if that cannot be set.
bool DenyPidfdOpen() {
  sock_filter code[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_pidfd_open, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  const sock_fprog program = {std::size(code), code};
  return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
         prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

TEST(CommandTest, AKernelThatCannotWaitForItIsNamed) {
  bool denied = false;
  CommandResult result;
  std::thread([&] {
    denied = DenyPidfdOpen();
    if (denied) result = Shell("sleep 1000");
  }).join();
  if (!denied) GTEST_SKIP() << "no seccomp here";
  EXPECT_EQ(result.problem, "killed, as pidfd_open failed: Function not implemented");
}

TEST(CommandTest, WhatCannotBeKilledIsLeftBehindAndCollectedWhenItHasEnded) {
  g_may_kill = false;
  g_spared.clear();
  for (size_t i = 0; i < kMaxCommandsLeftBehind; ++i) {
    EXPECT_THAT(Shell("exec sleep 1000", "", kShort).problem,
                StartsWith("cannot be killed and is left behind, as it had not ended after"));
  }
  ASSERT_EQ(g_spared.size(), kMaxCommandsLeftBehind);
  EXPECT_THAT(Shell("true").problem, StartsWith("not started: 8 that could not be killed"));
  g_may_kill = true;
  for (const pid_t pid : g_spared) {
    EXPECT_EQ(kill(pid, SIGKILL), 0);
    siginfo_t info;
    // Dead, and still to be collected.
    EXPECT_EQ(waitid(P_PID, static_cast<id_t>(pid), &info, WEXITED | WNOWAIT), 0);
  }
  const CommandResult result = Shell("true");
  EXPECT_TRUE(result.ok) << result.problem;
  for (const pid_t pid : g_spared) {
    EXPECT_EQ(waitpid(pid, nullptr, WNOHANG), -1) << "was not collected";
    EXPECT_EQ(errno, ECHILD);
  }
}

TEST(CommandTest, SignalsAreNotBlockedInIt) {
  sigset_t set;
  sigset_t before;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &set, &before);
  EXPECT_EQ(Shell("kill -TERM $$; echo still there").problem, "ended by signal 15");
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

}  // namespace
}  // namespace ringsock::gateway
