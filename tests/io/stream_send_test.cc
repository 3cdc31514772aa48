// One suite for the streams of every loop: what is written into the queue itself, and how much of
// it waits where.
#include <cstring>

#include "io/stream.h"
#include "tests/io/stream_world.h"

namespace ringsock::io {
namespace {

INSTANTIATE_TEST_SUITE_P(All, StreamTest, testing::ValuesIn(WorldsAndFamilies()), ParamName);

// Writes the next bytes of the pattern into the queue. Returns how many.
size_t WriteNext(StreamEnd& end, size_t size) {
  const auto space = end.loop->SendSpace(end.id, size);
  const auto bytes = BytesAt(end.sent, space.size());
  std::copy(bytes.begin(), bytes.end(), space.begin());
  end.loop->CommitSend(end.id, space.size());
  end.sent += space.size();
  return space.size();
}

TEST_P(StreamTest, CarriesWhatIsWrittenIntoTheQueue) {
  auto [a, b] = Pair();
  ASSERT_NE(b, nullptr);
  for (size_t size : {1, 2, 3, 100, 1400, 4096, 16384, 16896}) {
    ASSERT_EQ(WriteNext(*a, size), size);
    ASSERT_EQ(a->SendNext(size / 2), size / 2);
    ASSERT_EQ(WriteNext(*a, size), size);
    ASSERT_TRUE(Until([&, &a = a, &b = b] { return b->received == a->sent; }, "all arrives"));
  }
  EXPECT_TRUE(b->in_order);
  EXPECT_EQ(a->loop->SendSpace(a->id, 1 << 20).size(), kMaxSendSpace);
}

TEST_P(StreamTest, KeepsWhatIsWrittenBeforeTheConnectionStands) {
  Listen();
  auto a = Connect();
  EXPECT_EQ(WriteNext(*a, 5000), 5000u);
  EXPECT_EQ(WriteNext(*a, 6000), 6000u);
  ASSERT_TRUE(Until([&] { return !acceptor_.ends.empty() && acceptor_.ends[0]->received == 11000; },
                    "arrives"));
  EXPECT_TRUE(acceptor_.ends[0]->in_order);
}

TEST_P(StreamTest, WhatIsNotCommittedIsNotSent) {
  auto [a, b] = Pair();
  ASSERT_NE(b, nullptr);
  auto space = a->loop->SendSpace(a->id, 1000);
  ASSERT_EQ(space.size(), 1000u);
  memset(space.data(), 0xee, space.size());
  Settle();
  a->loop->CommitSend(a->id, 1000);  // too late: handlers have returned
  EXPECT_EQ(a->loop->Stats(a->id).tx_queued, 0u);
  space = a->loop->SendSpace(a->id, 1000);
  const auto bytes = BytesAt(0, 400);
  std::copy(bytes.begin(), bytes.end(), space.begin());
  a->loop->CommitSend(a->id, 400);
  a->sent = 400;
  a->loop->SendSpace(a->id, 1000);
  a->SendNext(100);
  a->loop->SendSpace(a->id, 1000);
  a->loop->Shutdown(a->id);
  a->loop->CommitSend(a->id, 1000);
  EXPECT_EQ(a->loop->Stats(a->id).tx_queued, 500u);
  ASSERT_TRUE(Until([&, b = b] { return b->ends == 1; }, "the end"));
  EXPECT_EQ(b->received, 500u);
  EXPECT_TRUE(b->in_order);
  EXPECT_TRUE(a->loop->SendSpace(a->id, 1).empty()) << "after Shutdown()";
  EXPECT_TRUE(a->loop->SendSpace(kNoStream, 1).empty());
  EXPECT_TRUE(a->loop->SendSpace(acceptor_.id, 1).empty());
  a->loop->CommitSend(kNoStream, 1);
}

// Sending datagrams lets the kernel report what it has taken of streams.
TEST_P(StreamTest, ReservedBytesStayWhileDatagramsAreSent) {
  auto [a, b] = Pair();
  ASSERT_NE(b, nullptr);
  Recorder recorder;
  const auto socket = a_->OpenUdp({.bind = {world_->Address(0, GetParam().v4), 0, 0}}, &recorder);
  ASSERT_TRUE(socket.ok());
  const std::vector<std::byte> datagram(100);
  for (int round = 0; round < 50; ++round) {
    a->SendNext(300);
    world_->Turn();
    const auto space = a->loop->SendSpace(a->id, 700);
    ASSERT_EQ(space.size(), 700u);
    const auto bytes = BytesAt(a->sent, 700);
    std::copy(bytes.begin(), bytes.end(), space.begin());
    for (int i = 0; i < 10; ++i) {
      a_->Send(*socket, {.data = datagram.data(), .size = 100, .to = a_->LocalEndpoint(*socket)});
      a_->Flush();
    }
    a->loop->CommitSend(a->id, 700);
    a->sent += 700;
  }
  ASSERT_TRUE(Until([&, &a = a, b = b] { return b->received == a->sent; }, "all arrives"));
  EXPECT_TRUE(b->in_order);
}

TEST_P(StreamTest, ASmallQueueFillsAndTellsOfRoom) {
  ConnectConfig config;
  config.options.send_queue = 64 << 10;
  auto [a, b] = Pair(config);
  ASSERT_NE(b, nullptr);
  StreamEnd* from = a.get();
  b->loop->SetReceiving(b->id, false);
  Settle();
  const auto fill = [from](StreamId id) {
    while (WriteNext(*from, 16'406) == 16'406)
      EXPECT_LE(from->loop->Stats(id).tx_queued, 64u << 10);
  };
  a->on_writable = fill;
  fill(a->id);
  for (int idle = 0; idle < 500; ++idle) {
    const uint64_t before = a->sent;
    world_->Turn();
    if (a->sent > before) idle = 0;
  }
  // Half of it may have been taken since, without a call.
  EXPECT_LE(a->loop->SendRoom(a->id), 32u << 10);
  const uint64_t stalled = a->sent;
  b->loop->SetReceiving(b->id, true);
  ASSERT_TRUE(Until([&, &a = a] { return a->sent > stalled + (10 << 20); }, "goes on by itself"));
  EXPECT_TRUE(b->in_order);
}

TEST_P(StreamTest, OneFlushIsOneRequest) {
  auto [a, b] = Pair();
  ASSERT_NE(b, nullptr);
  // Fits the kernel's buffer, so that it is taken at once.
  for (int i = 0; i < 20; ++i) a->SendNext(1400);
  for (int i = 0; i < 3; ++i) WriteNext(*a, 16'406);
  ASSERT_TRUE(Until([&, &a = a, b = b] { return b->received == a->sent; }, "all arrives"));
  Settle();
  EXPECT_TRUE(b->in_order);
  EXPECT_EQ(a->loop->Stats(a->id).tx_bytes, a->sent);
  if (GetParam().factory.real) {
    EXPECT_EQ(a->loop->Stats(a->id).tx_requests, 1u);
  }
}

// How much leaves the queue when the other side does not read.
TEST_P(StreamTest, TheKernelTakesLessWithALowWaterMark) {
  uint64_t taken[2] = {};
  for (const bool low : {false, true}) {
    ConnectConfig config;
    config.options.send_buffer = 200'000;
    config.options.not_sent_low_water = low ? 32 << 10 : 0;
    auto [a, b] = Pair(config);
    ASSERT_NE(b, nullptr);
    b->loop->SetReceiving(b->id, false);
    Settle();
    for (int idle = 0; idle < 500; ++idle) {
      if (a->SendNext(1000) > 0) idle = 0;
      world_->Turn();
    }
    taken[low] = a->loop->Stats(a->id).tx_bytes;
    // Held, not lost.
    b->loop->SetReceiving(b->id, true);
    ASSERT_TRUE(Until([&, &a = a, b = b] { return b->received == a->sent; }, "all arrives"));
    EXPECT_TRUE(b->in_order);
    a->loop->Abort(a->id);  // its handler goes
  }
  EXPECT_LT(taken[true] + 50'000, taken[false]);
}

}  // namespace
}  // namespace ringsock::io
