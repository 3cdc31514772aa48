// Whether a shard's socket still sends: told by the shard after each look at its counters, read by
// the control thread, which puts a new socket in the place of one that is dead (core/rebinder.h).
#ifndef RINGSOCK_CORE_SOCKET_HEALTH_H_
#define RINGSOCK_CORE_SOCKET_HEALTH_H_

#include <atomic>
#include <cerrno>
#include <cstdint>

#include "base/clock.h"

namespace ringsock {

// Whether a send can fail with `error` because of the socket rather than of where it went to.
// `bound`: to one local address.
//   EBADF, ENOTSOCK, EPIPE, ENODEV, ENETDOWN, EADDRNOTAVAIL: nothing can be sent through it any
//     more, or not by the device or address it is held to;
//   EPERM, ENETUNREACH: a firewall or the routes of another network, which a socket may have kept;
//   EINVAL of a bound socket: its address is no longer this host's.
// The rest is about one destination (EHOSTUNREACH, ECONNREFUSED, EACCES, EMSGSIZE), or passes
// (EAGAIN, ENOBUFS).
inline bool MeansDeadSocket(int error, bool bound) {
  switch (error) {
    case EBADF:
    case ENOTSOCK:
    case EPIPE:
    case ENODEV:
    case ENETDOWN:
    case EADDRNOTAVAIL:
    case EPERM:
    case ENETUNREACH:
      return true;
    case EINVAL:
      return bound;
    default:
      return false;
  }
}

class SocketHealth {
 public:
  // The socket counts as dead after so many failures in a row, the last of them so long after the
  // first. Routes that change hands are without one for some 100 ms.
  static constexpr uint32_t kFailures = 3;
  static constexpr Duration kDeadAfter = std::chrono::seconds(1);

  // Shard's thread: a send failed with an error that MeansDeadSocket().
  void Failed(int error) {
    ++failed_;
    error_.store(error, std::memory_order_relaxed);
  }
  // Shard's thread, now and then: `sent` is how many packets the socket has sent in all. True if
  // control should look.
  bool Look(uint64_t sent, Instant now) {
    const uint64_t failed = failed_;
    failed_ = 0;
    if (sent != sent_) {
      sent_ = sent;
      failures_ = 0;
      dead_.store(false, std::memory_order_relaxed);
      return false;
    }
    // One that has never sent anything did not die: the host has no such network (any more), or a
    // firewall lets nothing out, and another new socket would not help either.
    if (failed == 0 || sent == sent_before_) return false;
    if (failures_ == 0) since_ = now;
    failures_ += failed;
    if (failures_ < kFailures || now - since_ < kDeadAfter) return false;
    dead_.store(true, std::memory_order_release);
    return true;
  }
  // Shard's thread: it is a new socket; those before it have sent `sent` packets in all.
  void Reset(uint64_t sent) {
    failed_ = failures_ = 0;
    sent_ = sent_before_ = sent;
    dead_.store(false, std::memory_order_relaxed);
  }

  // Any thread.
  bool dead() const { return dead_.load(std::memory_order_acquire); }
  // Any thread: the last error, an errno.
  int error() const { return error_.load(std::memory_order_relaxed); }

 private:
  // The shard's.
  uint64_t failed_ = 0;    // since the last look
  uint64_t failures_ = 0;  // since something was sent
  uint64_t sent_ = 0;
  uint64_t sent_before_ = 0;  // by the sockets that this one has taken the place of
  Instant since_{};           // the first of the failures
  // Shared.
  std::atomic<bool> dead_{false};
  std::atomic<int> error_{0};
};

}  // namespace ringsock

#endif  // RINGSOCK_CORE_SOCKET_HEALTH_H_
