// One trial per destination, then its verdict.
#include "io/zero_copy_memory.h"

#include <algorithm>

namespace ringsock::io {

ZeroCopyMemory::Slot& ZeroCopyMemory::SlotOf(const IpAddress& to) {
  return slots_[HashEndpoint(Endpoint{to, 0, 0}, /*seed=*/0) % kSlots];
}

void ZeroCopyMemory::SetState(Slot* slot, State state) {
  good_ += static_cast<uint32_t>(state == State::kOn) - (slot->state == State::kOn);
  slot->state = state;
}

bool ZeroCopyMemory::Look(const IpAddress& to, Instant now) {
  Slot& slot = SlotOf(to);
  const bool known = slot.state != State::kEmpty && slot.to == to;
  if (slot.state == State::kOn) {
    if (known) {
      slot.time = now;
      return true;
    }
    if (now - slot.time < kIdle) return false;
  } else if (known && now < slot.time) {
    last_ = to;
    last_until_ = slot.time;
    return false;
  }
  if (now < next_trial_) return false;
  next_trial_ = now + kTrialGap;
  SetState(&slot, State::kTrial);
  if (!known) slot = Slot{.to = to, .state = State::kTrial};
  slot.time = now + kTrialTimeout;
  return true;
}

void ZeroCopyMemory::Learn(const IpAddress& to, bool copied, Instant now) {
  Slot& slot = SlotOf(to);
  // A straggler: the destination was forgotten, or judged by an earlier notification.
  if (slot.to != to || slot.state == State::kEmpty || slot.state == State::kOff) return;
  if (!copied) {
    if (slot.state == State::kOn) return;
    SetState(&slot, State::kOn);
    slot.time = slot.since = now;
    return;
  }
  if (slot.state == State::kOn && now - slot.since >= kLastRetry) slot.retry = {};
  SetState(&slot, State::kOff);
  slot.retry = slot.retry == Duration{} ? kFirstRetry : std::min(2 * slot.retry, kLastRetry);
  slot.time = now + slot.retry;
}

}  // namespace ringsock::io
