// What becomes one train, and that order holds whatever is added.
#include "core/train_builder.h"

#include <map>
#include <random>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "tests/core/fake_loop.h"

namespace ringsock {
namespace {

Endpoint To(uint16_t number) {
  return {.ip = IpAddress::V4(192, 0, 2, 1), .port = static_cast<uint16_t>(1000 + number)};
}

class TrainBuilderTest : public testing::Test {
 protected:
  TrainBuilderTest() : bytes_(1 << 20, '\0') {
    for (size_t i = 0; i < bytes_.size(); ++i) bytes_[i] = static_cast<char>(i % 251);
  }
  // A view of the test's memory.
  PacketTrain At(size_t offset, uint32_t size, uint32_t segment = 0) const {
    return {reinterpret_cast<const std::byte*>(bytes_.data()) + offset, size, segment};
  }

  std::string bytes_;
  FakeLoop loop_;
  TrainBuilder builder_{&loop_};
};

TEST_F(TrainBuilderTest, NeighboursInMemoryLeaveAsOneViewWithoutACopy) {
  for (uint32_t i = 0; i < 10; ++i) builder_.Add(0, To(1), At(i * 1400, 1400));
  EXPECT_TRUE(loop_.sent().empty());
  builder_.Flush();
  ASSERT_EQ(loop_.sent().size(), 1u);
  EXPECT_FALSE(loop_.sent()[0].copied);
  EXPECT_EQ(loop_.sent()[0].train.size, 14000u);
  EXPECT_EQ(loop_.sent()[0].train.segment_size, 1400u);
  EXPECT_EQ(loop_.free_slabs(), 64u);
}

TEST_F(TrainBuilderTest, PacketsApartInMemoryAreGathered) {
  for (uint32_t i = 0; i < 8; ++i) {
    builder_.Add(0, To(1), At(i * 3000, 1400));
    builder_.Add(0, To(2), At(i * 3000 + 1400, 1400));
  }
  builder_.Flush();
  ASSERT_EQ(loop_.sent().size(), 2u);
  for (const auto& sent : loop_.sent()) {
    EXPECT_TRUE(sent.copied);
    EXPECT_EQ(sent.packets.size(), 8u);
  }
  EXPECT_EQ(loop_.free_slabs(), 64u);
}

// As many peers as a batch has trains, in turn: each leaves as one.
TEST_F(TrainBuilderTest, EachOfManyDestinationsGetsOneTrain) {
  constexpr size_t kDestinations = TrainBuilder::kOpenTrains;
  for (uint32_t i = 0; i < 4 * kDestinations; ++i) {
    builder_.Add(0, To(static_cast<uint16_t>(i % kDestinations)), At(i * 200, 100));
  }
  EXPECT_TRUE(loop_.sent().empty());
  builder_.Flush();
  ASSERT_EQ(loop_.sent().size(), kDestinations);
  for (const auto& sent : loop_.sent()) EXPECT_EQ(sent.packets.size(), 4u);
}

TEST_F(TrainBuilderTest, OneDestinationTooManyClosesThemAll) {
  constexpr size_t kDestinations = TrainBuilder::kOpenTrains;
  for (uint32_t i = 0; i <= kDestinations; ++i) {
    builder_.Add(0, To(static_cast<uint16_t>(i)), At(i * 100, 100));
  }
  EXPECT_EQ(loop_.sent().size(), kDestinations);
  EXPECT_FALSE(builder_.empty());
  builder_.Flush();
  EXPECT_EQ(loop_.sent().size(), kDestinations + 1);
  EXPECT_TRUE(builder_.empty());
}

TEST_F(TrainBuilderTest, AShorterPacketEndsTheTrain) {
  builder_.Add(0, To(1), At(0, 1000));
  builder_.Add(0, To(1), At(1000, 400));
  builder_.Add(0, To(1),
               At(1400, 400));  // would be of equal size with the last, not with the train
  builder_.Flush();
  ASSERT_EQ(loop_.sent().size(), 2u);
  EXPECT_EQ(loop_.sent()[0].packets.size(), 2u);
  EXPECT_EQ(loop_.sent()[1].packets.size(), 1u);
}

TEST_F(TrainBuilderTest, ALargerPacketBeginsANewTrain) {
  builder_.Add(0, To(1), At(0, 400));
  builder_.Add(0, To(1), At(400, 1000));
  builder_.Flush();
  EXPECT_EQ(loop_.sent().size(), 2u);
}

TEST_F(TrainBuilderTest, ATrainOfOtherSegmentsIsNotJoined) {
  builder_.Add(0, To(1), At(0, 1000));
  builder_.Add(0, To(1), At(1000, 900, 300));
  builder_.Flush();
  ASSERT_EQ(loop_.sent().size(), 2u);
  EXPECT_EQ(loop_.sent()[1].packets.size(), 3u);
}

TEST_F(TrainBuilderTest, OtherSocketsAreNotJoined) {
  builder_.Add(0, To(1), At(0, 1000));
  builder_.Add(1, To(1), At(1000, 1000));
  builder_.Flush();
  ASSERT_EQ(loop_.sent().size(), 2u);
  EXPECT_EQ(loop_.sent()[0].socket, 0u);
  EXPECT_EQ(loop_.sent()[1].socket, 1u);
}

TEST_F(TrainBuilderTest, HoldsToTheLimitsOfATrain) {
  for (uint32_t i = 0; i < 130; ++i) builder_.Add(0, To(1), At(i * 100, 100));
  for (uint32_t i = 0; i < 100; ++i) builder_.Add(0, To(2), At(i * 1400, 1400));
  builder_.Flush();
  size_t packets = 0;
  for (const auto& sent : loop_.sent()) {
    EXPECT_LE(sent.packets.size(), io::kMaxTrainPackets);
    EXPECT_LE(sent.train.size, io::kMaxDatagram);
    packets += sent.packets.size();
  }
  EXPECT_EQ(packets, 230u);
  EXPECT_EQ(loop_.sent().size(), 3u + 3u);  // 64 + 64 + 2; 46 + 46 + 8
}

TEST_F(TrainBuilderTest, LongTrainsAreCutIntoWholePackets) {
  builder_.Add(0, To(1), At(0, 200 * 100 + 7, 100));
  builder_.Add(0, To(2), At(0, 100 * 1400, 1400));
  builder_.Add(0, To(3), At(0, static_cast<uint32_t>(io::kMaxDatagram), 0));
  builder_.Flush();
  std::map<uint16_t, size_t> packets;
  for (const auto& sent : loop_.sent()) {
    EXPECT_LE(sent.packets.size(), io::kMaxTrainPackets);
    EXPECT_LE(sent.train.size, io::kMaxDatagram);
    packets[sent.train.to.port] += sent.packets.size();
  }
  EXPECT_EQ(packets[1001], 201u);
  EXPECT_EQ(packets[1002], 100u);
  EXPECT_EQ(packets[1003], 1u);
}

TEST_F(TrainBuilderTest, BigTrainsAreNotCopied) {
  builder_.Add(0, To(1), At(0, 46 * 1400, 1400));
  builder_.Add(0, To(1), At(100000, 46 * 1400, 1400));
  builder_.Add(0, To(1), At(200000, 1400));
  builder_.Flush();
  ASSERT_EQ(loop_.sent().size(), 3u);
  for (const auto& sent : loop_.sent()) EXPECT_FALSE(sent.copied);
}

TEST_F(TrainBuilderTest, WithoutSlabsEverythingStillLeaves) {
  FakeLoop loop(0);
  TrainBuilder builder(&loop);
  for (uint32_t i = 0; i < 4; ++i) builder.Add(0, To(1), At(i * 3000, 1400));
  builder.Flush();
  EXPECT_EQ(loop.sent().size(), 4u);
}

TEST_F(TrainBuilderTest, WithoutCopiesOnlyNeighboursJoin) {
  TrainBuilder builder(&loop_, /*copy_limit=*/0);
  builder.Add(0, To(1), At(0, 1400));
  builder.Add(0, To(1), At(1400, 1400));
  builder.Add(0, To(1), At(9000, 1400));
  builder.Flush();
  ASSERT_EQ(loop_.sent().size(), 2u);
  EXPECT_EQ(loop_.sent()[0].packets.size(), 2u);
}

TEST_F(TrainBuilderTest, NothingIsNothing) {
  builder_.Add(0, To(1), At(0, 0));
  builder_.Flush();
  EXPECT_TRUE(loop_.sent().empty());
}

TEST_F(TrainBuilderTest, GivesBackTheSlabsOfTrainsThatNeverLeft) {
  {
    TrainBuilder builder(&loop_);
    builder.Add(0, To(1), At(0, 1400));
    builder.Add(0, To(1), At(5000, 1400));
    EXPECT_EQ(loop_.free_slabs(), 63u);
  }
  EXPECT_EQ(loop_.free_slabs(), 64u);
}

// The model: for each destination a list of packets. Whatever is added in whatever order, sizes and
// places, each destination gets its packets once, whole and in order, and no train is malformed.
TEST_F(TrainBuilderTest, KeepsOrderPerDestinationUnderAllInterleavings) {
  for (uint32_t seed = 1; seed <= 300; ++seed) {
    std::mt19937 random(seed);
    const auto pick = [&random](uint32_t n) { return static_cast<uint32_t>(random() % n); };
    FakeLoop loop(pick(3) == 0 ? pick(4) : 64);
    const uint32_t destinations = 1 + pick(200);
    const std::vector<uint32_t> sizes = {1 + pick(100), 1 + pick(1500), 1400};
    std::map<uint16_t, std::vector<std::string>> model;
    {
      TrainBuilder builder(&loop);
      uint32_t offset = 0;
      for (int step = 0; step < 300; ++step) {
        const auto to = To(static_cast<uint16_t>(pick(destinations)));
        const uint32_t segment = sizes[pick(3)];
        const uint32_t size = segment * (1 + pick(pick(8) == 0 ? 90 : 4)) - pick(segment);
        if (pick(3) == 0) offset = pick(500'000);  // else next to the last one
        if (offset + size > bytes_.size()) offset = 0;
        builder.Add(0, to, At(offset, size, segment));
        for (uint32_t at = 0; at < size; at += segment) {
          model[to.port].push_back(bytes_.substr(offset + at, std::min(segment, size - at)));
        }
        offset += size;
        if (pick(50) == 0) builder.Flush();
      }
      builder.Flush();
    }
    std::map<uint16_t, std::vector<std::string>> got;
    for (const auto& sent : loop.sent()) {
      ASSERT_LE(sent.packets.size(), io::kMaxTrainPackets);
      ASSERT_LE(sent.train.size, io::kMaxDatagram);
      auto& list = got[sent.train.to.port];
      list.insert(list.end(), sent.packets.begin(), sent.packets.end());
    }
    ASSERT_EQ(got, model) << "seed " << seed;
  }
}

}  // namespace
}  // namespace ringsock
