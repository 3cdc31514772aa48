// One io_uring instance of one thread: setup, submission, completions. Thin: what the rings mean is
// for the users (io/uring_loop.h, io/uring_sender.h); how the kernel is entered is decided here.
#ifndef RINGSOCK_IO_URING_H_
#define RINGSOCK_IO_URING_H_

#include <liburing.h>

#include <cstdint>

#include "absl/status/status.h"
#include "base/clock.h"

namespace ringsock::io {

// Says whether this host lets this process use io_uring the way this project does, and if not, who
// forbids it and the cure: sysctl kernel.io_uring_disabled, a seccomp filter, RLIMIT_MEMLOCK, or
// the age of the kernel (Linux 6.1 is needed).
absl::Status ProbeUring();

// What a completion belongs to: a kind, and two numbers whose meaning is the kind's. One word, as
// the kernel carries it: a struct of three is taken apart and put together at each call.
class CompletionTag {
 public:
  enum Kind : uint8_t {
    kIgnored,
    kReceive,
    kSend,
    kZeroCopy,
    kWaker,
    kCancel,
    kStreamConnect,
    kStreamAccept,
    kStreamReceive,
    kStreamSend,
    kStreamWatch,
  };
  CompletionTag() = default;
  // `slab` has 24 bits.
  CompletionTag(Kind kind, uint32_t slab, uint32_t id)
      : data_(uint64_t{kind} << 56 | uint64_t{slab} << 32 | id) {}

  Kind kind() const { return static_cast<Kind>(data_ >> 56); }
  uint32_t slab() const { return static_cast<uint32_t>(data_ >> 32) & 0xffffff; }
  uint32_t id() const { return static_cast<uint32_t>(data_); }

  uint64_t Pack() const { return data_; }
  static CompletionTag Unpack(uint64_t data) {
    CompletionTag tag;
    tag.data_ = data;
    return tag;
  }

 private:
  uint64_t data_ = 0;  // kIgnored
};

// Created by any thread, disabled; the thread that calls Enable() is from then on the only one that
// may use it (SINGLE_ISSUER), and completions are made only while it is inside Enter
// (DEFER_TASKRUN).
class Uring {
 public:
  Uring() = default;
  ~Uring();
  Uring(const Uring&) = delete;
  Uring& operator=(const Uring&) = delete;

  // `sq_entries` is the most that NextSqe() gives between two submissions, `cq_entries` the most
  // completions between two Drain() calls; more are kept by the kernel, slowly.
  absl::Status Open(uint32_t sq_entries, uint32_t cq_entries);
  // Must be called once, by the thread that will use the ring.
  void Enable();
  // Whether the kernel takes calls from this thread: not if another one enabled the ring.
  bool MayEnter();
  // Ends everything in flight, in the background.
  void Close();

  io_uring* get() { return &ring_; }

  // An entry to be filled by io_uring_prep_*(). Submits what is queued when the queue is full.
  io_uring_sqe* NextSqe(CompletionTag tag);
  // Entries queued and not yet submitted.
  uint32_t queued() const { return ring_.sq.sqe_tail - submitted_; }

  // Hands over what is queued. Requests that complete at once (sends that do not wait) have
  // completed when it returns; nothing else is made to happen.
  void Submit() { Enter(0, 0, nullptr); }
  // Also runs what became possible meanwhile, such as receives.
  void SubmitAndRun() { Enter(0, IORING_ENTER_GETEVENTS, nullptr); }
  // Also sleeps until there is a completion, for at most `timeout`.
  void SubmitAndWait(Duration timeout);
  // True if SubmitAndRun() would find work. Reads memory, no system call.
  bool HasWork() const {
    const uint32_t flags = IO_URING_READ_ONCE(*ring_.sq.kflags);
    return (flags & (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW)) != 0 || HasCompletions();
  }
  bool HasCompletions() const {
    return io_uring_smp_load_acquire(ring_.cq.ktail) != *ring_.cq.khead;
  }

  // Calls `handle(CompletionTag, const io_uring_cqe&)` for every completion there is. It must not
  // enter the kernel.
  template <typename Handle>
  void Drain(Handle&& handle) {
    uint32_t head = *ring_.cq.khead;
    const uint32_t tail = io_uring_smp_load_acquire(ring_.cq.ktail);
    while (head != tail) {
      const io_uring_cqe& cqe = ring_.cq.cqes[head & ring_.cq.ring_mask];
      handle(CompletionTag::Unpack(cqe.user_data), cqe);
      ++head;
    }
    io_uring_smp_store_release(ring_.cq.khead, head);
  }

 private:
  void Enter(uint32_t wait_for, uint32_t flags, const __kernel_timespec* timeout);

  io_uring ring_{};
  uint32_t submitted_ = 0;
  bool open_ = false;
};

}  // namespace ringsock::io

#endif  // RINGSOCK_IO_URING_H_
