#include "gateway/command.h"

#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <mutex>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "io/fd.h"

namespace ringsock::gateway {
namespace {

struct Pipe {
  io::Fd read;
  io::Fd write;
};

bool Open(Pipe* out) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return false;
  out->read = io::Fd(ends[0]);
  out->write = io::Fd(ends[1]);
  return true;
}

// Beside it no descriptor of ours: they are all close-on-exec, but a library's may not be.
int Spawn(const std::vector<std::string>& argv, const std::vector<std::string>& environment,
          int input, int output, pid_t* pid) {
  posix_spawn_file_actions_t files;
  posix_spawn_file_actions_init(&files);
  posix_spawn_file_actions_adddup2(&files, input, STDIN_FILENO);
  posix_spawn_file_actions_adddup2(&files, output, STDOUT_FILENO);
  posix_spawn_file_actions_adddup2(&files, output, STDERR_FILENO);
  posix_spawn_file_actions_addclosefrom_np(&files, STDERR_FILENO + 1);
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  posix_spawnattr_setflags(&attributes,
                           POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  posix_spawnattr_setpgroup(&attributes, 0);
  sigset_t none;
  sigemptyset(&none);
  posix_spawnattr_setsigmask(&attributes, &none);
  sigset_t all;
  sigfillset(&all);
  posix_spawnattr_setsigdefault(&attributes, &all);
  std::vector<char*> arguments;
  for (const std::string& argument : argv) arguments.push_back(const_cast<char*>(argument.c_str()));
  arguments.push_back(nullptr);
  std::vector<char*> variables;
  // The first of two with one name counts.
  for (const std::string& one : environment) variables.push_back(const_cast<char*>(one.c_str()));
  for (char** one = environ; one != nullptr && *one != nullptr; ++one) variables.push_back(*one);
  variables.push_back(nullptr);
  const int error =
      posix_spawnp(pid, arguments[0], &files, &attributes, arguments.data(), variables.data());
  posix_spawn_file_actions_destroy(&files);
  posix_spawnattr_destroy(&attributes);
  return error;
}

int64_t Ms(Duration time) {
  return std::chrono::duration_cast<std::chrono::milliseconds>(time).count();
}

// How long a program that was killed may take to be gone.
constexpr int kKillPatienceMs = 1000;

// Programs of ours that could not be killed. Each has to be waited for when it has ended of itself:
// until then it has an entry in the kernel's table, and its number is not given to another.
class LeftBehind {
 public:
  static LeftBehind& Instance() {
    static auto* const instance = new LeftBehind;
    return *instance;
  }
  void Add(pid_t pid) {
    std::lock_guard lock(mutex_);
    pids_.push_back(pid);
  }
  // How many there are still.
  size_t Collect() {
    std::lock_guard lock(mutex_);
    std::erase_if(pids_, [](pid_t pid) { return waitpid(pid, nullptr, WNOHANG) != 0; });
    return pids_.size();
  }

 private:
  std::mutex mutex_;
  std::vector<pid_t> pids_;  // guarded by mutex_
};

// What goes in and what comes out while a program runs, and its end.
class Running {
 public:
  Running(pid_t pid, io::Fd input, io::Fd output, absl::string_view text)
      : pid_(pid),
        exit_(static_cast<int>(syscall(SYS_pidfd_open, pid, 0))),
        exit_error_(exit_.valid() ? 0 : errno),
        input_(std::move(input)),
        output_(std::move(output)),
        text_(text) {
    fcntl(input_.get(), F_SETFL, O_NONBLOCK);
    fcntl(output_.get(), F_SETFL, O_NONBLOCK);
  }

  // "" once it has exited; else why it is not waited for any longer.
  std::string Wait(Duration timeout, int stop_fd) {
    // Before Linux 5.3.
    if (!exit_.valid()) return absl::StrCat("pidfd_open failed: ", std::strerror(exit_error_));
    const Instant deadline = SystemClock().Now() + timeout;
    while (true) {
      const Duration left = deadline - SystemClock().Now();
      if (left <= Duration(0)) return absl::StrCat("it had not ended after ", Ms(timeout), " ms");
      pollfd fds[] = {{exit_.get(), POLLIN, 0},
                      {output_.get(), POLLIN, 0},
                      {input_.get(), POLLOUT, 0},
                      {stop_fd, POLLIN, 0}};
      if (poll(fds, std::size(fds), static_cast<int>(Ms(left)) + 1) < 0 && errno != EINTR) {
        return absl::StrCat("poll failed: ", std::strerror(errno));
      }
      if (fds[1].revents != 0) Read();
      if (fds[2].revents != 0) Write();
      if (fds[0].revents != 0) return "";
      if (fds[3].revents != 0) return "the gateway stops";
    }
  }
  // Its exit status as waitpid() has it, after its group was killed; nothing if it could not be
  // (another user's, or stuck in the kernel) and is left behind.
  std::optional<int> End() {
    kill(-pid_, SIGKILL);
    const bool killed = kill(pid_, SIGKILL) == 0;  // if it has a group of its own
    pollfd exit{exit_.get(), POLLIN, 0};
    if (exit_.valid()) poll(&exit, 1, killed ? kKillPatienceMs : 0);
    int status = SIGKILL;
    pid_t ended;
    do {
      ended = waitpid(pid_, &status, killed && !exit_.valid() ? 0 : WNOHANG);
    } while (ended < 0 && errno == EINTR);
    Read();  // what it left in the pipe
    if (ended != 0) return status;
    LeftBehind::Instance().Add(pid_);
    return std::nullopt;
  }
  std::string TakeText() { return std::move(said_); }

 private:
  void Read() {
    std::array<char, 4096> block;
    for (ssize_t size = 1; size > 0 && output_.valid();) {
      size = read(output_.get(), block.data(), block.size());
      if (size == 0) output_.Close();
      if (size <= 0) return;
      // The rest is read too, so that it is not stopped by a full pipe.
      said_.append(block.data(),
                   std::min(static_cast<size_t>(size), kMaxCommandOutput - said_.size()));
      if (size < static_cast<ssize_t>(block.size())) return;
    }
  }
  void Write() {
    const ssize_t size = text_.empty() ? 0 : write(input_.get(), text_.data(), text_.size());
    if (size > 0) text_.remove_prefix(static_cast<size_t>(size));
    const bool again = size < 0 && (errno == EAGAIN || errno == EINTR);
    if (text_.empty() || (size < 0 && !again)) input_.Close();  // it may read none of it
  }

  const pid_t pid_;
  const io::Fd exit_;
  const int exit_error_;  // why there is none
  io::Fd input_;
  io::Fd output_;
  absl::string_view text_;  // not written yet
  std::string said_;
};

// A program that closes its input must not end us. The signal is this thread's: taken back if it
// came.
class NoBrokenPipe {
 public:
  NoBrokenPipe() {
    sigemptyset(&set_);
    sigaddset(&set_, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &set_, &before_);
  }
  ~NoBrokenPipe() {
    const timespec now = {};
    if (sigismember(&before_, SIGPIPE) == 0) sigtimedwait(&set_, nullptr, &now);
    pthread_sigmask(SIG_SETMASK, &before_, nullptr);
  }

 private:
  sigset_t set_;
  sigset_t before_;
};

}  // namespace

CommandResult RunCommand(const std::vector<std::string>& argv, absl::string_view input,
                         const std::vector<std::string>& environment, Duration timeout,
                         int stop_fd) {
  CommandResult result;
  if (const size_t left = LeftBehind::Instance().Collect(); left >= kMaxCommandsLeftBehind) {
    result.problem = absl::StrCat("not started: ", left, " that could not be killed still run");
    return result;
  }
  const NoBrokenPipe no_broken_pipe;
  Pipe in;
  Pipe out;
  pid_t pid = -1;
  int error = Open(&in) && Open(&out) ? 0 : errno;
  if (error == 0) error = Spawn(argv, environment, in.read.get(), out.write.get(), &pid);
  if (error != 0) {
    result.problem = absl::StrCat("cannot be started: ", std::strerror(error));
    return result;
  }
  in.read.Close();
  out.write.Close();
  Running running(pid, std::move(in.write), std::move(out.read), input);
  const std::string given_up = running.Wait(timeout, stop_fd);
  const std::optional<int> status = running.End();
  result.output = running.TakeText();
  if (!status.has_value()) {
    result.problem = absl::StrCat("cannot be killed and is left behind, as ", given_up);
  } else if (!given_up.empty()) {
    result.problem = absl::StrCat("killed, as ", given_up);
  } else if (WIFSIGNALED(*status)) {
    result.problem = absl::StrCat("ended by signal ", WTERMSIG(*status));
  } else if (WEXITSTATUS(*status) != 0) {
    result.problem = absl::StrCat("exit status ", WEXITSTATUS(*status));
  }
  result.ok = result.problem.empty();
  return result;
}

}  // namespace ringsock::gateway
