// A hash table that many threads read without locks or retries while one thread writes.
//
// An entry is one 64-bit word in a slot: 48 bits that name an immutable object, and 16 bits of its
// hash as a tag, so that almost no other object is looked at. A cache line, the unit of probing, is
// seven slots and a word with a byte of each one's hash. The bytes are compared all at once: a
// search has no branch that depends on where in the line its key lies, which no core could predict
// and would find out only when the line has come from memory; so searches that follow one another
// overlap. A line that has an empty slot ends a search; a line that was ever full keeps that state
// (removal leaves a tombstone there), so what lies beyond it is still found.
//
// The table is cut into segments of at most 3,584 slots by the top bits of the hash (extendible
// hashing). A segment grows, shrinks or sheds tombstones by a new array that takes its place, and
// splits in two when it is full: no single update ever moves more than one segment. Arrays that
// have been replaced go to Quiescence.
#ifndef RINGSOCK_CORE_LOCK_FREE_TABLE_H_
#define RINGSOCK_CORE_LOCK_FREE_TABLE_H_

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <new>
#include <span>

#include "core/quiescence.h"

namespace ringsock {

// Traits: Key; Hash(key, seed), well mixed; KeyOf(entry); Equal(entry, key); LineOf(entry), the
// memory that Equal() reads. An entry is at least 16 and below 2^48: the address of an object, in
// which low bits that are zero by its alignment are free for use.
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
    return FindSlot(ArrayFor(hash), hash, key).entry;
  }
  // Starts fetching the line of the table that Find() will read first.
  void Prefetch(const Key& key) const {
    const uint64_t hash = Traits::Hash(key, seed_);
    PrefetchLine(ArrayFor(hash), hash);
  }
  // Starts fetching the object that Find() will read, if it is in the first line.
  void PrefetchEntry(const Key& key) const {
    const uint64_t hash = Traits::Hash(key, seed_);
    const uint64_t candidate = Candidate(ArrayFor(hash), hash);
    if (candidate != 0) __builtin_prefetch(Traits::LineOf(candidate));
  }

  // Finds many keys with the waits for memory overlapped: out[i] is the entry of *keys[i], or 0.
  void FindBatch(std::span<const Key* const> keys, uint64_t* out) const;

  // --- The writer ---

  // Puts `entry` (whose KeyOf() is `key`) in, in place of the one with an equal key if there is
  // one, which goes to `*previous` (0: none). False, and nothing changed, only if no room can be
  // made: dozens of keys share 23 bits of hash, or there are some 35 million entries.
  bool Put(const Key& key, uint64_t entry, uint64_t* previous);
  // Takes the entry of `key` out and returns it; 0 if there is none.
  uint64_t Erase(const Key& key);
  size_t size() const { return size_; }
  // Bytes of all arrays in use.
  size_t MemoryUsed() const { return bytes_; }
  // Slots of all segments.
  size_t capacity() const;

 private:
  static constexpr int kEntryBits = 48;
  static constexpr uint64_t kEntryMask = (uint64_t{1} << kEntryBits) - 1;
  static constexpr size_t kSlotsPerLine = 7;
  // Lines searched for a key; an insertion that finds no room there makes more.
  static constexpr size_t kMaxProbe = 8;
  // Binary logarithms of a segment's lines: at least kMaxProbe, so that a search meets no line
  // twice; at most 512, which takes 0.1 ms to rebuild, the longest that any update takes.
  static constexpr uint32_t kMinLinesLog2 = 3;
  static constexpr uint32_t kMaxLinesLog2 = 9;
  // The most top bits of the hash that name a segment: room for 35 million entries.
  static constexpr uint32_t kMaxDepth = 14;
  // Low bits of the address of an array, free for its size.
  static constexpr uint64_t kSizeMask = 63;
  // Marks of a line, a byte for each slot.
  static constexpr uint64_t kEmpty = 0;
  static constexpr uint64_t kTombstone = 1;
  static constexpr uint64_t kNoMarks = kTombstone << 56;  // the byte that has no slot is not empty
  static constexpr uint64_t kEachByte = 0x0101010101010101;
  static constexpr uint64_t kEachSlot = 0x0080808080808080;  // the top bits of bytes with a slot

  // Byte i of `marks` is about slot i: empty, a tombstone, or a byte of the hash of what is there.
  // It leads to the slot, and the slot's own tag decides: readers may see one from before and the
  // other from after an update, and then find what was there before it or nothing.
  struct alignas(64) Line {
    std::atomic<uint64_t> marks{kNoMarks};
    std::array<std::atomic<uint64_t>, kSlotsPerLine> slots{};
  };
  // The writer's notes, in the line before the slots.
  struct alignas(64) Segment {
    uint32_t depth = 0;  // how many top bits of the hash all its keys share
    uint32_t lines_log2 = 0;
    uint32_t entries = 0;
    uint32_t tombstones = 0;

    Line* lines() { return reinterpret_cast<Line*>(this + 1); }
    size_t line_count() const { return size_t{1} << lines_log2; }
    size_t slot_count() const { return line_count() * kSlotsPerLine; }
    size_t bytes() const { return sizeof(Segment) + line_count() * sizeof(Line); }
    // Three quarters: beyond, lines overflow often (and a split leaves three eighths).
    bool HasRoom() const { return (entries + tombstones + 1) * 4 <= slot_count() * 3; }
  };
  struct Array {
    const Line* lines;
    size_t mask;
  };
  struct Found {
    const std::atomic<uint64_t>* slot;
    uint64_t entry;
  };

  // Bits of the hash: 0-8 the line, 9-24 the tag, 25-32 the mark, from the top the segment.
  static size_t LineIndex(uint64_t hash) { return static_cast<size_t>(hash); }
  static uint64_t TagOf(uint64_t hash) { return (hash >> 9) << kEntryBits; }
  static uint64_t MarkOf(uint64_t hash) {
    const uint64_t byte = (hash >> 25) & 0xff;
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
  static size_t DirectoryIndex(uint64_t hash, uint64_t depth) {
    return static_cast<size_t>((hash >> 1) >> (63 - depth));
  }
  static uint64_t WordOf(const Segment* segment) {
    return reinterpret_cast<uintptr_t>(segment) | segment->lines_log2;
  }
  static Segment* SegmentOf(uint64_t word) { return reinterpret_cast<Segment*>(word & ~kSizeMask); }

  Array ArrayFor(uint64_t hash) const {
    const uint64_t directory = directory_.load(std::memory_order_acquire);
    const auto* words = reinterpret_cast<const std::atomic<uint64_t>*>(directory & ~kSizeMask);
    const uint64_t word =
        words[DirectoryIndex(hash, directory & kSizeMask)].load(std::memory_order_acquire);
    return {reinterpret_cast<const Line*>((word & ~kSizeMask) + sizeof(Segment)),
            (size_t{1} << (word & kSizeMask)) - 1};
  }
  static void PrefetchLine(Array array, uint64_t hash) {
    __builtin_prefetch(&array.lines[LineIndex(hash) & array.mask]);
  }
  static uint64_t Candidate(Array array, uint64_t hash);
  // The entry is what the search saw in the slot: the slot may hold something else by now.
  static Found FindSlot(Array array, uint64_t hash, const Key& key) {
    bool goes_on;
    const Line& line = array.lines[LineIndex(hash) & array.mask];
    const Found found = FindInLine(line, hash, key, &goes_on);
    if (goes_on) [[unlikely]]
      return FindBeyond(array, hash, key);
    return found;
  }
  [[gnu::always_inline]] static Found FindInLine(const Line& line, uint64_t hash, const Key& key,
                                                 bool* goes_on);
  // In the lines behind the first: few keys are there.
  static Found FindBeyond(Array array, uint64_t hash, const Key& key);

  // The writer's view of the directory, and its changes.
  std::atomic<uint64_t>* Words() const {
    return reinterpret_cast<std::atomic<uint64_t>*>(directory_.load(std::memory_order_relaxed) &
                                                    ~kSizeMask);
  }
  uint64_t Depth() const { return directory_.load(std::memory_order_relaxed) & kSizeMask; }
  Segment* SegmentFor(uint64_t hash) const {
    return SegmentOf(Words()[DirectoryIndex(hash, Depth())].load(std::memory_order_relaxed));
  }
  template <typename F>
  void ForEachSegment(F&& f) const;
  std::atomic<uint64_t>* NewDirectory(uint64_t depth);
  Segment* NewSegment(uint32_t depth, uint32_t lines_log2);
  static void FreeDirectory(void* words, void* /*context*/) {
    ::operator delete (words, std::align_val_t{64});
  }
  static void FreeSegment(void* segment, void* memory) {
    static_cast<BlockArena*>(memory)->Free(segment, static_cast<Segment*>(segment)->bytes());
  }
  void Retire(Segment* segment);
  void Discard(Segment* segment);
  void Link(Segment* segment, size_t prefix);
  static bool Insert(Segment* segment, uint64_t hash, uint64_t entry);
  // Each entry goes to one of the two, as the bit of its hash below the depth of `from` says.
  bool Copy(Segment* from, Segment* zero, Segment* one) const;
  bool Resize(Segment* segment, uint64_t hash, uint32_t lines_log2);
  bool Split(Segment* segment, uint64_t hash);
  bool DoubleDirectory();
  bool MakeRoom(Segment* segment, uint64_t hash);

  // Address of the words, one per value of the top Depth() bits of a hash, and that depth in the
  // low bits. A word is the address of a segment, with the logarithm of its lines in the low bits.
  std::atomic<uint64_t> directory_;
  const uint64_t seed_;
  Quiescence* const quiescence_;
  size_t size_ = 0;
  size_t bytes_ = 0;
};

