// When a client comes back: growth, jitter, announced restarts.
#include "derp/reconnect.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace ringsock::derp {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

const Instant kStart = Instant(std::chrono::hours(1));

// spec: DERP-5: wait 250 ms, then longer, at most 5 s.
TEST(ReconnectTest, GrowsFromAQuarterSecondToFiveSeconds) {
  for (uint64_t seed = 0; seed < 50; ++seed) {
    SeededRandom random(seed);
    Reconnect reconnect(&random);
    Duration low = milliseconds(250);
    for (int failure = 0; failure < 20; ++failure) {
      const Duration delay = reconnect.OnFailure(kStart) - kStart;
      EXPECT_GE(delay, low);
      EXPECT_LE(delay, low * 5 / 4);
      EXPECT_LE(delay, seconds(5));
      low = std::min<Duration>(low * 2, seconds(4));
    }
  }
}

TEST(ReconnectTest, ClientsDoNotComeBackAsOne) {
  Duration least = Duration::max();
  Duration most = Duration::min();
  for (uint64_t seed = 0; seed < 100; ++seed) {
    SeededRandom random(seed);
    Reconnect reconnect(&random);
    const Duration delay = reconnect.OnFailure(kStart) - kStart;
    least = std::min(least, delay);
    most = std::max(most, delay);
  }
  EXPECT_GT(most - least, milliseconds(50));
}

TEST(ReconnectTest, AGoodConnectionStartsOver) {
  SeededRandom random(1);
  Reconnect reconnect(&random);
  for (int i = 0; i < 10; ++i) reconnect.OnFailure(kStart);
  reconnect.OnConnected(kStart);
  EXPECT_LE(reconnect.OnFailure(kStart + kGoodConnection) - (kStart + kGoodConnection),
            milliseconds(313));
}

// A relay that lets clients in and throws them out is not called four times a second.
TEST(ReconnectTest, AShortConnectionDoesNotStartOver) {
  SeededRandom random(1);
  Reconnect reconnect(&random);
  for (int i = 0; i < 10; ++i) {
    reconnect.OnConnected(kStart);
    reconnect.OnFailure(kStart + seconds(1));
  }
  reconnect.OnConnected(kStart);
  EXPECT_GE(reconnect.OnFailure(kStart + seconds(1)) - (kStart + seconds(1)), seconds(4));
}

// spec: derp.md, Frames: Restarting: reconnect in, try for.
TEST(ReconnectTest, AnnouncedRestartIsHonoured) {
  SeededRandom random(1);
  Reconnect reconnect(&random);
  reconnect.OnConnected(kStart);
  const Instant told = kStart + seconds(60);
  reconnect.OnRestarting({milliseconds(3000), milliseconds(5000)}, told);
  const Instant first = reconnect.OnFailure(told + milliseconds(10));
  EXPECT_GE(first, told + seconds(3));
  EXPECT_LE(first, told + milliseconds(3063));
  // Until it has been tried for 5 s, often; then as ever.
  Instant now = first;
  while (reconnect.restarting(now)) {
    const Instant next = reconnect.OnFailure(now);
    EXPECT_LE(next - now, milliseconds(313));
    now = next;
  }
  EXPECT_GE(now, told + seconds(8));
  for (int i = 0; i < 10; ++i) now = reconnect.OnFailure(now);
  EXPECT_GE(reconnect.OnFailure(now) - now, seconds(4));
}

TEST(ReconnectTest, NobodyKeepsAClientAwayForLong) {
  SeededRandom random(1);
  Reconnect reconnect(&random);
  const milliseconds forever(UINT32_MAX);
  reconnect.OnRestarting({forever, forever}, kStart);
  EXPECT_LE(reconnect.OnFailure(kStart), kStart + kMaxRestart + milliseconds(63));
  EXPECT_FALSE(reconnect.restarting(kStart + 2 * kMaxRestart));
}

TEST(ReconnectTest, ResetForgets) {
  SeededRandom random(1);
  Reconnect reconnect(&random);
  for (int i = 0; i < 10; ++i) reconnect.OnFailure(kStart);
  reconnect.OnRestarting({seconds(60), seconds(60)}, kStart);
  reconnect.Reset();
  EXPECT_FALSE(reconnect.restarting(kStart));
  EXPECT_LE(reconnect.OnFailure(kStart) - kStart, milliseconds(313));
}

}  // namespace
}  // namespace ringsock::derp
