// Engines that reach each other over relays, and over better paths when there are any.
#include <algorithm>
#include <chrono>
#include <optional>
#include <string>
#include <vector>

#include "core/engine.h"
#include "gtest/gtest.h"
#include "tests/core/engine_relay_fixture.h"

namespace ringsock {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using Texts = std::vector<std::string>;

std::string Data(absl::string_view text) { return Message(4, text); }
std::string Hello(absl::string_view text) { return Message(1, text); }

// spec: SEND-4, RECV-3, PATH-1: the relay carries what no direct path does; a direct path is taken
// when a handshake finds one, and left when a handshake finds it dead.
TEST_F(EngineRelayTest, RelayThenDirectThenRelay) {
  RelayHost relay(&net_, 1);
  RelayedNode a(&net_, 1), b(&net_, 2);
  net_.SetPartition(a.host, b.host, true);
  const PeerId to_b = a.Add(b, absl::StrCat("127.3.3.40:1,", b.address()));
  const PeerId to_a = b.Add(a, absl::StrCat("127.3.3.40:1,", a.address()));
  for (RelayedNode* node : {&a, &b}) node->SetRelays(MapOf({&relay}));
  Run(kConnectTime);
  EXPECT_EQ(a.engine->Status().home, 1);
  ASSERT_EQ(a.engine->Status().relays.size(), 1u);
  EXPECT_TRUE(a.engine->Status().relays[0].up);

  a.Send(to_b, Hello("hello"));
  Run();
  EXPECT_EQ(b.Fresh(), Texts{"relay:hello"});
  const auto first = b.handler.WaitFor(1)[0];
  EXPECT_EQ(first.peer, to_a);
  EXPECT_EQ(first.from, RelayEndpoint(1));
  EXPECT_TRUE(b.engine->Status().peers[0].current.IsNone());  // spec: PATH-1
  b.Send(to_a, Data("over the relay"));
  Run();
  EXPECT_EQ(a.Fresh(), Texts{"relay:over the relay"});

  net_.SetPartition(a.host, b.host, false);
  a.Send(to_b, Hello("hello"));
  Run();
  EXPECT_EQ(b.Fresh(), (Texts{"direct4:hello", "relay:hello"}));
  Run(seconds(4));  // no spraying any more
  b.Send(to_a, Data("direct"));
  Run();
  EXPECT_EQ(a.Fresh(), Texts{"direct4:direct"});

  net_.SetPartition(a.host, b.host, true);
  b.Send(to_a, Data("lost"));
  b.Send(to_a, Hello("again"));
  Run(seconds(4));
  b.Send(to_a, Data("over the relay"));
  Run();
  EXPECT_EQ(a.Fresh(), (Texts{"relay:again", "relay:over the relay"}));
  EXPECT_EQ(a.Path(PathKind::kRelay).rx_packets, 3u);
  EXPECT_EQ(b.Path(PathKind::kRelay).tx_packets, 3u);
  EXPECT_EQ(a.Dropped(Drop::kTxNoRelay) + b.Dropped(Drop::kTxNoRelay), 0u);
}

// Packets of one peer that come together are handed up together, in order, whatever the shard.
TEST_F(EngineRelayTest, RelayedPacketsComeAsTrains) {
  RelayHost relay(&net_, 1);
  RelayedNode a(&net_, 1), b(&net_, 2, RelayedNode::Defaults(), 3);
  const PeerId to_b = a.Add(b, "127.3.3.40:1");
  const PeerId to_a = b.Add(a, "127.3.3.40:1");
  for (RelayedNode* node : {&a, &b}) node->SetRelays(MapOf({&relay}));
  Run(kConnectTime);
  size_t trains = 0;
  std::optional<uint32_t> on;
  b.handler.reaction = [&](Shard& shard, const ReceivedTrain& train) {
    ++trains;
    EXPECT_EQ(train.peer, to_a);
    EXPECT_EQ(shard.index(), on.value_or(shard.index()));
    on = shard.index();
  };
  std::string train;
  Texts want;
  for (int i = 10; i < 50; ++i) {
    want.push_back(absl::StrCat("relay:", i));
    train += Data(absl::StrCat(i));
  }
  a.Send(to_b, train + "shrt", 6);
  Run();
  want.push_back("relay:");
  EXPECT_EQ(b.Fresh(), want);
  EXPECT_LT(trains, 6u);
}

// One relay that takes nothing holds up neither the other relay nor direct paths; what it does not
// take is bounded and counted.
TEST_F(EngineRelayTest, AFrozenRelayDelaysNobodyElse) {
  RelayHost frozen(&net_, 1), good(&net_, 2);
  EngineOptions options = RelayedNode::Defaults();
  options.relay.queue_bytes = 1 << 17;
  EngineOptions at_one = RelayedNode::Defaults(), at_two = RelayedNode::Defaults();
  at_one.relay.home = 1;  // without one, each process takes another
  options.relay.home = at_two.relay.home = 2;
  RelayedNode a(&net_, 1, options), b(&net_, 2, at_one), c(&net_, 3, at_two), d(&net_, 4);
  const derp::RelayMap map = MapOf({&frozen, &good});
  for (RelayedNode* node : {&a, &b, &c}) node->SetRelays(map);
  const PeerId over_frozen = a.Add(b, "127.3.3.40:1");
  const PeerId over_good = a.Add(c, "127.3.3.40:2");
  const PeerId direct = a.Add(d, d.address());
  a.Send(over_frozen, Data("opens it"));
  Run(kConnectTime);
  ASSERT_EQ(a.engine->Status().relays.size(), 2u);
  frozen.relay.SetStalled(true);
  const std::string bulk(1400, 'x');
  uint64_t sent = 1;
  Texts good_want, direct_want;
  for (int i = 0; i < 400; ++i) {
    for (int k = 0; k < 10; ++k) {
      EXPECT_EQ(a.Send(over_frozen, Data(bulk)), SendResult::kOk);
      ++sent;
    }
    a.Send(over_good, Data(absl::StrCat(i)));
    a.Send(direct, Data(absl::StrCat(i)));
    good_want.push_back(absl::StrCat("relay:", i));
    direct_want.push_back(absl::StrCat("direct4:", i));
    Run(milliseconds(10));
    // Within 10 ms, which is the way there and a little: nothing waits for the frozen one.
    if (i % 50 == 20) {
      EXPECT_GE(c.handler.size() + 1, good_want.size());
      EXPECT_GE(d.handler.size() + 1, direct_want.size());
    }
  }
  Run(seconds(10));
  EXPECT_EQ(c.Fresh(), good_want);
  EXPECT_EQ(d.Fresh(), direct_want);
  const uint64_t dropped = a.Dropped(Drop::kTxRelayFull) + a.Dropped(Drop::kTxRelayAged);
  EXPECT_GT(a.Dropped(Drop::kTxRelayFull), 1000u);
  EXPECT_EQ(a.Path(PathKind::kRelay).tx_packets + dropped, sent + good_want.size());
  const std::vector<RelayStatus> status = a.engine->Status().relays;
  ASSERT_EQ(status.size(), 2u);
  EXPECT_LE(status[0].queued_bytes, options.relay.queue_bytes);
  EXPECT_EQ(status[0].tx_dropped, dropped);
}

// What a relay brings that is not from a peer, or no packet at all.
TEST_F(EngineRelayTest, GarbageOfARelay) {
  RelayHost relay(&net_, 1);
  RelayedNode a(&net_, 1), b(&net_, 2);
  const PeerId to_b = a.Add(b, "127.3.3.40:1");
  a.SetRelays(MapOf({&relay}));
  Run(kConnectTime);
  const PublicKey self = a.key.Public();
  const auto bring = [&](const PublicKey& source, const std::string& bytes) {
    EXPECT_TRUE(relay.relay.Deliver(
        self, source, {reinterpret_cast<const std::byte*>(bytes.data()), bytes.size()}));
  };
  std::string stun("\0\1\0\0\x21\x12\xa4\x42", 8);
  stun.resize(20, 'i');
  bring(self, Data("our own"));
  bring(b.key.Public(), "");
  bring(b.key.Public(), stun);
  bring(b.key.Public(), std::string(65536, 'x'));
  bring(KeyNumber(77), Data("stranger"));
  bring(PublicKey{}, Data("nobody"));
  bring(b.key.Public(), Data("genuine"));
  Run();
  const auto got = a.handler.WaitFor(3);
  ASSERT_EQ(got.size(), 3u);
  EXPECT_EQ(a.Fresh(), (Texts{"relay:stranger", "relay:nobody", "relay:genuine"}));
  EXPECT_EQ(got[0].peer, PeerId::kNone);  // spec: RECV-3, RECV-4
  EXPECT_EQ(got[0].from, RelayEndpoint(1));
  EXPECT_EQ(got[2].peer, to_b);
  EXPECT_EQ(a.Dropped(Drop::kRxRelaySelf), 1u);
  EXPECT_EQ(a.Dropped(Drop::kRxEmpty), 1u);
  EXPECT_EQ(a.Dropped(Drop::kRxStun), 1u);
  EXPECT_EQ(a.Dropped(Drop::kRxTruncated), 1u);
  EXPECT_EQ(a.engine->Counters().rx_unknown_source, 2u);
  EXPECT_TRUE(a.engine->Status().relays[0].up);
}

// spec: PEER-2, PEER-3, DERP-7: peers, key and map change while packets flow.
TEST_F(EngineRelayTest, PeersKeyAndMapChange) {
  RelayHost one(&net_, 1), two(&net_, 2);
  EngineOptions options = RelayedNode::Defaults();
  options.relay.home = 1;
  RelayedNode a(&net_, 1, options), b(&net_, 2, options);
  PeerId to_b = a.Add(b, "127.3.3.40:1");
  b.Add(a, "127.3.3.40:1");
  for (RelayedNode* node : {&a, &b}) node->SetRelays(MapOf({&one, &two}));
  Run(kConnectTime);
  const auto arrives = [&](const std::string& text) {
    a.Send(to_b, Data(text));
    Run();
    return b.Fresh() == Texts{"relay:" + text};
  };
  EXPECT_TRUE(arrives("first"));

  EXPECT_TRUE(b.engine->UpdatePeers({}).ok());
  a.Send(to_b, Data("of nobody"));
  Run();
  EXPECT_EQ(b.handler.WaitFor(2).back().peer, PeerId::kNone);
  EXPECT_EQ(b.engine->Counters().rx_unknown_source, 1u);
  b.Fresh();
  b.Add(a, "127.3.3.40:1");
  EXPECT_TRUE(arrives("a peer again"));

  const PrivateKey other = PrivateKey::Generate();
  EXPECT_TRUE(b.engine->SetPrivateKey(other).ok());
  b.control_loop->Wake();
  Run(kConnectTime);
  EXPECT_FALSE(one.relay.Has(b.key.Public()));
  EXPECT_TRUE(one.relay.Has(other.Public()));
  EXPECT_TRUE(one.relay.Preferred(other.Public()));
  EXPECT_FALSE(arrives("for the key that was"));
  EXPECT_TRUE(b.engine->SetPrivateKey(b.key).ok());
  b.control_loop->Wake();
  Run(kConnectTime);
  EXPECT_TRUE(arrives("for the old key again"));

  const uint64_t logins = one.relay.logins;
  EXPECT_TRUE(a.engine->SetRelayMap(MapOf({&one, &two})).ok());  // equal
  EXPECT_TRUE(a.engine->SetRelayMap(MapOf({&one})).ok());        // region 1 is as it was
  a.control_loop->Wake();
  Run(kConnectTime);
  EXPECT_EQ(one.relay.logins, logins);
  EXPECT_TRUE(arrives("over the same connection"));
  EXPECT_TRUE(a.engine->SetRelayMap(std::nullopt).ok());
  a.control_loop->Wake();
  a.Send(to_b, Data("no relays"));
  Run();
  EXPECT_EQ(a.Dropped(Drop::kTxNoRelay), 1u);
  EXPECT_EQ(a.engine->Status().home, 0);
  EXPECT_TRUE(a.engine->Status().relays.empty());
  EXPECT_FALSE(one.relay.Has(a.key.Public()));
  EXPECT_TRUE(a.engine->SetRelayMap(MapOf({&one})).ok());
  a.control_loop->Wake();
  Run(kConnectTime);
  EXPECT_TRUE(arrives("relays again"));
}

// spec: DERP-2: an answer goes back over the relay the peer was heard on.
TEST_F(EngineRelayTest, AnswersTakeTheReverseRoute) {
  RelayHost one(&net_, 1), two(&net_, 2);
  EngineOptions at_one = RelayedNode::Defaults(), at_two = RelayedNode::Defaults();
  at_one.relay.home = 1;
  at_two.relay.home = 2;
  RelayedNode a(&net_, 1, at_one), b(&net_, 2, at_two);
  const PeerId to_b = a.Add(b, "127.3.3.40:2");
  const PeerId to_a = b.Add(a, "127.3.3.40:1");
  for (RelayedNode* node : {&a, &b}) node->SetRelays(MapOf({&one, &two}));
  Run(kConnectTime);
  a.Send(to_b, Data("hello"));  // a connects to b's home
  Run(kConnectTime);
  EXPECT_EQ(b.Fresh(), Texts{"relay:hello"});
  b.Send(to_a, Data("answer"));  // which b uses, too
  Run(kConnectTime);
  EXPECT_EQ(a.Fresh(), Texts{"relay:answer"});
  EXPECT_FALSE(one.relay.Has(b.key.Public()));
  // The relay dies: what was learned on it is void, and a's home is tried.
  two.relay.Stop();
  two.relay.ResetClients();
  Run(kConnectTime);
  b.Send(to_a, Data("another way"));
  Run(kConnectTime);
  EXPECT_EQ(a.Fresh(), Texts{"relay:another way"});
  EXPECT_TRUE(one.relay.Has(b.key.Public()));
}

// Two with one key: the one that came last receives, and the other one goes on sending.
TEST_F(EngineRelayTest, ADuplicateKey) {
  RelayHost relay(&net_, 1);
  RelayedNode a(&net_, 1), b(&net_, 2), twin(&net_, 3);
  const PeerId to_b = a.Add(b, "127.3.3.40:1");
  const PeerId to_a = b.Add(a, "127.3.3.40:1");
  a.SetRelays(MapOf({&relay}));
  b.SetRelays(MapOf({&relay}));
  Run(kConnectTime);
  twin.SetRelays(MapOf({&relay}));
  EXPECT_TRUE(twin.engine->SetPrivateKey(b.key).ok());
  twin.control_loop->Wake();
  Run(kConnectTime);
  a.Send(to_b, Data("who gets it?"));
  Run();
  EXPECT_TRUE(b.Fresh().empty());
  EXPECT_EQ(twin.Fresh(), Texts{"relay:who gets it?"});
  b.Send(to_a, Data("still here"));
  Run();
  EXPECT_EQ(a.Fresh(), Texts{"relay:still here"});
  twin.engine->Close();
  Run(seconds(3));
  a.Send(to_b, Data("and now?"));
  Run();
  EXPECT_EQ(b.Fresh(), Texts{"relay:and now?"});
}

// Every packet ends in exactly one counter, whatever happens to the relay and whenever we close.
TEST_F(EngineRelayTest, NothingIsLostWithoutACounter) {
  for (uint64_t seed = 1; seed <= 12; ++seed) {
    io::SimNetwork net(seed);
    RelayHost relay(&net, 1);
    EngineOptions options = RelayedNode::Defaults();
    options.relay.queue_bytes = 1 << 17;
    options.relay.ring_packets = 64;
    options.relay.queue_age = milliseconds(300);
    RelayedNode a(&net, 1, options), b(&net, 2, options);
    const PeerId to_b = a.Add(b, "127.3.3.40:1");
    b.Add(a, "127.3.3.40:1");
    for (RelayedNode* node : {&a, &b}) node->SetRelays(MapOf({&relay}));
    if (seed % 2 == 0) net.RunFor(kConnectTime);
    uint64_t sent = 0;
    for (int i = 0; i < 300; ++i) {
      const std::string packet = Data(std::string(10 + (seed * 97 + i * 31) % 1300, 'x'));
      std::string train;
      const int count = 1 + (i * 7 + static_cast<int>(seed)) % 40;
      for (int k = 0; k < count; ++k) train += packet;
      a.Send(to_b, train, packet.size());
      sent += static_cast<uint64_t>(count);
      if (i % 3 != 0) net.RunFor(milliseconds(1));
      if (i == 100) relay.relay.SetStalled(true);
      if (i == 150) net.RunFor(seconds(1));
      if (i == 200) relay.relay.SetStalled(false);
      if (i == 220 && seed % 3 == 0) relay.relay.ResetClients();
    }
    if (seed % 4 == 1) net.RunFor(seconds(5));
    a.engine->Close();
    net.RunFor(seconds(5));
    const CounterSnapshot at_a = a.engine->Counters();
    const CounterSnapshot at_b = b.engine->Counters();
    uint64_t lost = 0;
    for (const uint64_t drop : at_a.drops) lost += drop;
    const uint64_t left = at_a.paths[static_cast<size_t>(PathKind::kRelay)].tx_packets;
    EXPECT_EQ(left + lost, sent) << "seed " << seed << ": " << at_a.ToString();
    const uint64_t received = at_b.paths[static_cast<size_t>(PathKind::kRelay)].rx_packets;
    EXPECT_EQ(received, b.handler.size());
    EXPECT_LE(received + b.Dropped(Drop::kRxRelayFull), left) << at_b.ToString();
    EXPECT_GT(received, 0u) << "seed " << seed;
  }
}

}  // namespace
}  // namespace ringsock
