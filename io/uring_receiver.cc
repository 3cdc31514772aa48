// Which sockets have a receive in the kernel, of which kind, and what became of it.
#include "io/uring_receiver.h"

#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <vector>

#include "io/fd.h"

namespace ringsock::io {
namespace {

constexpr uint16_t kBufferGroup = 0;

// A receive without waiting from `fd` must bring `expected` datagrams in the buffers from `first`
// on, and then say EAGAIN, with no buffer.
bool EndsWell(Uring* ring, int fd, uint16_t first, uint32_t expected) {
  msghdr header{};
  header.msg_namelen = kNameRoom;
  header.msg_controllen = kControlRoom;
  io_uring_sqe* sqe = ring->NextSqe({CompletionTag::kReceive, 0, 0});
  io_uring_prep_recvmsg_multishot(sqe, fd, &header, MSG_DONTWAIT);
  sqe->flags |= IOSQE_BUFFER_SELECT;
  sqe->buf_group = kBufferGroup;
  std::vector<io_uring_cqe> seen;
  for (int turn = 0; turn < 3 && seen.size() <= expected; ++turn) {
    ring->SubmitAndWait(std::chrono::milliseconds(100));
    ring->Drain([&seen](CompletionTag, const io_uring_cqe& cqe) { seen.push_back(cqe); });
  }
  if (seen.size() != expected + 1) return false;
  for (uint32_t i = 0; i < expected; ++i) {
    constexpr uint32_t kWanted = IORING_CQE_F_BUFFER | IORING_CQE_F_MORE;
    if (seen[i].res <= 0 || (seen[i].flags & kWanted) != kWanted) return false;
    if (seen[i].flags >> IORING_CQE_BUFFER_SHIFT != first + i) return false;
  }
  return seen[expected].res == -EAGAIN &&
         (seen[expected].flags & (IORING_CQE_F_BUFFER | IORING_CQE_F_MORE)) == 0;
}

}  // namespace

bool ProbeReceiveWithoutWaiting() {
  BufferRing buffers;  // outlives the ring
  Uring ring;
  if (!ring.Open(8, 32).ok()) return false;
  ring.Enable();
  constexpr uint32_t kBuffers = 4;
  if (!buffers.Open(ring.get(), kBufferGroup, kBuffers, kHeaderRoom + 64).ok()) return false;
  int sockets[2];
  if (socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, sockets) != 0) return false;
  const Fd receiving(sockets[0]);
  const Fd sending(sockets[1]);
  const auto send_some = [&](int count) {
    for (int i = 0; i < count; ++i) {
      if (send(sending.get(), "x", 1, MSG_DONTWAIT) != 1) return false;
    }
    return true;
  };
  // Were a buffer lost to an EAGAIN, the next datagram would come in another one.
  return EndsWell(&ring, receiving.get(), 0, 0) && send_some(2) &&
         EndsWell(&ring, receiving.get(), 0, 2) && send_some(1) &&
         EndsWell(&ring, receiving.get(), 2, 1);
}

void UringReceiver::Remove(SocketId id) {
  for (SocketQueue* queue : {&hungry_, &unarmed_, &paused_, &waiting_and_busy_}) queue->Remove(id);
  if (paused_.empty()) next_resume_ = Instant::max();
}

void UringReceiver::Arm(const Clock& clock) {
  ++turn_;
  if (!paused_.empty()) ResumePaused(clock.Now());
  if (!waiting_and_busy_.empty()) StopWaiting();
  for (SocketQueue* queue : {&hungry_, &unarmed_}) {
    while (!queue->empty()) ArmOne(*find_(queue->Pop()));
  }
}

void UringReceiver::ArmOne(UringSocket& socket) {
  io_uring_sqe* sqe = ring_.NextSqe({CompletionTag::kReceive, 0, socket.id});
  io_uring_prep_recvmsg_multishot(sqe, socket.fd(), &socket.receive,
                                  socket.busy ? MSG_DONTWAIT : 0);
  sqe->flags |= IOSQE_BUFFER_SELECT;
  sqe->buf_group = kBufferGroup;
  socket.armed = true;
  socket.waits = !socket.busy;
  socket.got_any = false;
}

void UringReceiver::ResumePaused(Instant now) {
  next_resume_ = Instant::max();
  for (uint32_t left = paused_.size(); left > 0; --left) {
    const UringSocket& socket = *find_(paused_.Pop());
    if (now >= socket.resume_at) {
      unarmed_.Push(socket.id);
    } else {
      paused_.Push(socket.id);
      next_resume_ = std::min(next_resume_, socket.resume_at);
    }
  }
}

// They go on receiving until the kernel has carried that out.
void UringReceiver::StopWaiting() {
  while (!waiting_and_busy_.empty()) {
    UringSocket& socket = *find_(waiting_and_busy_.Pop());
    if (!socket.armed || !socket.waits) continue;
    socket.busy = true;
    const CompletionTag receive{CompletionTag::kReceive, 0, socket.id};
    io_uring_prep_cancel64(ring_.NextSqe({CompletionTag::kCancel, 0, 0}), receive.Pack(), 0);
  }
}

bool UringReceiver::OnCompletion(UringSocket* socket, const io_uring_cqe& cqe, const Clock& clock) {
  bool received = false;
  if ((cqe.flags & IORING_CQE_F_BUFFER) != 0) {
    const auto buffer = static_cast<uint16_t>(cqe.flags >> IORING_CQE_BUFFER_SHIFT);
    buffers_.Taken();
    if (socket == nullptr || socket->closing || cqe.res < 0) {
      buffers_.Return(buffer);
      buffers_.Publish();
    } else {
      received = true;
      socket->PushFilled({buffer, static_cast<uint32_t>(cqe.res)});
      socket->got_any = true;
      socket->errors.Received();
      if (socket->turn != turn_) {
        socket->turn = turn_;
        socket->taken = 0;
      }
      if (++socket->taken == kBusy && socket->waits && may_not_wait_) {
        waiting_and_busy_.Push(socket->id);
      }
    }
  }
  if (socket != nullptr && (cqe.flags & IORING_CQE_F_MORE) == 0) OnEnd(*socket, cqe.res, clock);
  return received;
}

void UringReceiver::OnEnd(UringSocket& socket, int result, const Clock& clock) {
  socket.armed = false;
  if (result == -ENOBUFS) ++socket.stats.rx_starved;
  if (socket.closing) return;
  const bool emptied = result == -EAGAIN && !socket.waits;
  // Without buffers there is no telling how much there is: most often more. One that was told to
  // end says nothing new.
  if (result != -ECANCELED) {
    const bool much = socket.turn == turn_ && socket.taken >= kBusy;
    socket.busy = may_not_wait_ && (much || (result == -ENOBUFS && socket.got_any));
  }
  if (result < 0 && !emptied && result != -ENOBUFS && result != -EINTR && result != -ECANCELED) {
    ++socket.stats.rx_errors;
    const Instant now = clock.Now();
    socket.resume_at = socket.errors.Failed(-result, socket.udp.local, now);
    if (socket.resume_at > now) {
      next_resume_ = std::min(next_resume_, socket.resume_at);
      return paused_.Push(socket.id);
    }
  }
  (result == -ENOBUFS && !socket.got_any ? hungry_ : unarmed_).Push(socket.id);
}

}  // namespace ringsock::io
