// A running gateway changes to other configurations while packets flow: what did not change is not
// disturbed. Stand-ins for WireGuard and for peers, on the loopback device.
#include "gateway/peer_set.h"

#include <memory>
#include <string>
#include <thread>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "gateway/gateway.h"
#include "tests/gateway/udp_peer.h"
#include "tests/gateway/wireguard_messages.h"

namespace ringsock::gateway {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class PeerSetTest : public testing::TestWithParam<uint32_t> {  // shards
 protected:
  // Alice has an endpoint, Bob none.
  PeerSetTest() {
    config_.wireguard_port = wireguard_.local().port;
    config_.local_port = FreePort();
    config_.bind_v4 = IpAddress::V4(127, 0, 0, 1);
    config_.ipv6 = false;
    config_.pin_threads = false;
    config_.socket_buffer = 1 << 20;
    config_.shards = GetParam();
    config_.peers.push_back({.key = KeyOf('1'), .name = "alice", .endpoints = {alice_.local()}});
    config_.peers.push_back({.key = KeyOf('2'), .name = "bob", .endpoints = {}});
    gateway_ = *Gateway::Start(config_);
    public_.ip = IpAddress::V4(127, 0, 0, 1);
    public_.port = gateway_->port();
  }

  // The result of a reload, which must be accepted.
  Gateway::ReloadResult Reload() {
    absl::StatusOr<Gateway::ReloadResult> result = gateway_->Reload(config_);
    EXPECT_TRUE(result.ok()) << result.status();
    if (!result.ok()) return {};
    EXPECT_THAT(result->refused, IsEmpty());
    return *std::move(result);
  }
  Endpoint Home(const std::string& name) {
    for (const std::string& line : gateway_->WgSetLines()) {
      const size_t at = line.find("endpoint ") + 9;
      if (line.ends_with("# " + name)) {
        return *Endpoint::Parse(line.substr(at, line.find(' ', at) - at));
      }
    }
    return {};
  }
  std::string PathOf(const std::string& name) {
    for (const std::string& line : gateway_->Status()) {
      if (line.find("peer " + name + ":") == 0) return line.substr(line.find(", path ") + 7);
    }
    return "no such peer";
  }
  // A packet of `peer`, and an answer to it, so that the path is confirmed. Returns the address
  // that WireGuard saw.
  Endpoint Exchange(UdpPeer* peer, uint32_t index) {
    peer->Send(public_, Transport(index));
    const Endpoint path = wireguard_.Receive().from;
    wireguard_.Send(path, Transport(index + 1));
    EXPECT_EQ(peer->Receive().bytes, Transport(index + 1));
    return path;
  }
  // Bob, who is known by his handshake only, from wherever he is. Returns his path.
  Endpoint BobRoams(UdpPeer* bob) {
    bob->Send(public_, Initiation(100, KeyOf('9')));
    const Endpoint path = wireguard_.Receive().from;
    const Bytes response = Response(200, 100, KeyOf('2'));
    wireguard_.Send(path, response);
    EXPECT_EQ(bob->Receive().bytes, response);
    EXPECT_EQ(PathOf("bob"), "direct " + bob->local().ToString() + " (roaming)");
    return path;
  }

