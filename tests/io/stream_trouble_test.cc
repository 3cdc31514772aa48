// One suite for the streams of every loop: descriptors and slots that run out, sides that stall or
// reset, handlers that close whenever they are called, and nothing left open after all of it.
#include <dirent.h>
#include <gmock/gmock.h>
#include <sys/resource.h>
#include <unistd.h>

#include "io/stream.h"
#include "tests/io/stream_world.h"

namespace ringsock::io {
namespace {

using testing::HasSubstr;

INSTANTIATE_TEST_SUITE_P(All, StreamTest, testing::ValuesIn(WorldsAndFamilies()), ParamName);
INSTANTIATE_TEST_SUITE_P(All, RealStreamTest, testing::ValuesIn(RealWorldsAndFamilies()),
                         ParamName);

// ---- What runs out ----

// Allows `more` descriptors beyond those that are open, until it goes.
class DescriptorLimit {
 public:
  explicit DescriptorLimit(rlim_t more) {
    getrlimit(RLIMIT_NOFILE, &before_);
    const int lowest_free = dup(0);
    close(lowest_free);
    const rlimit limit{static_cast<rlim_t>(lowest_free) + more, before_.rlim_max};
    EXPECT_EQ(setrlimit(RLIMIT_NOFILE, &limit), 0);
  }
  ~DescriptorLimit() { setrlimit(RLIMIT_NOFILE, &before_); }

