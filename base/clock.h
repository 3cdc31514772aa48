// Time as the whole project sees it: a monotonic instant in nanoseconds, and the interface through
// which protocol logic is told what time it is. Nothing below reads the wall clock.
#ifndef RINGSOCK_BASE_CLOCK_H_
#define RINGSOCK_BASE_CLOCK_H_

#include <chrono>
#include <cstdint>

namespace ringsock {

using Duration = std::chrono::nanoseconds;

// A point on the monotonic time line. Its zero has no meaning; only differences do.
// `Instant::max()` is "never".
struct MonotonicTimeline {
  using rep = int64_t;
  using period = std::nano;
  using duration = Duration;
  using time_point = std::chrono::time_point<MonotonicTimeline, Duration>;
  static constexpr bool is_steady = true;
};
using Instant = MonotonicTimeline::time_point;

// Source of time. Implementations are safe to call from every thread.
class Clock {
 public:
  virtual ~Clock() = default;
  virtual Instant Now() const = 0;
};

// CLOCK_MONOTONIC. The object is stateless and lives for the whole process.
const Clock& SystemClock();

// A clock that moves only when told to. Not safe for concurrent Advance() and Now().
class ManualClock final : public Clock {
 public:
  explicit ManualClock(Instant start = Instant(std::chrono::hours(1))) : now_(start) {}
  Instant Now() const override { return now_; }
  void Advance(Duration by) { now_ += by; }
  void Set(Instant now) { now_ = now; }

 private:
  Instant now_;
};

}  // namespace ringsock

#endif  // RINGSOCK_BASE_CLOCK_H_
