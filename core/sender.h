// Sends from threads that are not a shard's: the bounded rings between all Senders and all shards,
// one ring for each pair, and the bits that tell a shard which rings to look at.
//
// A Sender's place outlives it: its rings are handed to the next Sender, so a shard may drain them
// at any time without asking who is alive.
#ifndef RINGSOCK_CORE_SENDER_H_
#define RINGSOCK_CORE_SENDER_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "absl/status/statusor.h"
#include "base/cache_line.h"
#include "core/counters.h"
#include "core/engine.h"
#include "core/packet_ring.h"
#include "core/path_learner.h"
#include "core/peer_table.h"
#include "core/quiescence.h"
#include "io/loop.h"

namespace ringsock {

class SenderQueues {
 public:
  // What Senders learn paths with. All of it outlives them.
  struct Paths {
    PeerTable* peers = nullptr;
    Quiescence* quiescence = nullptr;
    PathReports* reports = nullptr;
  };

  // `loops` are the shards', in order; they outlive this. `ring_packets` per Sender and shard.
  SenderQueues(std::vector<io::Loop*> loops, const Paths& paths, uint32_t max_senders,
               uint32_t ring_packets);
  ~SenderQueues();

  // Any thread. ResourceExhausted when `max_senders`, or too many readers of the peers, exist;
  // FailedPrecondition after Close().
  absl::StatusOr<std::unique_ptr<Sender>> NewSender();

  // Shard's thread: true if Drain() would find something.
  bool Pending(uint32_t shard) const;
  // Shard's thread: shows waiting trains to deliver(const PacketRecord&), at most `budget` of each
  // Sender, so that a busy one holds up neither the others nor what is received. The bytes stay
  // until Release(), which is due before the next Drain(). Returns how many trains were shown.
  template <typename Deliver>
  size_t Drain(uint32_t shard, size_t budget, Deliver&& deliver);
  void Release(uint32_t shard);

  // After the shards' threads have ended. What still waits is counted as Drop::kClosed, and so is
  // what is sent from here on.
  void Close();
  // What was dropped before it reached a shard.
  CounterSnapshot Counters() const;

 private:
  class SenderImpl;
  // A Sender's place. Made when first needed, kept until the end.
  struct Place {
    std::vector<std::unique_ptr<PacketRing>> rings;  // by shard
    ShardCounters counters;                          // written by the Sender's thread
    bool taken = false;                              // guarded by mutex_
  };
  // One bit for each place, for each shard: what Senders tell it, and on a line of its own what it
  // has to release.
  struct alignas(kCacheLine) PendingWord {
    std::atomic<uint64_t> bits{0};
    alignas(kCacheLine) uint64_t drained = 0;
  };

  void Publish(uint32_t shard, size_t place);
  void GiveBack(size_t place);
  void CountLeftovers(Place& place);
  std::atomic<uint64_t>& Word(uint32_t shard, size_t word) const {
    return pending_[shard * words_ + word].bits;
  }
  uint64_t& Drained(uint32_t shard, size_t word) const {
    return pending_[shard * words_ + word].drained;
  }

  const std::vector<io::Loop*> loops_;
  const Paths paths_;
  const uint32_t ring_packets_;
  const size_t words_;  // of 64 places, per shard
  const std::unique_ptr<PendingWord[]> pending_;
  // Entries are written before their bit is first set, so shards may read them without the lock.
  const std::unique_ptr<std::unique_ptr<Place>[]> places_;
  const size_t max_places_;
  std::atomic<bool> closed_{false};
  mutable std::mutex mutex_;
  size_t made_ = 0;  // places that exist, guarded by mutex_
};

template <typename Deliver>
size_t SenderQueues::Drain(uint32_t shard, size_t budget, Deliver&& deliver) {
  size_t shown = 0;
  for (size_t word = 0; word < words_; ++word) {
    if (Word(shard, word).load(std::memory_order_relaxed) == 0) continue;
    uint64_t bits = Word(shard, word).exchange(0, std::memory_order_acquire);
    Drained(shard, word) |= bits;
    uint64_t unfinished = 0;
    for (; bits != 0; bits &= bits - 1) {
      const auto bit = static_cast<size_t>(std::countr_zero(bits));
      PacketRing& ring = *places_[word * 64 + bit]->rings[shard];
      size_t left = budget;
      while (left > 0) {
        const PacketRecord* record = ring.Next();
        if (record == nullptr) break;
        deliver(*record);
        --left;
        ++shown;
      }
      if (left == 0 && ring.HasNext()) unfinished |= uint64_t{1} << bit;
    }
    if (unfinished != 0) Word(shard, word).fetch_or(unfinished, std::memory_order_relaxed);
  }
  return shown;
}

}  // namespace ringsock

#endif  // RINGSOCK_CORE_SENDER_H_
