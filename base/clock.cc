#include "base/clock.h"

#include <ctime>

namespace ringsock {
namespace {

class MonotonicClock final : public Clock {
 public:
  Instant Now() const override {
    timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return Instant(std::chrono::seconds(ts.tv_sec) + Duration(ts.tv_nsec));
  }
};

}  // namespace

const Clock& SystemClock() {
  static const MonotonicClock clock;
  return clock;
}

}  // namespace ringsock
