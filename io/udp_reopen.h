// A new UDP socket in the place of an old one, without a moment in which nobody has the port, and
// without losing what the old one had received. For both real backends.
#ifndef RINGSOCK_IO_UDP_REOPEN_H_
#define RINGSOCK_IO_UDP_REOPEN_H_

#include <cstdint>
#include <functional>

#include "absl/status/statusor.h"
#include "io/loop.h"
#include "io/udp_socket.h"

namespace ringsock::io {

struct Replacement {
  UdpSocket fresh;
  bool exact = true;  // Reopened::exact
};
// Opens one like `old` on `port` (0: the kernel chooses), beside it, and has the kernel give `old`
// nothing more; what that has got stays. Nothing may be sent through it any more, since its source
// address is another one. Errors as OpenUdpSocket(); they change nothing.
absl::StatusOr<Replacement> ReplaceUdp(const UdpSocket& old, uint16_t port, bool gso, bool gro);

// Reads what is in `old`, counts it in `stats`, and gives it to `deliver`, a train at a time; the
// bytes are good until it returns. A socket that still receives is read until it is empty once; if
// it never is, what comes after kMaxDrain datagrams is lost. Returns how many packets were lost.
inline constexpr uint32_t kMaxDrain = 1 << 17;
uint64_t DrainUdp(const UdpSocket& old, UdpStats* stats,
                  const std::function<void(const RxTrain&)>& deliver);

}  // namespace ringsock::io

#endif  // RINGSOCK_IO_UDP_REOPEN_H_
