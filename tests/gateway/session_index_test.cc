// Which peer a session index was given to.
#include "gateway/session_index.h"

#include <atomic>
#include <random>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

namespace ringsock::gateway {
namespace {

TEST(SessionIndexTest, FindsWhatWasRecorded) {
  SessionIndex sessions(10);
  EXPECT_EQ(sessions.Find(0), kNoPeer);
  EXPECT_EQ(sessions.Find(7), kNoPeer);
  sessions.Record(0, 0);
  sessions.Record(7, 3);
  sessions.Record(~0u, 4);
  sessions.Record(9, kNoPeer);
  EXPECT_EQ(sessions.Find(0), 0u);
  EXPECT_EQ(sessions.Find(7), 3u);
  EXPECT_EQ(sessions.Find(~0u), 4u);
  EXPECT_EQ(sessions.Find(8), kNoPeer);
  EXPECT_EQ(sessions.Find(9), kNoPeer);
}

TEST(SessionIndexTest, AnIndexGivenOutAgainIsTheNewPeers) {
  SessionIndex sessions(10);
  sessions.Record(7, 3);
  sessions.Record(7, 5);
  EXPECT_EQ(sessions.Find(7), 5u);
}

// Bounded: the oldest go. What is found is never another peer's.
TEST(SessionIndexTest, ManySessions) {
  SessionIndex sessions(64);
  constexpr uint32_t kSessions = 100'000;
  std::mt19937 random(1);
  std::vector<uint32_t> indices;
  for (uint32_t i = 0; i < kSessions; ++i) {
    indices.push_back(random());
    sessions.Record(indices.back(), i);
  }
  uint32_t found = 0;
  for (uint32_t i = 0; i < kSessions; ++i) {
    const PeerIndex peer = sessions.Find(indices[i]);
    if (peer == kNoPeer) continue;
    ++found;
    EXPECT_EQ(indices[peer], indices[i]);
  }
  EXPECT_EQ(found, 64u * 8);  // 64 buckets of 8, all full
  EXPECT_EQ(sessions.Find(indices.back()), kSessions - 1);
}

// Three live sessions of each peer are found when every peer renews its session in turn.
TEST(SessionIndexTest, LiveSessionsStay) {
  constexpr uint32_t kPeers = 4096;
  SessionIndex sessions(kPeers);
  std::mt19937 random(2);
  std::vector<uint32_t> last(3 * kPeers);
  for (int round = 0; round < 30; ++round) {
    for (uint32_t peer = 0; peer < kPeers; ++peer) {
      last[(round % 3) * kPeers + peer] = random();
      sessions.Record(last[(round % 3) * kPeers + peer], peer);
    }
  }
  uint32_t lost = 0;
  for (uint32_t i = 0; i < last.size(); ++i) {
    if (sessions.Find(last[i]) == kNoPeer) ++lost;
  }
  EXPECT_LT(lost, last.size() / 50);
}

// Writers and readers at once: lost entries are allowed, wrong ones are not.
TEST(SessionIndexTest, ManyThreads) {
  SessionIndex sessions(64);
  constexpr uint32_t kIndices = 2000;
  const auto peer_of = [](uint32_t index) { return index * 2654435761u % 1'000'000; };
  std::atomic<bool> wrong{false};
  std::vector<std::thread> threads;
  for (uint32_t t = 0; t < 2; ++t) {
    threads.emplace_back([&, t] {
      for (int round = 0; round < 20; ++round) {
        for (uint32_t i = t; i < kIndices; ++i) sessions.Record(i, peer_of(i));
      }
    });
    threads.emplace_back([&] {
      for (int round = 0; round < 20; ++round) {
        for (uint32_t i = 0; i < kIndices; ++i) {
          const PeerIndex peer = sessions.Find(i);
          if (peer != kNoPeer && peer != peer_of(i)) wrong = true;
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_FALSE(wrong);
}

}  // namespace
}  // namespace ringsock::gateway
