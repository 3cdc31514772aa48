// Cutting, replaying and remembering, by themselves.
#include "io/train.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

namespace ringsock::io {
namespace {

using std::chrono::minutes;
using std::chrono::seconds;

std::byte g_bytes[256 << 10];

TxTrain Train(uint32_t size, uint32_t segment, TxSlab* slab = nullptr) {
  return {g_bytes, size, segment, {IpAddress::V4(192, 0, 2, 1), 1, 0}, {}, slab};
}

// Every shape is cut without loss into parts that the kernel can take.
TEST(CutTrainTest, PartsAreWholeSmallEnoughAndInOrder) {
  for (const uint32_t segment : {0u, 1u, 2u, 100u, 1023u, 1024u, 1400u, 32753u, 32754u, 65507u}) {
    for (const uint32_t size : {0u, 1u, 99u, 100u, 101u, 6400u, 6401u, 65507u, 65508u, 200'000u}) {
      for (const uint32_t most : {1u, 2u, 64u}) {
        TxSlab slab;
        TxTrain rest = Train(size, segment, &slab);
        const uint32_t packets = rest.packets();
        const std::byte* next = g_bytes;
        uint32_t seen = 0;
        do {
          const TxTrain part = CutTrain(&rest, most);
          EXPECT_EQ(part.data, next);
          next += part.size;
          seen += part.packets();
          EXPECT_LE(part.packets(), most);
          EXPECT_TRUE(part.packets() == 1 || part.size <= kMaxDatagram);
          EXPECT_TRUE(rest.size == 0 || part.size % segment == 0);
          EXPECT_EQ(part.slab, rest.size > 0 ? nullptr : &slab) << "the last part has the slab";
        } while (rest.size > 0);
        EXPECT_EQ(next, g_bytes + size);
        EXPECT_EQ(seen, packets) << size << " by " << segment << " at most " << most;
      }
    }
  }
}

struct Lost {
  uint32_t first, packets;
  int error;
  friend bool operator==(const Lost&, const Lost&) = default;
};

// Replays with the given results and returns what was reported.
std::vector<Lost> Replay(const TxTrain& train, const std::vector<int>& errors) {
  std::vector<Lost> runs;
  TrainReplay replay(&train);
  const std::byte* next = train.data;
  for (const int error : errors) {
    EXPECT_FALSE(replay.done());
    const TrainReplay::Packet packet = replay.packet();
    EXPECT_EQ(packet.data, next);
    next += packet.size;
    replay.Result(error, [&](const SendFailure& failure) {
      EXPECT_EQ(failure.train, &train);
      runs.push_back({failure.first, failure.packets, failure.error});
    });
  }
  EXPECT_TRUE(replay.done());
  EXPECT_EQ(next, train.data + train.size);
  return runs;
}

TEST(TrainReplayTest, ReportsRunsOfFailures) {
  const TxTrain train = Train(5 * 100 - 1, 100);
  EXPECT_EQ(Replay(train, {0, 0, 0, 0, 0}), (std::vector<Lost>{}));
  EXPECT_EQ(Replay(train, {1, 1, 1, 1, 1}), (std::vector<Lost>{{0, 5, 1}}));
  EXPECT_EQ(Replay(train, {0, 1, 1, 0, 2}), (std::vector<Lost>{{1, 2, 1}, {4, 1, 2}}));
  EXPECT_EQ(Replay(train, {1, 2, 2, 1, 0}), (std::vector<Lost>{{0, 1, 1}, {1, 2, 2}, {3, 1, 1}}));
}

TEST(TrainReplayTest, ADatagramIsATrainOfOne) {
  EXPECT_EQ(Replay(Train(77, 0), {5}), (std::vector<Lost>{{0, 1, 5}}));
  EXPECT_EQ(Replay(Train(0, 0), {0}), (std::vector<Lost>{}));
  EXPECT_EQ(Replay(Train(50, 100), {0}), (std::vector<Lost>{}));
}

TEST(TrainReplayTest, TellsWhetherAPacketLeft) {
  const auto any_sent = [](std::vector<int> errors) {
    const TxTrain train = Train(300, 100);
    TrainReplay replay(&train);
    for (const int error : errors) replay.Result(error, [](const SendFailure&) {});
    return replay.any_sent();
  };
  EXPECT_TRUE(any_sent({0, 0, 0}));
  EXPECT_TRUE(any_sent({EMSGSIZE, 0, EPERM}));
  EXPECT_FALSE(any_sent({EINVAL, EINVAL, EINVAL}));
}

TEST(GsoMemoryTest, EioIsForThatDestinationForAWhile) {
  GsoMemory memory(true);
  const Instant now = Instant(seconds(5));
  const IpAddress a = IpAddress::V4(192, 0, 2, 1), b = IpAddress::V4(192, 0, 2, 2);
  EXPECT_TRUE(memory.Allows(a, 1400, now));
  for (int i = 0; i < 10; ++i) memory.Learn(EIO, a, 1400, now);
  EXPECT_FALSE(memory.Allows(a, 1, now));
  EXPECT_TRUE(memory.Allows(b, 1400, now)) << "one destination says nothing about the others";
  EXPECT_TRUE(memory.Allows(a, 1400, now + minutes(10)));
}

TEST(GsoMemoryTest, EioFromSeveralDestinationsIsForTheSocketForAWhile) {
  GsoMemory memory(true);
  Instant now = Instant(seconds(5));
  const IpAddress other = IpAddress::V4(198, 51, 100, 1);
  for (int round = 0; round < 2; ++round) {
    for (uint32_t i = 0; i < GsoMemory::kEioDestinations; ++i) {
      EXPECT_TRUE(memory.Allows(other, 1, now)) << i;
      memory.Learn(EIO, IpAddress::V4(i + 1), 1400, now);
    }
    EXPECT_FALSE(memory.Allows(other, 1, now));
    memory.Learn(EIO, other, 1400, now);  // a straggler
    now += minutes(10) - seconds(1);
    EXPECT_FALSE(memory.Allows(IpAddress::V4(77), 1, now));
    now += seconds(1);
    EXPECT_TRUE(memory.Allows(IpAddress::V4(77), 1400, now));
    EXPECT_TRUE(memory.Allows(other, 1400, now));
  }
}

TEST(GsoMemoryTest, RareEioDoesNotAddUp) {
  GsoMemory memory(true);
  for (uint32_t i = 0; i < 20; ++i) {
    memory.Learn(EIO, IpAddress::V4(i + 1), 1400, Instant(minutes(11 * i)));
    EXPECT_TRUE(memory.Allows(IpAddress::V4(99), 1400, Instant(minutes(11 * i))));
  }
}

TEST(GsoMemoryTest, EmsgsizeIsForThatSizeAndDestinationForAWhile) {
  for (const int error : {EMSGSIZE, EINVAL}) {
    GsoMemory memory(true);
    const Instant now = Instant(seconds(5));
    const IpAddress a = IpAddress::V4(192, 0, 2, 1), b = IpAddress::V4(192, 0, 2, 2);
    memory.Learn(error, a, 1400, now);
    EXPECT_FALSE(memory.Allows(a, 1400, now));
    EXPECT_FALSE(memory.Allows(a, 1401, now));
    EXPECT_TRUE(memory.Allows(a, 1399, now));
    EXPECT_TRUE(memory.Allows(b, 1400, now));
    memory.Learn(error, a, 1300, now);
    memory.Learn(error, a, 1350, now);
    EXPECT_FALSE(memory.Allows(a, 1300, now)) << "a smaller limit is kept";
    EXPECT_TRUE(memory.Allows(a, 1299, now));
    EXPECT_FALSE(memory.Allows(a, 1300, now + minutes(10) - seconds(1)));
    EXPECT_TRUE(memory.Allows(a, 1300, now + minutes(10)));
  }
}

TEST(GsoMemoryTest, OtherErrorsTeachNothingAndManyDestinationsAreBounded) {
  GsoMemory memory(true);
  const IpAddress a = IpAddress::V4(192, 0, 2, 1);
  memory.Learn(ENOBUFS, a, 1400, Instant{});
  EXPECT_TRUE(memory.Allows(a, 1400, Instant{}));
  for (uint32_t i = 0; i < 10'000; ++i) {
    memory.Learn(EMSGSIZE, IpAddress::V4(i), 1400, Instant{});
    EXPECT_FALSE(memory.Allows(IpAddress::V4(i), 1400, Instant{}));
  }
  EXPECT_FALSE(GsoMemory(false).Allows(a, 1, Instant{}));
}

}  // namespace
}  // namespace ringsock::io
