// A flood beside good traffic: as long as the socket's buffer has room, every good packet is
// answered, in order; and the counters say what the flood was and where it went.
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "core/engine.h"
#include "gtest/gtest.h"
#include "tests/core/engine_fixture.h"
#include "tests/core/traffic/flood.h"

namespace ringsock {
namespace {

// Of a round: together they fit the smallest socket buffer a host may insist on.
constexpr uint32_t kBad = 60;
constexpr uint32_t kGood = 20;
constexpr uint32_t kRounds = 100;

// Answers peers, and does nothing about strangers.
class Answering final : public Handler {
 public:
  void OnReceive(Shard& shard, std::span<const ReceivedTrain> trains) override {
    for (const ReceivedTrain& train : trains) {
      if (train.peer != PeerId::kNone) shard.Send(train.peer, train.packets);
    }
  }
};

class EngineFloodTest : public testing::TestWithParam<std::tuple<io::Backend, FloodKind>> {
 protected:
  void Start(bool netcheck) {
    EngineOptions options;
    options.shards = 1;
    options.pin_threads = false;
    options.ipv6 = false;
    options.network.netcheck = netcheck;
    options.network.watch_links = false;
    options.io.backend = std::get<0>(GetParam());
    if (const auto loop = io::CreateLoop(options.io); !loop.ok()) {
      GTEST_SKIP() << loop.status().ToString();
    }
    auto started = Engine::Start(options, &handler_);
    ASSERT_TRUE(started.ok()) << started.status().ToString();
    engine_ = *std::move(started);
    ASSERT_TRUE(engine_->CreateEndpoint(KeyNumber(1), good_.text()).ok());
  }
  FloodKind kind() const { return std::get<1>(GetParam()); }
  bool IsStunFlood() const {
    return kind() == FloodKind::kStunRequest || kind() == FloodKind::kStunAnswer;
  }
  // A burst, with good packets in the middle and at its end, each of which comes back.
  void Round(uint32_t round) {
    std::vector<std::string> good;
    for (uint32_t i = 0; i < kBad; ++i) {
      std::string packet = FloodPacket(kind(), &random_);
      empty_ += packet.empty();
      strangers_[i % strangers_.size()].Send(engine_->port(), packet);
      if (i % 3 != 0) continue;
      good.push_back(Message(4, absl::StrCat("good ", round, " ", i)));
      good_.Send(engine_->port(), good.back());
    }
    ASSERT_EQ(good.size(), size_t{kGood});
    for (const std::string& packet : good) ASSERT_EQ(good_.Receive(), packet);
    good_.Send(engine_->port(), Message(4, "last"));  // behind all of the flood
    ASSERT_EQ(good_.Receive(), Message(4, "last"));
  }
  uint64_t Dropped(Drop drop) const { return engine_->Counters().drops[static_cast<size_t>(drop)]; }

  Answering handler_;  // outlives the engine
  RemoteHost good_;
  std::vector<RemoteHost> strangers_ = std::vector<RemoteHost>(5);
  SeededRandom random_{7};
  uint64_t empty_ = 0;
  std::unique_ptr<Engine> engine_;
};

// spec: RECV-1, RECV-4
TEST_P(EngineFloodTest, GoodPacketsAreAnsweredAndTheFloodIsCounted) {
  Start(/*netcheck=*/false);
  if (engine_ == nullptr) return;
  for (uint32_t round = 0; round < kRounds && !HasFatalFailure(); ++round) Round(round);
  const uint64_t flood = uint64_t{kBad} * kRounds;
  const CounterSnapshot counters = engine_->Counters();
  EXPECT_EQ(Dropped(Drop::kRxKernel), 0u);
  EXPECT_EQ(Dropped(Drop::kRxStun), IsStunFlood() ? flood : 0u);
  EXPECT_EQ(Dropped(Drop::kRxEmpty), empty_);
  EXPECT_EQ(counters.rx_unknown_source, IsStunFlood() ? 0u : flood - empty_);
  const auto& path = counters.paths[static_cast<size_t>(PathKind::kDirectV4)];
  EXPECT_EQ(path.tx_packets, uint64_t{kGood + 1} * kRounds);
  EXPECT_EQ(path.rx_packets, path.tx_packets + counters.rx_unknown_source);
}

// While the netcheck takes STUN, what is not for it is counted there, or by the shard when control
// does not keep up. Nothing of it waits: the ring between them is small.
TEST_P(EngineFloodTest, TheNetcheckIsNoWayIn) {
  Start(/*netcheck=*/true);
  if (engine_ == nullptr) return;
  RemoteHost silent;  // a STUN server that never answers
  derp::RelayMap map;
  map.regions[1] = {.region_id = 1, .region_code = "one", .region_name = "", .nodes = {}};
  derp::RelayNode node;
  node.region_id = 1;
  node.host_name = "stun.invalid";
  node.ipv4 = "127.0.0.1";
  node.ipv6 = "none";
  node.stun_port = silent.endpoint().port;
  map.regions[1].nodes.push_back(node);
  ASSERT_TRUE(engine_->SetRelayMap(map).ok());
  silent.Receive();  // it is being asked
  for (uint32_t round = 0; round < kRounds && !HasFatalFailure(); ++round) Round(round);
  const uint64_t flood = IsStunFlood() ? uint64_t{kBad} * kRounds : 0;
  EXPECT_TRUE(WaitUntil([&] {
    const stun::NetcheckStats stats = engine_->Status().netcheck;
    return Dropped(Drop::kRxStun) + stats.malformed + stats.unknown_id == flood;
  })) << engine_->Counters().ToString();
  EXPECT_EQ(engine_->Status().netcheck.answers, 0u);
  EXPECT_EQ(Dropped(Drop::kRxKernel), 0u);
}

INSTANTIATE_TEST_SUITE_P(
    All, EngineFloodTest,
    testing::Combine(testing::Values(io::Backend::kMmsg, io::Backend::kUring),
                     testing::Values(FloodKind::kUnknown, FloodKind::kStunRequest,
                                     FloodKind::kStunAnswer, FloodKind::kHandshake,
                                     FloodKind::kGarbage)),
    [](const testing::TestParamInfo<std::tuple<io::Backend, FloodKind>>& info) {
      return absl::StrCat(std::get<0>(info.param) == io::Backend::kUring ? "Uring" : "Mmsg",
                          FloodName(std::get<1>(info.param)));
    });

}  // namespace
}  // namespace ringsock
