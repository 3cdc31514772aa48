// A standing connection against relays that stall, lie, refuse and vanish; others go on.
#include "derp/region_connection.h"
#include "tests/derp/client_world.h"

namespace ringsock::derp {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::HasSubstr;

class RegionConnectionTroubleTest : public ClientWorldTest {
 protected:
  // A connection that is up, to a relay of its own.
  void Up() {
    relay = &AddRelay(1);
    connection = Connect(RegionOf({relay}), &events);
    Run(kEnough);
    ASSERT_TRUE(connection->up());
  }
  RelayFixture* relay = nullptr;
  std::unique_ptr<RegionConnection> connection;
};

TEST_F(RegionConnectionTroubleTest, AStalledRelayDropsFromTheHeadAndHoldsUpNobody) {
  RelayFixture& frozen = AddRelay(1);
  RelayFixture& busy = AddRelay(2);
  RegionConnectionOptions options = Plain();
  options.queue = {.max_bytes = 256 << 10, .max_age = seconds(3)};
  Recorder other;
  const auto stalled = Connect(RegionOf({&frozen}), &events, std::move(options));
  const auto flowing = Connect(RegionOf({&busy}, 2), &other);
  Run(kEnough);
  ASSERT_TRUE(stalled->up() && flowing->up());
  frozen.SetStalled(true);
  std::vector<Duration> delays;
  Instant sent_at;
  busy.on_packet = [&](const PublicKey&, const PublicKey&, Bytes) {
    delays.push_back(net.now() - sent_at);
    return true;
  };
  // 10 s at 500 packets/s for each.
  const int kTurns = 1000;
  for (int i = 0; i < kTurns; ++i) {
    sent_at = net.now();
    for (int j = 0; j < 5; ++j) {
      stalled->Send(PeerKey(1), Packet(1400));
      flowing->Send(PeerKey(1), Packet(1400));
    }
    stalled->Flush();
    flowing->Flush();
    Run(milliseconds(10));
    EXPECT_LE(stalled->Status().queued_bytes, 256u << 10);
  }
  EXPECT_EQ(delays.size(), 5u * kTurns);
  EXPECT_EQ(*std::max_element(delays.begin(), delays.end()), milliseconds(10));
  EXPECT_EQ(flowing->counters().tx_dropped_bytes, 0u);

  const RegionCounters before = stalled->counters();
  EXPECT_EQ(before.tx_packets, 5u * kTurns);
  EXPECT_GT(before.tx_dropped_full, 3500u);
  EXPECT_EQ(before.tx_dropped_bytes, 1400 * (before.tx_dropped_full + before.tx_dropped_aged));
  // What it gets when it reads again: what had left for the kernels, then the newest.
  std::vector<uint8_t> marks;
  frozen.on_packet = [&](const PublicKey&, const PublicKey&, Bytes packet) {
    marks.push_back(static_cast<uint8_t>(packet[0]));
    return true;
  };
  for (int i = 0; i < 5; ++i) stalled->Send(PeerKey(1), Packet(1400, 0xaa));
  frozen.SetStalled(false);
  Run(seconds(1));
  const RegionCounters after = stalled->counters();
  const uint64_t dropped = after.tx_dropped_full + after.tx_dropped_aged;
  EXPECT_EQ(frozen.packets + dropped, after.tx_packets) << "delivered or counted, each of them";
  ASSERT_GE(marks.size(), 5u);
  EXPECT_EQ(std::count(marks.end() - 5, marks.end(), 0xaa), 5) << "the newest are the last";
  EXPECT_EQ(events.story, "up ");
  EXPECT_EQ(stalled->Status().queued_bytes, 0u);
}

TEST_F(RegionConnectionTroubleTest, WhatWaitsTooLongIsDropped) {
  Up();
  relay->SetStalled(true);
  // Over what the stream and the kernels on both sides take.
  for (int i = 0; i < 700; ++i) connection->Send(PeerKey(1), Packet(1400));
  connection->Flush();
  Run(seconds(2));
  const size_t waiting = connection->Status().queued_packets;
  EXPECT_GT(waiting, 100u);
  EXPECT_EQ(connection->counters().tx_dropped_full, 0u);
  Run(milliseconds(1100));
  EXPECT_EQ(connection->Status().queued_packets, 0u);
  EXPECT_EQ(connection->counters().tx_dropped_aged, waiting);
}

// A frame longer than a TLS record that is sent in part must be finished, or the stream is lost.
TEST_F(RegionConnectionTroubleTest, LongFramesSurviveAStallAndControlFramesPass) {
  Up();
  for (int round = 0; round < 20; ++round) {
    relay->SetStalled(true);
    for (int i = 0; i < 40; ++i) {
      connection->Send(PeerKey(1), Packet(static_cast<size_t>(65'536 - round * 977)));
    }
    relay->session(self)->SendPing({});
    relay->Flush();
    connection->SetPreferred(round % 2 == 0);
    Run(seconds(1));
    relay->SetStalled(false);
    Run(seconds(1));
    ASSERT_TRUE(connection->up()) << relay->last_error;
    EXPECT_EQ(relay->Preferred(self), round % 2 == 0);
    EXPECT_EQ(relay->pongs, static_cast<uint64_t>(round + 1));
  }
  EXPECT_EQ(events.story, "up ");
}

TEST_F(RegionConnectionTroubleTest, ARelayThatNeverReadsAgainIsGivenUp) {
  Up();
  connection->Send(PeerKey(1), Packet(1400));
  net.SetPartition(client.id, relays[0]->host.id, true);
  connection->Flush();
  Run(seconds(40));
  ASSERT_GE(events.downs.size(), 1u);
  EXPECT_TRUE(absl::IsDeadlineExceeded(events.downs[0])) << events.downs[0];
}

TEST_F(RegionConnectionTroubleTest, GarbageEndsTheConnectionAndItTriesAgain) {
  Up();
  const auto garbage = Packet(1000, 0xee);
  ASSERT_TRUE(relay->SendRaw(self, garbage));
  Run(milliseconds(100));
  ASSERT_EQ(events.downs.size(), 1u);
  EXPECT_THAT(events.downs[0].message(), HasSubstr("not a DERP stream"));
  Run(seconds(1));
  EXPECT_EQ(events.story, "up down up ");
}

TEST_F(RegionConnectionTroubleTest, BadFramesAreLeftOut) {
  Up();
  const auto frame = [](uint8_t type, size_t size) {
    auto bytes = Packet(5 + size, 0);
    bytes[0] = std::byte{type};
    bytes[3] = static_cast<std::byte>(size >> 8);
    bytes[4] = static_cast<std::byte>(size);
    return bytes;
  };
  relay->SendRaw(self, frame(0x05, 31));    // RecvPacket without a whole key
  relay->SendRaw(self, frame(0x05, 0));     // without anything
  relay->SendRaw(self, frame(0x08, 10));    // PeerGone
  relay->SendRaw(self, frame(0x15, 3));     // Restarting
  relay->SendRaw(self, frame(0x7f, 1000));  // no such type
  relay->SendRaw(self, frame(0x01, 40));    // ServerKey after the login
  relay->SendRaw(self, frame(0x04, 100));   // a client's frame
  // A source that nobody has heard of is for the owner to judge.
  relay->Deliver(self, PublicKey{}, Packet(10));
  relay->Deliver(self, self, Packet(20));
  Run(seconds(5));
  EXPECT_EQ(events.story, "up ");
  EXPECT_EQ(events.sizes, (std::vector<size_t>{10, 20}));
  EXPECT_EQ(events.gone.size(), 0u);
  EXPECT_EQ(connection->counters().rx_ignored, 7u);
  EXPECT_EQ(connection->counters().rx_packets, 2u);
}

TEST_F(RegionConnectionTroubleTest, SaysWhyTheLoginFailed) {
  RelayFixture& closed = AddRelay(1);
  closed.refuse_login = true;
  RelayFixture& silent = AddRelay(2);
  silent.mute = true;
  RelayFixture& resets = AddRelay(3);
  resets.refuse = true;
  Recorder a, b, c;
  const auto first = Connect(RegionOf({&closed}), &a);
  const auto second = Connect(RegionOf({&silent}), &b);
  const auto third = Connect(RegionOf({&resets}), &c);
  Run(milliseconds(9900));
  EXPECT_THAT(first->Status().last_error, HasSubstr("node 1a: relay closed the connection during"));
  EXPECT_EQ(b.downs.size(), 0u);
  Run(milliseconds(200));
  ASSERT_EQ(b.downs.size(), 1u) << "10 s in all";
  EXPECT_EQ(b.downs[0].message(), "region 1 (test): node 1a: no HTTP reply from the relay");
  EXPECT_THAT(third->Status().last_error, HasSubstr("reset"));
  EXPECT_EQ(a.ups + b.ups + c.ups, 0);
}

TEST_F(RegionConnectionTroubleTest, GoesToTheNextNodeWhenLoginFailsAndNamesTheIdealOne) {
  RelayFixture& closed = AddRelay(1);
  closed.refuse_login = true;
  RelayFixture& silent = AddRelay(2);
  silent.mute = true;
  RelayFixture& good = AddRelay(3);
  const auto connection = Connect(RegionOf({&closed, &silent, &good}), &events);
  // The silent one may use half of what is left of 10 s.
  Run(milliseconds(5500));
  ASSERT_TRUE(connection->up()) << connection->Status().last_error;
  EXPECT_EQ(connection->Status().node, "1c");
  EXPECT_EQ(good.last_ideal_node, "1a");
  EXPECT_EQ(events.story, "up ");
  // The next time it begins from the front again.
  closed.refuse_login = false;
  good.CloseClients();
  Run(seconds(1));
  EXPECT_EQ(connection->Status().node, "1a");
  EXPECT_EQ(closed.last_ideal_node, "");
}

TEST_F(RegionConnectionTroubleTest, AnHttpServerThatIsNoRelaySaysSo) {
  // One that speaks HTTP but has no such page.
  class Web final : public io::ListenHandler, public io::StreamHandler {
   public:
    io::StreamHandler* OnAccept(io::StreamId, io::StreamId, const Endpoint&) override {
      return this;
    }
    void OnConnect(io::StreamId) override {}
    void OnReceive(io::StreamId id, std::span<std::byte>) override {
      const std::string text = "HTTP/1.1 503 Busy\r\nContent-Length: 9\r\n\r\ntoo busy\n";
      streams->Send(id, std::as_bytes(std::span(text)));
    }
    void OnWritable(io::StreamId) override {}
    void OnEnd(io::StreamId id) override { streams->Close(id); }
    void OnClose(io::StreamId, const absl::Status&) override {}
    io::StreamLoop* streams = nullptr;
  };
  Web web;
  WorldHost host(&net, "web", {IpAddress::V4(198, 51, 100, 9)});
  web.streams = host.loop->streams();
  ASSERT_TRUE(web.streams->Listen({.bind = {IpAddress::V4(198, 51, 100, 9), 443, 0}}, &web).ok());
  RelayRegion region = RegionOf({&AddRelay(1)});
  region.nodes[0].ipv4 = "198.51.100.9";
  const auto connection = Connect(region, &events);
  Run(kEnough);
  EXPECT_THAT(connection->Status().last_error, HasSubstr("503"));
  EXPECT_THAT(connection->Status().last_error, HasSubstr("too busy"));
}

}  // namespace
}  // namespace ringsock::derp