template <typename Traits>
LockFreeTable<Traits>::LockFreeTable(Quiescence* quiescence, uint64_t seed)
    : seed_(seed), quiescence_(quiescence) {
  std::atomic<uint64_t>* words = NewDirectory(0);
  words[0].store(WordOf(NewSegment(0, kMinLinesLog2)), std::memory_order_relaxed);
  directory_.store(reinterpret_cast<uintptr_t>(words), std::memory_order_release);
}

template <typename Traits>
LockFreeTable<Traits>::~LockFreeTable() {
  ForEachSegment([this](Segment* segment) { FreeSegment(segment, &quiescence_->memory()); });
  FreeDirectory(Words(), nullptr);
}

template <typename Traits>
inline auto LockFreeTable<Traits>::FindInLine(const Line& line, uint64_t hash, const Key& key,
                                              bool* goes_on) -> Found {
  const uint64_t marks = line.marks.load(std::memory_order_acquire);
  *goes_on = false;
  for (uint64_t matches = Matches(marks, MarkOf(hash)); matches != 0; matches &= matches - 1) {
    const std::atomic<uint64_t>& slot = line.slots[FirstSlot(matches)];
    const uint64_t word = slot.load(std::memory_order_acquire);
    if ((word & ~kEntryMask) != TagOf(hash) || (word & kEntryMask) == 0) continue;
    if (Traits::Equal(word & kEntryMask, key)) return {&slot, word & kEntryMask};
  }
  *goes_on = Matches(marks, kEmpty) == 0;
  return {nullptr, 0};
}

