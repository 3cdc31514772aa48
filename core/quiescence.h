// Quiescent-state reclamation: how memory that lock-free readers may still look at is freed. A
// reader says once per loop that it holds no pointer; what was unlinked before every reader has
// said so can be freed. Readers pay one load and one store to a cache line of their own per loop.
#ifndef RINGSOCK_CORE_QUIESCENCE_H_
#define RINGSOCK_CORE_QUIESCENCE_H_

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <utility>

#include "absl/status/statusor.h"
#include "base/block_arena.h"

namespace ringsock {

// Readers are threads that look into structures guarded by it; there is one writer, which unlinks
// and retires. Retire, Reclaim, Advance and the memory are the writer's; all else is for any
// thread.
class Quiescence {
  struct alignas(64) Word {
    std::atomic<uint64_t> epoch{0};  // the epoch last announced; 0 while offline
    std::atomic<bool> claimed{false};
  };

 public:
  // Shards, Senders and other threads at one time. Each that was ever used is one line to scan.
  static constexpr size_t kMaxReaders = 1024;

 private:
  // What readers touch, in an allocation of its own: with use-after-return detection, GCC 12 puts
  // over-aligned locals at misaligned addresses, and whoever holds a Quiescence may be a local.
  struct Shared {
    // 0 means offline, so epochs begin at 1. On a line of its own: every reader loads it.
    alignas(64) std::atomic<uint64_t> epoch{1};
    alignas(64) std::atomic<size_t> used_words{0};  // words at and above were never claimed
    std::array<Word, kMaxReaders> words;
  };

 public:
  // One reader's right to read. Belongs to one thread at a time; born offline; gives its place back
  // when destroyed. The Quiescence outlives it.
  class Reader {
   public:
    Reader() = default;
    Reader(Reader&& other) noexcept { *this = std::move(other); }
    Reader& operator=(Reader&& other) noexcept {
      Release();
      shared_ = std::exchange(other.shared_, nullptr);
      word_ = std::exchange(other.word_, nullptr);
      return *this;
    }
    ~Reader() { Release(); }

    // A quiescent point: from here on, no pointer read before is used. Once per loop, while online.
    void Announce() {
      word_->epoch.store(shared_->epoch.load(std::memory_order_acquire), std::memory_order_release);
    }
    // Before sleeping: holds nothing and reads nothing until Online().
    void Offline() { word_->epoch.store(0, std::memory_order_release); }
    void Online();
    bool online() const { return word_->epoch.load(std::memory_order_relaxed) != 0; }

   private:
    friend class Quiescence;
    Reader(Shared* shared, Word* word) : shared_(shared), word_(word) {}
    void Release();

    Shared* shared_ = nullptr;
    Word* word_ = nullptr;
  };

  // Online for the length of a scope.
  class Section {
   public:
    explicit Section(Reader* reader) : reader_(reader) { reader_->Online(); }
    ~Section() { reader_->Offline(); }
    Section(const Section&) = delete;
    Section& operator=(const Section&) = delete;

   private:
    Reader* reader_;
  };

  Quiescence();
  Quiescence(const Quiescence&) = delete;
  Quiescence& operator=(const Quiescence&) = delete;
  // Frees all that is pending. No reader may be left.
  ~Quiescence();

  // Costs a few compare-and-swaps, no allocation. ResourceExhausted when kMaxReaders exist.
  absl::StatusOr<Reader> Register();

  // Frees an object that has been unlinked, by free(object, context), from inside a later
  // Reclaim().
  using FreeFunction = void (*)(void* object, void* context);
  void Retire(void* object, FreeFunction free, void* context = nullptr);

  // Frees what no reader can hold any more; never waits. Returns how many objects are still
  // pending: readers that go on announcing keep this to what was retired within about one loop of
  // theirs.
  size_t Reclaim();
  size_t pending() const { return pending_.size(); }
  // For what will be retired: it outlives all of that.
  BlockArena& memory() { return memory_; }

  // For a writer that needs to know when all readers have seen what it did: Passed(Advance()) turns
  // true when every reader has announced, or been offline, since.
  uint64_t Advance() { return shared_->epoch.fetch_add(1, std::memory_order_seq_cst) + 1; }
  bool Passed(uint64_t epoch) const { return OldestReader() >= epoch; }
  // The writer's: what the next Advance() will return, be it that of a Reclaim() with something to
  // mark. Passed() of it is false until then.
  uint64_t NextEpoch() const { return shared_->epoch.load(std::memory_order_relaxed) + 1; }

 private:
  struct Retired {
    uint64_t epoch;  // may be freed when every reader has reached it
    void* object;
    FreeFunction free;
    void* context;
  };

  uint64_t OldestReader() const;

  const std::unique_ptr<Shared> shared_;
  // The writer's.
  BlockArena memory_;
  std::deque<Retired> pending_;
  size_t unmarked_ = 0;  // at the end of pending_, not given an epoch yet
};

}  // namespace ringsock

#endif  // RINGSOCK_CORE_QUIESCENCE_H_
