// Entering the kernel, and finding out whether it lets us in.
#include "io/uring.h"

#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "base/log.h"
#include "io/fd.h"

namespace ringsock::io {
namespace {

constexpr uint32_t kSetupFlags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN |
                                 IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_R_DISABLED |
                                 IORING_SETUP_SUBMIT_ALL | IORING_SETUP_CLAMP | IORING_SETUP_CQSIZE;

// A ring may be mapped where one that another thread has closed was. The kernel orders the two, but
// thread sanitizer does not see the system calls of liburing: so they are ordered here as well.
std::atomic<uint32_t> closed_rings{0};

// The first line of `path` that starts with `key`, without the key; "" if there is none.
std::string ReadLine(const char* path, const std::string& key = "") {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    if (line.compare(0, key.size(), key) == 0) return line.substr(key.size());
  }
  return "";
}

std::string KernelRelease() {
  utsname name{};
  return uname(&name) == 0 ? name.release : "?";
}

absl::Status Forbidden() {
  const std::string disabled = ReadLine("/proc/sys/kernel/io_uring_disabled");
  if (disabled == "2") {
    return absl::PermissionDeniedError(
        "io_uring is forbidden on this host by sysctl kernel.io_uring_disabled=2: "
        "sysctl -w kernel.io_uring_disabled=0 allows it");
  }
  if (disabled == "1" && geteuid() != 0) {
    return absl::PermissionDeniedError(
        "io_uring is for privileged processes only by sysctl kernel.io_uring_disabled=1: run with "
        "CAP_SYS_ADMIN, or in the group of sysctl kernel.io_uring_group, or set it to 0");
  }
  const std::string seccomp = ReadLine("/proc/self/status", "Seccomp:\t");
  if (!seccomp.empty() && seccomp != "0") {
    return absl::PermissionDeniedError(
        "io_uring is forbidden by a seccomp filter (the default of container runtimes): allow "
        "io_uring_setup, io_uring_enter and io_uring_register in its profile");
  }
  return absl::PermissionDeniedError(
      "io_uring is forbidden by a security policy (EPERM; no sysctl and no seccomp filter does "
      "it): see the audit log");
}

absl::Status SetupError(int error) {
  switch (error) {
    case EPERM:
    case EACCES:
      return Forbidden();
    case ENOSYS:
      return absl::UnimplementedError(
          absl::StrCat("io_uring is not in this kernel (", KernelRelease(),
                       ") or hidden by a seccomp filter: Linux 6.1 or later is needed"));
    case EINVAL:
      return absl::UnimplementedError(
          absl::StrCat("io_uring of this kernel (", KernelRelease(),
                       ") is too old, it has no DEFER_TASKRUN: Linux 6.1 or later is needed"));
    case ENOMEM:
      return absl::ResourceExhaustedError(
          "io_uring_setup: out of memory that may be locked: raise RLIMIT_MEMLOCK (ulimit -l), or "
          "the memory limit of the control group");
    case EMFILE:
    case ENFILE:
      return absl::ResourceExhaustedError(
          "io_uring_setup: too many open files: raise the limit (ulimit -n)");
    default:
      return absl::InternalError(absl::StrCat("io_uring_setup: ", strerror(error)));
  }
}

// DEFER_TASKRUN came with Linux 6.1, after everything else that we use; but operations can be
// missing where io_uring is somebody else's implementation.
absl::Status ProbeOperations(io_uring* ring) {
  constexpr unsigned kOperations = 256;
  const auto memory = std::make_unique<uint64_t[]>(
      (sizeof(io_uring_probe) + kOperations * sizeof(io_uring_probe_op)) / sizeof(uint64_t));
  auto* const probe = reinterpret_cast<io_uring_probe*>(memory.get());
  if (const int result = io_uring_register_probe(ring, probe, kOperations); result < 0) {
    return SetupError(-result);
  }
  const char* missing = nullptr;
  const auto need = [&](int operation, const char* name) {
    if (io_uring_opcode_supported(probe, operation) == 0) missing = name;
  };
  need(IORING_OP_RECVMSG, "RECVMSG");
  need(IORING_OP_SENDMSG, "SENDMSG");
  need(IORING_OP_SENDMSG_ZC, "SENDMSG_ZC");
  need(IORING_OP_ACCEPT, "ACCEPT");
  need(IORING_OP_CONNECT, "CONNECT");
  need(IORING_OP_RECV, "RECV");
  need(IORING_OP_POLL_ADD, "POLL_ADD");
  need(IORING_OP_ASYNC_CANCEL, "ASYNC_CANCEL");
  if (missing == nullptr) return absl::OkStatus();
  return absl::UnimplementedError(absl::StrCat("io_uring of this kernel (", KernelRelease(),
                                               ") lacks ", missing, ": Linux 6.1 is needed"));
}

// A datagram waits and there is no buffer for it, so a receive fails with ENOBUFS; where multishot
// is not known (they came with Linux 6.0), with EINVAL.
absl::Status ProbeMultishot(Uring* ring) {
  int sockets[2];
  if (socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, sockets) != 0) return SetupError(errno);
  const Fd receiving(sockets[0]);
  const Fd sending(sockets[1]);
  if (send(sending.get(), "x", 1, MSG_DONTWAIT) != 1) return SetupError(errno);
  msghdr header{};
  io_uring_sqe* sqe = ring->NextSqe({CompletionTag::kReceive, 0, 0});
  io_uring_prep_recvmsg_multishot(sqe, receiving.get(), &header, 0);
  sqe->flags |= IOSQE_BUFFER_SELECT;
  sqe->buf_group = 0;
  int result = 0;
  for (int turn = 0; result == 0 && turn < 10; ++turn) {
    ring->SubmitAndWait(std::chrono::milliseconds(100));
    ring->Drain([&result](CompletionTag tag, const io_uring_cqe& cqe) {
      if (tag.kind() == CompletionTag::kReceive) result = cqe.res;
    });
  }
  if (result == -ENOBUFS) return absl::OkStatus();
  return absl::UnimplementedError(absl::StrCat("io_uring of this kernel (", KernelRelease(),
                                               ") has no multishot receive: ", strerror(-result)));
}

