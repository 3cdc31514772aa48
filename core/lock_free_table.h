// A hash table that many threads read without locks or retries while one thread writes.
//
// It is made of cache lines, the unit of probing, of one of two kinds (core/table_line.h). A line
// that has an empty slot ends a search; a line that was ever full keeps that state (removal leaves
// a tombstone there), so what lies beyond it is still found.
//
// The table is cut into segments of at most 512 lines by the top bits of the hash (extendible
// hashing). A segment grows, shrinks or sheds tombstones by a new array that takes its place, and
// splits in two when it is full: no single update ever moves more than one segment. Arrays that
// have been replaced go to Quiescence.
#ifndef RINGSOCK_CORE_LOCK_FREE_TABLE_H_
#define RINGSOCK_CORE_LOCK_FREE_TABLE_H_

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <new>

#include "core/quiescence.h"
#include "core/table_line.h"

namespace ringsock {

// A search under way (LockFreeTable::Begin).
struct TableSearch {
  uint64_t hash;
  const void* line;
};

// Traits: what the kind of line asks for, and kMostSixteenths of slots that are in use before a
// segment grows or splits. An entry is never 0.
template <typename Traits, template <typename> typename LineKind = TaggedLine>
class LockFreeTable {
 public:
  using Key = typename Traits::Key;
  using Line = LineKind<Traits>;

  LockFreeTable(Quiescence* quiescence, uint64_t seed);
  // No reader may be left. Entries are the owner's.
  ~LockFreeTable();
  LockFreeTable(const LockFreeTable&) = delete;
  LockFreeTable& operator=(const LockFreeTable&) = delete;

  // --- Any online reader of the Quiescence. Wait-free: at most kMaxProbe lines. ---

  // The entry of `key`, or 0.
  uint64_t Find(const Key& key) const {
    const uint64_t hash = Traits::Hash(key, seed_);
    return FindIn(ArrayFor(hash), hash, key).match.entry;
  }
  // Finding many keys with the waits for memory overlapped, in the caller's loops: Begin() for all,
  // then Glance() for all, then Finish() for those whose glance was not all.
  TableSearch Begin(const Key& key) const {
    const uint64_t hash = Traits::Hash(key, seed_);
    const Array array = ArrayFor(hash);
    const Line* line = &array.lines[LineIndex(hash) & array.mask];
    __builtin_prefetch(line);
    return {hash, line};
  }
  static LineGlance Glance(const TableSearch& search) {
    return static_cast<const Line*>(search.line)->Glance(search.hash);
  }
  // The entry of `key`, or 0. `entry`: what the glance told.
  uint64_t Finish(const TableSearch& search, const Key& key, uint64_t entry) const {
    if (Line::Confirm(entry, key)) return entry;
    return FindIn(ArrayFor(search.hash), search.hash, key).match.entry;
  }

  // --- The writer ---

  // Puts `entry`, which belongs to `key`, in, in place of the one with an equal key if there is
  // one, which goes to `*previous` (0: none). False, and nothing changed, only if no room can be
  // made: dozens of keys share 24 bits of hash, or there are more than some 40 million entries, of
  // which few and then more are refused.
  bool Put(const Key& key, uint64_t entry, uint64_t* previous);
  // Takes the entry of `key` out and returns it; 0 if there is none.
  uint64_t Erase(const Key& key);
  size_t size() const { return size_; }
  // Bytes of all arrays in use.
  size_t MemoryUsed() const { return bytes_; }
  // Slots of all segments.
  size_t capacity() const;

 private:
  // Lines searched for a key; an insertion that finds no room there makes more.
  static constexpr size_t kMaxProbe = 16;
  // Binary logarithms of a segment's lines: at least kMaxProbe, so that a search meets no line
  // twice; at most 512, which takes 0.1 ms to rebuild, the longest that any update takes.
  static constexpr uint32_t kMinLinesLog2 = 4;
  static constexpr uint32_t kMaxLinesLog2 = 9;
  // The most top bits of the hash that name a segment: room for some 40 million
  // entries; beyond, a search of kMaxProbe lines may end before there is room for one more.
  static constexpr uint32_t kMaxDepth = 15;
  // Low bits of the address of the directory, free for its depth.
  static constexpr uint64_t kDepthMask = 63;
  // Above the address of a segment there is room for a number: one less than it has lines.
  static constexpr int kAddressBits = 48;
  static constexpr uint64_t kAddressMask = (uint64_t{1} << kAddressBits) - 1;

