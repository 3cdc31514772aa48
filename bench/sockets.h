// What every hand-written UDP program needs before its loop.
#ifndef RINGSOCK_BENCH_SOCKETS_H_
#define RINGSOCK_BENCH_SOCKETS_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/endpoint.h"

namespace ringsock::bench {

// A bound UDP socket that several may share the port of, with buffers of `buffer` bytes as far as
// rights allow. The caller closes it.
absl::StatusOr<int> OpenUdpSocket(const Endpoint& bind, int buffer);
uint16_t LocalPort(int fd);
// `option` is SO_RCVBUF or SO_SNDBUF; bytes as the kernel counts them.
uint32_t SocketBuffer(int fd, int option);
void PinThisThread(const std::vector<int>& cores);
// The cores the process may use, in order.
std::vector<int> AllowedCores();

}  // namespace ringsock::bench

#endif  // RINGSOCK_BENCH_SOCKETS_H_
