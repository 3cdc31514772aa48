// The token bucket on a clock that the test moves.
#include "derp/token_bucket.h"

#include <gtest/gtest.h>

namespace ringsock::derp {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

const Instant kStart = Instant(std::chrono::hours(1));

// spec: derp.md, Frames: Login: TokenBucketBytesPerSecond, TokenBucketBytesBurst.
TEST(TokenBucketTest, BurstThenRate) {
  TokenBucket bucket(1000, 300, kStart);
  EXPECT_TRUE(bucket.TryTake(300, kStart));
  EXPECT_FALSE(bucket.TryTake(1, kStart));
  EXPECT_FALSE(bucket.TryTake(100, kStart + milliseconds(99)));
  EXPECT_TRUE(bucket.TryTake(100, kStart + milliseconds(100)));
  EXPECT_FALSE(bucket.TryTake(1, kStart + milliseconds(100)));
}

TEST(TokenBucketTest, HoldsNoMoreThanTheBurst) {
  TokenBucket bucket(1000, 300, kStart);
  EXPECT_FALSE(bucket.TryTake(301, kStart + seconds(3600)));
  EXPECT_TRUE(bucket.TryTake(300, kStart + seconds(3600)));
  EXPECT_FALSE(bucket.TryTake(1, kStart + seconds(3600)));
}

TEST(TokenBucketTest, ARefusedPacketCostsNothing) {
  TokenBucket bucket(1000, 300, kStart);
  for (int i = 0; i < 100; ++i) EXPECT_FALSE(bucket.TryTake(301, kStart));
  EXPECT_TRUE(bucket.TryTake(300, kStart));
}

TEST(TokenBucketTest, SmallStepsAddUpToTheRate) {
  TokenBucket bucket(1000000, 1500, kStart);
  EXPECT_TRUE(bucket.TryTake(1500, kStart));
  uint64_t passed = 0;
  for (int us = 1; us <= 1000000; ++us) {
    if (bucket.TryTake(100, kStart + std::chrono::microseconds(us))) passed += 100;
  }
  EXPECT_GE(passed, 999900u);
  EXPECT_LE(passed, 1000000u);
}

TEST(TokenBucketTest, NoRateIsNoLimit) {
  TokenBucket none;
  EXPECT_FALSE(none.limited());
  EXPECT_TRUE(none.TryTake(UINT64_MAX, kStart));
  TokenBucket zero(0, 5, kStart);
  EXPECT_TRUE(zero.TryTake(1000, kStart));
}

TEST(TokenBucketTest, NoBurstIsOneSecond) {
  TokenBucket bucket(1000, 0, kStart);
  EXPECT_TRUE(bucket.TryTake(1000, kStart));
  EXPECT_FALSE(bucket.TryTake(1, kStart));
}

TEST(TokenBucketTest, TimeThatGoesBackAddsNothing) {
  TokenBucket bucket(1000, 300, kStart);
  EXPECT_TRUE(bucket.TryTake(300, kStart));
  EXPECT_FALSE(bucket.TryTake(1, kStart - seconds(10)));
  EXPECT_FALSE(bucket.TryTake(200, kStart + milliseconds(100)));
}

}  // namespace
}  // namespace ringsock::derp
