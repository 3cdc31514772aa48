// One suite for the streams of every loop: order, back-pressure, ends and errors, many at a time.
#include "io/stream.h"

#include <gmock/gmock.h>

#include <cstring>

#include "tests/io/stream_world.h"

namespace ringsock::io {
namespace {

using std::chrono::milliseconds;
using testing::HasSubstr;

INSTANTIATE_TEST_SUITE_P(All, StreamTest, testing::ValuesIn(WorldsAndFamilies()), ParamName);
INSTANTIATE_TEST_SUITE_P(All, RealStreamTest, testing::ValuesIn(RealWorldsAndFamilies()),
                         ParamName);

// ---- Bytes ----

TEST_P(StreamTest, CarriesPiecesOfAllSizesInOrderBothWays) {
  auto [a, b] = Pair();
  ASSERT_NE(b, nullptr);
  for (size_t size : {1, 2, 3, 100, 1400, 4096, 16384, 16385, 65537, 200'000}) {
    ASSERT_EQ(a->SendNext(size), size);
    ASSERT_EQ(b->SendNext(size / 2 + 1), size / 2 + 1);
    ASSERT_TRUE(
        Until([&, &a = a, &b = b] { return b->received == a->sent && a->received == b->sent; },
              "all arrives"));
  }
  EXPECT_TRUE(a->in_order && b->in_order);
  EXPECT_EQ(acceptor_.froms[0], a->loop->LocalEndpoint(a->id));
  EXPECT_EQ(a->loop->RemoteEndpoint(a->id), at_);
  EXPECT_EQ(b->loop->LocalEndpoint(b->id), at_);
  const StreamStats stats = a->loop->Stats(a->id);
  EXPECT_EQ(stats.tx_bytes, a->sent);
  EXPECT_EQ(stats.rx_bytes, a->received);
  EXPECT_EQ(stats.tx_queued, 0u);
}

TEST_P(StreamTest, KeepsWhatIsSentBeforeTheConnectionStands) {
  Listen();
  auto a = Connect();
  EXPECT_EQ(a->SendNext(5000), 5000u);
  ASSERT_TRUE(Until([&] { return !acceptor_.ends.empty() && acceptor_.ends[0]->received == 5000; },
                    "arrives"));
  EXPECT_TRUE(acceptor_.ends[0]->in_order);
}

TEST_P(StreamTest, Carries100Megabytes) {
  constexpr uint64_t kTotal = 100'000'000;
  auto [a, b] = Pair();
  ASSERT_NE(b, nullptr);
  StreamEnd* from = a.get();
  // Compared as a whole, to be quick: a pattern that begins again after a prime number of bytes.
  constexpr size_t kPeriod = 1'000'003;
  std::vector<std::byte> pattern = BytesAt(0, kPeriod + (256 << 10));
  std::copy_n(pattern.begin(), 256 << 10, pattern.begin() + kPeriod);
  uint64_t received = 0;
  bool same = true;
  b->check = false;
  b->on_receive = [&](StreamId, std::span<std::byte> bytes) {
    same = same && bytes.size() <= 256 << 10 &&
           memcmp(bytes.data(), pattern.data() + received % kPeriod, bytes.size()) == 0;
    received += bytes.size();
  };
  const auto fill = [&, from](StreamId) {
    while (from->sent < kTotal) {
      const size_t want = std::min<uint64_t>(32768, kTotal - from->sent);
      const auto piece = std::span(pattern).subspan(from->sent % kPeriod, want);
      const size_t taken = from->loop->Send(from->id, piece);
      from->sent += taken;
      if (taken < want) return;
    }
    from->loop->Shutdown(from->id);
  };
  a->on_writable = fill;
  fill(a->id);
  ASSERT_TRUE(Until([&, b = b] { return b->ends == 1; }, "all arrives"));
  EXPECT_EQ(received, kTotal);
  EXPECT_TRUE(same) << "bytes out of order";
  EXPECT_GT(a->writables, 0);
}

TEST_P(StreamTest, HoldsBackASenderWhoseReceiverPauses) {
  ConnectConfig config;
  config.options.send_queue = 64 << 10;
  auto [a, b] = Pair(config);
  ASSERT_NE(b, nullptr);
  b->loop->SetReceiving(b->id, false);
  Settle();
  // Until the kernels' buffers are full, and the queue too.
  size_t idle = 0;
  while (idle < 200) {
    idle = a->SendNext(100'000) == 0 ? idle + 1 : 0;
    world_->Turn();
    ASSERT_LT(a->sent, uint64_t{64} << 20) << "nothing holds the sender back";
  }
  // A kernel may take a little more at any time: TCP asks again whether the window is still closed.
  while (a->loop->SendRoom(a->id) > 0) a->SendNext(100'000);
  EXPECT_GT(a->loop->Stats(a->id).tx_refused, 0u);
  EXPECT_EQ(b->received, 0u);
  const int writables = a->writables;
  b->loop->SetReceiving(b->id, true);
  ASSERT_TRUE(Until([&, &a = a, b = b] { return b->received == a->sent; }, "all arrives"));
  EXPECT_TRUE(b->in_order);
  ASSERT_TRUE(Until([&, &a = a] { return a->writables == writables + 1; }, "writable once"));
  Settle();
  EXPECT_EQ(a->writables, writables + 1);
}

TEST_P(StreamTest, TellsThoseWhoAskWhenThereIsRoom) {
  ConnectConfig config;
  config.options.send_queue = 64 << 10;
  auto [a, b] = Pair(config);
  ASSERT_NE(b, nullptr);
  // With an empty queue at once, and once.
  a->loop->NotifyWritable(a->id);
  ASSERT_TRUE(Until([&, &a = a] { return a->writables == 1; }, "writable"));
  Settle();
  EXPECT_EQ(a->writables, 1);
  // With a full one when it has been sent.
  b->loop->SetReceiving(b->id, false);
  for (size_t idle = 0; idle < 200; world_->Turn()) {
    const size_t room = a->loop->SendRoom(a->id);
    idle = room == 0 ? idle + 1 : 0;
    a->SendNext(room);
  }
  a->loop->NotifyWritable(a->id);
  Settle();
  // Unless the kernel has taken more meanwhile, as it may.
  EXPECT_EQ(a->writables, a->loop->SendRoom(a->id) == 0 ? 1 : a->writables);
  b->loop->SetReceiving(b->id, true);
  ASSERT_TRUE(Until([&, &a = a] { return a->writables == 2; }, "writable again"));
  a->loop->NotifyWritable(kNoStream);  // nothing happens
}

TEST_P(StreamTest, AckedBytesGrowAsLongAsTheOtherSideTakesThem) {
  auto [a, b] = Pair();
  ASSERT_NE(b, nullptr);
  const uint64_t before = a->loop->AckedBytes(a->id);
  ASSERT_EQ(a->SendNext(100'000), 100'000u);
  ASSERT_TRUE(Until([&, &a = a] { return a->loop->AckedBytes(a->id) >= before + 100'000; },
                    "acknowledged"));
  EXPECT_EQ(a->loop->AckedBytes(kNoStream), 0u);
}

TEST_P(StreamTest, TellsOfTheEndAfterThePause) {
  auto [a, b] = Pair();
  ASSERT_NE(b, nullptr);
  b->loop->SetReceiving(b->id, false);
  a->SendNext(10'000);
  a->loop->Shutdown(a->id);
  Settle();
  EXPECT_EQ(b->received, 0u);
  EXPECT_EQ(b->ends, 0);
  b->loop->SetReceiving(b->id, true);
  ASSERT_TRUE(Until([&, b = b] { return b->ends == 1; }, "the end"));
  EXPECT_EQ(b->received, 10'000u);
}

TEST_P(StreamTest, PausesFromInsideOnReceive) {
  auto [a, b] = Pair();
  ASSERT_NE(b, nullptr);
  StreamEnd* end = b;
  int pieces = 0;
  b->on_receive = [&, end](StreamId id, std::span<std::byte>) {
    ++pieces;
    end->loop->SetReceiving(id, false);
  };
  for (int i = 0; i < 20; ++i) {
    a->SendNext(1000);
    Settle();
  }
  EXPECT_EQ(pieces, 1);
  ASSERT_TRUE(Until(
      [&, &a = a] {
        end->loop->SetReceiving(end->id, true);
        return end->received == a->sent;
      },
      "all arrives"));
  EXPECT_TRUE(end->in_order);
}

// ---- Ends ----

TEST_P(StreamTest, HalfCloseLeavesTheOtherDirection) {
  auto [a, b] = Pair();
  ASSERT_NE(b, nullptr);
  a->SendNext(100'000);
  a->loop->Shutdown(a->id);
  EXPECT_EQ(a->SendNext(1), 0u);
  ASSERT_TRUE(Until([&, b = b] { return b->ends == 1; }, "the end"));
  EXPECT_EQ(b->received, 100'000u);
  b->SendNext(200'000);
  b->loop->Shutdown(b->id);
  ASSERT_TRUE(Until([&, &a = a] { return a->ends == 1; }, "the other end"));
  EXPECT_EQ(a->received, 200'000u);
  EXPECT_FALSE(a->closed || b->closed);
  a->loop->Close(a->id);
  b->loop->Close(b->id);
  ASSERT_TRUE(Until([&] { return a_->streams()->totals().open == 0; }, "gone"));
  ASSERT_TRUE(Until([&] { return b_->streams()->totals().open == 1; }, "gone but the listener"));
}

// A plain close() would reset, because there is unread data, and destroy what is on its way.
TEST_P(StreamTest, CloseSendsWhatIsQueuedThoughUnreadBytesWait) {
  auto [a, b] = Pair();
  ASSERT_NE(b, nullptr);
  a->loop->SetReceiving(a->id, false);
  b->SendNext(50'000);
  Settle();
  ASSERT_EQ(a->SendNext(250'000), 250'000u);
  a->loop->Close(a->id);
  EXPECT_FALSE(a->loop->IsOpen(a->id));
  ASSERT_TRUE(Until([&, b = b] { return b->ends == 1; }, "the end"));
  EXPECT_EQ(b->received, 250'000u);
  EXPECT_TRUE(b->in_order);
  EXPECT_FALSE(b->closed);
  b->loop->Close(b->id);
  ASSERT_TRUE(Until([&] { return a_->streams()->totals().open == 0; }, "gone"));
  EXPECT_EQ(a->received, 0u) << "called after Close()";
  EXPECT_EQ(a_->streams()->totals().cut_short, 0u);
}

TEST_P(StreamTest, CloseGivesUpAfterLinger) {
  ConnectConfig config;
  config.options.linger = milliseconds(20);
  auto [a, b] = Pair(config);
  ASSERT_NE(b, nullptr);
  b->loop->SetReceiving(b->id, false);
  Settle();
  size_t idle = 0;
  while (idle < 200) {
    idle = a->SendNext(1 << 20) == 0 ? idle + 1 : 0;
    world_->Turn();
  }
  a->loop->Close(a->id);
  ASSERT_TRUE(Until([&] { return a_->streams()->totals().open == 0; }, "gone"));
  EXPECT_EQ(a_->streams()->totals().cut_short, 1u);
}

TEST_P(StreamTest, AbortResetsTheOtherSide) {
  auto [a, b] = Pair();
  ASSERT_NE(b, nullptr);
  a->SendNext(100);
  ASSERT_TRUE(Until([&, b = b] { return b->received == 100; }, "arrives"));
  a->loop->Abort(a->id);
  ASSERT_TRUE(Until([&, b = b] { return b->closed; }, "reset"));
  EXPECT_EQ(b->why.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(b->why.message()), HasSubstr("reset"));
  EXPECT_FALSE(a->closed);
  EXPECT_FALSE(b->loop->IsOpen(b->id));
  EXPECT_EQ(b->loop->totals().broken, 1u);
  ASSERT_TRUE(Until([&] { return b_->streams()->totals().open == 1; }, "gone"));
}

TEST_P(StreamTest, ResetWhileSendingIsTold) {
  auto [a, b] = Pair();
  ASSERT_NE(b, nullptr);
  b->loop->SetReceiving(b->id, false);
  for (int i = 0; i < 100; ++i) {
    a->SendNext(100'000);
    world_->Turn();
  }
  b->loop->Abort(b->id);
  ASSERT_TRUE(Until([&, &a = a] { return a->closed; }, "reset"));
  EXPECT_EQ(a->why.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(a->SendNext(1), 0u);
}

TEST_P(StreamTest, HandlersMayCloseAndConnectFromInside) {
  Listen();
  int accepted = 0;
  acceptor_.on_accept = [&](StreamEnd* end) {
    ++accepted;
    end->on_receive = [end](StreamId id, std::span<std::byte>) { end->loop->Close(id); };
  };
  std::vector<std::unique_ptr<StreamEnd>> ends;
  ends.push_back(Connect());
  std::function<void(StreamId)> again = [&](StreamId) {
    ends.back()->loop->Abort(ends.back()->id);
    if (ends.size() >= 50) return;
    ends.push_back(Connect());
    ends.back()->SendNext(1000);
    ends.back()->on_end = again;
  };
  ends.back()->SendNext(1000);
  ends.back()->on_end = again;
  ASSERT_TRUE(
      Until([&] { return ends.size() == 50 && acceptor_.ends.size() == 50; }, "50 of them"));
  ASSERT_TRUE(Until([&] { return a_->streams()->totals().open == 0; }, "gone"));
  EXPECT_EQ(accepted, 50);
}

// ---- With the rest of the loop ----

TEST_P(StreamTest, DatagramsGoOnBesideABusyStream) {
  auto [a, b] = Pair();
  ASSERT_NE(b, nullptr);
  StreamEnd* from = a.get();
  a->on_writable = [from](StreamId) { from->SendNext(1 << 20); };
  Recorder sender, receiver;
  const auto out = a_->OpenUdp({.bind = {world_->Address(0, GetParam().v4), 0, 0}}, &sender);
  const auto in = b_->OpenUdp({.bind = {world_->Address(1, GetParam().v4), 0, 0}}, &receiver);
  ASSERT_TRUE(out.ok() && in.ok());
  const std::vector<std::byte> bytes = Pattern(500, 1);
  from->SendNext(1 << 20);
  for (size_t i = 1; i <= 100; ++i) {
    a_->Send(*out, {.data = bytes.data(), .size = 500, .to = b_->LocalEndpoint(*in)});
    a_->Flush();
    ASSERT_TRUE(Until([&] { return receiver.count == i; }, "the datagram arrives"));
  }
  EXPECT_GT(b->received, 0u);
  EXPECT_TRUE(b->in_order);
}

// Nothing may be put off to a Poll() that then sleeps for ever.
TEST_P(RealStreamTest, ASleepingLoopWakesForStreamsAndTheirTimers) {
  b_ = a_;
  ListenConfig listen;
  listen.bind = {world_->Address(0, GetParam().v4), 0, 0};
  acceptor_.loop = a_->streams();
  at_ = a_->streams()->LocalEndpoint(a_->streams()->Listen(listen, &acceptor_).value());
  acceptor_.on_accept = [](StreamEnd* end) {
    end->on_receive = [end](StreamId, std::span<std::byte> bytes) { end->SendNext(bytes.size()); };
    end->on_end = [end](StreamId id) { end->loop->Close(id); };
  };
  auto a = Connect();
  for (uint64_t total = 100'000; total <= 1'000'000; total += 100'000) {
    ASSERT_EQ(a->SendNext(100'000), 100'000u);
    while (a->received < total) a_->Poll(Instant::max());
  }
  a->loop->Shutdown(a->id);
  while (a->ends == 0) a_->Poll(Instant::max());
  a->loop->Close(a->id);
  const auto silence = world_->Silence(GetParam().v4);
  auto late = Connect({.to = silence->at,
                       .bind = {},
                       .device = {},
                       .deadline = a_->clock().Now() + milliseconds(20),
                       .options = {}});
  while (!late->closed) a_->Poll(Instant::max());
  EXPECT_EQ(late->why.code(), absl::StatusCode::kDeadlineExceeded);
}

TEST_P(StreamTest, LoopsMayGoWithStreamsOpen) {
  auto [a, b] = Pair();
  ASSERT_NE(b, nullptr);
  b->loop->SetReceiving(b->id, false);
  a->SendNext(1 << 20);
  world_->Turn();
  a->SendNext(1 << 20);
  const auto silence = world_->Silence(GetParam().v4);
  ConnectConfig config;
  config.to = silence->at;
  auto c = Connect(config);
  world_->Turn();
  // The fixture destroys the loops: nothing may be called or leak.
}

}  // namespace
}  // namespace ringsock::io
