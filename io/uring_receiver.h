// The receiving half of the io_uring loop: keeps a multishot receive in the kernel for each socket,
// and sorts what its completions bring.
//
// A receive *waits* or it does not. One that waits stays in the kernel when it has emptied the
// socket, so the loop can sleep; but each datagram that arrives meanwhile then wakes it, whatever
// else is there, which costs a busy loop 5 % of its time for single packets. One that does not wait
// (MSG_DONTWAIT) takes what is there and ends. So a socket that a turn has found busy is received
// from without waiting, once in each turn, until one finds little.
//
// All sockets share one buffer ring. A busy one may empty it; then every receive ends with ENOBUFS.
// They are armed again when buffers are back, those that got nothing first, so that all get turns.
#ifndef RINGSOCK_IO_URING_RECEIVER_H_
#define RINGSOCK_IO_URING_RECEIVER_H_

#include <cstdint>
#include <functional>
#include <utility>

#include "base/clock.h"
#include "io/buffer_ring.h"
#include "io/loop.h"
#include "io/uring.h"
#include "io/uring_socket.h"

namespace ringsock::io {

// Whether this kernel ends a multishot receive that does not wait as it should: with an EAGAIN that
// takes no buffer. Needs a ring of its own, for a moment; false if there is none to be had.
bool ProbeReceiveWithoutWaiting();

// For the loop's thread. Time goes in; enters the kernel only where it says so.
class UringReceiver {
 public:
  // Datagrams or trains in one turn that make a socket busy.
  static constexpr uint32_t kBusy = 8;

  // `find` gives the socket of an id, or null. Ring and buffers outlive this.
  UringReceiver(Uring* ring, BufferRing* buffers, std::function<UringSocket*(SocketId)> find)
      : ring_(*ring), buffers_(*buffers), find_(std::move(find)) {}

  // ProbeReceiveWithoutWaiting(). Without this every receive waits.
  void MayNotWait(bool may) { may_not_wait_ = may; }
  // A socket to receive from, from the next Arm() on.
  void Add(SocketId id) { unarmed_.Push(id); }
  // Its receive may still be in the kernel: Cancel() it before.
  void Remove(SocketId id);

  // Begins a turn: queues a receive for every socket that has none and is not paused.
  void Arm(const Clock& clock);
  // When a paused socket wants to be armed again.
  Instant next_resume() const { return next_resume_; }

  // A completion of a receive. `socket` is null if it has gone. True if it brought a datagram.
  bool OnCompletion(UringSocket* socket, const io_uring_cqe& cqe, const Clock& clock);

 private:
  void ArmOne(UringSocket& socket);
  void ResumePaused(Instant now);
  void StopWaiting();
  void OnEnd(UringSocket& socket, int result, const Clock& clock);

  Uring& ring_;
  BufferRing& buffers_;
  const std::function<UringSocket*(SocketId)> find_;
  bool may_not_wait_ = false;
  uint32_t turn_ = 0;

  SocketQueue hungry_;  // to be armed first: their last receive got nothing
  SocketQueue unarmed_;
  SocketQueue paused_;                    // their receives fail: to be armed later
  SocketQueue waiting_and_busy_;          // their receives are to end
  Instant next_resume_ = Instant::max();  // the earliest of paused_
};

}  // namespace ringsock::io

#endif  // RINGSOCK_IO_URING_RECEIVER_H_
