// What passes between one shard and the control thread: bounded rings, each with one producer
// and one consumer. None of them is on the way of a WireGuard packet.
#ifndef RINGSOCK_CORE_SHARD_LINK_H_
#define RINGSOCK_CORE_SHARD_LINK_H_

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>

#include "base/clock.h"
#include "base/endpoint.h"
#include "base/spsc_ring.h"
#include "core/packet_ring.h"
#include "core/path_learner.h"
#include "core/socket_health.h"

namespace ringsock {

class EngineShard;

// A STUN packet as a shard received it. Ours are answers of about 100 bytes; RFC 8489 section 6.1
// has them fit an IPv4 path of 576 or an IPv6 path of 1280 bytes.
struct StunPacket {
  static constexpr size_t kMaxSize = 1280;
  Endpoint from;
  Instant received;
  uint32_t size = 0;
  std::array<std::byte, kMaxSize> data;
};

// A send that failed, for the log (spec: SEND-5).
struct SendFailureReport {
  Endpoint to;
  int error = 0;  // errno
};

// Something for the shard's thread to do between two polls.
using ShardCommand = std::function<void(EngineShard&)>;

struct ShardLink {
  // Shard to control. STUN that finds its ring full is counted by the shard; a line of the log is
  // lost.
  SpscRing<StunPacket> stun{64};
  SpscRing<PathReport> paths{64};
  SpscRing<SendFailureReport> failures{4};
  // True while control has a taker for STUN; else the shard counts it (spec: RECV-1).
  std::atomic<bool> stun_wanted{false};

  // Of the IPv4 and the IPv6 socket.
  std::array<SocketHealth, 2> health;

  // Control to shard: datagrams for an address (STUN requests), and commands.
  PacketRing sends{64};
  SpscRing<ShardCommand> commands{16};
};

}  // namespace ringsock

#endif  // RINGSOCK_CORE_SHARD_LINK_H_
