// Socket options in the order the kernel wants them: everything that decides about the bind first.
#include "io/udp_socket.h"

#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <sys/socket.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/log.h"
#include "io/socket_error.h"
#include "io/steering.h"

namespace ringsock::io {
namespace {

bool SetInt(int fd, int level, int name, int value) {
  return setsockopt(fd, level, name, &value, sizeof value) == 0;
}

absl::Status Error(const UdpConfig& config, const char* what, int error) {
  return SocketError(absl::StrCat("UDP ", config.bind.ToString(),
                                  config.device.empty() ? "" : absl::StrCat(" on ", config.device)),
                     what, error, /*tcp=*/false);
}

// The privileged option goes past net.core.[rw]mem_max; without the privilege the kernel caps.
void SetBuffer(int fd, int force_name, int name, int bytes) {
  if (!SetInt(fd, SOL_SOCKET, force_name, bytes)) SetInt(fd, SOL_SOCKET, name, bytes);
}

// Options that must be set, with the name an error gives them. Null: all set.
const char* SetRequired(int fd, const UdpConfig& config, bool v4) {
  if (!v4 && !SetInt(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1)) return "IPV6_V6ONLY";
  if (config.reuse_port && !SetInt(fd, SOL_SOCKET, SO_REUSEPORT, 1)) return "SO_REUSEPORT";
  if (!config.device.empty() && setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, config.device.data(),
                                           static_cast<socklen_t>(config.device.size())) != 0) {
    return "SO_BINDTODEVICE";
  }
  if (config.local_address && !(v4 ? SetInt(fd, IPPROTO_IP, IP_PKTINFO, 1)
                                   : SetInt(fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, 1))) {
    return v4 ? "IP_PKTINFO" : "IPV6_RECVPKTINFO";
  }
  return nullptr;
}

// Path MTU discovery stays as the kernel has it (IP_PMTUDISC_WANT): what is larger than the path
// is fragmented by this host, and EMSGSIZE is left to what no fragmentation can carry.
bool KernelHasSegmentation(int fd) {
  int value = 0;
  socklen_t length = sizeof value;
  return getsockopt(fd, SOL_UDP, UDP_SEGMENT, &value, &length) == 0;
}

// What this kernel lacks is said once in a process, not for every socket of every shard.
struct Missing {
  const char* text;
  std::atomic<bool> said{false};

  void Say(int error) {
    if (!said.exchange(true)) Log().warn("io: {}: {}", text, strerror(error));
  }
};
Missing g_no_segmentation{
    "this kernel has no UDP_SEGMENT (Linux 4.18), so every datagram is sent by itself"};
Missing g_no_gro{"this kernel has no UDP_GRO (Linux 5.0), so every datagram is received by itself"};
Missing g_no_steering{
    "this kernel takes no program that deals datagrams to shards (SO_ATTACH_REUSEPORT_CBPF, Linux "
    "4.5), so its own hash does"};

// Not before the bind, which is what puts a socket into the group that the program belongs to.
void Steer(int fd, const UdpConfig& config) {
  if (!AttachSteering(fd, config.bind.IsV4(), config.steering, config.steering_sockets)) {
    g_no_steering.Say(errno);
  }
}

}  // namespace

absl::StatusOr<UdpSocket> OpenUdpSocket(const UdpConfig& config, bool gso, bool gro) {
  const bool v4 = config.bind.IsV4();
  UdpSocket result;
  result.config = config;
  result.fd = Fd(socket(v4 ? AF_INET : AF_INET6, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  const int fd = result.fd.get();
  if (!result.fd.valid()) return Error(config, "socket", errno);
  if (const char* failed = SetRequired(fd, config, v4); failed != nullptr) {
    return Error(config, failed, errno);
  }
  SetBuffer(fd, SO_RCVBUFFORCE, SO_RCVBUF, config.receive_buffer);
  SetBuffer(fd, SO_SNDBUFFORCE, SO_SNDBUF, config.send_buffer);
  result.gso = gso && KernelHasSegmentation(fd);
  if (gso && !result.gso) g_no_segmentation.Say(errno);
  result.gro = gro && SetInt(fd, SOL_UDP, UDP_GRO, 1);
  if (gro && !result.gro) g_no_gro.Say(errno);

  sockaddr_storage address{};
  socklen_t length = config.bind.ToSockaddr(&address);
  if (bind(fd, reinterpret_cast<const sockaddr*>(&address), length) != 0) {
    return Error(config, "bind", errno);
  }
  length = sizeof address;
  if (getsockname(fd, reinterpret_cast<sockaddr*>(&address), &length) != 0) {
    return Error(config, "getsockname", errno);
  }
  result.local = Endpoint::FromSockaddr(address);
  if (config.reuse_port && config.steering != Steering::kNone && config.steering_sockets > 1) {
    Steer(fd, config);
  }
  return result;
}

uint64_t KernelDrops::Read(int fd) {
  uint32_t info[SK_MEMINFO_VARS] = {};
  socklen_t length = sizeof info;
  if (getsockopt(fd, SOL_SOCKET, SO_MEMINFO, info, &length) != 0) return total_;
  total_ += static_cast<uint32_t>(info[SK_MEMINFO_DROPS] - last_);
  last_ = info[SK_MEMINFO_DROPS];
  return total_;
}

}  // namespace ringsock::io
