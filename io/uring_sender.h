// The sending half of the io_uring loop. Trains become SENDMSG requests, single packets SEND
// requests where those take an address, all handed over by one io_uring_enter; none of them waits,
// so all have completed when it returns.
//
// Zero copy. A long train that lies in memory of the loop, a slab or a receive buffer that is being
// forwarded, may leave as SENDMSG_ZC: the device reads that memory, and the block is used again
// only after the kernel's notification. io/zero_copy_memory.h decides by destination. When the
// first one proves good, the memory is registered with the ring, so that it is pinned once.
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
#include <span>

#include "base/cache_line.h"
#include "base/clock.h"
#include "io/control_message.h"
#include "io/loop.h"
#include "io/pinned_memory.h"
#include "io/slab_pool.h"
#include "io/uring.h"
#include "io/uring_socket.h"
#include "io/zero_copy_memory.h"

namespace ringsock::io {

class UringSender {
 public:
  // Bytes for the slabs and receive buffers that `options` ask for.
  static size_t MemoryNeeded(const LoopOptions& options);
  // `reap` drains the ring and brings the completions of sends to the On...() calls below. `memory`
  // is MemoryNeeded() long, and outlives the ring.
  UringSender(const LoopOptions& options, Uring* ring, PinnedMemory* memory,
              std::function<void()> reap);

  // Once, when the ring is enabled.
  void Start(Instant now);
  // The time, for verdicts that expire. Coarse is enough.
  void SetNow(Instant now) { now_ = now; }
  void Queue(UringSocket& socket, const TxTrain& train);
  // Everything queued has been sent, or reported as failed, when it returns.
  void Flush();
  TxSlab* AcquireSlab() { return slabs_.Acquire(); }
  void ReleaseSlab(TxSlab* slab);
  // Where the receive buffers are, of BufferRing's size.
  std::span<std::byte> buffers() const { return buffers_; }
  // The loop is done with a receive buffer. False: the kernel still reads it, and the notification
  // that ends that says it is free.
  bool GiveBackBuffer(uint16_t buffer) { return GiveBack(slab_count_ + buffer); }

  // The completion of a send. `more`: a notification will follow.
  void OnSent(CompletionTag tag, int result, bool more);
  // What a notification says: the kernel no longer reads what a zero-copy send sent.
  struct Notification {
    SocketId socket = 0;
    bool copied = false;
    // The send had failed. Then the kernel says "copied", because nothing went without a copy.
    bool failed = false;
    std::optional<uint16_t> buffer;  // this receive buffer is free now
  };
  Notification OnNotification(CompletionTag tag, int result);

 private:
  // One request. The kernel reads it during the submission only. A single packet touches the first
  // two cache lines.
  struct alignas(kCacheLine) Slot {
    TxTrain train;
    UringSocket* socket = nullptr;
    sockaddr_in6 to{};  // or a sockaddr_in
    uint32_t packets = 0;
    int result = 0;
    uint8_t to_length = 0;
    bool zero_copy = false;
    bool registered = false;  // zero copy from registered memory
    bool by_segment = false;  // relies on what the socket is set to
    msghdr header{};
    iovec vector{};
    ControlBuffer control;
  };
  // A zero-copy send from its request to its notification.
  struct Reader {
    uint32_t block = 0;
    SocketId socket = 0;
    IpAddress to;
    bool failed = false;
  };
  // A slab or, behind those, a receive buffer.
  struct Block {
    uint16_t readers = 0;
    bool given_back = false;  // nobody but readers needs it
  };

  void Append(UringSocket& socket, const TxTrain& part, uint32_t packets);
  static size_t LeaderOf(const UringSocket& socket, const TxTrain& part);
  bool Overtakes(const UringSocket& socket, const TxTrain& part, uint32_t packets,
                 bool zero_copy) const;
  static bool SharesFate(const Slot& leader, const TxTrain& part, uint32_t packets, bool zero_copy);
  enum class How : uint8_t {
    kShortest,  // without a message header if the socket's segment size allows it
    kExplicit,
    kZeroCopy,
  };
  void Prepare(uint32_t index, UringSocket& socket, const TxTrain& part, uint32_t packets, How how);
  bool GoesWithoutHeader(const Slot& slot) const;
  static void PrepareMessage(Slot* slot);
  void SetSegment(UringSocket& socket, uint32_t size);
  static void PrepareSingle(io_uring_sqe* sqe, int fd, const Slot& slot);
  void SubmitAll(uint32_t requests);
  void Finish(uint32_t index);
  void CopyInstead(uint32_t index);
  void SendExplicitly(uint32_t index);
  bool WasOvertaken(uint32_t index) const;
  void Sent(const Slot& slot);
  void Failed(UringSocket& socket, const SendFailure& failure);
  bool Replay(UringSocket& socket, const TxTrain& part);
  bool MayGoWithoutCopy(const TxTrain& part);
  uint32_t BlockOf(const std::byte* data) const;
  uint32_t AddReader(uint32_t block, SocketId socket, const IpAddress& to);
  bool RemoveReader(uint32_t reader);
  bool GiveBack(uint32_t block);
  void Register();

  Uring* const ring_;
  const std::function<void()> reap_;
  const uint32_t capacity_;
  Instant now_{};

  PinnedMemory& memory_;
  const uint32_t slab_count_;
  const uint32_t most_buffers_read_;  // the others are for receiving
  std::span<std::byte> buffers_;
  SlabPool slabs_;
  CacheLineVector<Block> blocks_;
  CacheLineVector<Reader> readers_;
  CacheLineVector<uint32_t> free_readers_;
  uint32_t buffers_read_ = 0;
  ZeroCopyMemory zero_copy_;
  bool knows_singles_ = false;  // the kernel takes SEND requests with an address
  enum class Registration : uint8_t { kNotNeeded, kWanted, kDone, kImpossible };
  Registration registration_ = Registration::kNotNeeded;

  UringSocket* segment_harms_ = nullptr;  // the Flush() under way found out
  // The queue, and behind it room for one replay.
  CacheLineVector<Slot> slots_;
  uint32_t count_ = 0;
  uint32_t outstanding_ = 0;  // submitted without a completion yet

  // By hash of socket and destination: the last train of this submission that goes there. Two
  // destinations in one bucket cost a submission more, no order.
  struct Leader {
    uint32_t submission = 0;
    uint32_t slot = 0;
  };
  static constexpr size_t kLeaders = 256;
  std::array<Leader, kLeaders> leaders_{};
  bool has_leaders_ = false;  // of this submission
  uint32_t submission_ = 1;
};

}  // namespace ringsock::io

#endif  // RINGSOCK_IO_URING_SENDER_H_