absl::Status ProbeReceiving(Uring* uring) {
  io_uring* const ring = uring->get();
  const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  void* memory = mmap(nullptr, page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return absl::ResourceExhaustedError("mmap: out of memory");
  io_uring_buf_reg request{};
  request.ring_addr = reinterpret_cast<uintptr_t>(memory);
  request.ring_entries = 1;
  const int result = io_uring_register_buf_ring(ring, &request, 0);
  absl::Status multishot;
  if (result == 0) {
    multishot = ProbeMultishot(uring);
    io_uring_unregister_buf_ring(ring, 0);
  }
  munmap(memory, page);
  if (result == 0) return multishot;
  if (-result == ENOMEM) return SetupError(ENOMEM);
  if (-result == EPERM || -result == EACCES) return Forbidden();
  return absl::UnimplementedError(absl::StrCat("io_uring of this kernel (", KernelRelease(),
                                               ") has no buffer rings: ", strerror(-result)));
}

// A container runtime may allow the setup and forbid the calls that follow.
absl::Status ProbeEnter(io_uring* ring) {
  int result = io_uring_register(ring->ring_fd, IORING_REGISTER_ENABLE_RINGS, nullptr, 0);
  if (result < 0) return SetupError(-result);
  io_uring_prep_nop(io_uring_get_sqe(ring));
  result = io_uring_submit_and_wait(ring, 1);
  if (result < 0) return SetupError(-result);
  return absl::OkStatus();
}

[[noreturn]] void Die(const char* what, int error) {
  Log().critical("{}: {}", what, strerror(error));
  if (error == EPERM || error == EACCES) Log().critical("{}", Fmt(Forbidden().message()));
  std::abort();
}

}  // namespace

