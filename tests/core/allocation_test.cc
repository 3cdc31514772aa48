// After the first packets, shards allocate nothing: every operator new on their threads is counted.
#include <memory>
#include <string>
#include <vector>

#include "core/engine.h"
#include "gtest/gtest.h"
#include "tests/core/allocation_counter.h"
#include "tests/core/engine_fixture.h"
#include "tests/core/tls_relay.h"

namespace ringsock {
namespace {

class Echo final : public Handler {
 public:
  absl::Status OnShardStart(Shard&) override {
    CountAllocations(true);
    return absl::OkStatus();
  }
  void OnShardStop(Shard&) override { CountAllocations(false); }
  void OnReceive(Shard& shard, std::span<const ReceivedTrain> trains) override {
    for (const ReceivedTrain& train : trains) {
      if (train.peer == PeerId::kNone) {
        shard.SendTo(train.from, train.packets);
      } else {
        shard.ConfirmPath(train.peer, train.from);
        shard.Send(train.peer, train.packets);
      }
    }
  }
};

class AllocationTest : public testing::TestWithParam<io::Backend> {};

TEST_P(AllocationTest, NoneOnThePacketPath) {
  EngineOptions options;
  options.shards = 1;
  options.pin_threads = false;
  options.network.netcheck = false;  // its STUN is control's, and allocates
  options.io.backend = GetParam();
  if (const auto loop = io::CreateLoop(options.io); !loop.ok()) {
    GTEST_SKIP() << loop.status().ToString();
  }
  Echo handler;
  auto engine = Engine::Start(options, &handler);
  ASSERT_TRUE(engine.ok()) << engine.status().ToString();
  RemoteHost known, other, stranger;
  const PeerId peer = *(*engine)->CreateEndpoint(
      KeyNumber(1), absl::StrCat("127.3.3.40:1,", other.text(), ",", known.text()));
  const PeerId second = *(*engine)->CreateEndpoint(KeyNumber(2), other.text());
  // A relay that nobody runs: packets for it go as far as control.
  derp::RelayMap map;
  map.regions[1] = {.region_id = 1, .region_code = "none", .region_name = "", .nodes = {}};
  derp::RelayNode node;
  node.region_id = 1;
  node.host_name = "127.0.0.1";
  node.ipv4 = "127.0.0.1";
  node.derp_port = 1;
  map.regions[1].nodes.push_back(node);
  ASSERT_TRUE((*engine)->SetRelayMap(map).ok());
  ASSERT_TRUE((*engine)->SetPrivateKey(PrivateKey::Generate()).ok());
  const PeerId relayed = *(*engine)->CreateEndpoint(KeyNumber(3), "127.3.3.40:1");
  auto sender = *(*engine)->NewSender();
  std::string stun("\0\1\0\0\x21\x12\xa4\x42", 8);
  stun.resize(20, 'i');

  // Everything the packet path can be asked: echoes of both kinds, STUN, nothing, sprays, senders'
  // packets for two peers in turn (which are gathered), a roaming peer and one that is not there.
  const auto exercise = [&] {
    for (int i = 0; i < 20; ++i) known.Send((*engine)->port(), Message(4, "echo"));
    for (int i = 0; i < 20; ++i) known.Receive();
    stranger.Send((*engine)->port(), Message(4, "stranger"));
    stranger.Receive();
    stranger.Send((*engine)->port(), stun);
    stranger.Send((*engine)->port(), "");
    (*engine)->ConfirmPath(second, stranger.endpoint());
    for (int i = 0; i < 10; ++i) {
      sender->Send(peer, TrainOf(Message(i == 5 ? 1 : 4, "out")));
      sender->Send(second, TrainOf(Message(4, "roaming")));
      sender->Send(relayed, TrainOf(Message(4, "relay")));
      sender->Send(PeerId{999}, TrainOf(Message(4, "nobody")));
    }
    sender->Flush();
    for (int i = 0; i < 10; ++i) stranger.Receive();
    known.Receive();
    known.Drain();
    other.Drain();
  };
  for (int i = 0; i < 20; ++i) exercise();
  const uint64_t before = Allocations();
  for (int i = 0; i < 200; ++i) exercise();
  EXPECT_EQ(Allocations() - before, 0u);
  const CounterSnapshot counters = (*engine)->Counters();
  EXPECT_EQ(counters.drops[static_cast<size_t>(Drop::kTxUnknownPeer)], 2200u);
  // All of them were taken by the ring.
  EXPECT_EQ(counters.drops[static_cast<size_t>(Drop::kTxQueueFull)], 0u);
}

// What a relay brings is handed to the shard in a ring, and goes back the same way.
TEST_P(AllocationTest, NoneForRelayedPackets) {
  if (const auto loop = io::CreateLoop({.backend = GetParam()}); !loop.ok()) {
    GTEST_SKIP() << loop.status().ToString();
  }
  TlsRelay relay;
  Echo echo;
  KeepingHandler keeping;
  std::unique_ptr<Engine> engines[2];
  const PrivateKey keys[2] = {PrivateKey::Generate(), PrivateKey::Generate()};
  PeerId peers[2];
  Handler* const handlers[2] = {&keeping, &echo};
  for (int i = 0; i < 2; ++i) {
    EngineOptions options;
    options.shards = 1;
    options.pin_threads = false;
    options.io.backend = GetParam();
    engines[i] = *Engine::Start(options, handlers[i]);
    ASSERT_TRUE(engines[i]->SetPrivateKey(keys[i]).ok());
    ASSERT_TRUE(engines[i]->SetRelayMap(relay.Map(relay.pin())).ok());
    peers[i] = *engines[i]->CreateEndpoint(keys[1 - i].Public(), "127.3.3.40:1");
  }
  const auto up = [](const Engine& engine) {
    const EngineStatus status = engine.Status();
    return !status.relays.empty() && status.relays.front().up;
  };
  ASSERT_TRUE(WaitUntil([&] { return up(*engines[0]) && up(*engines[1]); }));
  auto sender = *engines[0]->NewSender();
  size_t sent = 0;
  const auto exercise = [&] {
    for (int i = 0; i < 50; ++i) {
      ASSERT_EQ(sender->Send(peers[0], TrainOf(Message(4, std::string(1000, 'x')))),
                SendResult::kOk);
    }
    sender->Flush();
    keeping.WaitFor(sent += 50);
  };
  for (int i = 0; i < 20; ++i) exercise();
  const uint64_t before = Allocations();
  for (int i = 0; i < 50; ++i) exercise();
  EXPECT_EQ(Allocations() - before, 0u);
}

INSTANTIATE_TEST_SUITE_P(All, AllocationTest,
                         testing::Values(io::Backend::kMmsg, io::Backend::kUring),
                         [](const testing::TestParamInfo<io::Backend>& info) {
                           return info.param == io::Backend::kUring ? "Uring" : "Mmsg";
                         });

}  // namespace
}  // namespace ringsock
