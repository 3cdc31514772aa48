// Words that the parts of the simulated network share: datagrams in flight, what became of them.
#ifndef RINGSOCK_IO_SIM_TYPES_H_
#define RINGSOCK_IO_SIM_TYPES_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "base/endpoint.h"

namespace ringsock::io {

enum class HostId : uint32_t {};
// A place where addresses mean one thing: the Internet, or the network behind a NAT box.
enum class RealmId : uint32_t {};
inline constexpr RealmId kInternet{0};

// The header of a stream's segment. Positions are bytes since the start of the stream.
struct SimSegment {
  enum Flags : uint8_t { kSyn = 1, kAck = 2, kFin = 4, kRst = 8 };
  uint8_t flags = 0;
  uint64_t seq = 0;     // of the first byte
  uint64_t ack = 0;     // all before it has come
  uint64_t window = 0;  // all before it has room
};

struct Datagram {
  Endpoint from;
  Endpoint to;
  HostId origin{};
  uint64_t train = 0;  // datagrams that were sent as one train share a number
  uint32_t hops = 0;
  std::vector<std::byte> payload;
  std::optional<SimSegment> segment;  // of a stream; none: UDP

  // On the wire: with the headers of IP (20 or 40 bytes, no options) and UDP (8) or TCP (20).
  size_t wire_size() const {
    return payload.size() + (to.IsV4() ? 20 : 40) + (segment.has_value() ? 20 : 8);
  }
};

// What can happen to a datagram. Everything after kDuplicated is a loss.
enum class SimEvent : uint8_t {
  kSent,
  kDelivered,
  kDuplicated,
  kLost,       // LinkOptions::loss
  kQueueFull,  // LinkOptions::queue_bytes
  kTooBig,     // LinkOptions::mtu
  kNoRoute,    // nobody has the address
  kNoSocket,   // nobody has the port
  kPartitioned,
  kUdpBlocked,
  kNatFiltered,   // no mapping, an expired one, or one that is not for this sender
  kNatExhausted,  // NatOptions::max_mappings
  kNoHairpin,
  kSocketFull,  // UdpConfig::receive_buffer; also in UdpStats::rx_kernel_drops
};
inline constexpr size_t kSimEvents = static_cast<size_t>(SimEvent::kSocketFull) + 1;
const char* SimEventName(SimEvent event);

}  // namespace ringsock::io

#endif  // RINGSOCK_IO_SIM_TYPES_H_