template <typename Traits>
auto LockFreeTable<Traits>::FindBeyond(Array array, uint64_t hash, const Key& key) -> Found {
  Found found{nullptr, 0};
  bool goes_on = true;
  for (size_t probe = 1; probe < kMaxProbe && goes_on; ++probe) {
    const Line& line = array.lines[(LineIndex(hash) + probe) & array.mask];
    found = FindInLine(line, hash, key, &goes_on);
  }
  return found;
}

// The entry of the first line that is most likely the key's, or 0.
template <typename Traits>
uint64_t LockFreeTable<Traits>::Candidate(Array array, uint64_t hash) {
  const Line& line = array.lines[LineIndex(hash) & array.mask];
  const uint64_t matches = Matches(line.marks.load(std::memory_order_acquire), MarkOf(hash));
  if (matches == 0) return 0;
  const uint64_t word = line.slots[FirstSlot(matches)].load(std::memory_order_acquire);
  return (word & ~kEntryMask) == TagOf(hash) ? word & kEntryMask : 0;
}

template <typename Traits>
void LockFreeTable<Traits>::FindBatch(std::span<const Key* const> keys, uint64_t* out) const {
  constexpr size_t kGroup = 32;  // about what a core can have under way
  std::array<uint64_t, kGroup> hashes;
  std::array<Array, kGroup> arrays;
  for (size_t base = 0; base < keys.size(); base += kGroup) {
    const size_t count = std::min(kGroup, keys.size() - base);
    for (size_t i = 0; i < count; ++i) {
      hashes[i] = Traits::Hash(*keys[base + i], seed_);
      arrays[i] = ArrayFor(hashes[i]);
      PrefetchLine(arrays[i], hashes[i]);
    }
    for (size_t i = 0; i < count; ++i) {
      out[base + i] = Candidate(arrays[i], hashes[i]);
      if (out[base + i] != 0) __builtin_prefetch(Traits::LineOf(out[base + i]));
    }
    for (size_t i = 0; i < count; ++i) {
      const uint64_t candidate = out[base + i];
      if (candidate != 0 && Traits::Equal(candidate, *keys[base + i])) continue;
      out[base + i] = FindSlot(arrays[i], hashes[i], *keys[base + i]).entry;
    }
  }
}

