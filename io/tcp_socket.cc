#include "io/tcp_socket.h"

#include <linux/tcp.h>  // has newer fields of tcp_info than the C library's header
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "io/socket_error.h"

namespace ringsock::io {
namespace {

bool SetInt(int fd, int level, int name, int value) {
  return setsockopt(fd, level, name, &value, sizeof value) == 0;
}

absl::Status Error(const Endpoint& address, const char* what, int error) {
  return SocketError(absl::StrCat("TCP ", address.ToString()), what, error, /*tcp=*/true);
}

int Seconds(Duration duration) {
  return static_cast<int>(
      std::max<int64_t>(1, std::chrono::duration_cast<std::chrono::seconds>(duration).count()));
}

// Null: all set; else the option that was not.
const char* SetOptions(int fd, const StreamOptions& options) {
  if (options.no_delay && !SetInt(fd, IPPROTO_TCP, TCP_NODELAY, 1)) return "TCP_NODELAY";
  if (options.keepalive_idle > Duration::zero() &&
      !(SetInt(fd, SOL_SOCKET, SO_KEEPALIVE, 1) &&
        SetInt(fd, IPPROTO_TCP, TCP_KEEPIDLE, Seconds(options.keepalive_idle)) &&
        SetInt(fd, IPPROTO_TCP, TCP_KEEPINTVL, Seconds(options.keepalive_interval)) &&
        SetInt(fd, IPPROTO_TCP, TCP_KEEPCNT, std::max(1, options.keepalive_probes)))) {
    return "SO_KEEPALIVE";
  }
  const auto user_timeout =
      std::chrono::duration_cast<std::chrono::milliseconds>(options.user_timeout).count();
  if (user_timeout > 0 &&
      !SetInt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, static_cast<int>(user_timeout))) {
    return "TCP_USER_TIMEOUT";
  }
  // Before connect() and listen(), because the window scale follows from the first.
  if (options.receive_buffer > 0) SetInt(fd, SOL_SOCKET, SO_RCVBUF, options.receive_buffer);
  if (options.send_buffer > 0) SetInt(fd, SOL_SOCKET, SO_SNDBUF, options.send_buffer);
  if (options.not_sent_low_water > 0 &&
      !SetInt(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, static_cast<int>(options.not_sent_low_water))) {
    return "TCP_NOTSENT_LOWAT";
  }
  return nullptr;
}

Fd OpenTcp(bool v4, bool blocking) {
  const int type = SOCK_STREAM | SOCK_CLOEXEC | (blocking ? 0 : SOCK_NONBLOCK);
  return Fd(socket(v4 ? AF_INET : AF_INET6, type, 0));
}

bool Bind(int fd, const Endpoint& to) {
  sockaddr_storage address{};
  const socklen_t length = to.ToSockaddr(&address);
  return bind(fd, reinterpret_cast<const sockaddr*>(&address), length) == 0;
}

Endpoint Name(int fd, int (*get)(int, sockaddr*, socklen_t*)) {
  sockaddr_storage address{};
  socklen_t length = sizeof address;
  if (get(fd, reinterpret_cast<sockaddr*>(&address), &length) != 0) return {};
  return Endpoint::FromSockaddr(address);
}

}  // namespace

absl::StatusOr<Fd> OpenTcpConnector(const ConnectConfig& config, bool blocking) {
  const bool bound = !config.bind.IsNone();
  if (config.to.port == 0 || config.to.ip.IsUnspecified()) {
    return absl::InvalidArgumentError(
        absl::StrCat("TCP ", config.to.ToString(), ": nothing can be connected to there"));
  }
  if (bound && config.bind.IsV4() != config.to.IsV4()) {
    return absl::InvalidArgumentError(absl::StrCat("TCP ", config.to.ToString(), ": the source ",
                                                   config.bind.ToString(),
                                                   " is of the other address family"));
  }
  Fd fd = OpenTcp(config.to.IsV4(), blocking);
  if (!fd.valid()) return Error(config.to, "socket", errno);
  if (const char* failed = SetOptions(fd.get(), config.options); failed != nullptr) {
    return Error(config.to, failed, errno);
  }
  if (!config.device.empty() &&
      setsockopt(fd.get(), SOL_SOCKET, SO_BINDTODEVICE, config.device.data(),
                 static_cast<socklen_t>(config.device.size())) != 0) {
    return Error(config.to, "SO_BINDTODEVICE", errno);
  }
  if (bound) {
    // The port is then chosen by connect(), so that sockets to different places may share one.
    if (config.bind.port == 0) SetInt(fd.get(), IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1);
    if (!Bind(fd.get(), config.bind)) return Error(config.bind, "bind", errno);
  }
  return fd;
}

absl::StatusOr<Fd> OpenTcpListener(const ListenConfig& config, bool blocking) {
  const bool v4 = config.bind.IsV4();
  Fd fd = OpenTcp(v4, blocking);
  if (!fd.valid()) return Error(config.bind, "socket", errno);
  // Connections of an earlier process in TIME_WAIT do not hold the port.
  if (!SetInt(fd.get(), SOL_SOCKET, SO_REUSEADDR, 1)) {
    return Error(config.bind, "SO_REUSEADDR", errno);
  }
  if (!v4 && !SetInt(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, 1)) {
    return Error(config.bind, "IPV6_V6ONLY", errno);
  }
  if (config.reuse_port && !SetInt(fd.get(), SOL_SOCKET, SO_REUSEPORT, 1)) {
    return Error(config.bind, "SO_REUSEPORT", errno);
  }
  if (const char* failed = SetOptions(fd.get(), config.options); failed != nullptr) {
    return Error(config.bind, failed, errno);
  }
  if (!Bind(fd.get(), config.bind)) return Error(config.bind, "bind", errno);
  if (listen(fd.get(), config.backlog) != 0) return Error(config.bind, "listen", errno);
  return fd;
}

Endpoint TcpLocalEndpoint(int fd) { return Name(fd, getsockname); }
Endpoint TcpRemoteEndpoint(int fd) { return Name(fd, getpeername); }

uint64_t TcpAckedBytes(int fd) {
  tcp_info info{};
  socklen_t length = sizeof info;
  if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &length) != 0) return 0;
  return info.tcpi_bytes_acked;
}

int TakeTcpError(int fd) {
  int error = 0;
  socklen_t length = sizeof error;
  return getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length) == 0 ? error : errno;
}

void ResetOnClose(int fd) {
  const linger now{1, 0};
  setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
}

bool AcceptMustWait(int error) {
  return error == EMFILE || error == ENFILE || error == ENOBUFS || error == ENOMEM;
}

}  // namespace ringsock::io
