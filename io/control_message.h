// The ancillary data of UDP: segment sizes of trains, and local addresses. Built and parsed by hand
// over plain bytes, because io_uring hands received control data out in the middle of a buffer
// where the CMSG_ macros cannot be trusted with the bounds.
#ifndef RINGSOCK_IO_CONTROL_MESSAGE_H_
#define RINGSOCK_IO_CONTROL_MESSAGE_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "base/endpoint.h"

namespace ringsock::io {

// Room for every message that is built here, and for every one that our socket options ask for.
inline constexpr size_t kControlSpace = 128;

// A buffer with the alignment that the kernel wants of msg_control.
struct alignas(8) ControlBuffer {
  std::byte data[kControlSpace];
};

// Writes what a train needs: UDP_SEGMENT if there is a segment size (0: one datagram, whatever the
// socket is set to), and the source address if `from` is specified and of the socket's family.
// Returns the bytes used, 0 for "no control data".
size_t BuildSendControl(std::optional<uint32_t> segment_size, const IpAddress& from,
                        bool socket_is_v4, ControlBuffer* out);

struct ReceiveControl {
  IpAddress to = IpAddress::AnyV6();  // where it was sent to; AnyV6() when not said
  uint32_t segment_size = 0;          // UDP_GRO: 0 when the datagram came alone
};

// Reads what the kernel attached. Unknown messages are skipped; a malformed one ends the parse.
ReceiveControl ParseReceiveControl(std::span<const std::byte> control);

}  // namespace ringsock::io

#endif  // RINGSOCK_IO_CONTROL_MESSAGE_H_
