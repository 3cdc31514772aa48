// TCP sockets the way both real backends want them, with errors that name the cure.
#ifndef RINGSOCK_IO_TCP_SOCKET_H_
#define RINGSOCK_IO_TCP_SOCKET_H_

#include "absl/status/statusor.h"
#include "base/endpoint.h"
#include "io/fd.h"
#include "io/stream.h"

namespace ringsock::io {

// A socket with all options set, bound if the configuration says so, not yet connected. Close on
// exec. Errors: InvalidArgument (no destination, families mixed), and those of OpenUdpSocket
// (io/udp_socket.h).
absl::StatusOr<Fd> OpenTcpConnector(const ConnectConfig& config, bool blocking);
// One that listens. Accepted sockets inherit its options.
absl::StatusOr<Fd> OpenTcpListener(const ListenConfig& config, bool blocking);

Endpoint TcpLocalEndpoint(int fd);
Endpoint TcpRemoteEndpoint(int fd);
// Bytes that the other side has acknowledged (tcpi_bytes_acked); 0 if the kernel does not say.
uint64_t TcpAckedBytes(int fd);
// The error the socket broke with, which is then forgotten; 0 if it did not.
int TakeTcpError(int fd);
// close() will send a reset and throw away what is queued.
void ResetOnClose(int fd);
// Errors of accept() that mean "later": this process or the kernel has run out of something.
bool AcceptMustWait(int error);

}  // namespace ringsock::io

#endif  // RINGSOCK_IO_TCP_SOCKET_H_
