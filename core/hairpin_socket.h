// The other socket of a hairpin check: asks our own global address, so that the data socket sees
// whether the NAT box leads back in (spec: stun-netcheck.md, NC-7).
#ifndef RINGSOCK_CORE_HAIRPIN_SOCKET_H_
#define RINGSOCK_CORE_HAIRPIN_SOCKET_H_

#include <cstddef>
#include <optional>
#include <span>

#include "absl/status/status.h"
#include "base/endpoint.h"
#include "io/loop.h"

namespace ringsock {

// For the loop's thread. IPv4 only. What it receives is thrown away.
class HairpinSocket final : private io::UdpHandler {
 public:
  // `loop` outlives it. `bind` is the data socket's address, usually unspecified.
  HairpinSocket(io::Loop* loop, const IpAddress& bind) : loop_(*loop), bind_(bind) {}
  ~HairpinSocket() { Close(); }
  HairpinSocket(const HairpinSocket&) = delete;
  HairpinSocket& operator=(const HairpinSocket&) = delete;

  // Opens the socket if it is not. Not from inside a handler of the loop. Whether the datagram gets
  // anywhere nobody says.
  absl::Status Send(const Endpoint& to, std::span<const std::byte> packet);
  void Close();

 private:
  void OnReceive(io::SocketId, std::span<const io::RxTrain>) override {}
  void OnSendFailure(io::SocketId, const io::SendFailure&) override {}

  io::Loop& loop_;
  const IpAddress bind_;
  std::optional<io::SocketId> socket_;
};

}  // namespace ringsock

#endif  // RINGSOCK_CORE_HAIRPIN_SOCKET_H_
