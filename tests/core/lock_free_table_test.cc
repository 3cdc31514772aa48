// Tests of the lock-free table, with both kinds of lines: random steps against a std::map, hashes
// that collide on purpose, growth and shrinking with bounded steps, and readers beside a writer
// that works flat out.
#include "core/lock_free_table.h"

#include <map>
#include <memory>
#include <random>
#include <thread>
#include <type_traits>
#include <vector>

#include "gtest/gtest.h"

namespace ringsock {
namespace {

struct alignas(16) Item {
  uint64_t key = 0;
  uint64_t version = 0;
};

uint64_t Mix(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

struct GoodHash {
  static uint64_t Of(uint64_t key, uint64_t seed) { return Mix(key ^ seed); }
};
// 256 values in all, so that keys crowd into the same lines and even share whole hashes.
struct CrowdedHash {
  static uint64_t Of(uint64_t key, uint64_t) { return Mix(key % 256); }
};
struct ConstantHash {
  static uint64_t Of(uint64_t, uint64_t) { return 0; }
};

template <typename HashFunction>
struct ItemTraits {
  using Key = uint64_t;
  static constexpr size_t kMostSixteenths = 12;
  static uint64_t Entry(const Item* item) { return reinterpret_cast<uintptr_t>(item); }
  static const Item* ItemOf(uint64_t entry) { return reinterpret_cast<const Item*>(entry); }
  static uint64_t Hash(uint64_t key, uint64_t seed) { return HashFunction::Of(key, seed); }
  static uint64_t KeyOf(uint64_t entry) { return ItemOf(entry)->key; }
  static bool Equal(uint64_t entry, uint64_t key) { return ItemOf(entry)->key == key; }
  static const void* LineOf(uint64_t entry) { return ItemOf(entry); }
};

using Good = ItemTraits<GoodHash>;
// No key shares these with another: a key is in bits 2 to 63 of a number that is mixed.
struct WholeTraits : Good {
  static uint64_t Hash(uint64_t key, uint64_t seed) {
    constexpr uint64_t kUsed = ~uint64_t{3};
    const uint64_t bits = ((key << 2) ^ (seed & kUsed)) * 0x9e3779b97f4a7c15u;
    return (bits ^ ((bits >> 32) & kUsed)) * 0xe7037ed1a0b428dbu;
  }
  // Nothing else may be needed.
  static bool Equal(uint64_t entry, uint64_t key) = delete;
  static const void* LineOf(uint64_t entry) = delete;
};
// Different, but for the top bits the same: all in one segment, and there in one line of sixteen.
struct CrowdedWholeTraits : WholeTraits {
  static uint64_t Hash(uint64_t key, uint64_t /*seed*/) { return key << 18; }
};

struct Tagged {
  using Traits = Good;
  using Table = LockFreeTable<Good>;
  static constexpr size_t kBytesPerEntry = 24;
};
struct Keyed {
  using Traits = WholeTraits;
  using Table = LockFreeTable<WholeTraits, KeyedLine>;
  static constexpr size_t kBytesPerEntry = 40;
};
template <typename Kind>
class LockFreeTableTest : public ::testing::Test {};
using Kinds = ::testing::Types<Tagged, Keyed>;
TYPED_TEST_SUITE(LockFreeTableTest, Kinds);

void FreeItem(void* item, void* /*context*/) { delete static_cast<Item*>(item); }
void Free(uint64_t entry) { FreeItem(reinterpret_cast<Item*>(entry), nullptr); }

template <typename Traits, template <typename> typename LineKind = TaggedLine>
void RandomSteps(uint32_t seed, int steps, uint64_t keys) {
  Quiescence quiescence;
  LockFreeTable<Traits, LineKind> table(&quiescence, seed);
  std::map<uint64_t, uint64_t> model;
  std::mt19937_64 random(seed);
  for (int step = 0; step < steps; ++step) {
    const uint64_t key = random() % keys;
    // Phases that mostly grow and phases that mostly shrink.
    const bool growing = (step / 2000) % 2 == 0;
    if (random() % 8 < (growing ? 6u : 2u)) {
      const auto* item = new Item{key, random()};
      uint64_t previous = 1;
      ASSERT_TRUE(table.Put(key, Traits::Entry(item), &previous));
      const auto at = model.find(key);
      ASSERT_EQ(previous != 0, at != model.end());
      if (previous != 0) {
        ASSERT_EQ(Traits::ItemOf(previous)->version, at->second);
        Free(previous);
      }
      model[key] = item->version;
    } else {
      const uint64_t entry = table.Erase(key);
      ASSERT_EQ(entry != 0, model.erase(key) == 1);
      if (entry != 0) Free(entry);
    }
    ASSERT_EQ(table.size(), model.size());
    const uint64_t other = random() % keys;
    const uint64_t found = table.Find(other);
    ASSERT_EQ(found != 0, model.count(other) == 1);
    if (found != 0) {
      ASSERT_EQ(Traits::ItemOf(found)->version, model[other]);
    }
    if (step % 4096 == 0) quiescence.Reclaim();
  }
  for (const auto& [key, version] : model) {
    const uint64_t entry = table.Erase(key);
    ASSERT_NE(entry, 0u);
    ASSERT_EQ(Traits::ItemOf(entry)->version, version);
    Free(entry);
  }
  EXPECT_EQ(table.size(), 0u);
}

TEST(LockFreeTableStepsTest, RandomStepsMatchAMap) {
  RandomSteps<Good>(1, 20000, 50);
  RandomSteps<Good>(2, 60000, 3000);
  RandomSteps<Good>(3, 60000, 20000);
  RandomSteps<WholeTraits, KeyedLine>(1, 20000, 50);
  RandomSteps<WholeTraits, KeyedLine>(2, 60000, 3000);
  RandomSteps<WholeTraits, KeyedLine>(3, 60000, 20000);
}

TEST(LockFreeTableStepsTest, CrowdedHashesMatchAMap) {
  RandomSteps<ItemTraits<CrowdedHash>>(4, 40000, 600);
  RandomSteps<CrowdedWholeTraits, KeyedLine>(5, 20000, 20);
}

// Keys that cannot be told apart: the bound on probing holds, and the table stays as it was.
TEST(LockFreeTableStepsTest, EqualHashesAreRefusedBeyondTheBound) {
  using Traits = ItemTraits<ConstantHash>;
  Quiescence quiescence;
  LockFreeTable<Traits> table(&quiescence, 0);
  std::vector<std::unique_ptr<Item>> items;
  uint64_t refused = 0;
  for (uint64_t key = 0; key < 160; ++key) {
    items.push_back(std::make_unique<Item>(Item{key, 0}));
    uint64_t previous = 0;
    refused += !table.Put(key, Traits::Entry(items.back().get()), &previous);
  }
  EXPECT_EQ(refused, 160u - 112u);
  EXPECT_EQ(table.size(), 112u);
  for (uint64_t key = 0; key < 160; ++key) EXPECT_EQ(table.Find(key) != 0, key < 112);
  uint64_t previous = 0;
  EXPECT_TRUE(table.Put(5, Traits::Entry(items[5].get()), &previous));  // a replacement fits
  EXPECT_NE(table.Erase(7), 0u);
  EXPECT_TRUE(table.Put(150, Traits::Entry(items[150].get()), &previous));
  EXPECT_NE(table.Find(150), 0u);
}

TYPED_TEST(LockFreeTableTest, MemoryFollowsTheNumberOfEntriesBothWays) {
  Quiescence quiescence;
  typename TypeParam::Table table(&quiescence, 9);
  const size_t empty = table.MemoryUsed();
  std::vector<Item> items(100000);
  uint64_t previous = 0;
  for (uint64_t i = 0; i < items.size(); ++i) {
    items[i].key = i;
    ASSERT_TRUE(table.Put(i, TypeParam::Traits::Entry(&items[i]), &previous));
    if (i > 1000) {
      ASSERT_LE(table.capacity(), 3 * i);
    }
    quiescence.Reclaim();
  }
  EXPECT_LE(table.MemoryUsed(), TypeParam::kBytesPerEntry * items.size());
  for (uint64_t i = 0; i < items.size(); ++i) table.Erase(i);
  EXPECT_EQ(table.size(), 0u);
  // Segments shrink to their least size; the directory stays.
  EXPECT_LE(table.MemoryUsed(), empty * 150);
}

// A table whose entries come and go forever does not fill up with tombstones.
TYPED_TEST(LockFreeTableTest, TurnoverDoesNotGrowTheTable) {
  Quiescence quiescence;
  typename TypeParam::Table table(&quiescence, 10);
  std::vector<Item> items(3000);
  uint64_t previous = 0;
  size_t largest = 0;
  for (uint64_t i = 0; i < 300000; ++i) {
    Item& item = items[i % items.size()];
    if (i >= items.size()) {
      ASSERT_NE(table.Erase(item.key), 0u);
    }
    item.key = i;
    ASSERT_TRUE(table.Put(i, TypeParam::Traits::Entry(&item), &previous));
    largest = std::max(largest, table.capacity());
    if (i % 64 == 0) quiescence.Reclaim();
  }
  EXPECT_LE(largest, 4 * items.size());
}

// No single update replaces more than a segment or the directory.
TYPED_TEST(LockFreeTableTest, EveryUpdateIsBounded) {
  Quiescence quiescence;
  typename TypeParam::Table table(&quiescence, 11);
  std::vector<Item> items(200000);
  uint64_t previous = 0;
  size_t most = 0;
  for (uint64_t i = 0; i < items.size(); ++i) {
    items[i].key = i;
    const size_t before = quiescence.pending();
    ASSERT_TRUE(table.Put(i, TypeParam::Traits::Entry(&items[i]), &previous));
    most = std::max(most, quiescence.pending() - before);
    if (i % 1024 == 0) quiescence.Reclaim();
  }
  EXPECT_LE(most, 2u);
}

TYPED_TEST(LockFreeTableTest, StepByStepFindsTheSame) {
  using Traits = typename TypeParam::Traits;
  Quiescence quiescence;
  typename TypeParam::Table table(&quiescence, 12);
  std::vector<Item> items(5000);
  uint64_t previous = 0;
  for (uint64_t i = 0; i < items.size(); ++i) {
    items[i].key = i * 2;
    ASSERT_TRUE(table.Put(i * 2, Traits::Entry(&items[i]), &previous));
  }
  size_t at_a_glance = 0;
  for (uint64_t key = 0; key < 10000; ++key) {
    const TableSearch search = table.Begin(key);
    const LineGlance glance = table.Glance(search);
    at_a_glance += glance.is_all;
    const uint64_t entry = glance.is_all ? glance.entry : table.Finish(search, key, glance.entry);
    ASSERT_EQ(entry, key % 2 == 0 ? Traits::Entry(&items[key / 2]) : 0) << key;
    ASSERT_EQ(entry, table.Find(key));
  }
  if (std::is_same_v<TypeParam, Keyed>) {
    EXPECT_GT(at_a_glance, 7500u);
  }
}

// A search that began before an update ends after it, in memory that is still there.
TYPED_TEST(LockFreeTableTest, ASearchMayEndAfterTheTableHasGrown) {
  using Traits = typename TypeParam::Traits;
  Quiescence quiescence;
  auto reader = *quiescence.Register();
  reader.Online();
  typename TypeParam::Table table(&quiescence, 14);
  std::vector<Item> items(5000);
  uint64_t previous = 0;
  for (uint64_t i = 0; i < items.size(); ++i) items[i].key = i;
  ASSERT_TRUE(table.Put(0, Traits::Entry(&items[0]), &previous));
  const TableSearch search = table.Begin(0);
  const uint64_t seen = table.Glance(search).entry;
  for (uint64_t i = 1; i < items.size(); ++i) {
    ASSERT_TRUE(table.Put(i, Traits::Entry(&items[i]), &previous));
    quiescence.Reclaim();
  }
  EXPECT_EQ(table.Glance(search).entry, seen);
  EXPECT_EQ(table.Finish(search, 0, 0), Traits::Entry(&items[0]));
}

// The slot of what was taken out is not another key's while a reader may be between its two looks.
TEST(KeyedLineTest, ASlotIsUsedAgainOnlyAfterAllReadersHavePassed) {
  Quiescence quiescence;
  auto reader = *quiescence.Register();
  reader.Online();
  KeyedLine<CrowdedWholeTraits> line;
  const uint64_t epoch = quiescence.NextEpoch();
  const auto passed = [&quiescence, epoch] { return quiescence.Passed(epoch); };
  bool tombstone = true;
  const auto hash = [](uint64_t key) { return CrowdedWholeTraits::Hash(key, 0); };
  for (uint64_t key = 1; key <= 4; ++key) {
    ASSERT_TRUE(line.Insert(hash(key), 100 + key, passed, &tombstone));
    EXPECT_FALSE(tombstone);
  }
  EXPECT_FALSE(line.Insert(hash(5), 105, passed, &tombstone));
  bool goes_on = false;
  EXPECT_TRUE(line.Erase(line.Find(hash(2), 2, &goes_on).slot));
  EXPECT_EQ(line.Find(hash(2), 2, &goes_on).entry, 0u);
  EXPECT_TRUE(goes_on);
  EXPECT_FALSE(line.Insert(hash(5), 105, passed, &tombstone));
  EXPECT_EQ(quiescence.Advance(), epoch);
  EXPECT_FALSE(line.Insert(hash(5), 105, passed, &tombstone));
  reader.Announce();
  EXPECT_TRUE(line.Insert(hash(5), 105, passed, &tombstone));
  EXPECT_TRUE(tombstone);
  EXPECT_EQ(line.Find(hash(5), 5, &goes_on).entry, 105u);
  EXPECT_EQ(line.Find(hash(1), 1, &goes_on).entry, 101u);
}

template <typename Kind>
class LockFreeTableThreadTest : public ::testing::Test {};
TYPED_TEST_SUITE(LockFreeTableThreadTest, Kinds);

// Readers look for three kinds of keys while a writer changes the table through all its sizes: some
// are always there and must always be found, some never, and some come and go. What is found must
// be alive and have the right key; freed items are overwritten first.
TYPED_TEST(LockFreeTableThreadTest, ReadersBesideAWriterFlatOut) {
  using Traits = typename TypeParam::Traits;
  constexpr uint64_t kStable = 512;
  constexpr uint64_t kChanging = 20000;
  Quiescence quiescence;
  typename TypeParam::Table table(&quiescence, 13);
  uint64_t previous = 0;
  for (uint64_t key = 0; key < kStable; ++key) {
    ASSERT_TRUE(table.Put(key, Traits::Entry(new Item{key, 1}), &previous));
  }
  std::atomic<bool> stop{false};
  std::atomic<uint64_t> lost{0}, wrong{0}, hits{0};
  std::vector<std::thread> readers;
  for (uint32_t r = 0; r < 3; ++r) {
    readers.emplace_back([&, r] {
      auto reader = *quiescence.Register();
      reader.Online();
      std::mt19937_64 random(r);
      while (!stop) {
        for (int k = 0; k < 16; ++k) {
          const uint64_t stable = random() % kStable;
          const uint64_t entry = table.Find(stable);
          lost += entry == 0;
          wrong += entry != 0 && Traits::KeyOf(entry) != stable;
          const uint64_t changing = kStable + random() % kChanging;
          const uint64_t maybe = table.Find(changing);
          hits += maybe != 0;
          wrong += maybe != 0 &&
                   (Traits::KeyOf(maybe) != changing || Traits::ItemOf(maybe)->version == 0);
          wrong += table.Find(UINT64_MAX - stable) != 0;
        }
        reader.Announce();
      }
    });
  }
  std::mt19937_64 random(99);
  const auto retire = [&quiescence](uint64_t entry) {
    quiescence.Retire(reinterpret_cast<Item*>(entry), [](void* item, void* context) {
      *static_cast<Item*>(item) = Item{UINT64_MAX, 0};
      FreeItem(item, context);
    });
  };
  for (int i = 0; i < 60000 || hits == 0; ++i) {  // until the readers have run too
    const bool growing = (i / 15000) % 2 == 0;
    if (i % 10 == 0) {  // replace a stable one in place
      const uint64_t key = random() % kStable;
      ASSERT_TRUE(table.Put(key, Traits::Entry(new Item{key, 1}), &previous));
    } else if (random() % 8 < (growing ? 7u : 1u)) {
      const uint64_t key = kStable + random() % kChanging;
      ASSERT_TRUE(table.Put(key, Traits::Entry(new Item{key, 1}), &previous));
    } else {
      previous = table.Erase(kStable + random() % kChanging);
    }
    if (previous != 0) retire(previous);
    quiescence.Reclaim();
  }
  stop = true;
  for (std::thread& reader : readers) reader.join();
  EXPECT_EQ(lost, 0u);
  EXPECT_EQ(wrong, 0u);
  for (uint64_t key = 0; key < kStable + kChanging; ++key) {
    if (const uint64_t entry = table.Erase(key)) Free(entry);
  }
}

}  // namespace
}  // namespace ringsock