 private:
  rlimit before_{};
};

TEST_P(RealStreamTest, WaitsForDescriptors) {
  auto [first, accepted] = Pair();  // whatever loops open once is open
  ASSERT_NE(accepted, nullptr);
  std::unique_ptr<StreamEnd> a;
  // Looked at later: the undefined behaviour sanitizer needs descriptors to check a type.
  absl::Status none, nowhere;
  {
    const DescriptorLimit limit(2);
    // io_uring holds to the limit there was when its accept was armed: a new listener.
    Listen();
    a = Connect();
    a->SendNext(1000);
    StreamEnd end;
    none = a_->streams()->Connect({.to = at_}, &end).status();
    nowhere = b_->streams()->Listen({.bind = {at_.ip, 0, 0}}, &acceptor_).status();
    ASSERT_TRUE(Until([&] { return b_->streams()->totals().accept_errors > 0; }, "no descriptor"));
    // What is open goes on.
    first->SendNext(1000);
    ASSERT_TRUE(Until([&, b = accepted] { return b->received == 1000; }, "arrives"));
    EXPECT_EQ(acceptor_.ends.size(), 1u);
  }
  EXPECT_EQ(none.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(none.message()), HasSubstr("ulimit -n"));
  EXPECT_EQ(nowhere.code(), absl::StatusCode::kResourceExhausted);
  ASSERT_TRUE(Until([&] { return acceptor_.ends.size() == 2; }, "accepted after all"));
  ASSERT_TRUE(Until([&] { return acceptor_.ends[1]->received == 1000; }, "arrives"));
  // It rested in between: a loop that only tries again would have failed thousands of times.
  EXPECT_LT(b_->streams()->totals().accept_errors, 1000u);
}

TEST_P(StreamTest, ALoopHoldsNoMoreThanMaxStreams) {
  LoopOptions options;
  options.max_streams = 3;
  Open(options);  // two further loops
  Listen();
  std::vector<std::unique_ptr<StreamEnd>> ends;
  for (int i = 0; i < 3; ++i) ends.push_back(Connect());
  StreamEnd none;
  const auto fourth = a_->streams()->Connect({.to = at_}, &none);
  EXPECT_EQ(fourth.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(fourth.status().message()), HasSubstr("max_streams"));
  // The listener is one of the three of the other loop.
  ASSERT_TRUE(Until([&] { return b_->streams()->totals().accepts_refused == 1; }, "one refused"));
  EXPECT_EQ(b_->streams()->totals().accepts, 2u);
  const auto closed = [](const auto& end) { return end->closed; };
  ASSERT_TRUE(Until([&] { return std::any_of(ends.begin(), ends.end(), closed); }, "reset"));
  EXPECT_EQ(std::count_if(ends.begin(), ends.end(), closed), 1);
  const auto second = b_->streams()->Listen({.bind = {at_.ip, 0, 0}}, &acceptor_);
  EXPECT_EQ(second.status().code(), absl::StatusCode::kResourceExhausted);
  // One goes, one may come.
  acceptor_.ends[0]->loop->Abort(acceptor_.ends[0]->id);
  ASSERT_TRUE(Until([&] { return a_->streams()->totals().open == 1; }, "gone"));
  auto late = Connect();
  ASSERT_TRUE(Until([&] { return b_->streams()->totals().accepts == 3; }, "taken"));
}

// ---- Sides that stall or reset ----

TEST_P(StreamTest, AStalledReaderDelaysNoOther) {
  auto [a, b] = Pair();
  auto [c, d] = Pair();
  ASSERT_TRUE(b != nullptr && d != nullptr);
  b->loop->SetReceiving(b->id, false);
  Settle();
  for (int idle = 0; idle < 200; ++idle) {
    if (a->SendNext(100'000) > 0) idle = 0;
    world_->Turn();
  }
  StreamEnd* echo = d;
  d->on_receive = [echo](StreamId, std::span<std::byte> bytes) { echo->SendNext(bytes.size()); };
  for (int round = 1; round <= 200; ++round) {
    c->SendNext(20'000);
    ASSERT_TRUE(Until([&, &c = c] { return c->received == c->sent; }, "the answer"));
    a->SendNext(1000);  // goes on knocking
  }
  EXPECT_TRUE(c->in_order && d->in_order);
  EXPECT_EQ(b->received, 0u);
  b->loop->SetReceiving(b->id, true);
  ASSERT_TRUE(Until([&, &a = a, b = b] { return b->received == a->sent; }, "all arrives"));
  EXPECT_TRUE(b->in_order);
}

TEST_P(StreamTest, APausedStreamLearnsOfAReset) {
  for (const bool half_closed : {false, true}) {
    auto [a, b] = Pair();
    ASSERT_NE(b, nullptr);
    b->loop->SetReceiving(b->id, false);
    a->SendNext(10'000);
    if (half_closed) a->loop->Shutdown(a->id);
    Settle();
    EXPECT_FALSE(b->closed);
    a->loop->Abort(a->id);
    ASSERT_TRUE(Until([&, b = b] { return b->closed; }, "reset"));
    EXPECT_EQ(b->why.code(), absl::StatusCode::kUnavailable) << b->why;
    EXPECT_EQ(b->ends, 0);
    EXPECT_EQ(b->received, 0u);
    ASSERT_TRUE(Until([&] { return b_->streams()->totals().open == 1; }, "gone"));
  }
}

// Its loop alone is polled while it sends and resets: the other one finds all of it at once.
class StreamResetTest : public StreamTest {
 protected:
  void SendAndReset(StreamEnd& a, size_t size) {
    StreamLoop& streams = *a_->streams();
    const uint64_t acked = streams.AckedBytes(a.id);
    ASSERT_EQ(a.SendNext(size), size);
    PollUntil([&] { return streams.Stats(a.id).tx_bytes == a.sent; });
    // A kernel may deal with a reset on another core, before what was sent first.
    if (GetParam().factory.real) {
      PollUntil([&] { return streams.AckedBytes(a.id) >= acked + size; });
    }
    streams.Abort(a.id);
    PollUntil([&] { return streams.totals().open == 0; });
  }

 private:
  void PollUntil(const std::function<bool()>& predicate) {
    const Instant end = SystemClock().Now() + std::chrono::seconds(20);
    while (!predicate() && SystemClock().Now() < end) {
      a_->Poll(a_->clock().Now() + std::chrono::milliseconds(1));
    }
    EXPECT_TRUE(predicate());
  }
};
INSTANTIATE_TEST_SUITE_P(All, StreamResetTest, testing::ValuesIn(WorldsAndFamilies()), ParamName);

TEST_P(StreamResetTest, WhatCameBeforeAResetIsReceived) {
  LoopOptions options;
  options.stream_buffer_size = 1 << 10;  // several pieces
  Open(options);
  for (const bool sending : {false, true}) {
    SCOPED_TRACE(sending ? "while it sends" : "while it is silent");
    auto [a, b] = Pair();
    ASSERT_NE(b, nullptr);
    if (sending) {
      a->loop->SetReceiving(a->id, false);
      Settle();
      for (int idle = 0; idle < 50; ++idle) {
        if (b->SendNext(100'000) > 0) idle = 0;
        world_->Turn();
      }
    }
    SendAndReset(*a, 10'000);
    uint64_t counted = 0;
    b->on_receive = [&counted, b = b](StreamId id, std::span<std::byte>) {
      counted = b->loop->Stats(id).rx_bytes;
    };
    ASSERT_TRUE(Until([b = b] { return b->closed; }, "reset"));
    EXPECT_EQ(b->why.code(), absl::StatusCode::kUnavailable) << b->why;
    EXPECT_EQ(b->received, 10'000u);
    EXPECT_EQ(counted, 10'000u);
    EXPECT_TRUE(b->in_order);
  }
}

// It had paused when the rest of them, and the reset, were there.
TEST_P(StreamResetTest, WhatWasPutAsideBeforeAResetIsReceivedToo) {
  LoopOptions options;
  options.stream_buffer_size = 1 << 10;
  Open(options);
  auto [a, b] = Pair();
  ASSERT_NE(b, nullptr);
  b->on_receive = [b = b](StreamId id, std::span<std::byte>) { b->loop->SetReceiving(id, false); };
  SendAndReset(*a, 3000);
  ASSERT_TRUE(Until([b = b] { return b->received > 0; }, "the first piece"));
  b->on_receive = nullptr;
  b->loop->SetReceiving(b->id, true);
  ASSERT_TRUE(Until([b = b] { return b->closed; }, "reset"));
  EXPECT_EQ(b->received, 3000u);
  EXPECT_TRUE(b->in_order);
}

// The receive had found no buffer when it happened, and was to be armed again, but then was not.
TEST_P(StreamResetTest, AStreamThatPausesAtTheLastMomentLearnsOfAReset) {
  LoopOptions options;
  options.stream_buffers = 1;
  options.stream_buffer_size = 1 << 10;
  Open(options);
  auto [a, b] = Pair();
  ASSERT_NE(b, nullptr);
  b->loop->SetReceiving(b->id, false);
  Settle();
  b->loop->SetReceiving(b->id, true);
  Settle();
  b->on_receive = [b = b](StreamId id, std::span<std::byte>) { b->loop->SetReceiving(id, false); };
  SendAndReset(*a, 3000);
  ASSERT_TRUE(Until([b = b] { return b->closed; }, "reset"));
  EXPECT_EQ(b->why.code(), absl::StatusCode::kUnavailable) << b->why;
}

TEST_P(StreamTest, PausingAgainAndAgainLosesNothing) {
  auto [a, b] = Pair();
  ASSERT_NE(b, nullptr);
  StreamEnd* from = a.get();
  a->on_writable = [from](StreamId) { from->SendNext(1 << 20); };
  from->SendNext(1 << 20);
  for (int i = 0; i < 300; ++i) {
    b->loop->SetReceiving(b->id, false);
    if (i % 3 != 0) world_->Turn();
    b->loop->SetReceiving(b->id, true);
    if (i % 5 != 0) world_->Turn();
  }
  a->on_writable = nullptr;
  a->loop->Shutdown(a->id);
  ASSERT_TRUE(Until([&, b = b] { return b->ends == 1; }, "the end"));
  EXPECT_EQ(b->received, from->sent);
  EXPECT_TRUE(b->in_order);
}

// ---- Closing ----

enum class When { kAccept, kConnect, kReceive, kWritable, kEnd, kClose };

// Provokes one callback, in which the stream is closed by `close`.
void CloseInside(When when, StreamEnd& a, StreamEnd& b, const std::function<void()>& close) {
  switch (when) {
    case When::kAccept:
    case When::kConnect:
      break;
    case When::kReceive:
      a.on_receive = [close](StreamId, std::span<std::byte>) { close(); };
      b.SendNext(200'000);
      break;
    case When::kWritable:
      a.on_writable = [close](StreamId) { close(); };
      a.SendNext(1 << 20);
      break;
    case When::kEnd:
      a.on_end = [close](StreamId) { close(); };
      b.loop->Shutdown(b.id);
      break;
    case When::kClose:
      a.on_close = [close](StreamId) { close(); };
      b.loop->Abort(b.id);
      break;
  }
}

TEST_P(StreamTest, ClosesFromInsideEveryCallback) {
  Listen();
  for (const When when :
       {When::kAccept, When::kConnect, When::kReceive, When::kWritable, When::kEnd, When::kClose}) {
    for (const bool abort : {false, true}) {
      SCOPED_TRACE(testing::Message() << "callback " << static_cast<int>(when) << abort);
      bool done = false;
      const auto close = [&done, abort](StreamEnd& end) {
        EXPECT_FALSE(done) << "called after it was closed";
        done = true;
        abort ? end.loop->Abort(end.id) : end.loop->Close(end.id);
        EXPECT_FALSE(end.loop->IsOpen(end.id));
        EXPECT_EQ(end.loop->Send(end.id, BytesAt(0, 1)), 0u);
        EXPECT_TRUE(end.loop->SendSpace(end.id, 1).empty());
      };
      // Whoever is left when the other has gone.
      const auto end_too = [](StreamEnd* end) {
        end->on_end = [end](StreamId id) { end->loop->Close(id); };
      };
      acceptor_.on_accept = [&](StreamEnd* end) {
        end_too(end);
        if (when == When::kAccept) close(*end);
      };
      const size_t before = acceptor_.ends.size();
      auto a = Connect();
      end_too(a.get());
      if (when == When::kConnect) a->on_connect = [&](StreamId) { close(*a); };
      ASSERT_TRUE(Until([&] { return acceptor_.ends.size() > before; }, "accepted"));
      if (when != When::kAccept) {
        ASSERT_TRUE(Until([&] { return a->connects == 1; }, "connected"));
      }
      CloseInside(when, *a, *acceptor_.ends.back(), [&] { close(*a); });
      ASSERT_TRUE(Until([&] { return done; }, "the callback"));
      ASSERT_TRUE(Until([&] { return a_->streams()->totals().open == 0; }, "gone"));
      ASSERT_TRUE(Until([&] { return b_->streams()->totals().open == 1; }, "gone there"));
    }
  }
}

size_t OpenDescriptors() {
  size_t count = 0;
  DIR* directory = opendir("/proc/self/fd");
  while (readdir(directory) != nullptr) ++count;
  closedir(directory);
  return count;
}

TEST_P(StreamTest, AThousandConnectionsLeaveNothingOpen) {
  Listen();
  acceptor_.on_accept = [](StreamEnd* end) {
    end->on_receive = [end](StreamId, std::span<std::byte> bytes) { end->SendNext(bytes.size()); };
    end->on_end = [end](StreamId id) { end->loop->Close(id); };
  };
  size_t descriptors = 0;
  for (int i = 0; i < 1000; ++i) {
    auto a = Connect();
    a->SendNext(100);
    switch (i % 4) {
      case 0:  // in the middle of it
        break;
      case 1:
        ASSERT_TRUE(Until([&] { return a->connects == 1; }, "connects"));
        break;
      default:
        ASSERT_TRUE(Until([&] { return a->received == 100; }, "the answer"));
    }
    i % 8 < 4 ? a->loop->Close(a->id) : a->loop->Abort(a->id);
    ASSERT_TRUE(Until([&] { return a_->streams()->totals().open == 0; }, "gone"));
    ASSERT_TRUE(Until([&] { return b_->streams()->totals().open == 1; }, "gone there"));
    acceptor_.ends.clear();
    if (i == 10) descriptors = OpenDescriptors();
  }
  EXPECT_EQ(OpenDescriptors(), descriptors);
}

}  // namespace
}  // namespace ringsock::io
