// Which of the sockets that share a port gets a datagram, where that is for us to choose and not
// for the kernel's hash: a classic BPF program on the group of sockets (SO_ATTACH_REUSEPORT_CBPF,
// Linux 4.5), and the same rule in C++ for whoever has to know beforehand.
#ifndef RINGSOCK_IO_STEERING_H_
#define RINGSOCK_IO_STEERING_H_

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/endpoint.h"

namespace ringsock::io {

enum class Steering : uint8_t {
  // The kernel's hash of both addresses and ports. It deals the flows anew whenever a socket joins
  // or leaves the group, and after a reboot.
  kNone,
  // By the remote address and port alone, the same at all times and on all hosts.
  kSource,
  // WireGuard's data messages, handshake responses and cookie replies by the receiver index that
  // they carry, modulo the number of sockets: whoever chooses its indices chooses the socket.
  // Everything else, so also the initiations of handshakes, as kSource.
  kReceiverIndex,
};

const char* SteeringName(Steering steering);  // "none", "source", "receiver_index"

// The socket, by its index in the group, that gets a datagram; `sockets` is not 0. A train is
// steered as a whole, by its first datagram. One that is too short for what the rule looks at goes
// to socket 0. With kNone there is no saying: 0.
uint32_t SteeredSocket(Steering steering, const Endpoint& from, std::span<const std::byte> datagram,
                       uint32_t sockets);

// Gives the group that `fd` belongs to, which is bound and has SO_REUSEPORT, the program that
// deals datagrams to its first `sockets` sockets, in the order in which they were bound. While
// there are fewer, what is for a missing one goes by the kernel's hash. False: errno says why not.
bool AttachSteering(int fd, bool v4, Steering steering, uint32_t sockets);

}  // namespace ringsock::io

#endif  // RINGSOCK_IO_STEERING_H_
