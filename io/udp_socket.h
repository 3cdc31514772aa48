// Opening a UDP socket the way both real backends want it, with errors that name the cure.
#ifndef RINGSOCK_IO_UDP_SOCKET_H_
#define RINGSOCK_IO_UDP_SOCKET_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "base/endpoint.h"
#include "io/fd.h"
#include "io/loop.h"

namespace ringsock::io {

struct UdpSocket {
  Fd fd;             // non-blocking, close-on-exec, bound, not connected
  Endpoint local;    // as the kernel bound it
  bool gso = false;  // UDP_SEGMENT is wanted and this kernel knows it (Linux 4.18)
  bool gro = false;  // UDP_GRO is wanted and switched on (Linux 5.0)
  UdpConfig config;  // it was opened with
};

// Errors: AlreadyExists (port in use), PermissionDenied, NotFound (device), FailedPrecondition
// (address not on this host, family switched off), ResourceExhausted (descriptors, memory).
absl::StatusOr<UdpSocket> OpenUdpSocket(const UdpConfig& config, bool gso, bool gro);

// Datagrams that the kernel dropped on one socket, mostly because its buffer was full. The kernel
// counts in 32 bits; this keeps the total in 64.
class KernelDrops {
 public:
  // One getsockopt(SO_MEMINFO): not for every packet.
  uint64_t Read(int fd);
  // `fd` is read for the last time, and another socket counts from 0.
  void Replace(int fd) {
    Read(fd);
    last_ = 0;
  }

 private:
  uint32_t last_ = 0;
  uint64_t total_ = 0;
};

}  // namespace ringsock::io

#endif  // RINGSOCK_IO_UDP_SOCKET_H_
