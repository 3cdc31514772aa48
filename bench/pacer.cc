// The schedule of an open-loop load.
#include "bench/pacer.h"

namespace ringsock::bench {

uint64_t Pacer::Due(Instant now) const {
  if (now < start_) return 0;
  auto due = static_cast<uint64_t>(static_cast<double>((now - start_).count()) / interval_) + 1;
  // The division may be off by one rounding; DueTime() is what counts.
  while (due > 0 && DueTime(due - 1) > now) --due;
  while (DueTime(due) <= now) ++due;
  return due > issued_ ? due - issued_ : 0;
}

}  // namespace ringsock::bench
