// What an errno of socket(), setsockopt(), bind() or listen() means to the one who set the option:
// a status with its cure, the same words for UDP and TCP.
#ifndef RINGSOCK_IO_SOCKET_ERROR_H_
#define RINGSOCK_IO_SOCKET_ERROR_H_

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace ringsock::io {

// "TCP 192.0.2.1:443: bind: Permission denied: ports below ...". `socket` says which it is and
// where, `what` the call or option that failed; `tcp` is for the command that shows who holds a
// port.
absl::Status SocketError(absl::string_view socket, const char* what, int error, bool tcp);

}  // namespace ringsock::io

#endif  // RINGSOCK_IO_SOCKET_ERROR_H_
