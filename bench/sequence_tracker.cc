// Follows the sequence numbers of one peer's packets.
#include "bench/sequence_tracker.h"

namespace ringsock::bench {

void SequenceTracker::OnPackets(uint64_t first, uint64_t count) {
  uint64_t sequence = first;
  const uint64_t end = first + count;
  for (; sequence < end && sequence < next_; ++sequence) OnOld(sequence);
  if (sequence == end) return;
  if (sequence > next_) Skip(sequence);
  distinct_ += end - sequence;
  for (; sequence < end; ++sequence) {
    seen_[sequence / 64 % seen_.size()] |= uint64_t{1} << (sequence % 64);
  }
  next_ = end;
}

// Forgets what is a window behind the numbers up to `to`, which were not seen.
void SequenceTracker::Skip(uint64_t to) {
  if (to - next_ >= kWindow) {
    seen_.fill(0);
  } else {
    for (uint64_t n = next_; n < to; ++n) {
      seen_[n / 64 % seen_.size()] &= ~(uint64_t{1} << (n % 64));
    }
  }
  next_ = to;
}

void SequenceTracker::OnOld(uint64_t sequence) {
  if (sequence + kWindow >= next_ && TestAndSet(sequence)) {
    ++duplicates_;
    return;
  }
  ++distinct_;
  ++reordered_;
}

bool SequenceTracker::TestAndSet(uint64_t sequence) {
  uint64_t& word = seen_[sequence / 64 % seen_.size()];
  const uint64_t bit = uint64_t{1} << (sequence % 64);
  const bool was_set = (word & bit) != 0;
  word |= bit;
  return was_set;
}

}  // namespace ringsock::bench
