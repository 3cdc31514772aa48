// A queue of frames against a plain account of what must be in it.
#include "relay/frame_queue.h"

#include <gtest/gtest.h>

#include <deque>
#include <string>

#include "base/random.h"

namespace ringsock::relay {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

const Instant kStart(std::chrono::hours(1));

std::string FrameOf(size_t packet, uint8_t mark) {
  std::string frame(derp::kFrameHeaderSize + packet, static_cast<char>(mark));
  frame[0] = 5;
  for (int i = 0; i < 4; ++i)
    frame[1 + static_cast<size_t>(i)] = static_cast<char>(packet >> (24 - 8 * i));
  return frame;
}
std::string TextOf(derp::Bytes bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

class FrameQueueTest : public testing::Test {
 protected:
  ~FrameQueueTest() override {
    queue_.Clear(&pool_);
    EXPECT_EQ(pool_.used_bytes(), 0u);
  }
  void Append(const std::string& frame, Instant now = kStart) {
    const derp::Bytes bytes = std::as_bytes(std::span(frame));
    const size_t cut = frame.size() / 2;
    queue_.Append(bytes.first(cut), bytes.subspan(cut), now, limits_, &pool_, &drops_);
  }
  // Takes all there is, as a stream with room would.
  std::string TakeAll() {
    std::string all;
    while (!queue_.empty()) {
      all += TextOf(queue_.Front());
      queue_.Consume(queue_.Front().size(), &pool_);
    }
    return all;
  }

  FrameChunkPool pool_{1 << 20};
  FrameQueue queue_;
  FrameQueue::Limits limits_{200'000, seconds(1)};
  FrameDrops drops_;
};

TEST_F(FrameQueueTest, GathersFramesInChunksOfARecord) {
  std::string all;
  for (uint8_t i = 0; i < 30; ++i) {
    all += FrameOf(1432, i);
    Append(FrameOf(1432, i));
  }
  EXPECT_EQ(queue_.bytes(), all.size());
  EXPECT_EQ(queue_.Front().size(), 11u * 1437);  // as many whole frames as 16 KiB hold
  EXPECT_EQ(TakeAll(), all);
  EXPECT_EQ(queue_.bytes(), 0u);
  EXPECT_EQ(queue_.memory(), 0u);
}

TEST_F(FrameQueueTest, ConsumeCountsFrames) {
  for (int i = 0; i < 12; ++i) Append(FrameOf(1432, 1));
  EXPECT_EQ(queue_.Consume(queue_.Front().size(), &pool_), 11u);
  EXPECT_EQ(queue_.Consume(0, &pool_), 0u);
  EXPECT_EQ(queue_.Consume(queue_.Front().size(), &pool_), 1u);
}

TEST_F(FrameQueueTest, AFullQueueDropsItsOldestFrames) {
  limits_.max_bytes = 10'000;
  for (uint8_t i = 0; i < 25; ++i) Append(FrameOf(995, i));
  EXPECT_EQ(drops_.full, 15u);
  std::string expected;
  for (uint8_t i = 15; i < 25; ++i) expected += FrameOf(995, i);
  EXPECT_EQ(TakeAll(), expected);
}

TEST_F(FrameQueueTest, AFrameLargerThanTheBoundIsDroppedItself) {
  limits_.max_bytes = 10'000;
  Append(FrameOf(10'000, 1));
  EXPECT_EQ(drops_.full, 1u);
  EXPECT_TRUE(queue_.empty());
}

TEST_F(FrameQueueTest, ALargeFrameMayBeSentInPartsAndIsThenNotDropped) {
  const std::string large = FrameOf(60'000, 1);
  Append(large);
  EXPECT_EQ(queue_.Consume(20'000, &pool_), 0u);
  EXPECT_TRUE(queue_.in_frame());
  for (uint8_t i = 0; i < 250; ++i) Append(FrameOf(995, i));
  EXPECT_GT(drops_.full, 0u);
  EXPECT_EQ(TextOf(queue_.Front()), large.substr(20'000));
  queue_.DropAged(kStart + seconds(10), limits_, &pool_, &drops_);
  EXPECT_EQ(TextOf(queue_.Front()), large.substr(20'000));
  EXPECT_EQ(queue_.Consume(queue_.Front().size(), &pool_), 1u);
  EXPECT_FALSE(queue_.in_frame());
  EXPECT_TRUE(queue_.empty());
  EXPECT_EQ(drops_.full + drops_.aged, 250u);
}

TEST_F(FrameQueueTest, NoFrameStaysLongerThanItsAge) {
  for (int i = 0; i < 20; ++i)
    Append(FrameOf(100, static_cast<uint8_t>(i)), kStart + milliseconds(100 * i));
  // At 1.9 s what came at 0.9 s and later is a second old, or less.
  queue_.DropAged(kStart + milliseconds(1900), limits_, &pool_, &drops_);
  EXPECT_GE(drops_.aged, 9u);
  EXPECT_LE(drops_.aged, 12u) << "up to a quarter of the age too early";
  const std::string left = TakeAll();
  EXPECT_EQ(left.size(), (20 - drops_.aged) * 105);
  EXPECT_EQ(left.back(), 19);
}

TEST_F(FrameQueueTest, QueuesShareThePool) {
  limits_.max_bytes = 10 << 20;
  FrameQueue other;
  FrameDrops other_drops;
  for (int i = 0; i < 2000; ++i) Append(FrameOf(1000, 1));
  EXPECT_GT(drops_.memory, 0u);
  // One alone gets no more than half: as much is left to others.
  EXPECT_LE(pool_.used_bytes(), (size_t{512} << 10) + sizeof(FrameChunk) + FrameChunk::kSize);
  const std::string frame = FrameOf(1000, 2);
  for (int i = 0; i < 100; ++i) {
    other.Append(std::as_bytes(std::span(frame)), {}, kStart, limits_, &pool_, &other_drops);
  }
  EXPECT_EQ(other_drops.memory, 0u);
  EXPECT_EQ(other.Clear(&pool_), 100u);
}

TEST_F(FrameQueueTest, KeepsItsAccountsWhateverHappens) {
  SeededRandom random(5);
  limits_.max_bytes = 100'000;
  uint64_t appended = 0, taken = 0;
  Instant now = kStart;
  for (int i = 0; i < 20'000; ++i) {
    now += milliseconds(random.Below(20));
    const size_t size = random.Chance(0.02) ? 20'000 + random.Below(45'000) : random.Below(1500);
    Append(FrameOf(size, static_cast<uint8_t>(i)), now);
    ++appended;
    if (random.Chance(0.3)) queue_.DropAged(now, limits_, &pool_, &drops_);
    while (random.Chance(0.3) && !queue_.empty()) {
      const size_t front = queue_.Front().size();
      const bool part = front > FrameChunk::kSize && random.Chance(0.5);
      taken += queue_.Consume(part ? front / 2 : front, &pool_);
    }
    ASSERT_LE(queue_.bytes(), limits_.max_bytes);
    ASSERT_EQ(queue_.memory(), pool_.used_bytes());
  }
  taken += queue_.Clear(&pool_);
  EXPECT_EQ(appended, taken + drops_.full + drops_.aged + drops_.memory);
}

}  // namespace
}  // namespace ringsock::relay
