// A standing connection against a relay in the simulated network.
#include "derp/region_connection.h"

#include "tests/derp/client_world.h"

namespace ringsock::derp {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

class RegionConnectionTest : public ClientWorldTest {};

TEST_F(RegionConnectionTest, ConnectsAndCarriesPacketsBothWays) {
  RelayFixture& relay = AddRelay(1);
  const auto connection = Connect(RegionOf({&relay}), &events);
  EXPECT_FALSE(connection->up());
  Run(kEnough);
  ASSERT_TRUE(connection->up()) << connection->Status().last_error;
  EXPECT_EQ(events.story, "up ");
  EXPECT_EQ(connection->region(), 1);

  std::vector<size_t> sent;
  relay.on_packet = [&](const PublicKey& from, const PublicKey& to, Bytes packet) {
    EXPECT_EQ(from, self);
    EXPECT_EQ(to, PeerKey(1));
    sent.push_back(packet.size());
    return true;
  };
  for (const size_t size : {0u, 1u, 1400u, 65536u}) {
    EXPECT_TRUE(connection->Send(PeerKey(1), Packet(size)));
  }
  EXPECT_FALSE(connection->Send(PeerKey(1), Packet(65537)));
  connection->Flush();
  Run(kEnough);
  EXPECT_EQ(sent, (std::vector<size_t>{0, 1, 1400, 65536}));

  EXPECT_TRUE(relay.Deliver(self, PeerKey(2), Packet(1400)));
  EXPECT_TRUE(relay.Deliver(self, PeerKey(3), Packet(100)));
  Run(kEnough);
  EXPECT_EQ(events.sources, (std::vector<PublicKey>{PeerKey(2), PeerKey(3)}));
  EXPECT_EQ(events.sizes, (std::vector<size_t>{1400, 100}));
  EXPECT_GE(events.packet_ends, 1);

  const RegionConnectionStatus status = connection->Status();
  EXPECT_EQ(status.node, "1a");
  EXPECT_EQ(status.remote, relay.at());
  EXPECT_EQ(status.description, "plain TCP");
  EXPECT_EQ(status.queued_packets, 0u);
  EXPECT_EQ(status.counters.connects, 1u);
  EXPECT_EQ(status.counters.tx_packets, 4u);
  EXPECT_EQ(status.counters.tx_bytes, 66937u);
  EXPECT_EQ(status.counters.rx_packets, 2u);
  EXPECT_EQ(status.counters.rx_bytes, 1500u);
}

TEST_F(RegionConnectionTest, TellsTheRelayWhichHomeIs) {
  RelayFixture& relay = AddRelay(1);
  const auto connection = Connect(RegionOf({&relay}), &events);
  connection->SetPreferred(true);
  Run(kEnough);
  EXPECT_TRUE(relay.Preferred(self)) << "said before the login";
  connection->SetPreferred(false);
  Run(kEnough);
  EXPECT_FALSE(relay.Preferred(self));
  connection->SetPreferred(true);
  relay.CloseClients();
  Run(seconds(1));
  ASSERT_TRUE(connection->up());
  EXPECT_TRUE(relay.Preferred(self)) << "a new connection is told too";
}

TEST_F(RegionConnectionTest, AnswersPingsAndPassesOnWhatTheRelayTells) {
  RelayFixture& relay = AddRelay(1);
  const auto connection = Connect(RegionOf({&relay}), &events);
  Run(kEnough);
  ServerSession* session = relay.session(self);
  ASSERT_NE(session, nullptr);
  session->SendPing({});
  session->SendPeerGone(PeerKey(9), PeerGoneReason::kNotHere);
  session->SendHealth("duplicate connection");
  session->SendHealth("");
  relay.Flush();
  Run(kEnough);
  EXPECT_EQ(relay.pongs, 1u);
  EXPECT_EQ(events.gone, std::vector<PublicKey>{PeerKey(9)});  // spec: DERP-3
  EXPECT_EQ(events.health, (std::vector<std::string>{"duplicate connection", ""}));
  EXPECT_EQ(events.story, "up ");
}

TEST_F(RegionConnectionTest, PacketsWaitForTheLoginButNotForEver) {
  RelayFixture& relay = AddRelay(1);
  relay.Stop();
  const auto connection = Connect(RegionOf({&relay}), &events);
  connection->Send(PeerKey(1), Packet(100));
  Run(seconds(2));
  connection->Send(PeerKey(1), Packet(200));
  EXPECT_EQ(connection->Status().queued_packets, 2u);
  Run(milliseconds(1500));
  EXPECT_EQ(connection->Status().queued_packets, 1u);
  EXPECT_EQ(connection->counters().tx_dropped_aged, 1u);
  EXPECT_EQ(connection->counters().tx_dropped_bytes, 100u);
  connection->Send(PeerKey(1), Packet(300));
  ASSERT_TRUE(relay.Start().ok());
  connection->Reconnect("for the test");
  std::vector<size_t> sizes;
  relay.on_packet = [&](const PublicKey&, const PublicKey&, Bytes packet) {
    sizes.push_back(packet.size());
    return true;
  };
  Run(kEnough);
  EXPECT_EQ(sizes, (std::vector<size_t>{200, 300}));
}

TEST_F(RegionConnectionTest, KeepsToTheRateTheRelayAsksFor) {
  RelayFixture::Options options;
  options.info.token_bucket_bytes_per_second = 10'370;
  options.info.token_bucket_bytes_burst = 10'370;  // ten packets of 1000 bytes with their header
  RelayFixture& relay = AddRelay(1, options);
  const auto connection = Connect(RegionOf({&relay}), &events);
  // Before the login nobody knows of the limit.
  for (int i = 0; i < 25; ++i) connection->Send(PeerKey(1), Packet(1000));
  Run(milliseconds(200));
  ASSERT_TRUE(connection->up());
  EXPECT_EQ(relay.packets, 10u);
  EXPECT_EQ(connection->counters().tx_dropped_rate, 15u);
  Run(seconds(1));
  for (int i = 0; i < 25; ++i) EXPECT_TRUE(connection->Send(PeerKey(1), Packet(1000)));
  connection->Flush();
  Run(kEnough);
  EXPECT_EQ(relay.packets, 20u);
  EXPECT_EQ(connection->counters().tx_dropped_rate, 30u);
  EXPECT_EQ(connection->counters().tx_dropped_bytes, 30'000u);
  EXPECT_EQ(connection->counters().tx_packets, 50u);
}

TEST_F(RegionConnectionTest, KeepAlivesHoldItAndSilenceEndsIt) {
  RelayFixture& relay = AddRelay(1);
  const auto connection = Connect(RegionOf({&relay}), &events);
  Run(std::chrono::minutes(30));
  EXPECT_EQ(events.story, "up ");
  relay.mute = true;
  Run(seconds(50));
  EXPECT_TRUE(connection->up());
  Run(seconds(75));
  ASSERT_GE(events.downs.size(), 1u);
  EXPECT_EQ(events.downs[0].message(),
            "region 1, node 1a: no sign of life from the relay for 120 s");
}

TEST_F(RegionConnectionTest, ARestartThatWasAnnouncedIsWaitedFor) {
  RelayFixture& relay = AddRelay(1);
  const auto connection = Connect(RegionOf({&relay}), &events);
  Run(kEnough);
  relay.session(self)->SendRestarting({milliseconds(3000), milliseconds(60'000)});
  relay.CloseClients();
  Run(milliseconds(2900));
  EXPECT_EQ(events.story, "up down ");
  EXPECT_EQ(relay.accepts, 1u) << "not called before the time it asked for";
  Run(milliseconds(500));
  EXPECT_EQ(events.story, "up down up ");
  EXPECT_EQ(relay.accepts, 2u);
}

// spec: DERP-5
TEST_F(RegionConnectionTest, TriesAgainSoonAndThenLessOften) {
  RelayFixture& relay = AddRelay(1);
  const auto connection = Connect(RegionOf({&relay}), &events);
  Run(seconds(20));
  std::vector<Instant> times;
  events.on_down = [&] { times.push_back(net.now()); };
  relay.Stop();
  relay.ResetClients();
  Run(std::chrono::minutes(1));
  ASSERT_GE(times.size(), 12u);
  Duration expected = milliseconds(250);
  for (size_t i = 1; i < times.size(); ++i) {
    const Duration gap = times[i] - times[i - 1] - milliseconds(20);  // the refusal's way
    EXPECT_GE(gap, expected) << i;
    EXPECT_LE(gap, expected * 5 / 4 + milliseconds(5)) << i;
    expected = std::min<Duration>(expected * 2, seconds(4));
  }
  EXPECT_FALSE(connection->up());
  EXPECT_THAT(connection->Status().last_error, testing::HasSubstr("Connection refused"));
  EXPECT_EQ(connection->counters().failures, times.size());
  EXPECT_EQ(events.story.substr(0, 13), "up down down ") << "each failure is told";
  // It is back.
  ASSERT_TRUE(relay.Start().ok());
  Run(seconds(6));
  EXPECT_TRUE(connection->up());
  EXPECT_EQ(connection->Status().last_error, "");
}

// A relay that lets clients in only to throw them out is not called four times a second.
TEST_F(RegionConnectionTest, ShortConnectionsDoNotResetThePace) {
  RelayFixture& relay = AddRelay(1);
  const auto connection = Connect(RegionOf({&relay}), &events);
  events.on_up = [&] { net.At(net.now() + milliseconds(50), [&] { relay.CloseClients(); }); };
  Run(std::chrono::minutes(1));
  EXPECT_GT(relay.accepts, 10u);
  EXPECT_LT(relay.accepts, 25u);
}

TEST_F(RegionConnectionTest, ALinkChangeConnectsAnewAtOnce) {
  RelayFixture& relay = AddRelay(1);
  const auto connection = Connect(RegionOf({&relay}), &events);
  Run(kEnough);
  // The old way is dead without a word.
  const IpAddress old_address = IpAddress::V4(192, 0, 2, 1);
  const IpAddress new_address = IpAddress::V4(192, 0, 2, 77);
  net.RemoveAddress(client.id, old_address);
  net.AddAddress(client.id, new_address);
  connection->Reconnect("link change");
  EXPECT_FALSE(connection->up());
  EXPECT_EQ(events.story, "up ") << "nothing from inside a call";
  connection->Send(PeerKey(1), Packet(100));
  Run(milliseconds(100));
  EXPECT_EQ(events.story, "up down up ");
  EXPECT_EQ(events.downs[0].message(), "connecting anew: link change");
  EXPECT_EQ(relay.packets, 1u) << "what was sent meanwhile";

  // While it waits for its next try, too.
  relay.Stop();
  relay.ResetClients();
  Run(seconds(30));
  ASSERT_FALSE(connection->up());
  ASSERT_TRUE(relay.Start().ok());
  connection->Reconnect("link change");
  Run(milliseconds(100));
  EXPECT_TRUE(connection->up());
  // And while it dials, and when asked many times.
  for (int i = 0; i < 10; ++i) {
    connection->Reconnect("link change");
    Run(milliseconds(7));
  }
  Run(milliseconds(100));
  EXPECT_TRUE(connection->up());
  Run(seconds(10));
  EXPECT_EQ(relay.clients(), 1u);
}

TEST_F(RegionConnectionTest, ItsOwnerMayCallItFromEvents) {
  RelayFixture& relay = AddRelay(1);
  const auto connection = Connect(RegionOf({&relay}), &events);
  events.on_up = [&] {
    connection->Send(PeerKey(1), Packet(10));
    connection->SetPreferred(true);
    connection->Flush();
  };
  events.on_packet = [&] {
    for (int i = 0; i < 50; ++i) connection->Send(PeerKey(1), Packet(1400));
    connection->Flush();
    if (events.sizes.size() == 2) connection->Reconnect("from inside");
  };
  Run(kEnough);
  EXPECT_EQ(relay.packets, 1u);
  EXPECT_TRUE(relay.Preferred(self));
  relay.Deliver(self, PeerKey(2), Packet(10));
  Run(kEnough);
  EXPECT_EQ(relay.packets, 51u);
  // Three in one go; what comes after the call is of a connection that is no more.
  for (int i = 0; i < 3; ++i) relay.Deliver(self, PeerKey(2), Packet(10));
  Run(kEnough);
  EXPECT_EQ(events.sizes.size(), 2u);
  EXPECT_EQ(events.packet_ends, 2) << "what was handed on is flushed";
  EXPECT_EQ(events.story, "up down up ");
  EXPECT_EQ(relay.packets, 102u) << "the answers waited for the next connection";
}

TEST_F(RegionConnectionTest, AnEndedOneIsClosedAtTheRelay) {
  RelayFixture& relay = AddRelay(1);
  auto connection = Connect(RegionOf({&relay}), &events);
  Run(kEnough);
  EXPECT_EQ(relay.clients(), 1u);
  connection->Send(PeerKey(1), Packet(100));
  connection.reset();
  Run(kEnough);
  EXPECT_EQ(relay.packets, 1u) << "what was queued has left";
  EXPECT_EQ(relay.clients(), 0u);
  EXPECT_EQ(relay.last_error, "") << "an orderly end";
  EXPECT_EQ(client.timers.size(), 0u);
  // One that never got through leaves nothing behind either.
  relay.Stop();
  connection = Connect(RegionOf({&relay}), &events);
  Run(seconds(3));
  connection.reset();
  EXPECT_EQ(client.timers.size(), 0u);
  EXPECT_EQ(resolver.running(), 0u);
}

}  // namespace
}  // namespace ringsock::derp
