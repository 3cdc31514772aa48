// Which peers' packets go over the relay of a benchmark.
#include "bench/relay_access.h"

#include <gtest/gtest.h>

namespace ringsock::bench {
namespace {

TEST(IsRelayedPairTest, AShareOfAnyHundred) {
  for (const uint32_t percent : {0u, 1u, 25u, 33u, 50u, 99u, 100u}) {
    for (const uint32_t first : {0u, 100u, 4'294'967'100u}) {
      uint32_t relayed = 0;
      for (uint32_t i = 0; i < 100; ++i) relayed += IsRelayedPair(first + i, percent) ? 1 : 0;
      EXPECT_EQ(relayed, percent) << first;
    }
  }
}

TEST(IsRelayedPairTest, EvenlySpread) {
  for (uint32_t pair = 0; pair < 20; ++pair) {
    EXPECT_EQ(IsRelayedPair(pair, 50), pair % 2 == 1);
    EXPECT_EQ(IsRelayedPair(pair, 25), pair % 4 == 3);
  }
}

}  // namespace
}  // namespace ringsock::bench
