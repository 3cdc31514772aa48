// A flood makes no shard allocate: what it brings is bounded by what there is.
#include <memory>
#include <string>

#include "core/engine.h"
#include "gtest/gtest.h"
#include "tests/core/allocation_counter.h"
#include "tests/core/engine_fixture.h"
#include "tests/core/traffic/flood.h"

namespace ringsock {
namespace {

// Counts what its shard allocates, and answers peers.
class Counting final : public Handler {
 public:
  absl::Status OnShardStart(Shard&) override {
    CountAllocations(true);
    return absl::OkStatus();
  }
  void OnShardStop(Shard&) override { CountAllocations(false); }
  void OnReceive(Shard& shard, std::span<const ReceivedTrain> trains) override {
    for (const ReceivedTrain& train : trains) {
      if (train.peer != PeerId::kNone) shard.Send(train.peer, train.packets);
    }
  }
};

class FloodAllocationTest : public testing::TestWithParam<io::Backend> {};

TEST_P(FloodAllocationTest, None) {
  EngineOptions options;
  options.shards = 1;
  options.pin_threads = false;
  options.ipv6 = false;
  options.io.backend = GetParam();
  if (const auto loop = io::CreateLoop(options.io); !loop.ok()) {
    GTEST_SKIP() << loop.status().ToString();
  }
  Counting handler;
  auto engine = Engine::Start(options, &handler);
  ASSERT_TRUE(engine.ok()) << engine.status().ToString();
  RemoteHost known, stranger;
  ASSERT_TRUE((*engine)->CreateEndpoint(KeyNumber(1), known.text()).ok());
  SeededRandom random(7);
  const auto exercise = [&] {
    for (const FloodKind kind :
         {FloodKind::kUnknown, FloodKind::kStunRequest, FloodKind::kStunAnswer,
          FloodKind::kHandshake, FloodKind::kGarbage}) {
      for (int i = 0; i < 10; ++i) stranger.Send((*engine)->port(), FloodPacket(kind, &random));
    }
    known.Send((*engine)->port(), Message(4, "behind it"));
    known.Receive();
  };
  for (int i = 0; i < 20; ++i) exercise();
  const uint64_t before = Allocations();
  for (int i = 0; i < 200; ++i) exercise();
  EXPECT_EQ(Allocations() - before, 0u);
}

INSTANTIATE_TEST_SUITE_P(All, FloodAllocationTest,
                         testing::Values(io::Backend::kMmsg, io::Backend::kUring),
                         [](const testing::TestParamInfo<io::Backend>& info) {
                           return info.param == io::Backend::kUring ? "Uring" : "Mmsg";
                         });

}  // namespace
}  // namespace ringsock
