// Frames that wait: order, bounds, memory, and a plain list to compare with.
#include "derp/write_queue.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <string>

#include "base/random.h"

namespace ringsock::derp {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

class WriteQueueTest : public testing::Test {
 protected:
  bool Push(WriteQueue* queue, size_t size, char fill = 'x') {
    const MutableBytes memory = queue->Push(size, now);
    if (memory.empty()) return false;
    EXPECT_EQ(memory.size(), size);
    std::fill(memory.begin(), memory.end(), static_cast<std::byte>(fill));
    return true;
  }
  static std::string Text(Bytes bytes) {
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }
  Instant now{seconds(100)};
};

TEST_F(WriteQueueTest, GivesFramesInOrderAsOnePiece) {
  WriteQueue queue({});
  EXPECT_TRUE(queue.Front(100).empty());
  EXPECT_TRUE(Push(&queue, 3, 'a'));
  EXPECT_TRUE(Push(&queue, 2, 'b'));
  EXPECT_TRUE(Push(&queue, 4, 'c'));
  EXPECT_EQ(queue.bytes(), 9u);
  EXPECT_EQ(queue.frames(), 3u);
  EXPECT_EQ(Text(queue.Front(100)), "aaabbcccc");
  // Whole frames only.
  EXPECT_EQ(Text(queue.Front(8)), "aaabb");
  queue.Consume(5);
  EXPECT_FALSE(queue.mid_frame());
  EXPECT_EQ(Text(queue.Front(8)), "cccc");
  // A frame longer than the piece comes whole.
  EXPECT_EQ(Text(queue.Front(2)), "cccc");
  queue.Consume(4);
  EXPECT_TRUE(queue.empty());
  EXPECT_EQ(queue.drops().bytes, 0u);
}

TEST_F(WriteQueueTest, DropsFromTheHeadWhenFull) {
  WriteQueue queue({.max_bytes = 10});
  for (const char c : {'a', 'b', 'c'}) EXPECT_TRUE(Push(&queue, 4, c));
  EXPECT_EQ(Text(queue.Front(100)), "bbbbcccc");
  EXPECT_EQ(queue.drops().full, 1u);
  EXPECT_EQ(queue.drops().bytes, 4u);
  // What can never fit pushes nothing out.
  EXPECT_FALSE(Push(&queue, 11, 'd'));
  EXPECT_EQ(Text(queue.Front(100)), "bbbbcccc");
  EXPECT_EQ(queue.drops().full, 2u);
  EXPECT_TRUE(Push(&queue, 10, 'e'));
  EXPECT_EQ(Text(queue.Front(100)), "eeeeeeeeee");
  EXPECT_EQ(queue.drops().full, 4u);
  EXPECT_EQ(queue.drops().bytes, 23u);
}

TEST_F(WriteQueueTest, DropsWhatIsTooOld) {
  WriteQueue queue({.max_age = seconds(3)});
  EXPECT_EQ(queue.next_age(), Instant::max());
  Push(&queue, 4, 'a');
  const Instant first = now;
  now += seconds(2);
  Push(&queue, 4, 'b');
  EXPECT_EQ(queue.next_age(), first + seconds(3) + Duration(1));
  queue.DropAged(first + seconds(3));
  EXPECT_EQ(queue.frames(), 2u) << "exactly max_age is not too old";
  queue.DropAged(queue.next_age());
  EXPECT_EQ(Text(queue.Front(100)), "bbbb");
  EXPECT_EQ(queue.drops().aged, 1u);
  // A push looks too.
  now += seconds(4);
  Push(&queue, 4, 'c');
  EXPECT_EQ(Text(queue.Front(100)), "cccc");
  EXPECT_EQ(queue.drops().aged, 2u);
  EXPECT_EQ(queue.drops().bytes, 8u);
}

TEST_F(WriteQueueTest, AFrameSentInPartStaysAndThoseBehindItMayGo) {
  WriteQueue queue({.max_bytes = 100, .max_age = seconds(3)});
  Push(&queue, 60, 'a');
  queue.Consume(20);
  EXPECT_TRUE(queue.mid_frame());
  EXPECT_EQ(queue.bytes(), 40u);
  EXPECT_EQ(queue.frames(), 1u);
  Push(&queue, 30, 'b');
  Push(&queue, 50, 'c');  // b goes
  EXPECT_EQ(queue.drops().full, 1u);
  EXPECT_EQ(queue.bytes(), 90u);
  EXPECT_FALSE(Push(&queue, 61, 'd')) << "no room beside the rest of the first";
  now += seconds(10);
  queue.DropAged(now);
  EXPECT_EQ(queue.drops().aged, 1u);
  EXPECT_EQ(queue.next_age(), Instant::max());
  EXPECT_FALSE(queue.DropHead());
  EXPECT_EQ(Text(queue.Front(10)), std::string(40, 'a'));
  queue.Consume(15);
  EXPECT_EQ(Text(queue.Front(10)), std::string(25, 'a'));
  Push(&queue, 5, 'e');
  queue.Consume(25);
  EXPECT_FALSE(queue.mid_frame());
  EXPECT_EQ(Text(queue.Front(10)), "eeeee");
  // The stream breaks in the middle of one.
  queue.Consume(1);
  EXPECT_TRUE(queue.mid_frame());
  queue.CutHead();
  EXPECT_TRUE(queue.empty());
  EXPECT_EQ(queue.drops().cut, 1u);
  EXPECT_EQ(queue.drops().bytes, 30u + 61 + 50 + 5);
}

TEST_F(WriteQueueTest, HoldsNoMemoryWhenIdle) {
  WriteQueue queue({});
  EXPECT_EQ(queue.memory(), 0u);
  for (int i = 0; i < 1000; ++i) Push(&queue, 1437);
  EXPECT_GT(queue.memory(), queue.bytes());
  // Chunks and the notes on frames cost little more than the frames.
  EXPECT_LT(queue.memory(), queue.bytes() * 5 / 4);
  queue.Trim();
  EXPECT_EQ(queue.frames(), 729u);  // 1 MiB of them
  while (!queue.empty()) queue.Consume(queue.Front(16384).size());
  EXPECT_GT(queue.memory(), 0u) << "kept for the next burst";
  queue.Trim();
  EXPECT_EQ(queue.memory(), 0u);
  EXPECT_TRUE(Push(&queue, 10, 'z'));
  EXPECT_EQ(Text(queue.Front(100)), "zzzzzzzzzz");
}

// Against a plain list of frames, whatever is done in whatever order.
TEST_F(WriteQueueTest, BehavesAsAListOfFrames) {
  struct Frame {
    std::string bytes;
    Instant pushed;
  };
  SeededRandom random(3);
  const WriteQueueLimits limits{.max_bytes = 200'000, .max_age = milliseconds(500)};
  WriteQueue queue(limits);
  std::deque<Frame> list;
  std::string partial;
  uint64_t dropped = 0;
  const auto drop = [&] {
    list.pop_front();
    ++dropped;
  };
  const auto bytes = [&] {
    size_t sum = partial.size();
    for (const Frame& frame : list) sum += frame.bytes.size();
    return sum;
  };
  for (int step = 0; step < 20'000; ++step) {
    now += milliseconds(random.Below(20));
    const uint64_t what = random.Below(10);
    if (what < 6) {
      const size_t size = 1 + random.Below(random.Chance(0.1) ? 65'000 : 1500);
      const char fill = static_cast<char>('a' + random.Below(26));
      while (!list.empty() && now - list.front().pushed > limits.max_age) drop();
      while (!list.empty() && bytes() + size > limits.max_bytes) drop();
      ASSERT_TRUE(Push(&queue, size, fill));
      list.push_back({std::string(size, fill), now});
    } else if (what < 9) {
      const std::string piece = Text(queue.Front(16384));
      std::string all = partial;
      for (const Frame& frame : list) all += frame.bytes;
      ASSERT_EQ(piece, all.substr(0, piece.size()));
      ASSERT_EQ(piece.empty(), all.empty());
      size_t taken = random.Chance(0.7) ? piece.size() : random.Below(piece.size() + 1);
      queue.Consume(taken);
      const size_t of_partial = std::min(taken, partial.size());
      partial.erase(0, of_partial);
      taken -= of_partial;
      while (taken > 0) {
        const std::string first = list.front().bytes;
        list.pop_front();
        if (taken < first.size()) partial = first.substr(taken);
        taken -= std::min(taken, first.size());
      }
    } else if (random.Chance(0.1)) {
      queue.Trim();
    } else if (random.Chance(0.1)) {
      if (!partial.empty()) ++dropped;
      partial.clear();
      queue.CutHead();
    } else if (!list.empty() && random.Chance(0.1)) {
      drop();
      ASSERT_TRUE(queue.DropHead());
    }
    ASSERT_EQ(queue.bytes(), bytes());
    ASSERT_EQ(queue.frames(), list.size() + (partial.empty() ? 0 : 1));
    const WriteQueueDrops& drops = queue.drops();
    ASSERT_EQ(drops.full + drops.aged + drops.heads + drops.cut, dropped);
    ASSERT_LE(queue.bytes(), limits.max_bytes);
  }
}

}  // namespace
}  // namespace ringsock::derp
