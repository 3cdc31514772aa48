// Engines that reach one another over a real relay and TLS: all parts of the way are the ones of
// production.
#include <gmock/gmock.h>

#include "absl/strings/str_cat.h"
#include "core/engine.h"
#include "tests/core/engine_fixture.h"
#include "tests/core/tls_relay.h"

namespace ringsock {
namespace {

using testing::HasSubstr;

// An engine with a key of its own.
struct Node {
  explicit Node(KeepingHandler::Reaction reaction = nullptr) {
    handler.reaction = std::move(reaction);
    EngineOptions options;
    options.shards = 2;
    options.pin_threads = false;
    options.bind_v4 = IpAddress::V4(127, 0, 0, 1);
    options.ipv6 = false;
    options.network.watch_links = false;
    options.relay.queue_age = kPatience;  // longer than a busy machine keeps a thread waiting
    auto started = Engine::Start(options, &handler);
    EXPECT_TRUE(started.ok()) << started.status();
    engine = std::move(started).value();
    EXPECT_TRUE(engine->SetPrivateKey(key).ok());
  }
  RelayStatus Relay() const {
    const EngineStatus status = engine->Status();
    return status.relays.empty() ? RelayStatus() : status.relays.front();
  }

  const PrivateKey key = PrivateKey::Generate();
  KeepingHandler handler;
  std::unique_ptr<Engine> engine;
};

// spec: NC-9: a relay without STUN is measured over HTTPS, and so it is wherever UDP is blocked.
TEST(EngineTlsRelayTest, LatencyOverHttps) {
  TlsRelay relay;
  Node node;
  ASSERT_TRUE(node.engine->SetRelayMap(relay.Map(relay.pin())).ok());
  EngineStatus status;
  ASSERT_TRUE(WaitUntil([&] {
    status = node.engine->Status();
    if (!status.last_report.has_value()) return false;
    if (status.last_report->latency.contains(1)) return true;
    node.engine->ReStun("no answer in time");
    return false;
  }));
  EXPECT_FALSE(status.last_report->udp);
  EXPECT_FALSE(status.last_report->latency.at(1).v4.has_value());
  EXPECT_GT(status.last_report->latency.at(1).best, Duration::zero());
  EXPECT_EQ(status.last_report->preferred, 1);
}

TEST(EngineTlsRelayTest, PacketsCrossBothWays) {
  TlsRelay relay;
  Node a, b([](Shard&shard, const ReceivedTrain&train) {
    if (train.peer != PeerId::kNone) shard.Send(train.peer, train.packets);
  });
  for (Node* node : {&a, &b}) {
    ASSERT_TRUE(node->engine->SetRelayMap(relay.Map(relay.pin())).ok());
  }
  const PeerId to_b = *a.engine->CreateEndpoint(b.key.Public(), "127.3.3.40:1");
  const PeerId to_a = *b.engine->CreateEndpoint(a.key.Public(), "127.3.3.40:1");
  // The home connection of each: a relay knows nobody who is not there.
  for (Node* node : {&a, &b}) ASSERT_TRUE(WaitUntil([&] { return node->Relay().up; }));
  auto sender = *a.engine->NewSender();
  for (int i = 0; i < 100; ++i) {
    const std::string message = Message(4, absl::StrCat(i, std::string(1300, 'x')));
    ASSERT_EQ(sender->Send(to_b, TrainOf(message)), SendResult::kOk);
  }
  sender->Flush();
  const auto at_b = b.handler.WaitFor(100);
  const auto back = a.handler.WaitFor(100);
  ASSERT_EQ(back.size(), 100u);
  for (size_t i = 0; i < back.size(); ++i) {
    EXPECT_EQ(at_b[i].peer, to_a);
    EXPECT_EQ(at_b[i].path, PathKind::kRelay);
    EXPECT_EQ(at_b[i].bytes, Message(4, absl::StrCat(i, std::string(1300, 'x'))));
    EXPECT_EQ(back[i].peer, to_b);
    EXPECT_EQ(back[i].bytes, at_b[i].bytes);
    EXPECT_EQ(back[i].from.ToString(), "127.3.3.40:1");
  }
  const RelayStatus status = a.Relay();
  EXPECT_TRUE(status.home);
  EXPECT_EQ(status.node, "1a");
  EXPECT_THAT(status.description, HasSubstr("TLSv1.3"));
  EXPECT_EQ(status.rx_packets, 100u);
  EXPECT_TRUE(WaitUntil([&] { return relay.server().GetStats().packets_out == 200; }));
}

// spec: derp.md, Transport: nothing but the pinned certificate will do, and what is wrong is said.
TEST(EngineTlsRelayTest, AWrongPinIsSaidAndARightOneMendsIt) {
  TlsRelay relay;
  Node a;
  ASSERT_TRUE(
      a.engine->SetRelayMap(relay.Map(absl::StrCat("sha256-raw:", std::string(64, '0')))).ok());
  // An attempt that took too long says so instead, and is followed by the next.
  RelayStatus status;
  EXPECT_TRUE(WaitUntil([&] {
    status = a.Relay();
    return status.last_error.find("pin") != std::string::npos;
  })) << status.last_error;
  EXPECT_FALSE(status.up);
  ASSERT_TRUE(a.engine->SetRelayMap(relay.Map(relay.pin())).ok());
  ASSERT_TRUE(WaitUntil([&] {
    status = a.Relay();
    return status.up;
  }));
  EXPECT_EQ(status.last_error, "");
}

}  // namespace
}  // namespace ringsock
