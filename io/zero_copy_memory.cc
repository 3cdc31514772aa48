// One trial per destination, then its verdict.
#include "io/zero_copy_memory.h"

#include <algorithm>

namespace ringsock::io {

ZeroCopyMemory::Slot& ZeroCopyMemory::SlotOf(const IpAddress& to) {
  return slots_[HashEndpoint(Endpoint{to, 0, 0}, /*seed=*/0) % kSlots];
}

bool ZeroCopyMemory::Use(const IpAddress& to, Instant now) {
  if (!enabled_) return false;
  Slot& slot = SlotOf(to);
  if (slot.state == State::kEmpty || slot.to != to) slot = Slot{.to = to};
  if (slot.state == State::kOn) return true;
  if (slot.state != State::kEmpty && now < slot.until) return false;
  slot.state = State::kTrial;
  slot.until = now + kTrialTimeout;
  return true;
}

void ZeroCopyMemory::Learn(const IpAddress& to, bool copied, Instant now) {
  Slot& slot = SlotOf(to);
  // A straggler: the destination was forgotten, or judged by an earlier notification.
  if (slot.to != to || slot.state == State::kEmpty || slot.state == State::kOff) return;
  if (!copied) {
    slot.state = State::kOn;
    slot.retry = {};
    return;
  }
  slot.state = State::kOff;
  slot.retry = slot.retry == Duration{} ? kFirstRetry : std::min(2 * slot.retry, kLastRetry);
  slot.until = now + slot.retry;
}

}  // namespace ringsock::io
