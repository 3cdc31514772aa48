// Follows the sequence numbers of one peer's packets where they arrive: how many came, how many
// twice, how many out of order. What never came is the number sent less the number of distinct
// ones.
#ifndef RINGSOCK_BENCH_SEQUENCE_TRACKER_H_
#define RINGSOCK_BENCH_SEQUENCE_TRACKER_H_

#include <array>
#include <cstdint>

namespace ringsock::bench {

// Exact as long as a packet is at most kWindow numbers behind the newest; one that is further
// behind counts as distinct and reordered, since nobody remembers whether it came before.
class SequenceTracker {
 public:
  static constexpr uint64_t kWindow = 1024;

  // `count` packets arrived with the numbers first, first + 1, ...
  void OnPackets(uint64_t first, uint64_t count);

  uint64_t distinct() const { return distinct_; }
  uint64_t duplicates() const { return duplicates_; }
  // Packets whose number is below one that came before (RFC 4737, section 3.3), duplicates aside.
  uint64_t reordered() const { return reordered_; }

 private:
  void Skip(uint64_t to);
  void OnOld(uint64_t sequence);
  bool TestAndSet(uint64_t sequence);

  std::array<uint64_t, kWindow / 64> seen_{};  // bit (n mod kWindow): n came
  uint64_t next_ = 0;                          // one above the newest
  uint64_t distinct_ = 0;
  uint64_t duplicates_ = 0;
  uint64_t reordered_ = 0;
};

}  // namespace ringsock::bench

#endif  // RINGSOCK_BENCH_SEQUENCE_TRACKER_H_
