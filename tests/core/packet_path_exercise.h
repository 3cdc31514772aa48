// All that the packet path can be asked to do, for tests that watch what it costs: what a shard
// allocates (allocation_test.cc) and which locks it takes (lock_test.cc).
#ifndef RINGSOCK_TESTS_CORE_PACKET_PATH_EXERCISE_H_
#define RINGSOCK_TESTS_CORE_PACKET_PATH_EXERCISE_H_

#include <memory>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/engine.h"
#include "gtest/gtest.h"
#include "tests/core/engine_fixture.h"
#include "tests/core/tls_relay.h"

namespace ringsock {

// Sends everything back, and watches the shard's thread: `watch(true)` when it starts.
class WatchedEcho final : public Handler {
 public:
  explicit WatchedEcho(void (*watch)(bool)) : watch_(watch) {}
  absl::Status OnShardStart(Shard&) override {
    watch_(true);
    return absl::OkStatus();
  }
  void OnShardStop(Shard&) override { watch_(false); }
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

 private:
  void (*const watch_)(bool);
};

// Echoes of both kinds, STUN, nothing, sprays, senders' packets for two peers in turn (which are
// gathered), a roaming peer and one that is not there.
class DirectExercise {
 public:
  static constexpr uint32_t kToNobody = 10;  // packets of each Run()

  DirectExercise(io::Backend backend, void (*watch)(bool)) : watch_(watch), handler_(watch) {
    EngineOptions options;
    options.shards = 1;
    options.pin_threads = false;
    options.network.netcheck = false;  // its STUN is control's, and allocates
    options.network.watch_links = false;
    options.io.backend = backend;
    auto engine = Engine::Start(options, &handler_);
    EXPECT_TRUE(engine.ok()) << engine.status().ToString();
    engine_ = *std::move(engine);
    peer_ = *engine_->CreateEndpoint(
        KeyNumber(1), absl::StrCat("127.3.3.40:1,", other_.text(), ",", known_.text()));
    second_ = *engine_->CreateEndpoint(KeyNumber(2), other_.text());
    AddRelayThatNobodyRuns();
    relayed_ = *engine_->CreateEndpoint(KeyNumber(3), "127.3.3.40:1");
    sender_ = *engine_->NewSender();
    stun_.assign("\0\1\0\0\x21\x12\xa4\x42", 8);
    stun_.resize(20, 'i');
  }

  Engine& engine() { return *engine_; }

  void Run() {
    const uint16_t port = engine_->port();
    for (int i = 0; i < 20; ++i) known_.Send(port, Message(4, "echo"));
    for (int i = 0; i < 20; ++i) known_.Receive();
    stranger_.Send(port, Message(4, "stranger"));
    stranger_.Receive();
    stranger_.Send(port, stun_);
    stranger_.Send(port, "");
    engine_->ConfirmPath(second_, stranger_.endpoint());
    for (uint32_t i = 0; i < kToNobody; ++i) {
      const std::string out = Message(i == 5 ? 1 : 4, "out");
      const std::string rest = Message(4, "rest");
      watch_(true);
      sender_->Send(peer_, TrainOf(out));
      sender_->Send(second_, TrainOf(rest));
      sender_->Send(relayed_, TrainOf(rest));
      sender_->Send(PeerId{999}, TrainOf(rest));
      watch_(false);
    }
    watch_(true);
    sender_->Flush();
    watch_(false);
    for (uint32_t i = 0; i < kToNobody; ++i) stranger_.Receive();
    known_.Receive();
    known_.Drain();
    other_.Drain();
  }

 private:
  // Packets for it go as far as control.
  void AddRelayThatNobodyRuns() {
    derp::RelayMap map;
    map.regions[1] = {.region_id = 1, .region_code = "none", .region_name = "", .nodes = {}};
    derp::RelayNode node;
    node.region_id = 1;
    node.host_name = "127.0.0.1";
    node.ipv4 = "127.0.0.1";
    node.derp_port = 1;
    map.regions[1].nodes.push_back(node);
    EXPECT_TRUE(engine_->SetRelayMap(map).ok());
    EXPECT_TRUE(engine_->SetPrivateKey(PrivateKey::Generate()).ok());
  }

  void (*const watch_)(bool);
  WatchedEcho handler_;
  RemoteHost known_, other_, stranger_;
  std::unique_ptr<Engine> engine_;
  PeerId peer_, second_, relayed_;
  std::unique_ptr<Sender> sender_;
  std::string stun_;
};

// What a relay brings is handed to the shard in a ring, and goes back the same way.
class RelayedExercise {
 public:
  RelayedExercise(io::Backend backend, void (*watch)(bool)) : echo_(watch) {
    const PrivateKey keys[2] = {PrivateKey::Generate(), PrivateKey::Generate()};
    Handler* const handlers[2] = {&keeping_, &echo_};
    for (int i = 0; i < 2; ++i) {
      EngineOptions options;
      options.shards = 1;
      options.pin_threads = false;
      options.network.watch_links = false;
      options.relay.queue_age = kPatience;
      options.io.backend = backend;
      auto engine = Engine::Start(options, handlers[i]);
      EXPECT_TRUE(engine.ok()) << engine.status().ToString();
      engines_[i] = *std::move(engine);
      EXPECT_TRUE(engines_[i]->SetPrivateKey(keys[i]).ok());
      EXPECT_TRUE(engines_[i]->SetRelayMap(relay_.Map(relay_.pin())).ok());
      peers_[i] = *engines_[i]->CreateEndpoint(keys[1 - i].Public(), "127.3.3.40:1");
    }
    EXPECT_TRUE(WaitUntil([&] { return Up(*engines_[0]) && Up(*engines_[1]); }));
    sender_ = *engines_[0]->NewSender();
  }

  void Run() {
    const std::string message = Message(4, std::string(1000, 'x'));
    for (int i = 0; i < 50; ++i) {
      ASSERT_EQ(sender_->Send(peers_[0], TrainOf(message)), SendResult::kOk);
    }
    sender_->Flush();
    keeping_.WaitFor(sent_ += 50);
  }

 private:
  static bool Up(const Engine& engine) {
    const EngineStatus status = engine.Status();
    return !status.relays.empty() && status.relays.front().up;
  }

  TlsRelay relay_;
  WatchedEcho echo_;
  KeepingHandler keeping_;
  std::unique_ptr<Engine> engines_[2];
  PeerId peers_[2];
  std::unique_ptr<Sender> sender_;
  size_t sent_ = 0;
};

}  // namespace ringsock

#endif  // RINGSOCK_TESTS_CORE_PACKET_PATH_EXERCISE_H_