  // The writer's notes, in the line before the slots.
  struct alignas(64) Segment {
    uint32_t depth = 0;  // how many top bits of the hash all its keys share
    uint32_t lines_log2 = 0;
    uint32_t entries = 0;
    uint32_t tombstones = 0;
    uint64_t last_erase = 0;  // the epoch in which all readers have seen it

    Line* lines() { return reinterpret_cast<Line*>(this + 1); }
    size_t line_count() const { return size_t{1} << lines_log2; }
    size_t slot_count() const { return line_count() * Line::kSlots; }
    size_t bytes() const { return sizeof(Segment) + line_count() * sizeof(Line); }
    // Beyond, lines overflow often. (A split leaves half of it.)
    bool HasRoom() const {
      return (entries + tombstones + 1) * 16 <= slot_count() * Traits::kMostSixteenths;
    }
  };
  struct Array {
    const Line* lines;
    size_t mask;
  };
  struct Found {
    const Line* line;  // the one in which the search ended
    LineMatch match;
  };

  // Bits of the hash: from 2 the line, from the top the segment; the kinds of lines use others.
  static size_t LineIndex(uint64_t hash) { return static_cast<size_t>(hash >> 2); }
  static size_t DirectoryIndex(uint64_t hash, uint64_t depth) {
    return static_cast<size_t>((hash >> 1) >> (63 - depth));
  }
  static uint64_t WordOf(const Segment* segment) {
    return reinterpret_cast<uintptr_t>(segment) | (segment->line_count() - 1) << kAddressBits;
  }
  static Segment* SegmentOf(uint64_t word) {
    return reinterpret_cast<Segment*>(word & kAddressMask);
  }

  Array ArrayFor(uint64_t hash) const {
    const uint64_t directory = directory_.load(std::memory_order_acquire);
    const auto* words = reinterpret_cast<const std::atomic<uint64_t>*>(directory & ~kDepthMask);
    const uint64_t word =
        words[DirectoryIndex(hash, directory & kDepthMask)].load(std::memory_order_acquire);
    return {SegmentOf(word)->lines(), static_cast<size_t>(word >> kAddressBits)};
  }
  // The entry is what the search saw in the slot: the slot may hold something else by now.
  static Found FindIn(Array array, uint64_t hash, const Key& key) {
    bool goes_on;
    const Line& line = array.lines[LineIndex(hash) & array.mask];
    const LineMatch match = line.Find(hash, key, &goes_on);
    if (goes_on) [[unlikely]]
      return FindBeyond(array, hash, key);
    return {&line, match};
  }
  // In the lines behind the first: few keys are there.
  static Found FindBeyond(Array array, uint64_t hash, const Key& key);

  // The writer's view of the directory, and its changes.
  std::atomic<uint64_t>* Words() const {
    return reinterpret_cast<std::atomic<uint64_t>*>(directory_.load(std::memory_order_relaxed) &
                                                    ~kDepthMask);
  }
  uint64_t Depth() const { return directory_.load(std::memory_order_relaxed) & kDepthMask; }
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
  bool Insert(Segment* segment, uint64_t hash, uint64_t entry) const;
  // Each entry goes to one of the two, as the bit of its hash below the depth of `from` says.
  bool Copy(Segment* from, Segment* zero, Segment* one) const;
  bool Resize(Segment* segment, uint64_t hash, uint32_t lines_log2);
  bool Split(Segment* segment, uint64_t hash);
  bool DoubleDirectory();
  bool MakeRoom(Segment* segment, uint64_t hash);

