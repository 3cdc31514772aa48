#include "relay/host.h"

#include <netdb.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"

namespace ringsock::relay {

std::vector<int> AllowedCpus() {
  std::vector<int> cpus;
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) == 0) {
    for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
      if (CPU_ISSET(cpu, &set)) cpus.push_back(cpu);
    }
  }
  return cpus;
}

uint64_t RaiseDescriptorLimit() {
  rlimit limit = {};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return 0;
  const rlim_t before = limit.rlim_cur;
  limit.rlim_cur = limit.rlim_max;
  return setrlimit(RLIMIT_NOFILE, &limit) == 0 ? limit.rlim_cur : before;
}

bool HasIpv6() {
  const io::Fd fd(socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_storage any = {};
  const socklen_t size = Endpoint{IpAddress::AnyV6(), 0}.ToSockaddr(&any);
  return fd.valid() && bind(fd.get(), reinterpret_cast<const sockaddr*>(&any), size) == 0;
}

absl::StatusOr<SharedPort> ClaimPort(const Endpoint& address) {
  SharedPort claimed{address.port, {}};
  io::Fd fd(socket(address.IsV4() ? AF_INET : AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!fd.valid()) return claimed;
  const int on = 1;
  // Connections of an earlier run in TIME_WAIT are no obstacle, listeners are.
  setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (!address.IsV4()) setsockopt(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
  if (address.port == 0) setsockopt(fd.get(), SOL_SOCKET, SO_REUSEPORT, &on, sizeof on);
  sockaddr_storage where = {};
  socklen_t size = address.ToSockaddr(&where);
  if (bind(fd.get(), reinterpret_cast<const sockaddr*>(&where), size) != 0) {
    if (errno != EADDRINUSE) return claimed;
    return absl::AlreadyExistsError(absl::StrCat("TCP ", address.ToString(),
                                                 ": Address already in use: stop who has it (ss ",
                                                 "-tlpn shows who), or choose another port"));
  }
  if (address.port != 0) return claimed;
  size = sizeof where;
  getsockname(fd.get(), reinterpret_cast<sockaddr*>(&where), &size);
  claimed.port = Endpoint::FromSockaddr(where).port;
  claimed.held = std::move(fd);
  return claimed;
}

absl::StatusOr<IpAddress> ResolveHost(const std::string& host) {
  const absl::StatusOr<IpAddress> literal = IpAddress::Parse(host);
  if (literal.ok()) return literal;
  addrinfo hints = {};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_ADDRCONFIG;
  addrinfo* found = nullptr;
  const int error = getaddrinfo(host.c_str(), nullptr, &hints, &found);
  if (error != 0 || found == nullptr) {
    return absl::UnavailableError(
        absl::StrCat("\"", host, "\" does not resolve: ", gai_strerror(error)));
  }
  const IpAddress ip = Endpoint::FromSockaddr(found->ai_addr).ip;
  freeaddrinfo(found);
  return ip;
}

}  // namespace ringsock::relay
