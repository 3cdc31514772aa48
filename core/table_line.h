// The two kinds of cache line that a LockFreeTable (core/lock_free_table.h) is made of: one that
// names objects, in which the keys are, and one that keeps what tells the keys apart in itself. The
// first holds seven entries, the second four, but a search in it needs nothing else from memory.
//
// Both are written by one thread and read by many at the same time. A search has no branch that
// depends on where in the line its key lies, which no core could predict and would find out only
// when the line has come from memory; so searches that follow one another overlap.
#ifndef RINGSOCK_CORE_TABLE_LINE_H_
#define RINGSOCK_CORE_TABLE_LINE_H_

#include <array>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>

namespace ringsock {

// What a search in one line found.
struct LineMatch {
  uint64_t entry;  // 0: nothing
  size_t slot;     // if there is an entry
};
// What the first look of a search in one line told.
struct LineGlance {
  uint64_t entry;  // what was found, or, if that is not all, what it may be; 0: nothing
  bool is_all;     // else Confirm() what it may be, or Find()
};

// An entry is one 64-bit word: 48 bits that name an immutable object, and 16 bits of its hash as a
// tag, so that almost no other object is looked at. Beside seven of them is a word with a byte of
// each one's hash, all compared at once. Entries are at least 16 and below 2^48: addresses of
// objects, in which low bits that are zero by their alignment are free for use.
//
// Traits: Key; Hash(key, seed), well mixed; KeyOf(entry); Equal(entry, key); LineOf(entry), the
// memory that Equal() reads.
template <typename Traits>
class alignas(64) TaggedLine {
 public:
  using Key = typename Traits::Key;
  static constexpr size_t kSlots = 7;

  // `*goes_on`: the key may be in the next line.
  [[gnu::always_inline]] LineMatch Find(uint64_t hash, const Key& key, bool* goes_on) const {
    const uint64_t marks = marks_.load(std::memory_order_acquire);
    *goes_on = false;
    for (uint64_t matches = Matches(marks, MarkOf(hash)); matches != 0; matches &= matches - 1) {
      const size_t slot = FirstSlot(matches);
      const uint64_t word = slots_[slot].load(std::memory_order_acquire);
      if ((word & ~kEntryMask) != TagOf(hash) || (word & kEntryMask) == 0) continue;
      if (Traits::Equal(word & kEntryMask, key)) return {word & kEntryMask, slot};
    }
    *goes_on = Matches(marks, kEmpty) == 0;
    return {0, 0};
  }
  // The first look of a search. If it is not all, starts to fetch what the next will read.
  LineGlance Glance(uint64_t hash) const {
    const uint64_t matches = Matches(marks_.load(std::memory_order_acquire), MarkOf(hash));
    if (matches == 0) return {0, false};
    const uint64_t word = slots_[FirstSlot(matches)].load(std::memory_order_acquire);
    const uint64_t entry = word & kEntryMask;
    if ((word & ~kEntryMask) != TagOf(hash) || entry == 0) return {0, false};
    __builtin_prefetch(Traits::LineOf(entry));
    return {entry, false};
  }

  // Whether what Glance() told is `key`.
  static bool Confirm(uint64_t entry, const Key& key) {
    return entry != 0 && Traits::Equal(entry, key);
  }

  // The writer's. False if there is no room; `*tombstone`: one was used up. may_reuse(): whether
  // every reader has passed since something was last taken out.
  template <typename F>
  bool Insert(uint64_t hash, uint64_t entry, F&& /*may_reuse*/, bool* tombstone) {
    const uint64_t marks = marks_.load(std::memory_order_relaxed);
    uint64_t free = Matches(marks, kEmpty);
    *tombstone = free == 0;
    if (*tombstone) free = Matches(marks, kTombstone);
    if (free == 0) return false;
    Replace(FirstSlot(free), hash, entry);
    marks_.store(WithMark(marks, FirstSlot(free), MarkOf(hash)), std::memory_order_release);
    return true;
  }
  void Replace(size_t slot, uint64_t hash, uint64_t entry) {
    slots_[slot].store(TagOf(hash) | entry, std::memory_order_release);
  }
  // Returns whether it left a tombstone.
  bool Erase(size_t slot) {
    const uint64_t marks = marks_.load(std::memory_order_relaxed);
    // A line that has an empty slot was never full, so no search goes on beyond it.
    const bool never_full = Matches(marks, kEmpty) != 0;
    marks_.store(WithMark(marks, slot, never_full ? kEmpty : kTombstone),
                 std::memory_order_release);
    slots_[slot].store(0, std::memory_order_release);
    return !never_full;
  }
  // Calls f(hash, entry) for each; stops at the first false, and returns it.
  template <typename F>
  bool ForEach(uint64_t seed, F&& f) const {
    for (const auto& slot : slots_) {
      const uint64_t entry = slot.load(std::memory_order_relaxed) & kEntryMask;
      if (entry != 0 && !f(Traits::Hash(Traits::KeyOf(entry), seed), entry)) return false;
    }
    return true;
  }
  // Starts to fetch what ForEach() will read, from anywhere in memory.
  void PrefetchObjects() const {
    for (const auto& slot : slots_) {
      const uint64_t word = slot.load(std::memory_order_relaxed);
      if (word != 0) __builtin_prefetch(Traits::LineOf(word & kEntryMask));
    }
  }

