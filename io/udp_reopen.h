// A new UDP socket in the place of an old one, without a moment in which nobody has the port, and
// without losing what the old one had received. For both real backends.
#ifndef RINGSOCK_IO_UDP_REOPEN_H_
#define RINGSOCK_IO_UDP_REOPEN_H_

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "base/clock.h"
#include "io/loop.h"
#include "io/udp_socket.h"

namespace ringsock::io {

struct Replacement {
  UdpSocket fresh;
  bool exact = true;  // Reopened::exact
  bool keep = true;   // RetiredSockets::Retire()
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

// The old ones of a loop, on its thread. A core that had chosen the old socket for a packet may put
// it there only after that was read empty: nothing holds it up for long but a hypervisor, which was
// seen to take a core away for a quarter of a second. So they stay open a while, and are looked at.
class RetiredSockets {
 public:
  static constexpr Duration kLookEvery = std::chrono::milliseconds(10);
  static constexpr Duration kKeep = std::chrono::seconds(1);
  static constexpr size_t kMost = 16;  // of a loop

  // `flush` sends what the handler wants sent, whose bytes are good only so long.
  explicit RetiredSockets(std::function<void()> flush) : flush_(std::move(flush)) {}

  // Before the socket `id` is replaced again. If its port is not `shared`, those of before would be
  // in the way of the next one and go; of others, up to kMost stay. What they have is delivered.
  void MakeRoom(SocketId id, bool shared);
  // Empties `old`, which was replaced in the socket `id`, to `handler`. It is to `keep` if it gets
  // nothing but late packets and its port is still ours; if not, all of `id` are closed. `stats`
  // and `handler` are good until Close(id). Returns how many packets were lost.
  uint64_t Retire(UdpSocket old, bool keep, SocketId id, UdpStats* stats, UdpHandler* handler,
                  Instant now);
  void Close(SocketId id);
  // Delivers what has come late. Returns how many trains; nearly always 0.
  size_t Look(const Clock& clock);
  Instant NextLook() const { return next_; }  // Instant::max(): never

 private:
  struct Retired {
    UdpSocket old;
    SocketId id;
    UdpStats* stats;
    UdpHandler* handler;
    Instant end;
  };
  uint64_t Drain(const Retired& retired, size_t* trains);

  const std::function<void()> flush_;
  std::vector<Retired> retired_;
  Instant next_ = Instant::max();
};

}  // namespace ringsock::io

#endif  // RINGSOCK_IO_UDP_REOPEN_H_
