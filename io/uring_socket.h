// A socket of the io_uring loop: what its receiving and its sending half know about it.
#ifndef RINGSOCK_IO_URING_SOCKET_H_
#define RINGSOCK_IO_URING_SOCKET_H_

#include <sys/socket.h>

#include <array>
#include <bit>
#include <cstdint>
#include <utility>

#include "base/cache_line.h"
#include "base/clock.h"
#include "io/buffer_ring.h"
#include "io/loop.h"
#include "io/receive_errors.h"
#include "io/socket_segment.h"
#include "io/train.h"
#include "io/udp_socket.h"

namespace ringsock::io {

// Slots for sockets open at one time; a SocketId is a slot and, above it, a generation.
inline constexpr uint32_t kSlotBits = 8;
inline constexpr uint32_t kMaxSockets = 1 << kSlotBits;

struct alignas(kCacheLine) UringSocket {
  // A buffer that the kernel filled, not yet delivered.
  struct Filled {
    uint16_t buffer;
    uint32_t size;
  };

  UringSocket(SocketId id, UdpSocket opened, UdpHandler* handler, uint32_t rx_buffers)
      : id(id), udp(std::move(opened)), handler(handler), gso(udp.gso) {
    receive.msg_namelen = kNameRoom;
    receive.msg_controllen = kControlRoom;
    filled.resize(std::bit_ceil(rx_buffers));
  }

  int fd() const { return udp.fd.get(); }
  UdpStats Stats() const {
    UdpStats all = stats;
    all.rx_kernel_drops = drops.Read(fd());
    return all;
  }
  bool is_v4() const { return udp.local.IsV4(); }

  void CountReceived(const RxTrain& train) {
    stats.rx_packets += train.packets();
    stats.rx_bytes += train.size;
    ++stats.rx_trains;
  }
  void CountZeroCopy(bool copied) { ++(copied ? stats.tx_zero_copy_copied : stats.tx_zero_copy); }

  bool HasFilled() const { return filled_head != filled_tail; }
  void PushFilled(Filled f) { filled[filled_tail++ & (filled.size() - 1)] = f; }
  uint32_t filled_count() const { return filled_tail - filled_head; }
  // The n-th that PopFilled() will give, below filled_count().
  Filled PeekFilled(uint32_t n) const { return filled[(filled_head + n) & (filled.size() - 1)]; }
  Filled PopFilled() { return filled[filled_head++ & (filled.size() - 1)]; }

  const SocketId id;
  UdpSocket udp;
  UdpHandler* const handler;
  GsoMemory gso;
  SocketSegment segment;  // of the descriptor in `udp`
  UdpStats stats;
  mutable KernelDrops drops;
  ReceiveErrors errors;
  Instant resume_at{};  // when paused: receive again

  // The multishot receive: the kernel reads only the two lengths.
  msghdr receive{};
  bool armed = false;              // in the kernel
  bool waits = false;              // and stays there when there is nothing to receive
  bool busy = false;               // the next one is not to wait
  bool got_any = false;            // has received something since it was armed
  uint32_t turn = 0;               // of the receiver, in which it last received
  uint32_t taken = 0;              // buffers filled in that turn
  bool closing = false;            // deliver nothing more
  bool ready = false;              // in the loop's queue of sockets with filled buffers
  CacheLineVector<Filled> filled;  // a ring with room for every buffer there is
  uint32_t filled_head = 0;
  uint32_t filled_tail = 0;
};

// Sockets that wait for something, each at most once.
class SocketQueue {
 public:
  bool empty() const { return head_ == tail_; }
  uint32_t size() const { return tail_ - head_; }
  void Push(SocketId id) { ids_[tail_++ % kMaxSockets] = id; }
  SocketId Pop() { return ids_[head_++ % kMaxSockets]; }
  void Remove(SocketId id) {
    for (uint32_t left = size(); left > 0; --left) {
      if (const SocketId popped = Pop(); popped != id) Push(popped);
    }
  }

 private:
  std::array<SocketId, kMaxSockets> ids_{};
  uint32_t head_ = 0;
  uint32_t tail_ = 0;
};

}  // namespace ringsock::io

#endif  // RINGSOCK_IO_URING_SOCKET_H_
