// Steering through the engine: the shard that a packet's source or receiver index names is the one
// whose handler sees it, on both backends and families, before, during and after rebinds.
#include <array>
#include <atomic>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "core/engine.h"
#include "gtest/gtest.h"
#include "io/steering.h"
#include "tests/core/engine_fixture.h"

namespace ringsock {
namespace {

constexpr uint32_t kMostShards = 4;
constexpr size_t kHosts = 6;
// Packets in flight at one time, which the smallest socket buffer holds.
constexpr uint64_t kWindow = 100;

struct Param {
  io::Backend backend;
  bool v6;
  uint32_t shards;
  io::Steering steering;
};

// Counts packets by shard, and those that came to the wrong one.
class Checking final : public Handler {
 public:
  explicit Checking(const Param& param) : param_(param) {}
  void OnReceive(Shard& shard, std::span<const ReceivedTrain> trains) override {
    for (const ReceivedTrain& train : trains) {
      const PacketTrain& all = train.packets;
      for (uint32_t at = 0; at < all.size; at += all.segment_size) {
        const std::span packet(all.data + at, std::min(all.segment_size, all.size - at));
        const uint32_t expected =
            io::SteeredSocket(param_.steering, train.from, packet, param_.shards);
        wrong.fetch_add(expected != shard.index());
        by_shard[shard.index()].fetch_add(1);
        received.fetch_add(1);
      }
    }
  }

  std::atomic<uint64_t> received{0}, wrong{0};
  std::array<std::atomic<uint64_t>, kMostShards> by_shard{};

 private:
  const Param param_;
};

class EngineSteeringTest : public testing::TestWithParam<Param> {
 protected:
  void SetUp() override {
    EngineOptions options;
    options.shards = GetParam().shards;
    options.steering = GetParam().steering;
    options.pin_threads = false;
    options.ipv4 = !GetParam().v6;
    options.ipv6 = GetParam().v6;
    options.network.watch_links = false;
    options.io.backend = GetParam().backend;
    if (const auto loop = io::CreateLoop(options.io); !loop.ok()) {
      GTEST_SKIP() << loop.status().ToString();
    }
    auto started = Engine::Start(options, &handler_);
    ASSERT_TRUE(started.ok()) << started.status().ToString();
    engine_ = *std::move(started);
    for (auto& host : hosts_) host = std::make_unique<RemoteHost>(GetParam().v6);
  }
  // The next one: data with an index of its own or, now and then, as a train or an initiation.
  void SendOne() {
    const auto index = static_cast<uint32_t>(next_ * 0x9e3779b1);
    RemoteHost& host = *hosts_[next_++ % kHosts];
    std::string packet = Message(next_ % 5 == 0 ? 1 : 4, std::string(196, 'x'));
    std::memcpy(&packet[4], &index, sizeof index);
    uint64_t packets = 1;
    if (next_ % 7 == 0) {
      packet += packet;
      host.SendTrain(engine_->port(), packet, packet.size() / 2);
      packets = 2;
    } else {
      host.Send(engine_->port(), packet);
    }
    sent_ += packets;
  }
  // Sends `count`, never more than the window ahead of what has arrived.
  void SendAndWait(uint64_t count) {
    for (uint64_t i = 0; i < count; ++i) {
      ASSERT_TRUE(WaitUntil([&] { return sent_ < handler_.received.load() + kWindow; }));
      SendOne();
    }
    ASSERT_TRUE(WaitUntil([&] { return handler_.received.load() == sent_; }))
        << engine_->Counters().ToString();
  }

  Checking handler_{GetParam()};  // outlives the engine
  std::unique_ptr<Engine> engine_;
  std::array<std::unique_ptr<RemoteHost>, kHosts> hosts_;
  uint64_t next_ = 0;
  uint64_t sent_ = 0;
};

TEST_P(EngineSteeringTest, ComesToTheHandlerOfTheRightShard) {
  if (engine_ == nullptr) return;
  SendAndWait(600);
  EXPECT_EQ(handler_.wrong.load(), 0u);
  if (GetParam().steering == io::Steering::kReceiverIndex) {
    for (uint32_t i = 0; i < GetParam().shards; ++i) {
      EXPECT_GT(handler_.by_shard[i].load(), sent_ / GetParam().shards / 2) << "shard " << i;
    }
  }
}

// spec: EP-8. Also what arrives while sockets are being replaced.
TEST_P(EngineSteeringTest, HoldsThroughRebinds) {
  if (engine_ == nullptr) return;
  std::atomic<bool> stop{false};
  std::atomic<int> rebinds{0};
  std::thread rebinding([&] {
    while (!stop.load()) {
      EXPECT_TRUE(engine_->Rebind("test").ok());
      rebinds.fetch_add(1);
    }
  });
  while (rebinds.load() < 30 && !HasFatalFailure()) SendAndWait(200);
  stop.store(true);
  rebinding.join();
  SendAndWait(200);
  EXPECT_EQ(handler_.wrong.load(), 0u) << "of " << handler_.received.load();
  EXPECT_EQ(engine_->Counters().drops[static_cast<size_t>(Drop::kRxRebind)], 0u);
}

INSTANTIATE_TEST_SUITE_P(
    All, EngineSteeringTest,
    testing::Values(Param{io::Backend::kMmsg, false, 2, io::Steering::kSource},
                    Param{io::Backend::kMmsg, true, 4, io::Steering::kReceiverIndex},
                    Param{io::Backend::kUring, false, 4, io::Steering::kSource},
                    Param{io::Backend::kUring, true, 2, io::Steering::kSource},
                    Param{io::Backend::kUring, false, 2, io::Steering::kReceiverIndex}),
    [](const testing::TestParamInfo<Param>& info) {
      return absl::StrCat(info.param.backend == io::Backend::kUring ? "Uring" : "Mmsg",
                          info.param.v6 ? "V6" : "V4", "Shards", info.param.shards,
                          info.param.steering == io::Steering::kSource ? "Source" : "Index");
    });

}  // namespace
}  // namespace ringsock
