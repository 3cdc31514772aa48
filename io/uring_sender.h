// The sending half of the io_uring loop. Trains become SENDMSG requests, all handed over by one
// io_uring_enter; none of them waits, so all have completed when it returns.
//
// Order. Requests are carried out in the order they were queued, and one that fails does not stop
// the next. But a train that is refused as a whole and replayed must not be overtaken by a later
// datagram to the same destination. What refuses a train (its segments do not fit the route, or the
// device takes no trains) also refuses a following train of segments as large or larger, which then
// is replayed in its turn. (A train whose zero copy alone failed, and that another one has
// overtaken meanwhile, is lost.) Behind anything else Queue() submits first. That costs an entry of
// the kernel, 0.9 us, but only where one destination gets mixed sizes between two flushes. Linking
// the requests (IOSQE_IO_LINK) cost a forwarder 1.4 to 1.7 times the CPU: links run only while the
// kernel also receives.
#ifndef RINGSOCK_IO_URING_SENDER_H_
#define RINGSOCK_IO_URING_SENDER_H_

#include <sys/socket.h>

#include <array>
#include <cstdint>
#include <functional>
#include <optional>

#include "base/cache_line.h"
#include "base/clock.h"
#include "io/control_message.h"
#include "io/loop.h"
#include "io/slab_pool.h"
#include "io/uring.h"
#include "io/uring_socket.h"
#include "io/zero_copy_memory.h"

namespace ringsock::io {

class UringSender {
 public:
  // `reap` drains the ring and brings the completions of sends to the On...() calls below.
  UringSender(const LoopOptions& options, Uring* ring, std::function<void()> reap);

  // The time, for verdicts that expire. Coarse is enough.
  void SetNow(Instant now) { now_ = now; }
  void Queue(UringSocket& socket, const TxTrain& train);
  // Everything queued has been sent, or reported as failed, when it returns.
  void Flush();
  SlabPool& slabs() { return slabs_; }

  // The completion of a send. `more`: a notification will follow.
  void OnSent(CompletionTag tag, int result, bool more);
  struct ZeroCopyVerdict {
    SocketId socket;
    bool copied;
  };
  // The kernel no longer reads the slab of a zero-copy send. Nothing if the send had failed: then
  // the kernel says "copied", because nothing went without a copy.
  std::optional<ZeroCopyVerdict> OnNotification(CompletionTag tag, int result);
  // Zero-copy sends whose notification is still to come.
  uint32_t in_kernel() const { return in_kernel_; }

 private:
  // One request. The kernel reads it during the submission only.
  struct Slot {
    msghdr header{};
    iovec vector{};
    sockaddr_storage to{};
    ControlBuffer control;
    TxTrain train;
    UringSocket* socket = nullptr;
    bool zero_copy = false;
    int result = 0;
  };
  // A slab between Send() and its return to the pool.
  struct SlabUse {
    TxSlab* slab = nullptr;
    uint32_t holders = 0;  // the queue, the kernel
    SocketId socket = 0;
    IpAddress to;
    bool failed = false;  // the zero-copy send
  };

  void Append(UringSocket& socket, const TxTrain& part);
  bool SharesFate(const Slot& leader, const TxTrain& part, bool zero_copy) const;
  void Prepare(uint32_t index, UringSocket& socket, const TxTrain& part, bool zero_copy);
  void SubmitAll(uint32_t requests);
  void Finish(uint32_t index);
  void CopyInstead(uint32_t index);
  bool WasOvertaken(uint32_t index) const;
  void Sent(UringSocket& socket, const TxTrain& part);
  void Failed(UringSocket& socket, const SendFailure& failure);
  bool Replay(UringSocket& socket, const TxTrain& part);
  void DropHolder(uint32_t slab);

  Uring* const ring_;
  const std::function<void()> reap_;
  const uint32_t capacity_;
  SlabPool slabs_;
  CacheLineVector<SlabUse> slab_uses_;
  ZeroCopyMemory zero_copy_;
  Instant now_{};

  // The queue, and behind it room for one replay.
  CacheLineVector<Slot> slots_;
  uint32_t count_ = 0;
  uint32_t outstanding_ = 0;  // submitted without a completion yet
  uint32_t in_kernel_ = 0;

  // By hash of socket and destination: the last train of this submission that goes there. Two
  // destinations in one bucket cost a submission more, no order.
  struct Leader {
    uint32_t submission = 0;
    uint32_t slot = 0;
  };
  static constexpr size_t kLeaders = 256;
  std::array<Leader, kLeaders> leaders_{};
  uint32_t submission_ = 1;
};

}  // namespace ringsock::io

#endif  // RINGSOCK_IO_URING_SENDER_H_