template <typename Traits>
bool LockFreeTable<Traits>::Put(const Key& key, uint64_t entry, uint64_t* previous) {
  const uint64_t hash = Traits::Hash(key, seed_);
  const Found found = FindSlot(ArrayFor(hash), hash, key);
  *previous = found.entry;
  if (found.slot != nullptr) {
    const_cast<std::atomic<uint64_t>*>(found.slot)
        ->store(TagOf(hash) | entry, std::memory_order_release);
    return true;
  }
  for (;;) {
    Segment* segment = SegmentFor(hash);
    if (segment->HasRoom() && Insert(segment, hash, entry)) break;
    if (!MakeRoom(segment, hash)) return false;
  }
  ++size_;
  return true;
}

template <typename Traits>
uint64_t LockFreeTable<Traits>::Erase(const Key& key) {
  const uint64_t hash = Traits::Hash(key, seed_);
  const Found found = FindSlot(ArrayFor(hash), hash, key);
  if (found.slot == nullptr) return 0;
  Segment* segment = SegmentFor(hash);
  const auto* const first = reinterpret_cast<const std::atomic<uint64_t>*>(segment->lines());
  const auto word = static_cast<size_t>(found.slot - first);  // the first of each line is its marks
  Line& line = segment->lines()[word / (kSlotsPerLine + 1)];
  const size_t index = word % (kSlotsPerLine + 1) - 1;
  const uint64_t marks = line.marks.load(std::memory_order_relaxed);
  // A line that has an empty slot was never full, so no search goes on beyond it.
  const bool never_full = Matches(marks, kEmpty) != 0;
  line.marks.store(WithMark(marks, index, never_full ? kEmpty : kTombstone),
                   std::memory_order_release);
  line.slots[index].store(0, std::memory_order_release);
  segment->tombstones += !never_full;
  --segment->entries;
  --size_;
  // Tombstones make searches for absent keys longer; one rebuild pays for an eighth of the slots.
  if (segment->lines_log2 > kMinLinesLog2 && segment->entries < segment->slot_count() / 8) {
    Resize(segment, hash, segment->lines_log2 - 1);
  } else if (segment->tombstones > segment->slot_count() / 8) {
    Resize(segment, hash, segment->lines_log2);
  }
  return found.entry;
}

template <typename Traits>
size_t LockFreeTable<Traits>::capacity() const {
  size_t slots = 0;
  ForEachSegment([&slots](Segment* segment) { slots += segment->slot_count(); });
  return slots;
}

template <typename Traits>
template <typename F>
void LockFreeTable<Traits>::ForEachSegment(F&& f) const {
  const std::atomic<uint64_t>* words = Words();
  const uint64_t depth = Depth();
  for (size_t i = 0; i < size_t{1} << depth;) {
    Segment* segment = SegmentOf(words[i].load(std::memory_order_relaxed));
    i += size_t{1} << (depth - segment->depth);
    f(segment);
  }
}

template <typename Traits>
std::atomic<uint64_t>* LockFreeTable<Traits>::NewDirectory(uint64_t depth) {
  const size_t count = size_t{1} << depth;
  void* memory = ::operator new (count * sizeof(std::atomic<uint64_t>), std::align_val_t{64});
  bytes_ += count * sizeof(std::atomic<uint64_t>);
  auto* words = static_cast<std::atomic<uint64_t>*>(memory);
  for (size_t i = 0; i < count; ++i) new (&words[i]) std::atomic<uint64_t>(0);
  return words;
}

template <typename Traits>
typename LockFreeTable<Traits>::Segment* LockFreeTable<Traits>::NewSegment(uint32_t depth,
                                                                           uint32_t lines_log2) {
  Segment notes;
  notes.depth = depth;
  notes.lines_log2 = lines_log2;
  auto* segment = new (quiescence_->memory().Allocate(notes.bytes())) Segment(notes);
  for (size_t i = 0; i < segment->line_count(); ++i) new (segment->lines() + i) Line;
  bytes_ += segment->bytes();
  return segment;
}

template <typename Traits>
void LockFreeTable<Traits>::Retire(Segment* segment) {
  bytes_ -= segment->bytes();
  quiescence_->Retire(segment, FreeSegment, &quiescence_->memory());
}

template <typename Traits>
void LockFreeTable<Traits>::Discard(Segment* segment) {
  bytes_ -= segment->bytes();
  FreeSegment(segment, &quiescence_->memory());
}

