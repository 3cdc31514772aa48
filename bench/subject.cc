// A measured side: a process of its own.
#include "bench/subject.h"

#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <new>

#include "absl/strings/str_cat.h"
#include "base/clock.h"
#include "bench/sockets.h"

namespace ringsock::bench {
namespace {

constexpr int kStartMilliseconds = 30'000;
constexpr int kStopMilliseconds = 10'000;

template <size_t N>
void CopyText(absl::string_view text, std::array<char, N>* out) {
  const size_t length = std::min(text.size(), N - 1);
  std::memcpy(out->data(), text.data(), length);
  (*out)[length] = '\0';
}

struct Pipes {
  int ready;
  int stop;
};

void WriteReady(void* context) {
  const char byte = 1;
  [[maybe_unused]] const ssize_t written = write(static_cast<Pipes*>(context)->ready, &byte, 1);
}

void WaitForStop(void* context) {
  char byte;
  while (read(static_cast<Pipes*>(context)->stop, &byte, 1) < 0 && errno == EINTR) {
  }
}

// Whether the other end wrote, or closed, in time. A signal does not end the wait.
bool WaitReadable(int fd, int milliseconds) {
  const Instant end = SystemClock().Now() + std::chrono::milliseconds(milliseconds);
  pollfd wait = {.fd = fd, .events = POLLIN, .revents = 0};
  while (true) {
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(end - SystemClock().Now()).count();
    const int ready = poll(&wait, 1, static_cast<int>(std::max<int64_t>(left, 0)));
    if (ready >= 0 || errno != EINTR) return ready == 1;
  }
}

}  // namespace

SubjectMain MainOf(SubjectKind kind) {
  const bool engine = kind == SubjectKind::kRingsockUring || kind == SubjectKind::kRingsockMmsg;
  return engine ? &RunEngineSubject : &RunBaselineSubject;
}

void SubjectTotals::AddReason(const char* name, uint64_t packets) {
  if (packets == 0) return;
  for (Reason& reason : reasons) {
    if (reason.name[0] != '\0') continue;
    CopyText(name, &reason.name);
    reason.packets = packets;
    return;
  }
}

absl::StatusOr<std::unique_ptr<SubjectProcess>> SubjectProcess::Start(const SubjectConfig& config,
                                                                      const Namespace& ns,
                                                                      SubjectMain main) {
  auto subject = std::unique_ptr<SubjectProcess>(new SubjectProcess());
  void* memory = mmap(nullptr, sizeof(SubjectShared), PROT_READ | PROT_WRITE,
                      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return absl::ResourceExhaustedError("mmap");
  subject->shared_ = new (memory) SubjectShared();
  if (pipe(subject->ready_pipe_) != 0 || pipe(subject->stop_pipe_) != 0) {
    return absl::ResourceExhaustedError(absl::StrCat("pipe: ", std::strerror(errno)));
  }
  if (main == nullptr) main = MainOf(config.spec.kind);
  subject->pid_ = fork();
  if (subject->pid_ < 0) return absl::ResourceExhaustedError("fork");
  if (subject->pid_ == 0) subject->Child(config, ns, main);
  close(std::exchange(subject->ready_pipe_[1], -1));
  close(std::exchange(subject->stop_pipe_[0], -1));

  if (!WaitReadable(subject->ready_pipe_[0], kStartMilliseconds)) {
    return absl::DeadlineExceededError(absl::StrCat(config.spec.name, ": did not start"));
  }
  char byte = 0;
  ssize_t got = 0;
  do {
    got = read(subject->ready_pipe_[0], &byte, 1);
  } while (got < 0 && errno == EINTR);
  if (got != 1) {
    const char* error = subject->shared_->error.data();
    return absl::UnavailableError(*error == '\0' ? "crashed while starting" : error);
  }
  return subject;
}

void SubjectProcess::Child(const SubjectConfig& config, const Namespace& ns, SubjectMain main) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  signal(SIGINT, SIG_IGN);  // the parent decides
  close(ready_pipe_[0]);
  close(stop_pipe_[1]);
  PinThisThread(config.cores);
  Pipes pipes = {.ready = ready_pipe_[1], .stop = stop_pipe_[0]};
  const SubjectHooks hooks = {.ready = &WriteReady, .wait = &WaitForStop, .context = &pipes};
  absl::Status status = ns.Enter();
  if (status.ok()) status = main(config, shared_, hooks);
  if (!status.ok()) {
    CopyText({status.message().data(), status.message().size()}, &shared_->error);
  }
  _exit(status.ok() ? 0 : 1);
}

absl::StatusOr<SubjectTotals> SubjectProcess::Stop() {
  close(std::exchange(stop_pipe_[1], -1));
  // The child's end of the other pipe closes when it exits.
  const bool exited = WaitReadable(ready_pipe_[0], kStopMilliseconds);
  if (!exited) kill(pid_, SIGKILL);
  int status = 0;
  while (waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
  }
  pid_ = -1;
  if (!exited) return absl::DeadlineExceededError("did not stop");
  if (WIFSIGNALED(status)) {
    return absl::InternalError(absl::StrCat("died of signal ", WTERMSIG(status)));
  }
  if (WEXITSTATUS(status) != 0) return absl::InternalError(shared_->error.data());
  return shared_->totals;
}

SubjectProcess::~SubjectProcess() {
  if (pid_ > 0) {
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
  for (const int fd : {ready_pipe_[0], ready_pipe_[1], stop_pipe_[0], stop_pipe_[1]}) {
    if (fd >= 0) close(fd);
  }
  if (shared_ != nullptr) munmap(shared_, sizeof(SubjectShared));
}

}  // namespace ringsock::bench
