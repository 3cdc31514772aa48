// Tests of the arena: blocks that do not overlap, reuse by size, and how much is taken from the
// system.
#include "base/block_arena.h"

#include <cstdint>
#include <cstring>
#include <map>
#include <random>
#include <vector>

#include "gtest/gtest.h"

namespace ringsock {
namespace {

#if defined(__SANITIZE_ADDRESS__)
constexpr bool kWatched = true;
#else
constexpr bool kWatched = false;
#endif

struct Block {
  uint8_t* memory;
  size_t bytes;
  uint8_t value;
};

TEST(BlockArenaTest, BlocksAreLinesOfTheirOwn) {
  BlockArena arena;
  std::mt19937 random(1);
  std::vector<Block> blocks;
  size_t used = 0;
  for (int step = 0; step < 20000; ++step) {
    if (blocks.empty() || random() % 5 < 3) {
      const size_t bytes = step % 500 == 0 ? BlockArena::kMaxBlock : 1 + random() % 700;
      auto* memory = static_cast<uint8_t*>(arena.Allocate(bytes));
      ASSERT_EQ(reinterpret_cast<uintptr_t>(memory) % BlockArena::kLine, 0u);
      const auto value = static_cast<uint8_t>(random());
      std::memset(memory, value, bytes);
      blocks.push_back({memory, bytes, value});
      used += (bytes + 63) / 64 * 64;
    } else {
      std::swap(blocks[random() % blocks.size()], blocks.back());
      const Block& block = blocks.back();
      for (size_t i = 0; i < block.bytes; ++i) ASSERT_EQ(block.memory[i], block.value);
      used -= (block.bytes + 63) / 64 * 64;
      arena.Free(block.memory, block.bytes);
      blocks.pop_back();
    }
    ASSERT_EQ(arena.used(), used);
    ASSERT_GE(arena.reserved(), used);
  }
  for (const Block& block : blocks) arena.Free(block.memory, block.bytes);
  EXPECT_EQ(arena.used(), 0u);
}

TEST(BlockArenaTest, WhatIsFreedIsUsedAgain) {
  BlockArena arena;
  std::vector<void*> blocks;
  for (int i = 0; i < 10000; ++i) blocks.push_back(arena.Allocate(192));
  const size_t reserved = arena.reserved();
  for (int round = 0; round < 10; ++round) {
    for (void* block : blocks) arena.Free(block, 192);
    for (void*& block : blocks) block = arena.Allocate(round % 2 == 0 ? 192 : 129);  // three lines
  }
  EXPECT_EQ(arena.reserved(), reserved);
  for (void* block : blocks) arena.Free(block, 192);
}

TEST(BlockArenaTest, TakesLittleMoreThanIsUsed) {
  BlockArena arena;
  EXPECT_EQ(arena.reserved(), 0u);
  std::vector<void*> blocks = {arena.Allocate(64)};
  EXPECT_LE(arena.reserved(), 64u << 10);
  while (arena.used() < 100u << 20) {
    blocks.push_back(arena.Allocate(32 << 10));
    // Doubled at first, then whole huge pages, an eighth at a time.
    const size_t slack = std::max<size_t>(arena.used() / 6, 4 << 20);
    ASSERT_LE(arena.reserved(), arena.used() + slack);
  }
  if (!kWatched) {
    ASSERT_GE(arena.reserved(), 100u << 20);
  }
  for (void* block : blocks) arena.Free(block, block == blocks.front() ? 64 : 32 << 10);
}

}  // namespace
}  // namespace ringsock