  static constexpr size_t kAlice = 0;
  static constexpr size_t kBob = 1;
  UdpPeer wireguard_;
  UdpPeer alice_;
  UdpPeer elsewhere_;
  Config config_;
  std::unique_ptr<Gateway> gateway_;
  Endpoint public_;
};

TEST_P(PeerSetTest, NothingChanges) {
  const Endpoint alice = Exchange(&alice_, 7);
  EXPECT_THAT(Reload().changes, IsEmpty());
  std::swap(config_.peers[kAlice], config_.peers[kBob]);
  EXPECT_THAT(Reload().changes, IsEmpty());
  EXPECT_EQ(Exchange(&alice_, 8), alice);
}

// spec: PEER-1, PEER-2
TEST_P(PeerSetTest, APeerComesAndGoesAndTheOthersDoNotNotice) {
  const Endpoint alice = Exchange(&alice_, 7);
  const Endpoint bob = BobRoams(&elsewhere_);
  const Endpoint bob_home = Home("bob");
  UdpPeer carol;
  config_.peers.push_back({.key = KeyOf('3'), .name = "carol", .endpoints = {carol.local()}});
  const Gateway::ReloadResult result = Reload();
  EXPECT_THAT(result.changes, ElementsAre("peers: 1 added"));
  ASSERT_EQ(result.wg_set.size(), 1u);
  EXPECT_THAT(result.wg_set[0], HasSubstr("  # carol"));
  wireguard_.Send(Home("carol"), Transport(5));
  EXPECT_EQ(carol.Receive().bytes, Transport(5));
  Exchange(&carol, 30);
  EXPECT_EQ(PathOf("carol"), "direct " + carol.local().ToString());

  // The address and the roamed path of those that stay.
  EXPECT_EQ(PathOf("bob"), "direct " + elsewhere_.local().ToString() + " (roaming)");
  EXPECT_EQ(Exchange(&elsewhere_, 9), bob);
  EXPECT_EQ(Exchange(&alice_, 9), alice);

  // Alice goes. WireGuard, which still has her, is told by a counter.
  const Endpoint home = Home("alice");
  config_.peers.erase(config_.peers.begin());
  EXPECT_THAT(Reload().changes, ElementsAre("peers: 1 removed"));
  EXPECT_EQ(PathOf("alice"), "no such peer");
  wireguard_.Send(home, Transport(9));
  wireguard_.Send(bob_home, Transport(10));
  EXPECT_EQ(elsewhere_.Receive().bytes, Transport(10));
  EXPECT_EQ(Exchange(&elsewhere_, 9), bob);
  EXPECT_EQ(gateway_->Counters()[Count::kUnknownPeer], 1u);

  // And comes back, to the address that WireGuard has for her.
  config_.peers.push_back({.key = KeyOf('1'), .name = "alice", .endpoints = {alice_.local()}});
  EXPECT_THAT(Reload().changes, ElementsAre("peers: 1 added"));
  EXPECT_EQ(Home("alice"), home);
  wireguard_.Send(home, Transport(11));
  EXPECT_EQ(alice_.Receive().bytes, Transport(11));
}

// Alice gets one more endpoint, and the path she is on is kept; then that one is taken from her.
TEST_P(PeerSetTest, OtherEndpointsOfAPeer) {
  const Endpoint path = Exchange(&alice_, 7);
  config_.peers[kAlice].endpoints.push_back(elsewhere_.local());
  EXPECT_THAT(Reload().changes, ElementsAre("peers: 1 with other endpoints"));
  EXPECT_EQ(PathOf("alice"), "direct " + alice_.local().ToString());
  EXPECT_EQ(Exchange(&alice_, 8), path);

  config_.peers[kAlice].endpoints = {elsewhere_.local()};
  Reload();
  // WireGuard does not know yet: what it sends to the old address goes where the peer is now.
  wireguard_.Send(path, Transport(20));
  // Before it, perhaps, one that was sent while the new endpoint was tried.
  Bytes received = elsewhere_.Receive().bytes;
  if (received == Transport(9)) received = elsewhere_.Receive().bytes;
  EXPECT_EQ(received, Transport(20));
  Exchange(&elsewhere_, 10);
  EXPECT_EQ(PathOf("alice"), "direct " + elsewhere_.local().ToString());
}

// The endpoint of one peer becomes another one's.
TEST_P(PeerSetTest, AnEndpointChangesHands) {
  Exchange(&alice_, 7);
  std::swap(config_.peers[kAlice].endpoints, config_.peers[kBob].endpoints);
  EXPECT_THAT(Reload().changes, ElementsAre("peers: 2 with other endpoints"));
  wireguard_.Send(Home("bob"), Transport(5));
  EXPECT_EQ(alice_.Receive().bytes, Transport(5));
  Exchange(&alice_, 8);
  EXPECT_EQ(PathOf("bob"), "direct " + alice_.local().ToString());
  EXPECT_EQ(PathOf("alice"), "none confirmed");
  std::swap(config_.peers[kAlice].endpoints, config_.peers[kBob].endpoints);
  Reload();
  Exchange(&alice_, 9);
  EXPECT_EQ(PathOf("alice"), "direct " + alice_.local().ToString());
}

TEST_P(PeerSetTest, WhatTakesARestartIsRefusedAsAWhole) {
  const Config before = config_;
  config_.shards = 7;
  config_.peers.pop_back();
  config_.log_level = "debug";
  const auto result = gateway_->Reload(config_);
  EXPECT_EQ(result.status().message(),
            "engine.shards: cannot change while running; a restart is needed");
  EXPECT_EQ(PathOf("bob"), "none confirmed");
  EXPECT_EQ(gateway_->config().log_level, before.log_level);
  config_ = before;
  EXPECT_THAT(Reload().changes, IsEmpty());
}

// A map that the engine does not take: neither it nor the peers that came with it.
TEST_P(PeerSetTest, ARefusedRelayMapIsRefusedWithTheRest) {
  config_.private_key = std::make_shared<const PrivateKey>(PrivateKey::Generate());
  config_.derp_map.emplace().regions[7].region_id = 8;
  config_.peers.pop_back();
  const auto result = gateway_->Reload(config_);
  EXPECT_THAT(std::string(result.status().message()), testing::StartsWith("derp_map: "));
  EXPECT_EQ(PathOf("bob"), "none confirmed");
}

// More peers than a shard looks through itself, so that another thread does, from now on.
TEST_P(PeerSetTest, VeryManyPeersCome) {
  for (size_t i = 0; i < PeerFinder::kFewPeers; ++i) {
    config_.peers.push_back({.key = PrivateKey::Generate().Public(), .name = "", .endpoints = {}});
  }
  Reload();
  elsewhere_.Send(public_, Initiation(100, KeyOf('9')));
  const Bytes response = Response(200, 100, KeyOf('2'));
  wireguard_.Send(wireguard_.Receive().from, response);
  EXPECT_EQ(elsewhere_.Receive().bytes, response);
  const Instant end = SystemClock().Now() + std::chrono::seconds(20);
  while (gateway_->Counters()[Count::kRecognisedMac1] == 0 && SystemClock().Now() < end) {
    std::this_thread::yield();
  }
  EXPECT_EQ(gateway_->Counters()[Count::kRecognisedMac1], 1u);
}

// Peers come and go, and endpoints with them, under traffic of one that stays.
TEST_P(PeerSetTest, ReloadsUnderTraffic) {
  const Endpoint path = Exchange(&alice_, 7);
  const Config with = config_;
  for (int i = 0; i < 50; ++i) {
    config_ = with;
    if (i % 2 == 0) {
      config_.peers.push_back({.key = KeyOf('4'), .name = "d", .endpoints = {elsewhere_.local()}});
      config_.peers.erase(config_.peers.begin() + kBob);
    }
    // Few enough for the buffer of WireGuard's socket.
    std::thread traffic([this] {
      for (int n = 0; n < 20; ++n) {
        elsewhere_.Send(public_, Initiation(100, KeyOf('9')));
        alice_.Send(public_, Transport(7));
      }
    });
    EXPECT_THAT(Reload().changes, testing::SizeIs(1));
    traffic.join();
    alice_.Send(public_, Transport(7, 500));
    UdpPeer::Packet packet;
    do {
      packet = wireguard_.Receive();
    } while (!packet.bytes.empty() && packet.bytes.size() != 500);
    EXPECT_EQ(packet.from, path);
    wireguard_.Send(path, Transport(8));
    EXPECT_EQ(alice_.Receive().bytes, Transport(8));
  }
}

INSTANTIATE_TEST_SUITE_P(Shards, PeerSetTest, testing::Values(1u, 2u));

}  // namespace
}  // namespace ringsock::gateway
