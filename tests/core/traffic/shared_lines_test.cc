// No cache line is written by two shards while packets flow: each write would take the line away
// from the other core. Every write of the shards' threads is looked at, in the pass with the thread
// sanitizer, whose compiler tells of them.
#include <dlfcn.h>

#include <array>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "core/engine.h"
#include "core/shard_of.h"
#include "gtest/gtest.h"
#include "io/steering.h"
#include "tests/core/engine_fixture.h"
#include "tests/core/traffic/write_watch.h"

namespace ringsock {
namespace {

constexpr uint32_t kShards = 2;
constexpr uint32_t kPeersOfShard = 3;
constexpr uint32_t kRounds = 300;

class Echo final : public Handler {
 public:
  absl::Status OnShardStart(Shard& shard) override {
    WatchThisThread(static_cast<int>(shard.index()));
    return absl::OkStatus();
  }
  void OnReceive(Shard& shard, std::span<const ReceivedTrain> trains) override {
    for (const ReceivedTrain& train : trains) {
      if (train.peer == PeerId::kNone) {
        shard.SendTo(train.from, train.packets);
        continue;
      }
      shard.ConfirmPath(train.peer, train.from);
      shard.Send(train.peer, train.packets);
    }
  }
};

// "shard 1 at offset 8, from ringsock_test+0x1234", for addr2line.
std::string Describe(const SharedLine& line) {
  std::string text;
  for (int i = 0; i < 8; ++i) {
    if ((line.threads >> i & 1) == 0) continue;
    Dl_info info{};
    dladdr(line.code[i], &info);
    const auto base = reinterpret_cast<uintptr_t>(info.dli_fbase);
    absl::StrAppend(&text, " shard ", i, " at offset ", line.offset[i], ", from ",
                    info.dli_fname == nullptr ? "?" : info.dli_fname, "+0x",
                    absl::Hex(reinterpret_cast<uintptr_t>(line.code[i]) - base), ";");
  }
  return text;
}

class SharedLinesTest : public testing::TestWithParam<io::Backend> {
 protected:
  void SetUp() override {
#ifndef __SANITIZE_THREAD__
    GTEST_SKIP() << "needs a build with the thread sanitizer";
#endif
    EngineOptions options;
    options.shards = kShards;
    options.pin_threads = false;
    options.ipv6 = false;
    options.network.netcheck = false;  // with it, both shards wake control for STUN
    options.network.watch_links = false;
    options.steering = io::Steering::kSource;
    options.io.backend = GetParam();
    if (const auto loop = io::CreateLoop(options.io); !loop.ok()) {
      GTEST_SKIP() << loop.status().ToString();
    }
    auto started = Engine::Start(options, &handler_);
    ASSERT_TRUE(started.ok()) << started.status().ToString();
    engine_ = *std::move(started);
    // Peers whose packets one shard both receives and sends: what is known of a peer's path may be
    // written by every shard that serves it.
    std::array<uint32_t, kShards> found{};
    std::vector<PublicKey> keys;
    for (uint32_t i = 0; found[0] + found[1] < kShards * kPeersOfShard; ++i) {
      auto host = std::make_unique<RemoteHost>();
      const uint32_t shard =
          io::SteeredSocket(io::Steering::kSource, host->endpoint(), {}, kShards);
      const PeerId peer = *engine_->CreateEndpoint(KeyNumber(i), host->text());
      if (ShardOf(peer, kShards) != shard || found[shard] == kPeersOfShard) continue;
      ++found[shard];
      hosts_.push_back(std::move(host));
      peers_.push_back(peer);
      keys.push_back(KeyNumber(i));
    }
    // Their paths are learnt, and reported to control, which both shards wake for it: that is over
    // once the removal of a peer has waited for the shards.
    for (auto& host : hosts_) {
      host->Send(engine_->port(), Message(4, "first"));
      ASSERT_FALSE(host->Receive().empty());
    }
    ASSERT_TRUE(engine_->CreateEndpoint(KeyNumber(1 << 20), "").ok());
    ASSERT_TRUE(engine_->UpdatePeers(keys).ok());
  }

  Echo handler_;  // outlives the engine
  std::unique_ptr<Engine> engine_;
  std::vector<std::unique_ptr<RemoteHost>> hosts_;
  std::vector<PeerId> peers_;
};

TEST_P(SharedLinesTest, NoneIsWrittenByTwoShards) {
  const std::string data = Message(4, std::string(1000, 'x')), sent = Message(4, "sent");
  auto sender = *engine_->NewSender();
  const std::string stun("\0\1\0\0\x21\x12\xa4\x42 0123456789", 20);
  Watch(true);
  for (uint32_t round = 0; round < kRounds; ++round) {
    // Single packets, trains, what a Sender sends, strangers, and STUN.
    for (size_t i = 0; i < hosts_.size(); ++i) {
      hosts_[i]->Send(engine_->port(), data);
      hosts_[i]->SendTrain(engine_->port(), data + data + data, data.size());
      hosts_[i]->Send(engine_->port(), stun);
      sender->Send(peers_[i], TrainOf(sent));
    }
    sender->Flush();
    RemoteHost stranger;
    stranger.Send(engine_->port(), sent);
    stranger.Receive();
    for (auto& host : hosts_) {
      for (int i = 0; i < 5; ++i) ASSERT_FALSE(host->Receive().empty());
    }
  }
  Watch(false);
  EXPECT_GT(WrittenLines(), 100u) << "the writes are seen";
  std::array<SharedLine, 32> lines;
  const size_t count = SharedLines(lines.data(), lines.size());
  for (size_t i = 0; i < std::min(count, lines.size()); ++i) {
    ADD_FAILURE() << "a cache line that two shards write:" << Describe(lines[i]);
  }
}

INSTANTIATE_TEST_SUITE_P(All, SharedLinesTest,
                         testing::Values(io::Backend::kMmsg, io::Backend::kUring),
                         [](const testing::TestParamInfo<io::Backend>& info) {
                           return info.param == io::Backend::kUring ? "Uring" : "Mmsg";
                         });

}  // namespace
}  // namespace ringsock
