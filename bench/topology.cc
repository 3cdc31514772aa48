// Where the packets of a benchmark go.
#include "bench/topology.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fstream>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "bench/cpu_meter.h"

namespace ringsock::bench {
namespace {

constexpr char kLoadDevice[] = "rb-load";
constexpr char kSubjectDevice[] = "rb-subject";

absl::Status Errno(absl::string_view what) {
  return absl::InternalError(absl::StrCat(what, ": ", std::strerror(errno)));
}

// A new namespace, without staying in it.
absl::StatusOr<Namespace> NewNamespace() {
  const int own = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
  if (own < 0) return Errno("/proc/thread-self/ns/net");
  if (unshare(CLONE_NEWNET) != 0) {
    const int error = errno;
    close(own);
    return absl::PermissionDeniedError(
        absl::StrCat("cannot make a network namespace: ", std::strerror(error),
                     "; run as root, or use --topology loopback"));
  }
  Namespace made(open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC));
  const bool back = setns(own, CLONE_NEWNET) == 0;
  close(own);
  if (!back || made.is_own()) return Errno("setns");
  return made;
}

// Runs a shell command in a namespace, with a /sys that shows its devices. Fails with the command
// when it does not exit with 0.
absl::Status Run(const Namespace& ns, const std::string& command) {
  const pid_t child = fork();
  if (child < 0) return Errno("fork");
  if (child == 0) {
    if (!ns.Enter().ok() || unshare(CLONE_NEWNS) != 0 ||
        mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
        mount("sysfs", "/sys", "sysfs", 0, nullptr) != 0) {
      _exit(126);
    }
    execl("/bin/sh", "sh", "-c", command.c_str(), nullptr);
    _exit(127);
  }
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return absl::OkStatus();
  return absl::InternalError(
      absl::StrCat("failed: ", command, " (needs iproute2, and ethtool for niclike)"));
}

void Bind(int thread, const std::vector<int>& cores) {
  cpu_set_t set;
  CPU_ZERO(&set);
  for (const int core : cores) CPU_SET(core, &set);
  sched_setaffinity(thread, sizeof(set), &set);
}

}  // namespace

Namespace& Namespace::operator=(Namespace&& other) noexcept {
  std::swap(fd_, other.fd_);
  return *this;
}

Namespace::~Namespace() {
  if (fd_ >= 0) close(fd_);
}

absl::Status Namespace::Enter() const {
  if (is_own() || setns(fd_, CLONE_NEWNET) == 0) return absl::OkStatus();
  return Errno("setns");
}

absl::StatusOr<std::unique_ptr<ScopedNamespace>> ScopedNamespace::Enter(const Namespace& ns) {
  const int own = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
  if (own < 0) return Errno("/proc/thread-self/ns/net");
  auto scope = std::unique_ptr<ScopedNamespace>(new ScopedNamespace(own));
  const absl::Status status = ns.Enter();
  if (!status.ok()) return status;
  return scope;
}

ScopedNamespace::~ScopedNamespace() {
  // Root entered another namespace, so it may go back; if not, nothing after this means anything.
  if (setns(fd_, CLONE_NEWNET) != 0 && errno != EPERM) std::abort();
  close(fd_);
}

absl::StatusOr<std::unique_ptr<Topology>> Topology::Create(TopologyKind kind, uint32_t mtu,
                                                           const std::vector<int>& load_cores,
                                                           const std::vector<int>& subject_cores,
                                                           uint32_t gro_flush_us) {
  auto topology = std::unique_ptr<Topology>(new Topology());
  topology->kind_ = kind;
  topology->first_peer_ = IpAddress::V4(127, 64, 0, 1).V4HostOrder();
  if (kind == TopologyKind::kLoopback) return topology;

  topology->first_peer_ = IpAddress::V4(10, 224, 0, 1).V4HostOrder();
  topology->subject_address_ = IpAddress::V4(10, 213, 0, 2);
  absl::StatusOr<Namespace> load = NewNamespace();
  if (!load.ok()) return load.status();
  absl::StatusOr<Namespace> subject = NewNamespace();
  if (!subject.ok()) return subject.status();
  topology->load_ = *std::move(load);
  topology->subject_ = *std::move(subject);
  absl::Status status = topology->Connect(mtu);
  if (status.ok() && kind == TopologyKind::kNicLike) {
    status = topology->MakeNicLike(load_cores, subject_cores, gro_flush_us);
  }
  if (!status.ok()) return status;
  return topology;
}

absl::Status Topology::Connect(uint32_t mtu) {
  // One queue, because with more the kernel reorders a flow's packets when one of them fills up. A
  // local route makes every peer's address one of the load's own ("AnyIP").
  const std::string link = absl::StrCat(" mtu ", mtu, " numtxqueues 1 numrxqueues 1");
  const absl::Status status =
      Run(load_, absl::StrCat("ip link set lo up && ip link add ", kLoadDevice, link,
                              " type veth peer name ", kSubjectDevice, link, " netns /proc/",
                              getpid(), "/fd/", subject_.fd(), " && ip addr add 10.213.0.1/30 dev ",
                              kLoadDevice, " && ip link set ", kLoadDevice,
                              " up && ip route add local 10.224.0.0/11 dev lo"));
  if (!status.ok()) return status;
  return Run(subject_, absl::StrCat("ip link set lo up && ip addr add 10.213.0.2/30 dev ",
                                    kSubjectDevice, " && ip link set ", kSubjectDevice,
                                    " up && ip route add 10.224.0.0/11 via 10.213.0.1"));
}

absl::Status Topology::MakeNicLike(const std::vector<int>& load_cores,
                                   const std::vector<int>& subject_cores, uint32_t gro_flush_us) {
  // A queue in front of the device holds the packets of a train back while the other side's ring
  // of 256 is full, as a card's queue does.
  const auto command = [&](const std::string& device) {
    const std::string folder = absl::StrCat("/sys/class/net/", device);
    const std::string wait =
        absl::StrCat(" && echo ", gro_flush_us * 1000, " > ", folder,
                     "/gro_flush_timeout && echo 1 > ", folder, "/napi_defer_hard_irqs");
    return absl::StrCat("ethtool -K ", device,
                        " tso off gso off tx-udp-segmentation off gro on && tc qdisc replace dev ",
                        device, " root pfifo limit 10000 && echo 1 > ", folder, "/threaded",
                        gro_flush_us > 0 ? wait : "");
  };
  absl::Status status = Run(load_, command(kLoadDevice));
  if (status.ok()) status = Run(subject_, command(kSubjectDevice));
  if (!status.ok()) return status;
  for (const int thread : FindKernelThreads(absl::StrCat("napi/", kLoadDevice))) {
    Bind(thread, load_cores);
  }
  subject_kernel_threads_ = FindKernelThreads(absl::StrCat("napi/", kSubjectDevice));
  if (subject_kernel_threads_.empty()) {
    return absl::InternalError("the kernel made no NAPI thread for the veth device");
  }
  for (const int thread : subject_kernel_threads_) Bind(thread, subject_cores);
  return absl::OkStatus();
}

}  // namespace ringsock::bench