  // Address of the words, one per value of the top Depth() bits of a hash, and that depth in the
  // low bits. A word is the address of a segment, with one less than it has lines above.
  std::atomic<uint64_t> directory_;
  const uint64_t seed_;
  Quiescence* const quiescence_;
  size_t size_ = 0;
  size_t bytes_ = 0;
};

template <typename Traits, template <typename> typename LineKind>
LockFreeTable<Traits, LineKind>::LockFreeTable(Quiescence* quiescence, uint64_t seed)
    : seed_(seed), quiescence_(quiescence) {
  std::atomic<uint64_t>* words = NewDirectory(0);
  words[0].store(WordOf(NewSegment(0, kMinLinesLog2)), std::memory_order_relaxed);
  directory_.store(reinterpret_cast<uintptr_t>(words), std::memory_order_release);
}

template <typename Traits, template <typename> typename LineKind>
LockFreeTable<Traits, LineKind>::~LockFreeTable() {
  ForEachSegment([this](Segment* segment) { FreeSegment(segment, &quiescence_->memory()); });
  FreeDirectory(Words(), nullptr);
}

template <typename Traits, template <typename> typename LineKind>
auto LockFreeTable<Traits, LineKind>::FindBeyond(Array array, uint64_t hash, const Key& key)
    -> Found {
  Found found{nullptr, {0, 0}};
  bool goes_on = true;
  for (size_t probe = 1; probe < kMaxProbe && goes_on; ++probe) {
    found.line = &array.lines[(LineIndex(hash) + probe) & array.mask];
    found.match = found.line->Find(hash, key, &goes_on);
  }
  return found;
}

template <typename Traits, template <typename> typename LineKind>
bool LockFreeTable<Traits, LineKind>::Put(const Key& key, uint64_t entry, uint64_t* previous) {
  const uint64_t hash = Traits::Hash(key, seed_);
  const Found found = FindIn(ArrayFor(hash), hash, key);
  *previous = found.match.entry;
  if (found.match.entry != 0) {
    const_cast<Line*>(found.line)->Replace(found.match.slot, hash, entry);
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

template <typename Traits, template <typename> typename LineKind>
uint64_t LockFreeTable<Traits, LineKind>::Erase(const Key& key) {
  const uint64_t hash = Traits::Hash(key, seed_);
  const Found found = FindIn(ArrayFor(hash), hash, key);
  if (found.match.entry == 0) return 0;
  Segment* segment = SegmentFor(hash);
  segment->tombstones += const_cast<Line*>(found.line)->Erase(found.match.slot);
  segment->last_erase = quiescence_->NextEpoch();
  --segment->entries;
  --size_;
  // Tombstones make searches for absent keys longer; one rebuild pays for an eighth of the slots.
  if (segment->lines_log2 > kMinLinesLog2 && segment->entries < segment->slot_count() / 8) {
    Resize(segment, hash, segment->lines_log2 - 1);
  } else if (segment->tombstones > segment->slot_count() / 8) {
    Resize(segment, hash, segment->lines_log2);
  }
  return found.match.entry;
}

template <typename Traits, template <typename> typename LineKind>
size_t LockFreeTable<Traits, LineKind>::capacity() const {
  size_t slots = 0;
  ForEachSegment([&slots](Segment* segment) { slots += segment->slot_count(); });
  return slots;
}

template <typename Traits, template <typename> typename LineKind>
template <typename F>
void LockFreeTable<Traits, LineKind>::ForEachSegment(F&& f) const {
  const std::atomic<uint64_t>* words = Words();
  const uint64_t depth = Depth();
  for (size_t i = 0; i < size_t{1} << depth;) {
    Segment* segment = SegmentOf(words[i].load(std::memory_order_relaxed));
    i += size_t{1} << (depth - segment->depth);
    f(segment);
  }
}

template <typename Traits, template <typename> typename LineKind>
std::atomic<uint64_t>* LockFreeTable<Traits, LineKind>::NewDirectory(uint64_t depth) {
  const size_t count = size_t{1} << depth;
  void* memory = ::operator new (count * sizeof(std::atomic<uint64_t>), std::align_val_t{64});
  bytes_ += count * sizeof(std::atomic<uint64_t>);
  auto* words = static_cast<std::atomic<uint64_t>*>(memory);
  for (size_t i = 0; i < count; ++i) new (&words[i]) std::atomic<uint64_t>(0);
  return words;
}

template <typename Traits, template <typename> typename LineKind>
typename LockFreeTable<Traits, LineKind>::Segment* LockFreeTable<Traits, LineKind>::NewSegment(
    uint32_t depth, uint32_t lines_log2) {
  Segment notes;
  notes.depth = depth;
  notes.lines_log2 = lines_log2;
  auto* segment = new (quiescence_->memory().Allocate(notes.bytes())) Segment(notes);
  for (size_t i = 0; i < segment->line_count(); ++i) new (segment->lines() + i) Line;
  bytes_ += segment->bytes();
  return segment;
}

template <typename Traits, template <typename> typename LineKind>
void LockFreeTable<Traits, LineKind>::Retire(Segment* segment) {
  bytes_ -= segment->bytes();
  quiescence_->Retire(segment, FreeSegment, &quiescence_->memory());
}

template <typename Traits, template <typename> typename LineKind>
void LockFreeTable<Traits, LineKind>::Discard(Segment* segment) {
  bytes_ -= segment->bytes();
  FreeSegment(segment, &quiescence_->memory());
}

// `prefix`: the top `segment->depth` bits of the hashes in it.
template <typename Traits, template <typename> typename LineKind>
void LockFreeTable<Traits, LineKind>::Link(Segment* segment, size_t prefix) {
  const size_t count = size_t{1} << (Depth() - segment->depth);
  for (size_t i = 0; i < count; ++i) {
    Words()[prefix * count + i].store(WordOf(segment), std::memory_order_release);
  }
}

template <typename Traits, template <typename> typename LineKind>
bool LockFreeTable<Traits, LineKind>::Insert(Segment* segment, uint64_t hash,
                                             uint64_t entry) const {
  // Asked once, as it looks at every reader.
  bool asked = false;
  bool passed = false;
  const auto may_reuse = [&] {
    if (!asked && segment->last_erase != quiescence_->NextEpoch()) {
      passed = quiescence_->Passed(segment->last_erase);
    }
    asked = true;
    return passed;
  };
  for (size_t probe = 0; probe < kMaxProbe; ++probe) {
    Line& line = segment->lines()[(LineIndex(hash) + probe) & (segment->line_count() - 1)];
    bool tombstone;
    if (!line.Insert(hash, entry, may_reuse, &tombstone)) continue;
    segment->tombstones -= tombstone;
    ++segment->entries;
    return true;
  }
  return false;
}

template <typename Traits, template <typename> typename LineKind>
bool LockFreeTable<Traits, LineKind>::Copy(Segment* from, Segment* zero, Segment* one) const {
  for (size_t i = 0; i < from->line_count(); ++i) {
    from->lines()[std::min(i + 4, from->line_count() - 1)].PrefetchObjects();
    const auto put = [this, from, zero, one](uint64_t hash, uint64_t entry) {
      return Insert(((hash >> (63 - from->depth)) & 1) == 0 ? zero : one, hash, entry);
    };
    if (!from->lines()[i].ForEach(seed_, put)) return false;
  }
  return true;
}

template <typename Traits, template <typename> typename LineKind>
bool LockFreeTable<Traits, LineKind>::Resize(Segment* segment, uint64_t hash, uint32_t lines_log2) {
  Segment* next = NewSegment(segment->depth, lines_log2);
  if (!Copy(segment, next, next)) {
    Discard(next);
    return false;
  }
  Link(next, DirectoryIndex(hash, segment->depth));
  Retire(segment);
  return true;
}

template <typename Traits, template <typename> typename LineKind>
bool LockFreeTable<Traits, LineKind>::Split(Segment* segment, uint64_t hash) {
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

template <typename Traits, template <typename> typename LineKind>
bool LockFreeTable<Traits, LineKind>::DoubleDirectory() {
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

template <typename Traits, template <typename> typename LineKind>
bool LockFreeTable<Traits, LineKind>::MakeRoom(Segment* segment, uint64_t hash) {
  const bool shed = segment->tombstones * 4 > segment->entries;
  for (uint32_t lines = segment->lines_log2 + !shed; lines <= kMaxLinesLog2; ++lines) {
    if (Resize(segment, hash, lines)) return true;
  }
  return Split(segment, hash);
}

}  // namespace ringsock

#endif  // RINGSOCK_CORE_LOCK_FREE_TABLE_H_