// `prefix`: the top `segment->depth` bits of the hashes in it.
template <typename Traits>
void LockFreeTable<Traits>::Link(Segment* segment, size_t prefix) {
  const size_t count = size_t{1} << (Depth() - segment->depth);
  for (size_t i = 0; i < count; ++i) {
    Words()[prefix * count + i].store(WordOf(segment), std::memory_order_release);
  }
}

template <typename Traits>
bool LockFreeTable<Traits>::Insert(Segment* segment, uint64_t hash, uint64_t entry) {
  for (size_t probe = 0; probe < kMaxProbe; ++probe) {
    Line& line = segment->lines()[(LineIndex(hash) + probe) & (segment->line_count() - 1)];
    const uint64_t marks = line.marks.load(std::memory_order_relaxed);
    uint64_t free = Matches(marks, kEmpty);
    const bool tombstone = free == 0;
    if (tombstone) free = Matches(marks, kTombstone);
    if (free == 0) continue;
    line.slots[FirstSlot(free)].store(TagOf(hash) | entry, std::memory_order_release);
    line.marks.store(WithMark(marks, FirstSlot(free), MarkOf(hash)), std::memory_order_release);
    segment->tombstones -= tombstone;
    ++segment->entries;
    return true;
  }
  return false;
}

template <typename Traits>
bool LockFreeTable<Traits>::Copy(Segment* from, Segment* zero, Segment* one) const {
  for (size_t i = 0; i < from->line_count(); ++i) {
    // Objects lie anywhere in memory: fetch those of a line four lines ahead.
    const Line& ahead = from->lines()[std::min(i + 4, from->line_count() - 1)];
    for (const auto& slot : ahead.slots) {
      const uint64_t word = slot.load(std::memory_order_relaxed);
      if (word != 0) __builtin_prefetch(Traits::LineOf(word & kEntryMask));
    }
    for (const auto& slot : from->lines()[i].slots) {
      const uint64_t word = slot.load(std::memory_order_relaxed);
      if (word == 0) continue;
      const uint64_t entry = word & kEntryMask;
      const uint64_t hash = Traits::Hash(Traits::KeyOf(entry), seed_);
      Segment* to = ((hash >> (63 - from->depth)) & 1) == 0 ? zero : one;
      if (!Insert(to, hash, entry)) return false;
    }
  }
  return true;
}

template <typename Traits>
bool LockFreeTable<Traits>::Resize(Segment* segment, uint64_t hash, uint32_t lines_log2) {
  Segment* next = NewSegment(segment->depth, lines_log2);
  if (!Copy(segment, next, next)) {
    Discard(next);
    return false;
  }
  Link(next, DirectoryIndex(hash, segment->depth));
  Retire(segment);
  return true;
}

template <typename Traits>
bool LockFreeTable<Traits>::Split(Segment* segment, uint64_t hash) {
  if (segment->depth == Depth() && !DoubleDirectory()) return false;
  Segment* zero = NewSegment(segment->depth + 1, kMaxLinesLog2);
  Segment* one = NewSegment(segment->depth + 1, kMaxLinesLog2);
  if (!Copy(segment, zero, one)) {
    Discard(zero);
    Discard(one);
    return false;
  }
  const size_t prefix = DirectoryIndex(hash, segment->depth) * 2;
  Link(zero, prefix);
  Link(one, prefix + 1);
  Retire(segment);
  return true;
}

template <typename Traits>
bool LockFreeTable<Traits>::DoubleDirectory() {
  const uint64_t depth = Depth();
  if (depth == kMaxDepth) return false;
  std::atomic<uint64_t>* old = Words();
  std::atomic<uint64_t>* words = NewDirectory(depth + 1);
  for (size_t i = 0; i < size_t{2} << depth; ++i) {
    words[i].store(old[i / 2].load(std::memory_order_relaxed), std::memory_order_relaxed);
  }
  directory_.store(reinterpret_cast<uintptr_t>(words) | (depth + 1), std::memory_order_release);
  bytes_ -= (size_t{1} << depth) * sizeof(std::atomic<uint64_t>);
  quiescence_->Retire(old, FreeDirectory);
  return true;
}

template <typename Traits>
bool LockFreeTable<Traits>::MakeRoom(Segment* segment, uint64_t hash) {
  const bool shed = segment->tombstones * 4 > segment->entries;
  for (uint32_t lines = segment->lines_log2 + !shed; lines <= kMaxLinesLog2; ++lines) {
    if (Resize(segment, hash, lines)) return true;
  }
  return Split(segment, hash);
}

}  // namespace ringsock

#endif  // RINGSOCK_CORE_LOCK_FREE_TABLE_H_
