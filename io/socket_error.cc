// The table of errors and cures.
#include "io/socket_error.h"

#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"

namespace ringsock::io {
namespace {

// What to do about it, and its canonical code.
std::pair<absl::StatusCode, const char*> Cure(int error, bool tcp) {
  switch (error) {
    case EADDRINUSE:
      return {
          absl::StatusCode::kAlreadyExists,
          tcp ? "another socket holds this port: stop it (ss -tlpn shows who), or choose another "
                "port"
              : "another socket holds this port: stop it (ss -ulpn shows who), or choose another "
                "port"};
    case EACCES:
    case EPERM:
      return {absl::StatusCode::kPermissionDenied,
              "ports below net.ipv4.ip_unprivileged_port_start need CAP_NET_BIND_SERVICE, devices "
              "CAP_NET_RAW; or a security policy forbids it"};
    case EAFNOSUPPORT:
      return {absl::StatusCode::kFailedPrecondition,
              "this kernel has the address family switched off: load it or leave it out"};
    case EADDRNOTAVAIL:
      return {absl::StatusCode::kFailedPrecondition,
              "the address is not on this host: see ip address (for IPv6 also sysctl "
              "net.ipv6.conf.all.disable_ipv6)"};
    case ENODEV:
      return {absl::StatusCode::kNotFound, "no such network device: see ip link"};
    case EMFILE:
    case ENFILE:
      return {absl::StatusCode::kResourceExhausted, "raise the limit of open files (ulimit -n)"};
    case ENOBUFS:
    case ENOMEM:
      return {absl::StatusCode::kResourceExhausted, "the kernel is out of socket memory"};
    default:
      return {absl::StatusCode::kInternal, "unexpected"};
  }
}

}  // namespace

absl::Status SocketError(absl::string_view socket, const char* what, int error, bool tcp) {
  const auto [code, cure] = Cure(error, tcp);
  return absl::Status(code, absl::StrCat(socket, ": ", what, ": ", strerror(error), ": ", cure));
}

}  // namespace ringsock::io