 private:
  static constexpr int kEntryBits = 48;
  static constexpr uint64_t kEntryMask = (uint64_t{1} << kEntryBits) - 1;
  // Marks, a byte for each slot.
  static constexpr uint64_t kEmpty = 0;
  static constexpr uint64_t kTombstone = 1;
  static constexpr uint64_t kNoMarks = kTombstone << 56;  // the byte that has no slot is not empty
  static constexpr uint64_t kEachByte = 0x0101010101010101;
  static constexpr uint64_t kEachSlot = 0x0080808080808080;  // the top bits of bytes with a slot

  // Bits 18 to 33 and 34 to 41 of the hash.
  static uint64_t TagOf(uint64_t hash) { return (hash >> 18) << kEntryBits; }
  static uint64_t MarkOf(uint64_t hash) {
    const uint64_t byte = (hash >> 34) & 0xff;
    return byte <= kTombstone ? byte + 2 : byte;
  }
  // The top bit of each slot whose mark is `mark`; now and then also that of the slot behind one.
  static uint64_t Matches(uint64_t marks, uint64_t mark) {
    const uint64_t difference = marks ^ (mark * kEachByte);
    return (difference - kEachByte) & ~difference & kEachSlot;
  }
  static uint64_t WithMark(uint64_t marks, size_t slot, uint64_t mark) {
    return (marks & ~(uint64_t{0xff} << (8 * slot))) | mark << (8 * slot);
  }
  static size_t FirstSlot(uint64_t matches) {
    return static_cast<size_t>(std::countr_zero(matches)) / 8;
  }

  // Byte i is about slot i: empty, a tombstone, or a byte of the hash of what is there. It leads to
  // the slot, and the slot's own tag decides: readers may see one from before and the other from
  // after an update, and then find what was there before it or nothing.
  std::atomic<uint64_t> marks_{kNoMarks};
  std::array<std::atomic<uint64_t>, kSlots> slots_{};
};

// An entry is any 64-bit word but 0, and beside it is the hash of its key, which no other key has:
// that is all a search looks at, one cache line.
//
// What was taken out leaves a tombstone, and its slot is not used again before every reader has
// passed. So the hash and the entry, which a reader loads one after the other, belong together.
//
// Traits: Key; Hash(key, seed), well mixed and in bits 2 to 63 different for different keys.
template <typename Traits>
class alignas(64) KeyedLine {
 public:
  using Key = typename Traits::Key;
  static constexpr size_t kSlots = 4;

  [[gnu::always_inline]] LineMatch Find(uint64_t hash, const Key& /*key*/, bool* goes_on) const {
    const uint32_t matches = Matches(hash);
    *goes_on = matches == 0 && IsFull();
    if (matches == 0) return {0, 0};
    const auto slot = static_cast<size_t>(std::countr_zero(matches));
    return {entries_[slot].load(std::memory_order_acquire), slot};
  }
  LineGlance Glance(uint64_t hash) const {
    const uint32_t matches = Matches(hash);
    if (matches == 0) [[unlikely]] {
      if (!IsFull()) return {0, true};
      __builtin_prefetch(this + 1);  // the last line of an array goes on with the first
      return {0, false};
    }
    return {
        entries_[static_cast<size_t>(std::countr_zero(matches))].load(std::memory_order_acquire),
        true};
  }
  static bool Confirm(uint64_t /*entry*/, const Key& /*key*/) { return false; }

  template <typename F>
  bool Insert(uint64_t hash, uint64_t entry, F&& may_reuse, bool* tombstone) {
    for (size_t slot = 0; slot < kSlots; ++slot) {
      const uint64_t word = hashes_[slot].load(std::memory_order_relaxed);
      *tombstone = word == kTombstone;
      if (word > kTombstone || (*tombstone && !may_reuse())) continue;
      Replace(slot, hash, entry);
      hashes_[slot].store(WordOf(hash), std::memory_order_release);
      return true;
    }
    return false;
  }
  void Replace(size_t slot, uint64_t /*hash*/, uint64_t entry) {
    entries_[slot].store(entry, std::memory_order_release);
  }
  bool Erase(size_t slot) {
    hashes_[slot].store(kTombstone, std::memory_order_release);
    return true;
  }
  template <typename F>
  bool ForEach(uint64_t /*seed*/, F&& f) const {
    for (size_t slot = 0; slot < kSlots; ++slot) {
      const uint64_t hash = hashes_[slot].load(std::memory_order_relaxed);
      if (hash <= kTombstone) continue;
      if (!f(hash, entries_[slot].load(std::memory_order_relaxed))) return false;
    }
    return true;
  }
  void PrefetchObjects() const {}

 private:
  static constexpr uint64_t kEmpty = 0;
  static constexpr uint64_t kTombstone = 1;

  static uint64_t WordOf(uint64_t hash) { return hash | 3; }  // neither of the above
  // Bit i: slot i has this hash.
  uint32_t Matches(uint64_t hash) const {
    const auto same = [this, word = WordOf(hash)](size_t slot) {
      return uint32_t{hashes_[slot].load(std::memory_order_acquire) == word};
    };
    return same(0) | same(1) << 1 | same(2) << 2 | same(3) << 3;
  }
  // Slots are taken in order, and never become empty again.
  bool IsFull() const { return hashes_[kSlots - 1].load(std::memory_order_acquire) != kEmpty; }

  std::array<std::atomic<uint64_t>, kSlots> hashes_{};
  std::array<std::atomic<uint64_t>, kSlots> entries_{};
};

}  // namespace ringsock

#endif  // RINGSOCK_CORE_TABLE_LINE_H_
