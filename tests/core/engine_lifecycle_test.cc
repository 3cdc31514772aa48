// The engine's start and end, and what an embedder does around it, on loopback.
#include <pthread.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "core/engine.h"
#include "gtest/gtest.h"
#include "tests/core/engine_param_test.h"

namespace ringsock {
namespace {

TEST_P(EngineTest, ClosesUnderTrafficAndFreesThePort) {
  handler_.reaction = [](Shard& shard, const ReceivedTrain& train) {
    shard.SendTo(train.from, train.packets);
  };
  // Another program may get the port as soon as it is free, though hardly so often.
  constexpr int kMostTaken = 5;
  int taken = 0;
  for (int round = 0; round < 3 + taken; ++round) {
    EngineOptions options = Options(2);
    START_OR_SKIP(options);
    const uint16_t port = engine_->port();
    const PeerId peer = AddPeer(1, remote_.text());
    std::atomic<bool> stop{false};
    std::thread traffic([&] {
      auto sender = *engine_->NewSender();
      while (!stop.load()) {
        remote_.Send(port, Message(4, "in"));
        sender->Send(peer, TrainOf(Message(4, "out")));
        sender->Flush();
      }
      EXPECT_EQ(sender->Send(peer, TrainOf(Message(4, "late"))), SendResult::kClosed);
    });
    handler_.WaitFor(handler_.size() + 20);
    engine_->Close();
    const size_t after_close = handler_.size();
    engine_->Close();  // spec: RECV-7
    stop.store(true);
    traffic.join();
    EXPECT_EQ(handler_.size(), after_close);
    EXPECT_TRUE(absl::IsFailedPrecondition(engine_->CreateEndpoint(KeyNumber(9), "").status()));
    EXPECT_EQ(engine_->Status().peers.size(), 1u);
    options.port = port;
    auto again = Engine::Start(options, &handler_);
    if (absl::IsAlreadyExists(again.status()) && taken < kMostTaken) {
      ++taken;
    } else {
      EXPECT_TRUE(again.ok()) << again.status().ToString();
    }
  }
}

TEST_P(EngineTest, APortInUseIsAnErrorThatNamesIt) {
  for (const uint32_t shards : {1u, 2u}) {
    START_OR_SKIP(Options(shards));
    for (const uint32_t others : {1u, 2u}) {
      EngineOptions options = Options(others);
      options.port = engine_->port();
      const auto second = Engine::Start(options, &handler_);
      ASSERT_FALSE(second.ok()) << shards << " shards, then " << others;
      EXPECT_TRUE(absl::IsAlreadyExists(second.status())) << second.status().ToString();
      EXPECT_NE(second.status().ToString().find(std::to_string(options.port)), std::string::npos);
    }
  }
}

TEST_P(EngineTest, AllShardsShareOnePort) {
  std::array<std::atomic<bool>, 3> received{};
  handler_.reaction = [&received](Shard& shard, const ReceivedTrain& train) {
    received[shard.index()].store(true);
    EXPECT_EQ(shard.Send(train.peer, train.packets), SendResult::kOk);
  };
  START_OR_SKIP(Options(3));
  EXPECT_EQ(engine_->Status().shards, 3u);
  for (uint32_t i = 0; i < 20; ++i) {
    RemoteHost host(v6());
    AddPeer(i + 1, host.text());
    host.Send(engine_->port(), Message(4, absl::StrCat(i)));
    EXPECT_EQ(host.Receive(), Message(4, absl::StrCat(i)));
  }
  // By the hash of the source: that 20 of them fall to one of three is one chance in 10^9.
  EXPECT_GE(std::count(received.begin(), received.end(), true), 2);
}

// What would wait for the very shard it is called on is refused.
TEST_P(EngineTest, AHandlerCannotCloseOrChangePeers) {
  std::atomic<Engine*> engine{nullptr};
  handler_.reaction = [&engine](Shard&, const ReceivedTrain&) {
    Engine& mine = *engine.load();
    EXPECT_TRUE(absl::IsFailedPrecondition(mine.CreateEndpoint(KeyNumber(2), "").status()));
    EXPECT_TRUE(absl::IsFailedPrecondition(mine.CreateEndpoints({}).status()));
    EXPECT_TRUE(absl::IsFailedPrecondition(mine.RemovePeers(std::vector{KeyNumber(1)})));
    EXPECT_TRUE(absl::IsFailedPrecondition(mine.UpdatePeers({})));
    EXPECT_TRUE(absl::IsFailedPrecondition(mine.SetRelayMap(std::nullopt)));
    EXPECT_TRUE(absl::IsFailedPrecondition(mine.SetPrivateKey(PrivateKey::Generate())));
    mine.Close();
  };
  START_OR_SKIP(Options());
  engine.store(engine_.get());
  AddPeer(1, remote_.text());
  for (size_t i = 1; i <= 3; ++i) {  // it goes on as before
    remote_.Send(engine_->port(), Message(4, "x"));
    handler_.WaitFor(i);
  }
  EXPECT_EQ(engine_->Status().peers.size(), 1u);
  engine_->Close();
}

// A thread that cannot be had is an error that says so.
TEST_P(EngineTest, NoThreadIsAnError) {
  START_OR_SKIP(Options());  // only to know that the backend is there
  pthread_attr_t usual, huge;
  ASSERT_EQ(pthread_getattr_default_np(&usual), 0);
  ASSERT_EQ(pthread_attr_init(&huge), 0);
  ASSERT_EQ(pthread_attr_setstacksize(&huge, size_t{1} << 48), 0);  // more than can be mapped
  ASSERT_EQ(pthread_setattr_default_np(&huge), 0);
  const auto engine = Engine::Start(Options(2), &handler_);
  ASSERT_EQ(pthread_setattr_default_np(&usual), 0);
  pthread_attr_destroy(&huge);
  ASSERT_FALSE(engine.ok());
  EXPECT_TRUE(absl::IsResourceExhausted(engine.status())) << engine.status().ToString();
  EXPECT_NE(engine.status().ToString().find("fewer shards"), std::string::npos);
}

TEST_P(EngineTest, EnginesLiveSideBySide) {
  START_OR_SKIP(Options());
  KeepingHandler other_handler;
  auto other = Engine::Start(Options(), &other_handler);
  ASSERT_TRUE(other.ok());
  ASSERT_NE((*other)->port(), engine_->port());
  remote_.Send((*other)->port(), Message(4, "other"));
  other_handler.WaitFor(1);
  EXPECT_EQ(handler_.size(), 0u);
}

// A handler that fails to start fails the engine, and only shards that started are stopped.
TEST_P(EngineTest, AFailingHandlerFailsTheStart) {
  class Failing final : public Handler {
   public:
    absl::Status OnShardStart(Shard& shard) override {
      if (shard.index() == 1) return absl::InternalError("shard 1 has no luck");
      started.fetch_add(1);
      return absl::OkStatus();
    }
    void OnShardStop(Shard&) override { stopped.fetch_add(1); }
    void OnReceive(Shard&, std::span<const ReceivedTrain>) override {}
    std::atomic<int> started{0}, stopped{0};
  };
  START_OR_SKIP(Options());  // only to know that the backend is there
  Failing handler;
  const auto engine = Engine::Start(Options(2), &handler);
  ASSERT_FALSE(engine.ok());
  EXPECT_EQ(engine.status().message(), "shard 1 has no luck");
  EXPECT_EQ(handler.started.load(), handler.stopped.load());
}

// An embedder with a socket of its own on the shard's thread, as the gateway has.
TEST_P(EngineTest, AnEmbeddersSocketMaySendThroughTheShard) {
  class Crossing final : public Handler, public io::UdpHandler {
   public:
    explicit Crossing(bool v6) : v6_(v6) {}
    absl::Status OnShardStart(Shard& shard) override {
      shard_ = &shard;
      io::UdpConfig config;
      config.bind.ip = v6_ ? *IpAddress::Parse("::1") : IpAddress::V4(127, 0, 0, 1);
      auto opened = shard.loop().OpenUdp(config, this);
      if (!opened.ok()) return opened.status();
      socket_ = *opened;
      port.store(shard.loop().LocalEndpoint(socket_).port);
      return absl::OkStatus();
    }
    void OnReceive(Shard& shard, std::span<const ReceivedTrain> trains) override {
      for (const ReceivedTrain& train : trains) {
        shard.loop().Send(socket_, {.data = train.packets.data,
                                    .size = train.packets.size,
                                    .segment_size = train.packets.segment_size,
                                    .to = back_});
      }
    }
    void OnReceive(io::SocketId, std::span<const io::RxTrain> trains) override {
      for (const io::RxTrain& train : trains) {
        back_ = train.from;
        EXPECT_EQ(shard_->Send(peer, {train.data, train.size, train.segment_size}),
                  SendResult::kOk);
      }
    }
    void OnSendFailure(io::SocketId, const io::SendFailure&) override {}

    std::atomic<uint16_t> port{0};
    std::atomic<PeerId> peer{PeerId::kNone};

   private:
    const bool v6_;
    Shard* shard_ = nullptr;
    io::SocketId socket_ = 0;
    Endpoint back_;
  };
  START_OR_SKIP(Options());
  Crossing crossing(v6());
  auto engine = Engine::Start(Options(), &crossing);
  ASSERT_TRUE(engine.ok()) << engine.status().ToString();
  RemoteHost local(v6());
  crossing.peer = *(*engine)->CreateEndpoint(KeyNumber(1), remote_.text());
  for (int i = 0; i < 5; ++i) {
    local.Send(crossing.port.load(), Message(4, absl::StrCat("out ", i)));
    EXPECT_EQ(remote_.Receive(), Message(4, absl::StrCat("out ", i)));
    remote_.Send((*engine)->port(), Message(4, absl::StrCat("in ", i)));
    EXPECT_EQ(local.Receive(), Message(4, absl::StrCat("in ", i)));
  }
}

TEST(EngineOptionsTest, BadOptionsAreErrors) {
  KeepingHandler handler;
  EngineOptions off;
  off.ipv4 = off.ipv6 = false;
  EXPECT_TRUE(absl::IsInvalidArgument(Engine::Start(off, &handler).status()));
  EngineOptions crossed;
  crossed.bind_v4 = *IpAddress::Parse("::1");
  EXPECT_TRUE(absl::IsInvalidArgument(Engine::Start(crossed, &handler).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(Engine::Start(EngineOptions{}, nullptr).status()));
  EngineOptions elsewhere;
  elsewhere.shards = 1;
  elsewhere.bind_v4 = IpAddress::V4(192, 0, 2, 1);
  const auto status = Engine::Start(elsewhere, &handler).status();
  EXPECT_NE(status.ToString().find("192.0.2.1"), std::string::npos) << status.ToString();
}

// Sizes that nobody can mean are refused before anything is allocated, by name.
TEST(EngineOptionsTest, AbsurdSizesAreErrors) {
  KeepingHandler handler;
  const std::pair<const char*, std::function<void(EngineOptions*)>> cases[] = {
      {"shards", [](EngineOptions* o) { o->shards = 1'000'000'000; }},
      {"max_senders", [](EngineOptions* o) { o->max_senders = UINT32_MAX; }},
      {"sender_ring_packets", [](EngineOptions* o) { o->sender_ring_packets = UINT32_MAX; }},
      {"sender_ring_packets", [](EngineOptions* o) { o->sender_ring_packets = 0; }},
      {"relay.ring_packets", [](EngineOptions* o) { o->relay.ring_packets = 0; }},
      {"relay.ring_packets", [](EngineOptions* o) { o->relay.ring_packets = UINT32_MAX; }},
      {"relay.queue_bytes", [](EngineOptions* o) { o->relay.queue_bytes = 65536; }},
      {"relay.queue_bytes", [](EngineOptions* o) { o->relay.queue_bytes = UINT32_MAX; }},
      {"relay.queue_age", [](EngineOptions* o) { o->relay.queue_age = Duration::zero(); }},
      {"relay.idle_timeout", [](EngineOptions* o) { o->relay.idle_timeout = -Duration(1); }},
      {"max_peers", [](EngineOptions* o) { o->max_peers = 0; }},
      {"max_peers", [](EngineOptions* o) { o->max_peers = UINT32_MAX; }},
      {"rx_buffers", [](EngineOptions* o) { o->io.rx_buffers = 0; }},
      {"rx_buffers", [](EngineOptions* o) { o->io.rx_buffers = UINT32_MAX; }},
      {"rx_batch", [](EngineOptions* o) { o->io.rx_batch = UINT32_MAX; }},
      {"tx_queue", [](EngineOptions* o) { o->io.tx_queue = UINT32_MAX; }},
      {"tx_slabs", [](EngineOptions* o) { o->io.tx_slabs = UINT32_MAX; }},
  };
  for (const auto& [name, spoil] : cases) {
    EngineOptions options;
    spoil(&options);
    const absl::Status status = Engine::Start(options, &handler).status();
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << name << ": " << status.ToString();
    EXPECT_NE(status.ToString().find(name), std::string::npos) << status.ToString();
  }
}

TEST(EngineOptionsTest, AllOptionsArePrinted) {
  const std::string text = EngineOptions{}.ToString();
  for (const char* name :
       {"port=0", "ipv4=0.0.0.0", "ipv6=::", "shards=0", "backend=auto", "gso=1", "gro=1",
        "zero_copy=1", "steering=none", "max_senders=64", "relay.idle_timeout_ms=60000"}) {
    EXPECT_NE(text.find(name), std::string::npos) << name;
  }
}

RINGSOCK_INSTANTIATE_ENGINE_TEST();

}  // namespace
}  // namespace ringsock
