// A hash table that many threads read without locks or retries while one thread writes.
//
// An entry is one 64-bit word in a slot: 48 bits that name an immutable object, and 15 bits of its
// hash as a tag, so that almost no other object is looked at. Eight slots make a cache line, the
// unit of probing. A line that has an empty slot ends a search; a line that was ever full keeps that
// state (removal leaves a tombstone there), so what lies beyond it is still found.
//
// The table is cut into segments of at most 4,096 slots by the top bits of the hash (extendible
// hashing). A segment grows, shrinks or sheds tombstones by a new array that takes its place, and
// splits in two when it is full: no single update ever moves more than one segment. Arrays that have
// been replaced go to Quiescence.
#ifndef RINGSOCK_CORE_LOCK_FREE_TABLE_H_
#define RINGSOCK_CORE_LOCK_FREE_TABLE_H_

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <new>
#include <utility>

#include "core/quiescence.h"

namespace ringsock {

// Traits: Key; Hash(key, seed), well mixed; KeyOf(entry); LineOf(entry), what KeyOf() will read.
// An entry is at least 16 and below 2^48: the address of an object with the low bits free for use.
template <typename Traits>
class LockFreeTable {
 public:
  using Key = typename Traits::Key;

  LockFreeTable(Quiescence* quiescence, uint64_t seed);
  // No reader may be left. Entries are the owner's.
  ~LockFreeTable();
  LockFreeTable(const LockFreeTable&) = delete;
  LockFreeTable& operator=(const LockFreeTable&) = delete;

  // --- Any online reader of the Quiescence. Wait-free: at most kMaxProbe lines. ---

  // The entry of `key`, or 0.
  uint64_t Find(const Key& key) const {
    const uint64_t hash = Traits::Hash(key, seed_);
    const std::atomic<uint64_t>* slot = FindSlot(ArrayFor(hash), hash, key);
    return slot == nullptr ? 0 : slot->load(std::memory_order_relaxed) & kEntryMask;
  }
  // Starts fetching the line of the table that Find() will read first.
  void Prefetch(const Key& key) const {
    const uint64_t hash = Traits::Hash(key, seed_);
    const Array array = ArrayFor(hash);
    __builtin_prefetch(array.lines[LineIndex(hash) & array.mask].slots.data());
  }
  // Starts fetching the object that Find() will read, if it is in the first line.
  void PrefetchEntry(const Key& key) const;

  // --- The writer ---

  // Puts `entry` (whose KeyOf() is `key`) in, in place of the one with an equal key if there is one,
  // which goes to `*previous` (0: none). False, and nothing changed, only if no room can be made:
  // dozens of keys have the same 36 bits of hash, which chance does not bring about.
  bool Put(const Key& key, uint64_t entry, uint64_t* previous);
  // Takes the entry of `key` out and returns it; 0 if there is none.
  uint64_t Erase(const Key& key);
  size_t size() const { return size_; }
  // Bytes of all arrays in use.
  size_t MemoryUsed() const { return bytes_; }
  // Slots of all segments, for tests.
  size_t capacity() const;

 private:
  static constexpr int kEntryBits = 48;
  static constexpr uint64_t kEntryMask = (uint64_t{1} << kEntryBits) - 1;
  static constexpr uint64_t kTombstone = 1;
  static constexpr size_t kSlotsPerLine = 8;
  // Lines searched for a key; as an insertion that finds no room there makes more room. Also the
  // least number of lines of a segment, so that a search meets no line twice.
  static constexpr size_t kMaxProbe = 8;
  // A rebuild of the largest segment takes about 0.1 ms: the longest any update takes.
  static constexpr size_t kMaxLines = 512;
  // Top bits of the hash that name a segment; the low bits of the hash are the line's and the tag's.
  static constexpr uint32_t kMaxDepth = 24;

  struct alignas(64) Line {
    std::array<std::atomic<uint64_t>, kSlotsPerLine> slots{};
  };
  // The writer's notes, in the line before the slots.
  struct alignas(64) Segment {
    uint32_t depth;       // how many top bits of the hash all its keys share
    uint32_t entries = 0;
    uint32_t tombstones = 0;
    uint32_t lines_log2;

    Line* lines() { return reinterpret_cast<Line*>(this + 1); }
    size_t line_count() const { return size_t{1} << lines_log2; }
    size_t slot_count() const { return line_count() * kSlotsPerLine; }
  };
  struct Array {
    const Line* lines;
    size_t mask;
  };
  // Aligned to 64, so the low bits of its address are free: they hold its depth.
  struct alignas(64) Directory {
    std::atomic<uint64_t>* words() { return reinterpret_cast<std::atomic<uint64_t>*>(this); }
  };

  // Bits of the hash: 0-2 the slot to begin with, 3-11 the line, 16-30 the tag, from the top the
  // segment.
  static size_t LineIndex(uint64_t hash) { return static_cast<size_t>(hash >> 3); }
  static uint64_t TagOf(uint64_t hash) { return ((hash >> 16) | 0x8000) << kEntryBits; }
  static size_t DirectoryIndex(uint64_t hash, uint64_t depth) {
    return static_cast<size_t>((hash >> 1) >> (63 - depth));
  }

  Array ArrayFor(uint64_t hash) const {
    const uint64_t directory = directory_.load(std::memory_order_acquire);
    const auto* words = reinterpret_cast<const std::atomic<uint64_t>*>(directory & ~uint64_t{63});
    const uint64_t word =
        words[DirectoryIndex(hash, directory & 63)].load(std::memory_order_acquire);
    return {reinterpret_cast<const Line*>((word & ~uint64_t{63}) + sizeof(Segment)),
            (size_t{1} << (word & 63)) - 1};
  }
  const std::atomic<uint64_t>* FindSlot(Array array, uint64_t hash, const Key& key) const;

  // As ArrayFor(), for the writer.
  Segment* SegmentFor(uint64_t hash) const;
  Segment* NewSegment(uint32_t depth, uint32_t lines_log2);
  void RetireSegment(Segment* segment);
  void Link(Segment* segment, uint64_t hash);
  static bool Insert(Segment* segment, uint64_t hash, uint64_t entry);
  bool CopyInto(Segment* from, Segment* low, Segment* high) const;
  bool Resize(Segment* segment, uint64_t hash, uint32_t lines_log2);
  bool Split(Segment* segment, uint64_t hash);
  bool DoubleDirectory();
  bool MakeRoom(uint64_t hash);

  // Low six bits: depth, the binary logarithm of its length.
  std::atomic<uint64_t> directory_;
  const uint64_t seed_;
  Quiescence* const quiescence_;
  size_t size_ = 0;
  size_t bytes_ = 0;
};

}  // namespace ringsock

#endif  // RINGSOCK_CORE_LOCK_FREE_TABLE_H_