absl::Status ProbeUring() {
  Uring ring;
  if (auto status = ring.Open(8, 16); !status.ok()) return status;
  if (auto status = ProbeOperations(ring.get()); !status.ok()) return status;
  if (auto status = ProbeEnter(ring.get()); !status.ok()) return status;
  return ProbeReceiving(&ring);
}

Uring::~Uring() { Close(); }

absl::Status Uring::Open(uint32_t sq_entries, uint32_t cq_entries) {
  io_uring_params params{};
  params.flags = kSetupFlags;
  params.cq_entries = cq_entries;
  const int result = io_uring_queue_init_params(sq_entries, &ring_, &params);
  if (result < 0) return SetupError(-result);
  closed_rings.load(std::memory_order_acquire);
  open_ = true;
  // Entries are used strictly in turn, so the indirection of the queue never changes.
  for (uint32_t i = 0; i < ring_.sq.ring_entries; ++i) ring_.sq.array[i] = i;
  return absl::OkStatus();
}

void Uring::Enable() {
  // Debian's liburing 2.3 declares io_uring_enable_rings() and does not export it.
  const int result = io_uring_register(ring_.ring_fd, IORING_REGISTER_ENABLE_RINGS, nullptr, 0);
  if (result < 0) Die("IORING_REGISTER_ENABLE_RINGS", -result);
}

bool Uring::MayEnter() {
  return io_uring_enter(ring_.ring_fd, 0, 0, IORING_ENTER_GETEVENTS, nullptr) != -EEXIST;
}

void Uring::Close() {
  if (!open_) return;
  closed_rings.fetch_add(1, std::memory_order_release);
  io_uring_queue_exit(&ring_);
  open_ = false;
}

io_uring_sqe* Uring::NextSqe(CompletionTag tag) {
  if (queued() == ring_.sq.ring_entries) Submit();
  io_uring_sqe* sqe = &ring_.sq.sqes[ring_.sq.sqe_tail & ring_.sq.ring_mask];
  ++ring_.sq.sqe_tail;
  sqe->user_data = tag.Pack();
  return sqe;
}

void Uring::SubmitAndWait(Duration timeout) {
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(timeout);
  const __kernel_timespec time{seconds.count(), (timeout - seconds).count()};
  Enter(1, IORING_ENTER_GETEVENTS, &time);
}

void Uring::Enter(uint32_t wait_for, uint32_t flags, const __kernel_timespec* timeout) {
  io_uring_getevents_arg argument{};
  argument.ts = reinterpret_cast<uintptr_t>(timeout);
  void* const extra = timeout == nullptr ? nullptr : &argument;
  if (timeout != nullptr) flags |= IORING_ENTER_EXT_ARG;
  do {
    io_uring_smp_store_release(ring_.sq.ktail, ring_.sq.sqe_tail);
    const int result =
        io_uring_enter2(ring_.ring_fd, queued(), wait_for, flags, static_cast<sigset_t*>(extra),
                        extra == nullptr ? 0 : sizeof argument);
    submitted_ = io_uring_smp_load_acquire(ring_.sq.khead);
    if (result >= 0) continue;
    switch (-result) {
      case ETIME:
      case EINTR:
        break;
      case EAGAIN:  // no memory for a request, or too many completions wait to be drained:
      case EBUSY:   // let the kernel bring its own work to an end, then try again
        flags |= IORING_ENTER_GETEVENTS;
        break;
      case EBADR:
        Log().critical(
            "io_uring: the kernel had no memory left to keep completions in and dropped some, so "
            "nobody knows any more what it still reads and writes: raise the memory limit of the "
            "control group, or give the host more");
        Die("io_uring_enter", EBADR);
      default:
        Die("io_uring_enter", -result);
    }
  } while (queued() != 0);
}

}  // namespace ringsock::io
