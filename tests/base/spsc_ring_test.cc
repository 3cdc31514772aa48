// The ring between two threads: bounds, wrap-around, slots used in place, and under thread
// sanitizer a producer and a consumer at full speed.
#include "base/spsc_ring.h"

#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

namespace ringsock {
namespace {

TEST(SpscRingTest, CapacityIsRoundedUpToAPowerOfTwo) {
  EXPECT_EQ(std::make_unique<SpscRing<int>>(0)->capacity(), 1u);
  EXPECT_EQ(std::make_unique<SpscRing<int>>(1)->capacity(), 1u);
  EXPECT_EQ(std::make_unique<SpscRing<int>>(5)->capacity(), 8u);
  EXPECT_EQ(std::make_unique<SpscRing<int>>(64)->capacity(), 64u);
}

TEST(SpscRingTest, FullRefusesAndLeavesTheValue) {
  const auto heap = std::make_unique<SpscRing<std::unique_ptr<int>>>(2);
  SpscRing<std::unique_ptr<int>>& ring = *heap;
  EXPECT_TRUE(ring.TryPush(std::make_unique<int>(1)));
  EXPECT_TRUE(ring.TryPush(std::make_unique<int>(2)));
  auto third = std::make_unique<int>(3);
  EXPECT_FALSE(ring.TryPush(std::move(third)));
  ASSERT_NE(third, nullptr);  // NOLINT(bugprone-use-after-move): untouched, by contract
  EXPECT_EQ(ring.Reserve(), nullptr);
  EXPECT_EQ(ring.size(), 2u);
  EXPECT_EQ(**ring.Front(), 1);
  ring.Pop();
  EXPECT_TRUE(ring.TryPush(std::move(third)));
  EXPECT_EQ(**ring.Front(), 2);
  ring.Pop();
  EXPECT_EQ(**ring.Front(), 3);
  ring.Pop();
  EXPECT_EQ(ring.Front(), nullptr);
  EXPECT_EQ(ring.size(), 0u);
}

TEST(SpscRingTest, KeepsOrderOverManyWraps) {
  const auto heap = std::make_unique<SpscRing<uint32_t>>(4);
  SpscRing<uint32_t>& ring = *heap;
  uint32_t in = 0;
  uint32_t out = 0;
  for (int round = 0; round < 1000; ++round) {
    for (int i = 0; i < 1 + round % 4; ++i) ASSERT_TRUE(ring.TryPush(uint32_t{in++}));
    while (uint32_t* front = ring.Front()) {
      ASSERT_EQ(*front, out++);
      ring.Pop();
    }
  }
  EXPECT_EQ(in, out);
}

TEST(SpscRingTest, SlotsAreReusedInPlace) {
  const auto heap = std::make_unique<SpscRing<std::vector<int>>>(2);
  SpscRing<std::vector<int>>& ring = *heap;
  for (int i = 0; i < 2; ++i) {
    ring.Reserve()->reserve(100);
    ring.Publish();
    ring.Front()->clear();
    ring.Pop();
  }
  // The buffers that were put in come round again: nothing is made new.
  for (int i = 0; i < 6; ++i) {
    std::vector<int>* slot = ring.Reserve();
    EXPECT_EQ(ring.Reserve(), slot) << "the same slot until it is published";
    EXPECT_GE(slot->capacity(), 100u);
    EXPECT_EQ(ring.Front(), nullptr) << "reserved is not published";
    ring.Publish();
    EXPECT_EQ(ring.Front(), slot);
    ring.Pop();
  }
}

TEST(SpscRingTest, SidesDoNotShareACacheLine) {
  EXPECT_EQ(alignof(SpscRing<int>), kCacheLine);
  EXPECT_EQ(sizeof(SpscRing<int>), 3 * kCacheLine);
}

// Every element is written before it is published and read after, without tearing, in order.
void Race(size_t capacity, uint64_t count) {
  struct Item {
    std::array<uint64_t, 8> words{};
  };
  // On the heap: frames that address sanitizer moves there lose the alignment of a cache line.
  const auto heap = std::make_unique<SpscRing<Item>>(capacity);
  SpscRing<Item>& ring = *heap;
  std::thread producer([&] {
    for (uint64_t i = 0; i < count;) {
      Item* slot = ring.Reserve();
      if (slot == nullptr) {
        std::this_thread::yield();
        continue;
      }
      slot->words.fill(i++);
      ring.Publish();
    }
  });
  uint64_t wrong = 0;
  for (uint64_t i = 0; i < count;) {
    Item* slot = ring.Front();
    if (slot == nullptr) {
      std::this_thread::yield();
      continue;
    }
    for (const uint64_t word : slot->words) wrong += word != i;
    slot->words.fill(UINT64_MAX);  // the consumer may write, too, until Pop()
    ring.Pop();
    ++i;
  }
  producer.join();
  EXPECT_EQ(wrong, 0u);
  EXPECT_EQ(ring.Front(), nullptr);
}

TEST(SpscRingTest, TwoThreadsWithOneSlot) { Race(1, 20000); }
TEST(SpscRingTest, TwoThreadsMostlyFull) { Race(4, 100000); }
TEST(SpscRingTest, TwoThreadsWithRoom) { Race(1024, 200000); }

TEST(SpscRingTest, SizeSeenByAThirdThreadStaysInBounds) {
  const auto heap = std::make_unique<SpscRing<int>>(8);
  SpscRing<int>& ring = *heap;
  std::atomic<bool> done{false};
  std::thread producer([&] {
    for (int i = 0; i < 50000;) {
      if (ring.TryPush(int{i})) {
        ++i;
      } else {
        std::this_thread::yield();
      }
    }
  });
  std::thread watcher([&] {
    while (!done.load(std::memory_order_relaxed)) ASSERT_LE(ring.size(), ring.capacity());
  });
  for (int i = 0; i < 50000;) {
    if (ring.Front() == nullptr) {
      std::this_thread::yield();
      continue;
    }
    ring.Pop();
    ++i;
  }
  producer.join();
  done.store(true, std::memory_order_relaxed);
  watcher.join();
}

}  // namespace
}  // namespace ringsock
