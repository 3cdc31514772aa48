// The queue of a stream against a plain string, and what becomes of its memory.
#include "io/send_queue.h"

#include <gtest/gtest.h>

#include <array>
#include <cstring>
#include <random>
#include <string>

namespace ringsock::io {
namespace {

std::span<const std::byte> Bytes(const std::string& text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

class SendQueueTest : public testing::Test {
 protected:
  ~SendQueueTest() override { queue_.Clear(&pool_); }
  std::string Next(size_t size) {
    std::string text(size, '\0');
    for (char& c : text) c = static_cast<char>(random_());
    return text;
  }
  std::string All() const {
    std::array<iovec, 64> pieces;
    std::string text;
    for (size_t i = 0, count = queue_.Front(pieces); i < count; ++i) {
      text.append(static_cast<const char*>(pieces[i].iov_base), pieces[i].iov_len);
    }
    return text;
  }

  std::minstd_rand random_{1};
  SendChunkPool pool_;
  SendQueue queue_;
};

TEST_F(SendQueueTest, KeepsOrderWhateverIsMixed) {
  std::string expected;
  for (int round = 0; round < 20'000; ++round) {
    const size_t size = 1 + random_() % (random_() % 10 == 0 ? 20'000 : 1500);
    switch (random_() % 4) {
      case 0: {
        const std::string text = Next(size);
        if (expected.size() < 300'000) queue_.Append(Bytes(text), &pool_), expected += text;
        break;
      }
      case 1: {
        const auto space = queue_.Reserve(size, &pool_);
        ASSERT_EQ(space.size(), std::min(size, SendChunk::kSize));
        const std::string text = Next(space.size());
        memcpy(space.data(), text.data(), space.size());
        // The kernel may take bytes meanwhile.
        const size_t taken = random_() % 2 * (random_() % (queue_.size() + 1));
        queue_.Consume(taken, &pool_);
        expected.erase(0, taken);
        ASSERT_EQ(memcmp(space.data(), text.data(), space.size()), 0);
        const size_t used = expected.size() < 300'000 ? random_() % (space.size() + 1) : 0;
        queue_.Commit(used, &pool_);
        expected += text.substr(0, used);
        break;
      }
      case 2: {
        const size_t taken = random_() % (queue_.size() + 1);
        queue_.Consume(taken, &pool_);
        expected.erase(0, taken);
        break;
      }
      default:
        if (random_() % 50 == 0) queue_.Clear(&pool_), expected.clear();
    }
    ASSERT_EQ(queue_.size(), expected.size());
    ASSERT_EQ(All(), expected) << round;
  }
}

TEST_F(SendQueueTest, ReservedBytesStayWhenAllBeforeThemIsTaken) {
  queue_.Append(Bytes("abc"), &pool_);
  const auto space = queue_.Reserve(5, &pool_);
  memcpy(space.data(), "defgh", 5);
  queue_.Consume(3, &pool_);
  EXPECT_TRUE(queue_.empty());
  queue_.Commit(4, &pool_);
  EXPECT_EQ(All(), "defg");
}

TEST_F(SendQueueTest, WhatIsNotCommittedIsAsIfNeverReserved) {
  queue_.Append(Bytes("abc"), &pool_);
  queue_.Reserve(5, &pool_);
  queue_.Append(Bytes("def"), &pool_);
  EXPECT_EQ(All(), "abcdef");
  queue_.Commit(5, &pool_);  // nothing is reserved any more
  queue_.Reserve(5, &pool_);
  queue_.Commit(0, &pool_);
  queue_.Commit(3, &pool_);
  EXPECT_EQ(All(), "abcdef");
}

TEST_F(SendQueueTest, CommitsNoMoreThanWasReserved) {
  const auto space = queue_.Reserve(3, &pool_);
  memcpy(space.data(), "abc", 3);
  queue_.Commit(1000, &pool_);
  EXPECT_EQ(All(), "abc");
}

TEST_F(SendQueueTest, GivesItsMemoryBackWhenEmpty) {
  EXPECT_EQ(pool_.handed_out(), 0u);
  queue_.Append(Bytes(Next(100'000)), &pool_);
  EXPECT_EQ(pool_.handed_out(), 6u);
  queue_.Reserve(SendChunk::kSize, &pool_);
  EXPECT_EQ(pool_.handed_out(), 7u);
  queue_.Consume(100'000, &pool_);
  EXPECT_EQ(pool_.handed_out(), 1u) << "what is reserved stays";
  queue_.EndReservation(&pool_);
  EXPECT_EQ(pool_.handed_out(), 0u);
  // Behind bytes, an empty chunk goes with them.
  queue_.Append(Bytes(Next(1000)), &pool_);
  queue_.Reserve(SendChunk::kSize, &pool_);
  queue_.EndReservation(&pool_);
  EXPECT_EQ(queue_.size(), 1000u);
  queue_.Consume(1000, &pool_);
  EXPECT_EQ(pool_.handed_out(), 0u);
}

}  // namespace
}  // namespace ringsock::io
