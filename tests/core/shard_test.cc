// A shard's turns and an engine's sockets, on loops without a network that tell what was asked of
// them.
#include "core/shard.h"

#include <chrono>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/engine_internal.h"
#include "gtest/gtest.h"
#include "tests/core/engine_fixture.h"
#include "tests/core/fake_loop.h"

namespace ringsock {
namespace {

using internal::EngineImpl;
using std::chrono::milliseconds;

class ShardTest : public testing::Test {
 protected:
  std::unique_ptr<EngineImpl> Make(size_t shards, Handler* handler,
                                   const EngineOptions& options = {}) {
    internal::EngineLoops loops;
    for (size_t i = 0; i < shards; ++i) {
      auto loop = std::make_unique<FakeLoop>();
      loops_.push_back(loop.get());
      loops.shards.push_back(std::move(loop));
    }
    auto control = std::make_unique<FakeLoop>();
    control_ = control.get();
    loops.control = std::move(control);
    auto engine =
        EngineImpl::Create(options, handler, std::move(loops), EngineImpl::Threads::kCaller);
    EXPECT_TRUE(engine.ok()) << engine.status().ToString();
    return *std::move(engine);
  }

  std::vector<FakeLoop*> loops_;
  FakeLoop* control_ = nullptr;
  KeepingHandler handler_;
  const Endpoint elsewhere_ = *Endpoint::Parse("192.0.2.7:7");
};

// A report must not wait for the end of a sleep.
TEST_F(ShardTest, ControlIsWokenBeforeTheShardMaySleep) {
  auto engine = Make(1, &handler_);
  const PeerId peer = *engine->CreateEndpoint(KeyNumber(1), "192.0.2.1:9");
  ASSERT_TRUE(engine->control().RunOnShard(
      0, [this, peer](EngineShard& shard) { shard.ConfirmPath(peer, elsewhere_); }));
  std::vector<int> wakes;
  loops_[0]->on_poll = [&](Instant) { wakes.push_back(control_->wakes()); };
  engine->shard(0).Step(Instant::max());
  engine->shard(0).Step(Instant::max());
  EXPECT_EQ(wakes, (std::vector<int>{1, 1}));
}

TEST_F(ShardTest, WhatHappensAtTheStartIsReportedBeforeTheFirstSleep) {
  class Confirming final : public Handler {
   public:
    absl::Status OnShardStart(Shard& shard) override {
      shard_ = &shard;
      return absl::OkStatus();
    }
    void OnReceive(Shard&, std::span<const ReceivedTrain>) override {}
    Shard* shard_ = nullptr;
  };
  Confirming handler;
  auto engine = Make(1, &handler);
  const PeerId peer = *engine->CreateEndpoint(KeyNumber(1), "192.0.2.1:9");
  handler.shard_->ConfirmPath(peer, elsewhere_);  // as from a Flush outside of any turn
  int wakes = 0;
  loops_[0]->on_poll = [&](Instant) { wakes = control_->wakes(); };
  engine->shard(0).Step(Instant::max());
  EXPECT_EQ(wakes, 1);
}

// A look at a socket's counters is a system call.
TEST_F(ShardTest, EmptyTurnsDoNotLookAtTheSockets) {
  EngineOptions options;
  options.ipv6 = false;
  auto engine = Make(1, &handler_, options);
  EngineShard& shard = engine->shard(0);
  FakeLoop& loop = *loops_[0];
  for (int i = 0; i < 100; ++i) shard.Step(Instant::max());
  EXPECT_EQ(loop.stats_calls(), 0);
  // Before a long sleep they are looked at once more.
  Instant deadline;
  loop.on_poll = [&](Instant until) { deadline = until; };
  shard.Step(Instant::max());
  EXPECT_EQ(deadline, loop.clock().Now() + milliseconds(10));
  loop.manual_clock().Advance(milliseconds(10));
  shard.Step(Instant::max());
  EXPECT_EQ(loop.stats_calls(), 1);
  shard.Step(Instant::max());
  EXPECT_EQ(deadline, Instant::max());
  EXPECT_EQ(loop.stats_calls(), 1);
}

// A number that the kernel chooses for a shared port may be another's shared port.
TEST_F(ShardTest, AChosenPortIsFirstProbedAlone) {
  EngineOptions options;
  options.ipv6 = false;
  auto engine = Make(2, &handler_, options);
  const auto& first = loops_[0]->opened();
  ASSERT_EQ(first.size(), 2u);
  EXPECT_FALSE(first[0].reuse_port);
  EXPECT_EQ(first[0].bind.port, 0);
  EXPECT_TRUE(first[1].reuse_port);
  EXPECT_EQ(first[1].bind.port, FakeLoop::kFirstPort);
  ASSERT_EQ(loops_[1]->opened().size(), 1u);
  EXPECT_EQ(loops_[1]->opened()[0].bind.port, FakeLoop::kFirstPort);
  EXPECT_EQ(engine->port(), FakeLoop::kFirstPort);
}

}  // namespace
}  // namespace ringsock
