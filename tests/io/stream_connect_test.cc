// One suite for the streams of every loop: connecting, accepting, and thousands of both.
#include <gmock/gmock.h>
#include <sys/resource.h>

#include <thread>

#include "io/stream.h"
#include "tests/io/stream_world.h"

namespace ringsock::io {
namespace {

using std::chrono::milliseconds;
using testing::HasSubstr;

bool RaiseFileLimit(rlim_t files) {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return false;
  if (limit.rlim_cur >= files) return true;
  limit.rlim_cur = std::min(files, limit.rlim_max);
  return limit.rlim_cur >= files && setrlimit(RLIMIT_NOFILE, &limit) == 0;
}

INSTANTIATE_TEST_SUITE_P(All, StreamTest, testing::ValuesIn(WorldsAndFamilies()), ParamName);

// ---- Connecting ----

TEST_P(StreamTest, RefusedConnectionSaysSo) {
  Listen();
  b_->streams()->Close(acceptor_.id);
  Settle();
  auto a = Connect();
  ASSERT_TRUE(Until([&] { return a->closed; }, "refused"));
  EXPECT_EQ(a->why.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(a->why.message()), HasSubstr(at_.ToString()));
  EXPECT_THAT(std::string(a->why.message()), HasSubstr("connect: Connection refused"));
  EXPECT_EQ(a->connects, 0);
  EXPECT_EQ(a_->streams()->totals().connect_failures, 1u);
}

TEST_P(StreamTest, NoRouteSaysSo) {
  ConnectConfig config;
  // Nobody can be connected to by broadcast or multicast.
  config.to = {
      GetParam().v4 ? IpAddress::V4(255, 255, 255, 255) : IpAddress::Parse("ff0e::1").value(), 443,
      0};
  auto a = Connect(config);
  EXPECT_FALSE(a->closed) << "told from inside Connect()";
  ASSERT_TRUE(Until([&] { return a->closed; }, "no route"));
  EXPECT_EQ(a->why.code(), absl::StatusCode::kUnavailable) << a->why;
  EXPECT_THAT(std::string(a->why.message()), HasSubstr("no route"));
}

TEST_P(StreamTest, GivesUpConnectingAtTheDeadline) {
  const auto silence = world_->Silence(GetParam().v4);
  ConnectConfig config;
  config.to = silence->at;
  config.deadline = a_->clock().Now() + milliseconds(30);
  auto a = Connect(config);
  ASSERT_TRUE(Until([&] { return a->closed; }, "gives up"));
  EXPECT_EQ(a->why.code(), absl::StatusCode::kDeadlineExceeded) << a->why;
  EXPECT_GE(a_->clock().Now(), config.deadline);
  ASSERT_TRUE(Until([&] { return a_->streams()->totals().open == 0; }, "gone"));
}

TEST_P(StreamTest, AConnectionUnderWayCanBeCancelled) {
  const auto silence = world_->Silence(GetParam().v4);
  ConnectConfig config;
  config.to = silence->at;
  auto a = Connect(config);
  Settle();
  a->loop->Close(a->id);
  auto b = Connect(config);
  b->loop->Abort(b->id);
  ASSERT_TRUE(Until([&] { return a_->streams()->totals().open == 0; }, "gone"));
  EXPECT_FALSE(a->closed || b->closed) << "called after Close()";
}

TEST_P(StreamTest, ConfigurationThatCannotWorkIsRefusedAtOnce) {
  StreamEnd end;
  StreamLoop* loop = a_->streams();
  const IpAddress here = world_->Address(0, GetParam().v4);
  EXPECT_EQ(loop->Connect({.to = {here, 0, 0}}, &end).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(
      loop->Connect({.to = {here, 1, 0}, .bind = {world_->Address(0, !GetParam().v4), 0, 0}}, &end)
          .status()
          .code(),
      absl::StatusCode::kInvalidArgument);
  const IpAddress elsewhere =
      GetParam().v4 ? IpAddress::V4(203, 0, 113, 77) : IpAddress::Parse("2001:db8:77::1").value();
  EXPECT_EQ(loop->Listen({.bind = {elsewhere, 0, 0}}, &acceptor_).status().code(),
            absl::StatusCode::kFailedPrecondition);
  Listen();
  const auto twice = b_->streams()->Listen({.bind = at_}, &acceptor_);
  EXPECT_EQ(twice.status().code(), absl::StatusCode::kAlreadyExists);
  EXPECT_THAT(std::string(twice.status().message()), HasSubstr(at_.ToString()));
}

TEST_P(StreamTest, ConnectsFromAGivenAddress) {
  Listen();
  const Endpoint source{world_->Address(0, GetParam().v4), 0, 0};
  auto [a, b] = Pair({.to = at_, .bind = source});
  ASSERT_NE(b, nullptr);
  EXPECT_EQ(acceptor_.froms[0].ip, source.ip);
}

TEST_P(StreamTest, IdsOfClosedStreamsDoNothing) {
  auto [a, b] = Pair();
  ASSERT_NE(b, nullptr);
  const StreamId old = a->id;
  a->loop->Abort(old);
  Settle();
  auto [c, d] = Pair();
  ASSERT_NE(d, nullptr);
  EXPECT_NE(c->id, old);
  for (const StreamId id : {old, kNoStream, ~StreamId{0}}) {
    EXPECT_EQ(c->loop->Send(id, BytesAt(0, 10)), 0u);
    c->loop->SetReceiving(id, false);
    c->loop->Shutdown(id);
    c->loop->Close(id);
    c->loop->Abort(id);
    EXPECT_FALSE(c->loop->IsOpen(id));
    EXPECT_EQ(c->loop->Stats(id).rx_bytes, 0u);
  }
  c->SendNext(10);
  ASSERT_TRUE(Until([&, d = d] { return d->received == 10; }, "lives"));
}

// A loop is set up by one thread and polled by another, so what it does before is only queued.
TEST_P(StreamTest, ConnectsBeforeTheFirstPoll) {
  constexpr size_t kStreams = 200;
  LoopOptions options;
  options.tx_queue = 1;  // the queue of io_uring has 128 entries then
  Open(options);
  Listen();
  std::vector<std::unique_ptr<StreamEnd>> ends;
  std::thread([&] {
    for (size_t i = 0; i < kStreams; ++i) ends.push_back(Connect());
  }).join();
  const auto stands = [](const auto& end) { return end->connects == 1; };
  ASSERT_TRUE(Until([&] { return std::all_of(ends.begin(), ends.end(), stands); }, "all stand"));
}

// ---- Accepting ----

TEST_P(StreamTest, ResetsWhatIsOverTheAcceptLimit) {
  ListenConfig config;
  config.max_streams = 3;
  Listen(config);
  std::vector<std::unique_ptr<StreamEnd>> ends;
  for (int i = 0; i < 5; ++i) {
    ends.push_back(Connect());
    const auto settled = [&] {
      return b_->streams()->totals().accepts + b_->streams()->totals().accepts_refused ==
             ends.size();
    };
    ASSERT_TRUE(Until(settled, "taken or refused"));
  }
  EXPECT_EQ(b_->streams()->totals().accepts, 3u);
  EXPECT_EQ(b_->streams()->totals().accepts_refused, 2u);
  ASSERT_TRUE(Until([&] { return ends[3]->closed && ends[4]->closed; }, "reset"));
  EXPECT_FALSE(ends[0]->closed || ends[1]->closed || ends[2]->closed);
  // One goes, one may come.
  acceptor_.ends[0]->loop->Abort(acceptor_.ends[0]->id);
  auto late = Connect();
  ASSERT_TRUE(Until([&] { return b_->streams()->totals().accepts == 4; }, "taken"));
}

TEST_P(StreamTest, AHandlerMayRefuse) {
  Listen();
  acceptor_.refuse = true;
  auto a = Connect();
  ASSERT_TRUE(Until([&] { return a->closed; }, "reset"));
  ASSERT_TRUE(Until([&] { return b_->streams()->totals().open == 1; }, "gone"));
}

TEST_P(StreamTest, ClosingAListenerKeepsItsStreams) {
  auto [a, b] = Pair();
  ASSERT_NE(b, nullptr);
  b_->streams()->Close(acceptor_.id);
  a->SendNext(1000);
  ASSERT_TRUE(Until([&, b = b] { return b->received == 1000; }, "arrives"));
  ListenConfig again;
  again.bind = at_;
  EXPECT_TRUE(Until([&] { return b_->streams()->Listen(again, &acceptor_).ok(); }, "port is free"));
}

TEST_P(StreamTest, ThousandsOfStreamsUnderAcceptLoad) {
  constexpr size_t kStreams = 2000;
  constexpr size_t kAtOnce = 200;  // connecting
  if (!RaiseFileLimit(2 * kStreams + 100)) GTEST_SKIP() << "too few descriptors allowed";
  Listen();
  acceptor_.on_accept = [](StreamEnd* end) {
    end->on_receive = [end](StreamId, std::span<std::byte> bytes) { end->SendNext(bytes.size()); };
  };
  std::vector<std::unique_ptr<StreamEnd>> ends;
  size_t answered = 0;
  uint64_t expected = 0;
  while (answered < kStreams) {
    while (ends.size() < kStreams && ends.size() - answered < kAtOnce) {
      ends.push_back(Connect());
      ends.back()->SendNext(300 + ends.size() % 700);
      expected += ends.back()->sent;
    }
    world_->Turn();
    answered = static_cast<size_t>(std::count_if(
        ends.begin(), ends.end(), [](const auto& end) { return end->received == end->sent; }));
    ASSERT_FALSE(HasFailure());
  }
  uint64_t echoed = 0;
  for (const auto& end : ends) {
    echoed += end->received;
    EXPECT_TRUE(end->in_order && !end->closed);
  }
  EXPECT_EQ(echoed, expected);
  EXPECT_EQ(a_->streams()->totals().open, kStreams);
  for (size_t i = 0; i < kStreams; ++i) {
    i % 2 == 0 ? ends[i]->loop->Close(ends[i]->id) : ends[i]->loop->Abort(ends[i]->id);
  }
  const auto over = [](const auto& end) { return end->closed || end->ends == 1; };
  ASSERT_TRUE(Until([&] { return std::all_of(acceptor_.ends.begin(), acceptor_.ends.end(), over); },
                    "all end"));
}

}  // namespace
}  // namespace ringsock::io
