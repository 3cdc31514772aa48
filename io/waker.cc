// The eventfd and the three-state word of Waker.
#include "io/waker.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace ringsock::io {

absl::Status Waker::Open() {
  event_ = Fd(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
  if (event_.valid()) return absl::OkStatus();
  return absl::ResourceExhaustedError(
      absl::StrCat("eventfd: ", strerror(errno), "; raise the limit of open files (ulimit -n)"));
}

void Waker::Wake() {
  // Always a read-modify-write, also when a wake-up is pending already: it carries this thread's
  // earlier writes to the loop.
  if (state_.exchange(kPending, std::memory_order_acq_rel) != kAsleep) return;
  const uint64_t one = 1;
  // Cannot fail but with EAGAIN (counter at its maximum), which leaves the eventfd readable.
  [[maybe_unused]] const ssize_t written = write(event_.get(), &one, sizeof one);
}

bool Waker::TakePending() {
  if (state_.load(std::memory_order_relaxed) != kPending) return false;
  state_.exchange(kAwake, std::memory_order_acq_rel);
  return true;
}

bool Waker::PrepareSleep() {
  int expected = kAwake;
  if (state_.compare_exchange_strong(expected, kAsleep, std::memory_order_acq_rel,
                                     std::memory_order_acquire)) {
    return true;
  }
  state_.exchange(kAwake, std::memory_order_acq_rel);
  return false;
}

bool Waker::FinishSleep(bool drained) {
  const bool woken = state_.exchange(kAwake, std::memory_order_acq_rel) == kPending;
  if (drained) return woken;
  // The write that goes with this wake-up may still be on its way. What is not read now ends a
  // later sleep early, and must be read then, or no sleep would last any more.
  if (woken) ++owed_;
  uint64_t count = 0;
  if (owed_ > 0 && read(event_.get(), &count, sizeof count) == sizeof count) owed_ -= count;
  return woken;
}

}  // namespace ringsock::io
