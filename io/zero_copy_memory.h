// Where sending without a copy pays. The kernel says after each zero-copy send whether it copied
// after all, as it does on every way that ends on this host, and while somebody taps the device;
// there the notification is pure cost.
#ifndef RINGSOCK_IO_ZERO_COPY_MEMORY_H_
#define RINGSOCK_IO_ZERO_COPY_MEMORY_H_

#include <array>
#include <cstddef>
#include <cstdint>

#include "base/clock.h"
#include "base/endpoint.h"

namespace ringsock::io {

// For one thread. A pure state machine: destinations and time go in, verdicts come out.
class ZeroCopyMemory {
 public:
  // Pinning pages and the second completion cost more than copying fewer bytes than this. Measured
  // to a device, registered huge pages against a copy: the same at 11 KB (8 full-size packets),
  // 1.3 times as fast at 22 KB (16) and 1.5 times at 64 KB (46).
  static constexpr uint32_t kMinBytes = 16 << 10;
  // Destinations. Of two in one slot the one that sends without a copy keeps it, else the later.
  static constexpr size_t kSlots = 512;
  // A destination that copied is tried again after this long, then after twice that, and so on:
  // routes change, but rarely. One that was good for the longest of these begins anew.
  static constexpr Duration kFirstRetry = std::chrono::seconds(10);
  static constexpr Duration kLastRetry = std::chrono::minutes(10);
  // A trial whose verdict has not come by then has been forgotten.
  static constexpr Duration kTrialTimeout = std::chrono::seconds(1);
  // Between two trials, whatever the destinations: ten thousand on a way that copies cost no more
  // than one.
  static constexpr Duration kTrialGap = std::chrono::milliseconds(10);
  // A good destination that was not sent to for so long makes room for another.
  static constexpr Duration kIdle = std::chrono::seconds(1);

  explicit ZeroCopyMemory(bool enabled) : enabled_(enabled) {}

  // Whether to send to `to` without a copy. The first yes to a destination is a trial: further ones
  // follow when its verdict is good.
  bool Use(const IpAddress& to, Instant now) {
    if (!enabled_) return false;
    // Most often nothing is good and nothing is due. The table is not looked at then: long trains
    // have driven it from the cache.
    if (good_ == 0 && (now < next_trial_ || (now < last_until_ && to == last_))) return false;
    return Look(to, now);
  }
  // What a notification said about a send to `to`.
  void Learn(const IpAddress& to, bool copied, Instant now);
  // The kernel does not know these sends at all.
  void Disable() { enabled_ = false; }

 private:
  enum class State : uint8_t { kEmpty, kTrial, kOn, kOff };
  struct Slot {
    IpAddress to;
    State state = State::kEmpty;
    // kTrial, kOff: until when; kOn: when it was last used.
    Instant time{};
    Instant since{};   // kOn
    Duration retry{};  // the last pause of kOff
  };
  Slot& SlotOf(const IpAddress& to);
  bool Look(const IpAddress& to, Instant now);
  void SetState(Slot* slot, State state);

  bool enabled_;
  Instant next_trial_ = Instant::min();
  IpAddress last_;  // the destination last looked up and found not due, and until when it is not
  Instant last_until_ = Instant::min();
  uint32_t good_ = 0;  // slots that are kOn
  std::array<Slot, kSlots> slots_{};
};

}  // namespace ringsock::io

#endif  // RINGSOCK_IO_ZERO_COPY_MEMORY_H_
