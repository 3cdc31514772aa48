// Tests of quiescent-state reclamation: what holds memory back, what does not, and threads that
// read while a writer frees as fast as it can.
#include "core/quiescence.h"

#include <thread>
#include <vector>

#include "gtest/gtest.h"

namespace ringsock {
namespace {

void SetFlag(void* object, void* /*context*/) { *static_cast<bool*>(object) = true; }

TEST(QuiescenceTest, WithoutReadersEverythingGoesAtOnce) {
  Quiescence quiescence;
  bool freed = false;
  quiescence.Retire(&freed, SetFlag);
  EXPECT_FALSE(freed);
  EXPECT_EQ(quiescence.pending(), 1u);
  EXPECT_EQ(quiescence.Reclaim(), 0u);
  EXPECT_TRUE(freed);
}

TEST(QuiescenceTest, AnOnlineReaderHoldsWhatItMaySee) {
  Quiescence quiescence;
  auto reader = *quiescence.Register();
  reader.Online();
  bool freed = false;
  quiescence.Retire(&freed, SetFlag);
  EXPECT_EQ(quiescence.Reclaim(), 1u);
  EXPECT_EQ(quiescence.Reclaim(), 1u);
  EXPECT_FALSE(freed);
  reader.Announce();
  EXPECT_EQ(quiescence.Reclaim(), 0u);
  EXPECT_TRUE(freed);
}

TEST(QuiescenceTest, AnAnnouncementBeforeRetirementDoesNotCount) {
  Quiescence quiescence;
  auto reader = *quiescence.Register();
  reader.Online();
  bool freed = false;
  quiescence.Retire(&freed, SetFlag);
  reader.Announce();  // the epoch of the retirement begins with Reclaim()
  EXPECT_EQ(quiescence.Reclaim(), 1u);
  reader.Announce();
  EXPECT_EQ(quiescence.Reclaim(), 0u);
}

TEST(QuiescenceTest, OfflineAndUnregisteredReadersHoldNothing) {
  Quiescence quiescence;
  auto offline = *quiescence.Register();
  offline.Online();
  offline.Offline();
  EXPECT_FALSE(offline.online());
  {
    auto gone = *quiescence.Register();
    gone.Online();
  }
  bool freed = false;
  quiescence.Retire(&freed, SetFlag);
  EXPECT_EQ(quiescence.Reclaim(), 0u);
  EXPECT_TRUE(freed);
}

TEST(QuiescenceTest, EveryReaderHasToPass) {
  Quiescence quiescence;
  auto first = *quiescence.Register();
  auto second = *quiescence.Register();
  first.Online();
  second.Online();
  bool old_freed = false, new_freed = false;
  quiescence.Retire(&old_freed, SetFlag);
  quiescence.Reclaim();
  first.Announce();
  quiescence.Retire(&new_freed, SetFlag);
  EXPECT_EQ(quiescence.Reclaim(), 2u);
  second.Announce();  // has passed both, first only the old one
  EXPECT_EQ(quiescence.Reclaim(), 1u);
  EXPECT_TRUE(old_freed);
  EXPECT_FALSE(new_freed);
  first.Offline();
  EXPECT_EQ(quiescence.Reclaim(), 0u);
}

TEST(QuiescenceTest, PassedTellsWhenAllReadersHaveSeen) {
  Quiescence quiescence;
  auto reader = *quiescence.Register();
  EXPECT_TRUE(quiescence.Passed(quiescence.Advance()));
  reader.Online();
  const uint64_t epoch = quiescence.Advance();
  EXPECT_FALSE(quiescence.Passed(epoch));
  reader.Announce();
  EXPECT_TRUE(quiescence.Passed(epoch));
  const uint64_t later = quiescence.Advance();
  EXPECT_FALSE(quiescence.Passed(later));
  EXPECT_TRUE(quiescence.Passed(epoch));
  { const Quiescence::Reader gone = std::move(reader); }
  EXPECT_TRUE(quiescence.Passed(later));
}

TEST(QuiescenceTest, ASectionIsOnlineForItsScope) {
  Quiescence quiescence;
  auto reader = *quiescence.Register();
  {
    Quiescence::Section section(&reader);
    EXPECT_TRUE(reader.online());
  }
  EXPECT_FALSE(reader.online());
}

TEST(QuiescenceTest, ReadersAreBoundedAndTheirPlacesReused) {
  Quiescence quiescence;
  std::vector<Quiescence::Reader> readers;
  for (size_t i = 0; i < Quiescence::kMaxReaders; ++i) readers.push_back(*quiescence.Register());
  EXPECT_EQ(quiescence.Register().status().code(), absl::StatusCode::kResourceExhausted);
  readers.pop_back();
  EXPECT_TRUE(quiescence.Register().ok());
}

TEST(QuiescenceTest, TheDestructorFreesWhatIsPending) {
  bool freed = false;
  {
    Quiescence quiescence;
    quiescence.Retire(&freed, SetFlag);
  }
  EXPECT_TRUE(freed);
}

// Readers follow a pointer that a writer replaces flat out; freed memory is overwritten, so that a
// reader of it would see that even without a sanitizer.
TEST(QuiescenceThreadTest, NothingIsFreedUnderAReader) {
  constexpr uint64_t kAlive = 0x5ca1ab1e;
  struct Node {
    uint64_t mark = kAlive;
  };
  Quiescence quiescence;
  std::atomic<Node*> shared{new Node};
  std::atomic<bool> stop{false};
  std::atomic<uint64_t> dead{0};
  std::vector<std::thread> readers;
  for (int r = 0; r < 3; ++r) {
    readers.emplace_back([&, r] {
      auto reader = *quiescence.Register();
      reader.Online();
      for (uint64_t i = 0; !stop; ++i) {
        for (int k = 0; k < 8; ++k) {
          dead += shared.load(std::memory_order_acquire)->mark != kAlive;
        }
        if (r == 0 && i % 16 == 0) {  // a reader that sleeps often
          reader.Offline();
          std::this_thread::yield();
          reader.Online();
        } else if (r == 1 && i % 64 == 0) {  // and one that comes and goes
          reader = Quiescence::Reader();
          reader = *quiescence.Register();
          reader.Online();
        } else {
          reader.Announce();
        }
      }
    });
  }
  for (int i = 0; i < 100000; ++i) {
    Node* old = shared.exchange(new Node, std::memory_order_acq_rel);
    quiescence.Retire(old, [](void* object, void*) {
      static_cast<Node*>(object)->mark = 0;
      delete static_cast<Node*>(object);
    });
    quiescence.Reclaim();
  }
  stop = true;
  for (std::thread& reader : readers) reader.join();
  EXPECT_EQ(dead, 0u);
  EXPECT_EQ(quiescence.Reclaim(), 0u);
  delete shared.load();
}

}  // namespace
}  // namespace ringsock
