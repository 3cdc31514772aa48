// Wakes a loop from other threads: an eventfd that is written only when the loop sleeps on it.
//
// All sides meet in one atomic word that is changed by read-modify-write alone, so its changes have
// one order: either Wake() sees "asleep" and writes the eventfd, or PrepareSleep() sees "pending"
// and the loop does not sleep. No wake-up is lost, and what was written before Wake() is visible
// to the loop once it has taken the wake-up.
#ifndef RINGSOCK_IO_WAKER_H_
#define RINGSOCK_IO_WAKER_H_

#include <atomic>
#include <cstdint>

#include "absl/status/statusor.h"
#include "base/cache_line.h"
#include "io/fd.h"

namespace ringsock::io {

class Waker {
 public:
  // Creates the eventfd. Fails when descriptors run out (EMFILE, ENFILE).
  absl::Status Open();

  // Any thread. A system call only if the loop sleeps.
  void Wake();

  // The rest is for the loop's thread.

  // The eventfd to wait on (readable: woken), non-blocking.
  int fd() const { return event_.get(); }
  // Takes a wake-up that came while the loop was awake. Cheap enough for every turn of a spin.
  bool TakePending();
  // Announces sleep. False: a wake-up was pending and has been taken; do not sleep.
  bool PrepareSleep();
  // After a sleep that PrepareSleep() allowed, whatever ended it. True if a wake-up came. Reads the
  // eventfd, unless the caller does that by other means (then `drained`, always).
  bool FinishSleep(bool drained = false);

 private:
  enum State : int { kAwake, kPending, kAsleep };

  alignas(kCacheLine) std::atomic<int> state_{kAwake};
  alignas(kCacheLine) Fd event_;
  uint64_t owed_ = 0;  // writes to the eventfd that have not been read yet
};

}  // namespace ringsock::io

#endif  // RINGSOCK_IO_WAKER_H_
