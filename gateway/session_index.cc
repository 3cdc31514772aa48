#include "gateway/session_index.h"

#include <algorithm>
#include <bit>

namespace ringsock::gateway {
namespace {

constexpr size_t kMinBuckets = 64;

uint64_t Entry(uint32_t index, PeerIndex peer) { return (uint64_t{index} << 32) | (peer + 1); }

}  // namespace

SessionIndex::SessionIndex(size_t peers)
    : mask_(std::bit_ceil(std::max(peers, kMinBuckets)) - 1),
      buckets_(std::make_unique<Bucket[]>(mask_ + 1)) {}

size_t SessionIndex::BucketOf(uint32_t index) const {
  // WireGuard chooses indices at random; the product spreads those of other implementations.
  return ((index * uint64_t{0x9e3779b97f4a7c15}) >> 32) & mask_;
}

void SessionIndex::Record(uint32_t index, PeerIndex peer) {
  if (peer == kNoPeer) return;
  auto& entries = buckets_[BucketOf(index)].entries;
  // Moves everything one back, up to where this index stands already. Two threads doing so at once
  // may lose or repeat an entry, which is harmless.
  uint64_t carried = Entry(index, peer);
  for (auto& entry : entries) {
    const uint64_t old = entry.load(std::memory_order_relaxed);
    entry.store(carried, std::memory_order_relaxed);
    if (old == 0 || (old >> 32) == index) return;
    carried = old;
  }
}

PeerIndex SessionIndex::Find(uint32_t index) const {
  for (const auto& entry : buckets_[BucketOf(index)].entries) {
    const uint64_t value = entry.load(std::memory_order_relaxed);
    if (value != 0 && (value >> 32) == index) return static_cast<PeerIndex>(value) - 1;
  }
  return kNoPeer;
}

}  // namespace ringsock::gateway
