// Peers that come and go flat out while packets of theirs are in flight both ways: no use after
// free (address and thread sanitizer), and no packet to a peer that has been removed.
#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "core/engine.h"
#include "gtest/gtest.h"
#include "tests/core/engine_fixture.h"

namespace ringsock {
namespace {

constexpr size_t kHosts = 4;
constexpr int kRounds = 80;

class Answering final : public Handler {
 public:
  void OnReceive(Shard& shard, std::span<const ReceivedTrain> trains) override {
    for (const ReceivedTrain& train : trains) {
      if (train.peer == PeerId::kNone) continue;
      shard.ConfirmPath(train.peer, train.from);
      shard.Send(train.peer, train.packets);
    }
  }
};

class EngineStressTest : public testing::TestWithParam<io::Backend> {};

// spec: PEER-1, PEER-2
TEST_P(EngineStressTest, PeersComeAndGoUnderTraffic) {
  EngineOptions options;
  options.shards = 2;
  options.pin_threads = false;
  options.ipv6 = false;
  options.io.backend = GetParam();
  if (const auto loop = io::CreateLoop(options.io); !loop.ok()) {
    GTEST_SKIP() << loop.status().ToString();
  }
  Answering handler;
  auto started = Engine::Start(options, &handler);
  ASSERT_TRUE(started.ok()) << started.status().ToString();
  Engine& engine = **started;

  RemoteHost hosts[kHosts];
  std::atomic<PeerId> ids[kHosts] = {};
  std::atomic<bool> stop{false};
  std::thread outbound([&] {
    auto sender = *engine.NewSender();
    const std::string data = Message(4, "outbound"), handshake = Message(1, "hand");
    for (uint32_t i = 0; !stop.load(std::memory_order_relaxed); ++i) {
      const PeerId id = ids[i % kHosts].load(std::memory_order_relaxed);
      sender->Send(id, TrainOf(i % 64 == 0 ? handshake : data));
      engine.ConfirmPath(id, hosts[(i + 1) % kHosts].endpoint());
      engine.ConfirmPath(id, hosts[i % kHosts].endpoint());
      if (i % 8 == 0) sender->Flush();
      if (i % 64 == 0) std::this_thread::yield();  // there may be fewer cores than threads
    }
  });
  std::thread inbound([&] {
    for (uint32_t i = 0; !stop.load(std::memory_order_relaxed); ++i) {
      hosts[i % kHosts].Send(engine.port(), Message(4, "inbound"));
      if (i % 64 == 0) std::this_thread::yield();
    }
  });

  for (int round = 0; round < kRounds; ++round) {
    const size_t k = static_cast<size_t>(round) % kHosts;
    const auto id = engine.CreateEndpoint(KeyNumber(static_cast<uint32_t>(round)), hosts[k].text());
    ASSERT_TRUE(id.ok()) << id.status().ToString();
    ids[k].store(*id, std::memory_order_relaxed);
    if (round % 10 == 0) hosts[k].Receive();  // traffic does come
    if (k != kHosts - 1) continue;
    // All of them go at once. What was sent before is on loopback, so already in the sockets.
    if (round % 8 == 3) {  // every second time
      ASSERT_TRUE(engine.UpdatePeers({}).ok());
    } else {
      std::vector<PublicKey> keys;
      for (int i = 0; i <= round; ++i) keys.push_back(KeyNumber(static_cast<uint32_t>(i)));
      ASSERT_TRUE(engine.RemovePeers(keys).ok());
    }
    for (RemoteHost& host : hosts) host.Drain();
    for (int look = 0; look < 20; ++look) {
      for (RemoteHost& host : hosts) ASSERT_TRUE(host.Empty()) << "a packet to a removed peer";
      std::this_thread::yield();
    }
  }
  // It goes on sending to those that are gone.
  EXPECT_TRUE(WaitUntil(
      [&] { return engine.Counters().drops[static_cast<size_t>(Drop::kTxUnknownPeer)] > 0; }));
  stop.store(true);
  outbound.join();
  inbound.join();
  engine.Close();
  EXPECT_TRUE(engine.Status().peers.empty());
}

INSTANTIATE_TEST_SUITE_P(All, EngineStressTest,
                         testing::Values(io::Backend::kMmsg, io::Backend::kUring),
                         [](const testing::TestParamInfo<io::Backend>& info) {
                           return info.param == io::Backend::kUring ? "Uring" : "Mmsg";
                         });

}  // namespace
}  // namespace ringsock
