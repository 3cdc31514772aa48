// Where sending without a copy pays. The kernel says after each zero-copy send whether it copied
// after all, as it does on every way that ends on this host; there the notification is pure cost.
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
  // Pinning pages and the second completion cost more than copying fewer segments than this
  // (measured: 1.3x faster at 16 segments to a device, slower below).
  static constexpr uint32_t kMinPackets = 16;
  static constexpr size_t kSlots = 64;  // destinations; the older of two in one slot is forgotten
  // A destination that copied is tried again after this long, then after twice that, and so on:
  // routes change, but rarely.
  static constexpr Duration kFirstRetry = std::chrono::seconds(10);
  static constexpr Duration kLastRetry = std::chrono::minutes(10);
  // A trial whose verdict has not come by then has been forgotten.
  static constexpr Duration kTrialTimeout = std::chrono::seconds(1);

  explicit ZeroCopyMemory(bool enabled) : enabled_(enabled) {}

  // Whether to send to `to` without a copy. The first yes to a destination is a trial: further ones
  // follow when its verdict is good.
  bool Use(const IpAddress& to, Instant now);
  // What a notification said about a send to `to`.
  void Learn(const IpAddress& to, bool copied, Instant now);
  // The kernel does not know these sends at all.
  void Disable() { enabled_ = false; }

 private:
  enum class State : uint8_t { kEmpty, kTrial, kOn, kOff };
  struct Slot {
    IpAddress to;
    State state = State::kEmpty;
    Instant until{};   // of kTrial and kOff
    Duration retry{};  // the last pause of kOff
  };
  Slot& SlotOf(const IpAddress& to);

  bool enabled_;
  std::array<Slot, kSlots> slots_{};
};

}  // namespace ringsock::io

#endif  // RINGSOCK_IO_ZERO_COPY_MEMORY_H_
