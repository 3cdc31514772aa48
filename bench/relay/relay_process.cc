// What is measured, as a process of its own.
#include "bench/relay/relay_process.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "base/clock.h"
#include "bench/baseline/tls_forwarder.h"
#include "bench/sockets.h"

namespace ringsock::bench {
namespace {

constexpr auto kStartTime = std::chrono::seconds(60);
constexpr auto kStopTime = std::chrono::seconds(8);
constexpr auto kPollInterval = std::chrono::milliseconds(10);

absl::Status ErrnoError(const char* what) {
  return absl::ResourceExhaustedError(absl::StrCat(what, ": ", std::strerror(errno)));
}

// A listening socket on a port of the kernel's choice on 127.0.0.1.
absl::StatusOr<io::Fd> Listen(uint16_t* port) {
  io::Fd fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (!fd.valid() ||
      bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0 ||
      listen(fd.get(), 4096) != 0) {
    return ErrnoError("listen on 127.0.0.1");
  }
  *port = LocalPort(fd.get());
  return fd;
}

absl::StatusOr<uint16_t> FreePort() {
  uint16_t port = 0;
  const auto fd = Listen(&port);
  if (!fd.ok()) return fd.status();
  return port;
}

// In the child: dies with the parent, which alone hears of Ctrl-C.
void BecomeSubject(const std::vector<int>& cores) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  setpgid(0, 0);
  if (!cores.empty()) PinThisThread(cores);
}

}  // namespace

absl::StatusOr<std::unique_ptr<RelayProcess>> RelayProcess::Start(const RelaySubjectSpec& spec,
                                                                  const std::vector<int>& cores) {
  auto process = std::unique_ptr<RelayProcess>(new RelayProcess());
  process->target_ = spec.target;
  process->metrics_ = spec.metrics;
  absl::Status status;
  switch (spec.kind) {
    case RelaySubjectSpec::Kind::kFloor:
      status = process->StartFloor(cores);
      break;
    case RelaySubjectSpec::Kind::kCommand:
      status = process->StartCommand(spec.command, cores);
      break;
    case RelaySubjectSpec::Kind::kRunning:
      process->pid_ = spec.pid;
  }
  if (!status.ok()) return status;
  return process;
}

absl::Status RelayProcess::StartFloor(const std::vector<int>& cores) {
  uint16_t port = 0;
  auto listener = Listen(&port);
  if (!listener.ok()) return listener.status();
  int stop[2];
  if (pipe2(stop, O_CLOEXEC) != 0) return ErrnoError("pipe");
  const io::Fd stopped(stop[0]);
  stop_ = io::Fd(stop[1]);
  floor_ = true;
  target_.address = {IpAddress::V4(127, 0, 0, 1), port};
  pid_ = fork();
  if (pid_ < 0) return ErrnoError("fork");
  if (pid_ == 0) {
    stop_.Close();
    BecomeSubject(cores);
    _exit(RunTlsForwarder(listener->get(), stopped.get()).ok() ? 0 : 1);
  }
  ours_ = true;
  return absl::OkStatus();
}

absl::Status RelayProcess::StartCommand(const std::string& command, const std::vector<int>& cores) {
  const auto port = FreePort();
  const auto metrics = FreePort();
  if (!port.ok()) return port.status();
  if (!metrics.ok()) return metrics.status();
  std::string directory =
      (std::filesystem::temp_directory_path() / "ringsock-bench-XXXXXX").string();
  if (mkdtemp(directory.data()) == nullptr) return ErrnoError("mkdtemp");
  directory_ = directory;
  const IpAddress here = IpAddress::V4(127, 0, 0, 1);
  target_.address = {here, *port};
  if (command.find("{metrics}") != std::string::npos) metrics_ = Endpoint{here, *metrics};

  std::vector<std::string> words =
      absl::StrSplit(command, absl::ByAnyChar(" \t\n"), absl::SkipEmpty());
  if (words.empty()) return absl::InvalidArgumentError("an empty command");
  std::vector<char*> argv;
  for (std::string& word : words) {
    word = absl::StrReplaceAll(word, {{"{port}", absl::StrCat(*port)},
                                      {"{metrics}", absl::StrCat(*metrics)},
                                      {"{dir}", directory_}});
    argv.push_back(word.data());
  }
  argv.push_back(nullptr);
  const std::string output = absl::StrCat(directory_, "/output");
  pid_ = fork();
  if (pid_ < 0) return ErrnoError("fork");
  if (pid_ == 0) {
    BecomeSubject(cores);
    const int fd = open(output.c_str(), O_CREAT | O_WRONLY | O_TRUNC, 0600);
    dup2(fd, 1);
    dup2(fd, 2);
    execvp(argv[0], argv.data());
    dprintf(2, "%s: %s\n", argv[0], std::strerror(errno));
    _exit(127);
  }
  ours_ = true;
  const absl::Status status = WaitUntilItListens(target_.address);
  return status.ok() && metrics_ ? WaitUntilItListens(*metrics_) : status;
}

absl::Status RelayProcess::WaitUntilItListens(const Endpoint& at) {
  const Instant end = SystemClock().Now() + kStartTime;
  sockaddr_storage address = {};
  const socklen_t length = at.ToSockaddr(&address);
  while (SystemClock().Now() < end) {
    const absl::Status alive = CheckAlive();
    if (!alive.ok()) return alive;
    const io::Fd fd(socket(address.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), length) == 0) {
      return absl::OkStatus();
    }
    std::this_thread::sleep_for(kPollInterval);
  }
  return absl::DeadlineExceededError(absl::StrCat(
      "the relay does not listen on ", target_.address.ToString(), "; it said: ", EndOfOutput()));
}

absl::Status RelayProcess::CheckAlive() {
  if (!ours_) return absl::OkStatus();
  int status = 0;
  if (waitpid(pid_, &status, WNOHANG) != pid_) return absl::OkStatus();
  ours_ = false;
  const std::string how = WIFSIGNALED(status) ? absl::StrCat("died of signal ", WTERMSIG(status))
                                              : absl::StrCat("ended with ", WEXITSTATUS(status));
  return absl::UnavailableError(absl::StrCat("the relay ", how, "; it said: ", EndOfOutput()));
}

std::string RelayProcess::EndOfOutput() const {
  if (directory_.empty()) return "nothing";
  std::ifstream file(absl::StrCat(directory_, "/output"));
  std::stringstream text;
  text << file.rdbuf();
  constexpr size_t kEnd = 1000;
  const std::string all = text.str();
  return all.size() > kEnd ? all.substr(all.size() - kEnd) : all;
}

RelayProcess::~RelayProcess() {
  stop_.Close();
  if (ours_) {
    kill(pid_, SIGTERM);
    const Instant end = SystemClock().Now() + kStopTime;
    int status = 0;
    while (waitpid(pid_, &status, WNOHANG) == 0) {
      if (SystemClock().Now() > end) kill(pid_, SIGKILL);
      std::this_thread::sleep_for(kPollInterval);
    }
  }
  std::error_code ignored;
  if (!directory_.empty()) std::filesystem::remove_all(directory_, ignored);
}

}  // namespace ringsock::bench
