#include "io/sim_link.h"

#include <algorithm>

namespace ringsock::io {
namespace {

// Time to put bytes on the wire, rounded up to a nanosecond.
Duration TimeFor(uint64_t bytes, uint64_t bytes_per_second) {
  constexpr uint64_t kNano = 1'000'000'000;
  const auto product = static_cast<unsigned __int128>(bytes) * kNano;
  return Duration(static_cast<int64_t>((product + bytes_per_second - 1) / bytes_per_second));
}

}  // namespace

SimLink::Outcome SimLink::Transmit(size_t wire_size, Instant now, Random* random) {
  if (TooBig(wire_size)) return {.event = SimEvent::kTooBig};
  const size_t fragments =
      options.mtu == 0 ? 1 : std::max<size_t>(1, (wire_size + options.mtu - 1) / options.mtu);
  for (size_t i = 0; i < fragments; ++i) {
    if (random->Chance(options.loss)) return {.event = SimEvent::kLost};
  }
  Instant leaves = now;
  if (options.bytes_per_second != 0) {
    const Instant starts = std::max(now, free_);
    const Duration room = TimeFor(options.queue_bytes, options.bytes_per_second);
    const Duration own = TimeFor(wire_size, options.bytes_per_second);
    // What is being sent counts as queued; an empty queue takes one datagram of any size.
    if (options.queue_bytes != 0 && starts > now && starts - now + own > room) {
      return {.event = SimEvent::kQueueFull};
    }
    leaves = starts + own;
    free_ = leaves;
  }
  Outcome outcome{.copies = 1};
  Instant arrival = leaves + options.delay + random->Between(Duration::zero(), options.jitter);
  if (random->Chance(options.reorder)) {
    arrival += options.reorder_delay;
  } else {
    arrival = std::max(arrival, last_arrival_);
    last_arrival_ = arrival;
  }
  outcome.arrivals = {arrival, arrival};
  if (random->Chance(options.duplicate)) {
    outcome.event = SimEvent::kDuplicated;
    outcome.copies = 2;
  }
  return outcome;
}

}  // namespace ringsock::io
