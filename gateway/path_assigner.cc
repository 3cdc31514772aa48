#include "gateway/path_assigner.h"

#include <algorithm>
#include <bit>
#include <random>

namespace ringsock::gateway {
namespace {

// Addresses looked at for one packet, so that its time is bounded.
constexpr int kMaxLooks = 16;
// The same for free addresses: static ones, which are at most half of the range, lie between them.
constexpr int kMaxSteps = 64;

uint64_t RandomSeed() {
  std::random_device device;
  return (uint64_t{device()} << 32) | device();
}

}  // namespace

PathAssigner::PathAssigner(PathAddresses* addresses, uint32_t shard, uint32_t shards,
                           const AssignerLimits& limits)
    : addresses_(addresses),
      limits_(limits),
      seed_(RandomSeed()),
      begin_(static_cast<AddressOffset>(uint64_t{addresses->size()} * shard / shards)),
      end_(static_cast<AddressOffset>(uint64_t{addresses->size()} * (shard + 1) / shards)),
      next_(begin_),
      left_(end_ - begin_) {
  uint32_t free = 0;
  for (AddressOffset offset = begin_; offset < end_; ++offset) {
    free += addresses_->Read(offset).kind == AddressKind::kFree ? 1 : 0;
  }
  // The first and the last address of the range are never given out.
  free -= std::min(free, 2u);
  uint32_t pending = 0;
  for (const PathClass kind :
       {PathClass::kUnknown, PathClass::kHandshake, PathClass::kRecognised}) {
    const uint32_t share = free / (kind == PathClass::kUnknown ? 4 : 8);
    QueueOf(kind).limit = std::min(limits.pending, std::max(share, 1u));
    pending += limit(kind);
  }
  QueueOf(PathClass::kLive).limit =
      std::max(std::min(limits.live, free - std::min(free, pending)), 1u);
  if (left_ > 0) next_ += static_cast<AddressOffset>(RandomSeed() % left_);
  map_.assign(std::bit_ceil(2 * (size_t{pending} + limit(PathClass::kLive))), kNoAddress);
}

uint32_t PathAssigner::pending() const {
  return size(PathClass::kUnknown) + size(PathClass::kHandshake) + size(PathClass::kRecognised);
}

size_t PathAssigner::SlotOf(const PathKey& key) const {
  return HashEndpoint(key.from, seed_ + key.relayed) & (map_.size() - 1);
}

AddressOffset PathAssigner::Find(const PathKey& key) const {
  for (size_t i = SlotOf(key); map_[i] != kNoAddress; i = (i + 1) & (map_.size() - 1)) {
    if (addresses_->KeyOf(map_[i]) == key) return map_[i];
  }
  return kNoAddress;
}

void PathAssigner::Insert(const PathKey& key, AddressOffset offset) {
  size_t i = SlotOf(key);
  while (map_[i] != kNoAddress) i = (i + 1) & (map_.size() - 1);
  map_[i] = offset;
}

void PathAssigner::Erase(const PathKey& key) {
  const size_t mask = map_.size() - 1;
  size_t hole = SlotOf(key);
  while (!(addresses_->KeyOf(map_[hole]) == key)) hole = (hole + 1) & mask;
  // Moves back whatever would otherwise no longer be found past the hole.
  for (size_t i = (hole + 1) & mask; map_[i] != kNoAddress; i = (i + 1) & mask) {
    const size_t home = SlotOf(addresses_->KeyOf(map_[i]));
    if (((i - home) & mask) < ((i - hole) & mask)) continue;
    map_[hole] = map_[i];
    hole = i;
  }
  map_[hole] = kNoAddress;
}

void PathAssigner::Push(AddressOffset offset, PathClass kind) {
  Queue& queue = QueueOf(kind);
  AssignerNote& note = addresses_->note(offset);
  note.kind = kind;
  note.newer = kNoAddress;
  note.older = queue.newest;
  (queue.newest == kNoAddress ? queue.oldest : addresses_->note(queue.newest).newer) = offset;
  queue.newest = offset;
  ++queue.size;
}

void PathAssigner::Remove(AddressOffset offset) {
  const AssignerNote& note = addresses_->note(offset);
  Queue& queue = QueueOf(note.kind);
  (note.older == kNoAddress ? queue.oldest : addresses_->note(note.older).newer) = note.newer;
  (note.newer == kNoAddress ? queue.newest : addresses_->note(note.newer).older) = note.older;
  --queue.size;
}

void PathAssigner::Use(AddressOffset offset, Instant now) {
  const PathClass kind = addresses_->note(offset).kind;
  // Once a second is exact enough, since that is what ages are counted in.
  if (addresses_->SecondsSinceUse(offset, now) > 0) {
    Remove(offset);
    Push(offset, kind);
  }
  addresses_->Touch(offset, now);
}

AddressOffset PathAssigner::Lookup(const PathKey& key, Instant now) {
  const AddressOffset configured = addresses_->Configured(key);
  if (configured != kNoAddress) {
    addresses_->Touch(configured, now);
    return configured;
  }
  const AddressOffset found = Find(key);
  if (found != kNoAddress) Use(found, now);
  return found;
}

AddressOffset PathAssigner::Assign(const PathKey& key, PeerIndex owner, PathClass kind,
                                   Instant now) {
  AddressOffset offset = kNoAddress;
  if (!QueueOf(kind).full()) offset = Fresh(key, owner, kind, now);
  if (offset == kNoAddress) {
    offset = kind == PathClass::kLive ? ReuseLive(key, owner, kind, now)
                                      : ReusePending(key, owner, kind, now);
  }
  if (offset != kNoAddress) Push(offset, kind);
  return offset;
}

AddressOffset PathAssigner::Fresh(const PathKey& key, PeerIndex owner, PathClass kind,
                                  Instant now) {
  const AddressOffset last = addresses_->size() - 1;
  for (int step = 0; step < kMaxSteps && left_ > 0; ++step) {
    const AddressOffset offset = next_;
    next_ = next_ + 1 == end_ ? begin_ : next_ + 1;
    --left_;
    if (offset == 0 || offset == last) continue;
    if (addresses_->Claim(offset, key, owner, kind == PathClass::kLive, now)) {
      Insert(key, offset);
      return offset;
    }
  }
  return kNoAddress;
}

bool PathAssigner::Replace(const PathAddress& old, const PathKey& key, PeerIndex owner,
                           PathClass kind, Instant now) {
  const PathKey old_key = addresses_->KeyOf(old.offset);
  // The map compares with what the address stands for, so it has to go before that changes.
  Erase(old_key);
  const bool replaced = addresses_->Reuse(old, key, owner, kind == PathClass::kLive, now);
  Insert(replaced ? key : old_key, old.offset);
  return replaced;
}

AddressOffset PathAssigner::ReusePending(const PathKey& key, PeerIndex owner, PathClass kind,
                                         Instant now) {
  Queue& queue = QueueOf(kind);
  const Queue& live = QueueOf(PathClass::kLive);
  for (int look = 0; look < kMaxLooks && queue.size > 0; ++look) {
    const AddressOffset offset = queue.oldest;
    const PathAddress old = addresses_->Read(offset);
    if (!old.answered) {
      if (addresses_->SecondsSinceUse(offset, now) < limits_.quarantine_s ||
          !Replace(old, key, owner, kind, now)) {
        return kNoAddress;  // and all others are younger
      }
      Remove(offset);
      return offset;
    }
    // It has earned its place among the live; if they are full, the oldest of them makes room.
    if (live.full()) {
      const AddressOffset freed = ReuseLive(key, owner, kind, now);
      if (freed == kNoAddress) return kNoAddress;
      Remove(offset);
      Push(offset, PathClass::kLive);
      return freed;
    }
    Remove(offset);
    Push(offset, PathClass::kLive);
    const AddressOffset fresh = Fresh(key, owner, kind, now);
    if (fresh != kNoAddress) return fresh;
  }
  return kNoAddress;
}

AddressOffset PathAssigner::ReuseLive(const PathKey& key, PeerIndex owner, PathClass kind,
                                      Instant now) {
  const Queue& live = QueueOf(PathClass::kLive);
  for (int look = 0; look < kMaxLooks && live.size > 0; ++look) {
    const AddressOffset offset = live.oldest;
    const PathAddress old = addresses_->Read(offset);
    const bool current = old.owner != kNoPeer && addresses_->Current(old.owner) == offset;
    const bool idle = addresses_->SecondsSinceUse(offset, now) >= limits_.idle_s;
    if (!current && idle && Replace(old, key, owner, kind, now)) {
      Remove(offset);
      return offset;
    }
    // WireGuard uses it: what counts here is only what came in.
    Remove(offset);
    Push(offset, PathClass::kLive);
  }
  return kNoAddress;
}

}  // namespace ringsock::gateway
