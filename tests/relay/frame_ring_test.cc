// The ring between two workers: order, bounds, two threads.
#include "relay/frame_ring.h"

#include <gtest/gtest.h>

#include <string>
#include <thread>

#include "base/random.h"

namespace ringsock::relay {
namespace {

derp::Bytes AsBytes(const std::string& text) { return std::as_bytes(std::span(text)); }

TEST(FrameRingTest, ShowsFramesInOrderOncePublished) {
  FrameRing ring(0);
  EXPECT_FALSE(ring.Publish());
  ASSERT_TRUE(ring.Write({1, 2}, AsBytes("head"), AsBytes("tail")));
  ASSERT_TRUE(ring.Write({3, 4}, AsBytes("whole"), {}));
  std::string seen;
  const auto take = [&](const FrameRing::Target& target, derp::MutableBytes frame) {
    seen += std::to_string(target.slot) + ":" + std::to_string(target.generation) + ":" +
            std::string(reinterpret_cast<const char*>(frame.data()), frame.size()) + "|";
  };
  ring.Drain(take);
  EXPECT_EQ(seen, "");
  EXPECT_TRUE(ring.Publish());
  ring.Drain(take);
  EXPECT_EQ(seen, "1:2:headtail|3:4:whole|");
  ring.Drain(take);
  EXPECT_EQ(seen, "1:2:headtail|3:4:whole|");
}

TEST(FrameRingTest, RefusesWhatDoesNotFitAndTakesItOnceThereIsRoom) {
  FrameRing ring(0);
  const std::string frame(60'000, 'f');
  int written = 0;
  while (ring.Write({}, AsBytes(frame), {})) ++written;
  EXPECT_EQ(written, 4);  // of 256 KiB
  ring.Publish();
  int read = 0;
  ring.Drain([&](const FrameRing::Target&, derp::MutableBytes bytes) {
    EXPECT_EQ(bytes.size(), frame.size());
    ++read;
  });
  EXPECT_EQ(read, written);
  EXPECT_TRUE(ring.Write({}, AsBytes(frame), {}));
}

TEST(FrameRingTest, BetweenTwoThreadsNothingIsLostOrTorn) {
  FrameRing ring(256 << 10);
  constexpr uint32_t kFrames = 20'000;
  std::thread writer([&ring] {
    SeededRandom random(1);
    for (uint32_t i = 0; i < kFrames;) {
      const std::string frame(random.Below(3000), static_cast<char>(i));
      while (!ring.Write({i, i ^ 7}, AsBytes(frame), {})) {
        ring.Publish();
        std::this_thread::yield();
      }
      if (++i % 5 == 0 || i == kFrames) ring.Publish();
    }
  });
  SeededRandom random(1);
  uint32_t next = 0;
  bool good = true;
  while (next < kFrames) {
    ring.Drain([&](const FrameRing::Target& target, derp::MutableBytes bytes) {
      const size_t size = random.Below(3000);
      good = good && target.slot == next && target.generation == (next ^ 7) && bytes.size() == size;
      for (const std::byte byte : bytes) good = good && byte == static_cast<std::byte>(next);
      ++next;
    });
    std::this_thread::yield();
  }
  writer.join();
  EXPECT_TRUE(good);
}

}  // namespace
}  // namespace ringsock::relay
