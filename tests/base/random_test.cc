// Randomness: the seeded source repeats itself everywhere, the helpers keep to their ranges.
#include "base/random.h"

#include <gtest/gtest.h>

#include <array>
#include <chrono>
#include <set>
#include <vector>

namespace ringsock {
namespace {

// Gives out the numbers it was given.
class ScriptedRandom final : public Random {
 public:
  explicit ScriptedRandom(std::vector<uint64_t> numbers) : numbers_(std::move(numbers)) {}
  uint64_t Next() override { return numbers_.at(drawn++); }
  size_t drawn = 0;

 private:
  const std::vector<uint64_t> numbers_;
};

TEST(SeededRandomTest, RepeatsItselfAndDiffersBySeed) {
  SeededRandom a(42), b(42), c(43);
  for (int i = 0; i < 100; ++i) {
    const uint64_t number = a.Next();
    EXPECT_EQ(number, b.Next());
    EXPECT_NE(number, c.Next());
  }
}

TEST(SeededRandomTest, SeedZeroWorks) {
  SeededRandom random(0);
  std::set<uint64_t> seen;
  for (int i = 0; i < 1000; ++i) seen.insert(random.Next());
  EXPECT_EQ(seen.size(), 1000u);
}

// SplitMix64 of seed 0 is e220a8397b1dcdaf, 6e789e6aa1b965f4, 06c45d188009454f, f88bb8a8724c81ec;
// the first output of xoshiro256** is rotl(s[1] * 5, 7) * 9. Holds recorded seeds valid for ever.
TEST(SeededRandomTest, FirstNumberIsTheOneOfTheAlgorithm) {
  const uint64_t s1 = 0x6e789e6aa1b965f4u;
  const uint64_t product = s1 * 5;
  EXPECT_EQ(SeededRandom(0).Next(), ((product << 7) | (product >> 57)) * 9);
}

TEST(RandomTest, BelowKeepsItsBoundWithoutBias) {
  SeededRandom random(1);
  EXPECT_EQ(random.Below(0), 0u);
  EXPECT_EQ(random.Below(1), 0u);
  std::array<int, 6> count{};
  for (int i = 0; i < 60000; ++i) ++count[random.Below(6)];
  for (const int n : count) EXPECT_NEAR(n, 10000, 5 * 92);  // five standard deviations
  // 2^64 is 1 mod 3: the number 0 would make one result likelier and is drawn again.
  ScriptedRandom scripted({0, 7});
  EXPECT_EQ(scripted.Below(3), 1u);
  EXPECT_EQ(scripted.drawn, 2u);
}

TEST(RandomTest, BetweenIncludesBothEnds) {
  SeededRandom random(1);
  std::set<Duration> seen;
  for (int i = 0; i < 200; ++i) seen.insert(random.Between(Duration(-1), Duration(2)));
  EXPECT_EQ(seen, (std::set<Duration>{Duration(-1), Duration(0), Duration(1), Duration(2)}));
  EXPECT_EQ(random.Between(Duration(5), Duration(5)), Duration(5));
  EXPECT_EQ(random.Between(Duration(5), Duration(4)), Duration(5));
  for (int i = 0; i < 100; ++i) random.Between(Duration::min(), Duration::max());
}

TEST(RandomTest, ChanceOfTheCertainDrawsNothing) {
  ScriptedRandom none({});
  EXPECT_FALSE(none.Chance(0));
  EXPECT_FALSE(none.Chance(-1));
  EXPECT_TRUE(none.Chance(1));
  SeededRandom random(1);
  int hits = 0;
  for (int i = 0; i < 10000; ++i) hits += random.Chance(0.25);
  EXPECT_NEAR(hits, 2500, 5 * 44);
  for (int i = 0; i < 1000; ++i) {
    const double unit = random.Unit();
    EXPECT_GE(unit, 0);
    EXPECT_LT(unit, 1);
  }
  EXPECT_LT(ScriptedRandom({UINT64_MAX}).Unit(), 1);
}

TEST(RandomTest, FillWritesEveryByteAndNoMore) {
  SeededRandom random(1);
  for (size_t size = 0; size < 40; ++size) {
    std::vector<std::byte> bytes(size + 1);
    std::vector<int> touched(size);
    for (int round = 0; round < 8; ++round) {
      random.Fill(std::span(bytes).first(size));
      for (size_t i = 0; i < size; ++i) touched[i] |= static_cast<int>(bytes[i]);
    }
    for (const int bits : touched) EXPECT_NE(bits, 0);
    EXPECT_EQ(bytes[size], std::byte{0});
  }
}

TEST(SystemRandomTest, DoesNotRepeat) {
  std::set<uint64_t> seen;
  for (int i = 0; i < 1000; ++i) seen.insert(SystemRandom().Next());
  EXPECT_EQ(seen.size(), 1000u);
}

}  // namespace
}  // namespace ringsock
