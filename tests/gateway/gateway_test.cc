// The gateway between a stand-in for WireGuard and stand-ins for peers, all plain UDP sockets on
// the loopback device.
#include "gateway/gateway.h"

#include <chrono>
#include <cstring>
#include <optional>
#include <string>
#include <thread>
#include <tuple>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/gateway/udp_peer.h"
#include "tests/gateway/wireguard_messages.h"

namespace ringsock::gateway {
namespace {

using Parameters = std::tuple<io::Backend, uint32_t>;  // backend, shards

class GatewayTest : public testing::TestWithParam<Parameters> {
 protected:
  // Two peers, of which the first has an endpoint; our own WireGuard's key is KeyOf('9').
  GatewayTest() {
    config_.wireguard_port = wireguard_.local().port;
    config_.local_port = FreePort();
    config_.bind_v4 = IpAddress::V4(127, 0, 0, 1);
    config_.ipv6 = false;
    config_.pin_threads = false;
    config_.socket_buffer = 1 << 20;
    std::tie(config_.io.backend, config_.shards) = GetParam();
    config_.peers.resize(2);
    config_.peers[kAlice] = {KeyOf('1'), "alice", {alice_.local()}};
    config_.peers[kBob] = {KeyOf('2'), "bob", {}};
  }

  void Start() {
    auto gateway = Gateway::Start(config_);
    ASSERT_TRUE(gateway.ok()) << gateway.status();
    gateway_ = *std::move(gateway);
    public_.ip = IpAddress::V4(127, 0, 0, 1);
    public_.port = gateway_->port();
    for (const std::string& line : gateway_->WgSetLines()) {
      const size_t at = line.find("endpoint ") + 9;
      homes_.push_back(*Endpoint::Parse(line.substr(at, line.find(' ', at) - at)));
    }
  }

  // Waits for what another thread does. False after a time that only a broken gateway needs.
  template <typename Condition>
  bool Eventually(const Condition& condition) {
    const Instant end = SystemClock().Now() + std::chrono::seconds(20);
    while (!condition()) {
      if (SystemClock().Now() > end) return false;
      std::this_thread::yield();
    }
    return true;
  }

  bool Counted(Count count, uint64_t value) {
    return Eventually([&] { return gateway_->Counters()[count] >= value; });
  }

  // Where the engine sends the peer's packets, from the status.
  std::string PathOf(const std::string& name) {
    for (const std::string& line : gateway_->Status()) {
      const size_t at = line.find(", path ");
      if (line.find("peer " + name + ":") == 0) return line.substr(at + 7);
    }
    return "no such peer";
  }

  // A loopback address that stands for nothing.
  Endpoint FreeAddress() {
    Endpoint endpoint = homes_[0];
    // The last ones are given out last.
    endpoint.ip = IpAddress::V4(127, 100, 255, 250);
    return endpoint;
  }

  static constexpr PeerIndex kAlice = 0;
  static constexpr PeerIndex kBob = 1;
  UdpPeer wireguard_;
  UdpPeer alice_;
  UdpPeer stranger_;  // an address that no peer is known to have
  Config config_;
  std::unique_ptr<Gateway> gateway_;
  Endpoint public_;  // of the gateway, towards the peers
  std::vector<Endpoint> homes_;
};

TEST_P(GatewayTest, LinesForWireGuard) {
  Start();
  const std::vector<std::string> lines = gateway_->WgSetLines();
  ASSERT_EQ(lines.size(), 2u);
  EXPECT_THAT(lines[0], testing::MatchesRegex("wg set wg0 peer [A-Za-z0-9+/]*= endpoint "
                                              "127.100.[0-9]*.[0-9]*:[0-9]*  # alice"));
  EXPECT_EQ(homes_[0].port, config_.local_port);
  EXPECT_NE(homes_[0], homes_[1]);
}

TEST_P(GatewayTest, HomeLeadsToTheConfiguredEndpoint) {
  Start();
  const Bytes packet = Transport(7);
  wireguard_.Send(homes_[kAlice], packet);
  const auto received = alice_.Receive();
  EXPECT_EQ(received.bytes, packet);
  EXPECT_EQ(received.from, public_);
}

TEST_P(GatewayTest, AnswerConfirmsThePath) {
  Start();
  const Bytes packet = Transport(7, 128, 3);
  alice_.Send(public_, packet);
  const auto received = wireguard_.Receive();
  EXPECT_EQ(received.bytes, packet);
  EXPECT_TRUE(config_.range.Contains(received.from.ip));
  EXPECT_EQ(received.from.port, config_.local_port);
  EXPECT_NE(received.from, homes_[kAlice]);
  EXPECT_EQ(PathOf("alice"), "none confirmed");
  wireguard_.Send(received.from, Transport(8));
  EXPECT_EQ(alice_.Receive().bytes, Transport(8));
  EXPECT_EQ(gateway_->Counters()[Count::kConfirmed], 1u);
  EXPECT_EQ(PathOf("alice"), "direct " + alice_.local().ToString());
}

// A path over which nothing comes any more must not be confirmed again by what WireGuard still
// sends to it, or the engine could never leave it (spec: SEND-2).
TEST_P(GatewayTest, SilentPathIsNotConfirmedAgain) {
  Start();
  alice_.Send(public_, Transport(7));
  const Endpoint path = wireguard_.Receive().from;
  for (int i = 0; i < 5; ++i) {
    wireguard_.Send(path, Transport(8));
    alice_.Receive();
  }
  EXPECT_EQ(gateway_->Counters()[Count::kConfirmed], 1u);
  alice_.Send(public_, Transport(7));
  EXPECT_EQ(wireguard_.Receive().from, path);
  wireguard_.Send(path, Transport(8));
  alice_.Receive();
  EXPECT_EQ(gateway_->Counters()[Count::kConfirmed], 2u);
}

// spec: RECV-4, PATH-3. The answer's mac1 says whose the new address is.
// The initiation came over a relay too and was answered there, so nothing says whose the path is
// but the index in what follows.
TEST_P(GatewayTest, UnansweredPathIsRecognisedByItsPackets) {
  Start();
  wireguard_.Send(homes_[kBob], Initiation(500, KeyOf('2')));
  stranger_.Send(public_, Initiation(100, KeyOf('9')));
  const Endpoint path = wireguard_.Receive().from;
  // The shard that reads WireGuard's initiation may not be the one that reads the stranger's data.
  EXPECT_TRUE(Eventually([&] {
    stranger_.Send(public_, Transport(500));
    EXPECT_EQ(wireguard_.Receive().from, path);
    return gateway_->Counters()[Count::kRecognisedIndex] > 0;
  }));
  wireguard_.Send(path, Transport(100));
  EXPECT_EQ(stranger_.Receive().bytes, Transport(100));
  EXPECT_EQ(PathOf("bob"), "direct " + stranger_.local().ToString() + " (roaming)");
  EXPECT_EQ(gateway_->Counters()[Count::kRecognisedIndex], 1u);
}

TEST_P(GatewayTest, UnknownSourceIsRecognisedByTheAnswer) {
  Start();
  stranger_.Send(public_, Initiation(100, KeyOf('9')));
  const Endpoint path = wireguard_.Receive().from;
  EXPECT_EQ(gateway_->Counters()[Count::kConfirmed], 0u);
  const Bytes response = Response(200, 100, KeyOf('2'));
  wireguard_.Send(path, response);
  EXPECT_EQ(stranger_.Receive().bytes, response);
  EXPECT_EQ(gateway_->Counters()[Count::kRecognisedMac1], 1u);
  EXPECT_EQ(PathOf("bob"), "direct " + stranger_.local().ToString() + " (roaming)");
  // From now on whatever WireGuard has for bob goes there.
  wireguard_.Send(homes_[kBob], Transport(1));
  EXPECT_EQ(stranger_.Receive().bytes, Transport(1));
  // And what comes from there comes from the same address as before.
  stranger_.Send(public_, Transport(200));
  EXPECT_EQ(wireguard_.Receive().from, path);
}

// The session index in a roaming peer's data says whose it is, and WireGuard's answer proves it.
TEST_P(GatewayTest, RoamingInMidSession) {
  Start();
  wireguard_.Send(homes_[kAlice], Initiation(300, KeyOf('1')));
  alice_.Receive();
  alice_.Send(public_, Response(400, 300, KeyOf('9')));
  const Endpoint before = wireguard_.Receive().from;
  wireguard_.Send(before, Transport(400));
  alice_.Receive();

  stranger_.Send(public_, Transport(300));
  const Endpoint after = wireguard_.Receive().from;
  EXPECT_NE(after, before);
  EXPECT_EQ(gateway_->Counters()[Count::kRecognisedIndex], 1u);
  EXPECT_EQ(PathOf("alice"),
            "direct " + alice_.local().ToString());  // not before WireGuard says so
  const Bytes answer = Transport(400, 160, 9);
  wireguard_.Send(after, answer);
  EXPECT_EQ(stranger_.Receive().bytes, answer);
  EXPECT_EQ(PathOf("alice"), "direct " + stranger_.local().ToString() + " (roaming)");
}

// WireGuard under load sends cookie replies to whoever knows its public key: no authentication.
TEST_P(GatewayTest, CookieReplyProvesNothing) {
  Start();
  wireguard_.Send(homes_[kAlice], Initiation(300, KeyOf('1')));
  alice_.Receive();
  for (const Bytes& packet : {Initiation(100, KeyOf('9')), Transport(300)}) {
    UdpPeer attacker;
    attacker.Send(public_, packet);
    const Endpoint path = wireguard_.Receive().from;
    wireguard_.Send(path, CookieReply(100));
    EXPECT_EQ(attacker.Receive().bytes, CookieReply(100));
  }
  EXPECT_EQ(gateway_->Counters()[Count::kConfirmed], 0u);
  EXPECT_EQ(PathOf("alice"), "none confirmed");
}

// Data to a source of which nothing more is known: WireGuard has authenticated it.
TEST_P(GatewayTest, UnknownSourceIsAnswered) {
  Start();
  stranger_.Send(public_, Transport(77));
  const Endpoint path = wireguard_.Receive().from;
  wireguard_.Send(path, Transport(78));
  EXPECT_EQ(stranger_.Receive().bytes, Transport(78));
  EXPECT_EQ(gateway_->Counters()[Count::kAnsweredUnknown], 1u);
}

TEST_P(GatewayTest, OnlyWireGuardMayTalkToTheLoopbackSide) {
  Start();
  stranger_.Send(homes_[kAlice], Transport(1));
  EXPECT_TRUE(Counted(Count::kNotWireGuard, 1));
  wireguard_.Send(homes_[kAlice], Transport(2));
  EXPECT_EQ(alice_.Receive().bytes, Transport(2));
}

TEST_P(GatewayTest, WhatIsNoWireGuardMessageIsCounted) {
  Start();
  for (const size_t size : {1, 3, 4, 31, 147, 149, 1500, 60000}) {
    Bytes junk(size, std::byte{1});
    if (size >= 4) Put(&junk, 0, size == 31 ? 4 : 1);
    stranger_.Send(public_, junk);
  }
  EXPECT_TRUE(Counted(Count::kMalformed, 8));
  Endpoint outside = homes_[kAlice];
  outside.ip = IpAddress::V4(127, 101, 0, 1);
  wireguard_.Send(outside, Transport(1));
  EXPECT_TRUE(Counted(Count::kOutsideRange, 1));
  wireguard_.Send(homes_[kAlice], {});
  EXPECT_TRUE(Counted(Count::kEmpty, 1));
  wireguard_.Send(FreeAddress(), Transport(1));
  EXPECT_TRUE(Counted(Count::kUnknownAddress, 1));
  // For a peer that is not configured.
  wireguard_.Send(homes_[kAlice], Initiation(1, KeyOf('8')));
  EXPECT_TRUE(Counted(Count::kUnknownPeer, 1));
  alice_.Send(public_, Transport(5));
  EXPECT_EQ(wireguard_.Receive().bytes, Transport(5));
  EXPECT_EQ(gateway_->Counters()[Count::kToWireGuard], 1u);
}

TEST_P(GatewayTest, HandshakesForOthersAreDroppedIfOurKeyIsKnown) {
  config_.wireguard_key = KeyOf('9');
  Start();
  stranger_.Send(public_, Initiation(1, KeyOf('8')));
  EXPECT_TRUE(Counted(Count::kNotForUs, 1));
  stranger_.Send(public_, Initiation(2, KeyOf('9')));
  EXPECT_EQ(wireguard_.Receive().bytes, Initiation(2, KeyOf('9')));
}

// WireGuard may still use an address of the gateway's last life.
TEST_P(GatewayTest, AddressOfTheLastLifeIsAdopted) {
  Start();
  const Bytes initiation = Initiation(5, KeyOf('1'));
  wireguard_.Send(FreeAddress(), initiation);
  EXPECT_EQ(alice_.Receive().bytes, initiation);
  wireguard_.Send(FreeAddress(), Transport(6));
  EXPECT_EQ(alice_.Receive().bytes, Transport(6));
}

// After a restart a new source may get an address by which WireGuard still knows a peer. That
// WireGuard begins a handshake there proves nothing; that a response comes back says whose it may
// be, and what WireGuard sends then proves it.
TEST_P(GatewayTest, InitiationOfWireGuardProvesNothing) {
  Start();
  stranger_.Send(public_, Transport(77));
  const Endpoint path = wireguard_.Receive().from;
  const Bytes initiation = Initiation(5, KeyOf('1'));
  wireguard_.Send(path, initiation);
  EXPECT_EQ(alice_.Receive().bytes, initiation);
  EXPECT_EQ(stranger_.Receive().bytes, initiation);
  EXPECT_EQ(gateway_->Counters()[Count::kConfirmed], 0u);
  EXPECT_EQ(PathOf("alice"), "none confirmed");
  wireguard_.Send(path, Transport(6));
  EXPECT_EQ(stranger_.Receive().bytes, Transport(6));
  wireguard_.Send(homes_[kAlice], Transport(7));
  EXPECT_EQ(alice_.Receive().bytes, Transport(7));
  EXPECT_EQ(PathOf("alice"), "none confirmed");

  stranger_.Send(public_, Response(6, 5, KeyOf('9')));
  EXPECT_EQ(wireguard_.Receive().from, path);
  EXPECT_EQ(PathOf("alice"), "none confirmed");
  wireguard_.Send(path, Transport(6));
  EXPECT_EQ(stranger_.Receive().bytes, Transport(6));
  EXPECT_EQ(PathOf("alice"), "direct " + stranger_.local().ToString() + " (roaming)");
}

// What the kernel did not take is counted once, as dropped.
TEST_P(GatewayTest, RefusedByTheKernelIsNotMoved) {
  config_.wireguard_address = IpAddress::V4(255, 255, 255, 255);  // forbidden without SO_BROADCAST
  Start();
  alice_.Send(public_, Transport(7));
  ASSERT_TRUE(Counted(Count::kSendError, 1));
  EXPECT_EQ(gateway_->Counters()[Count::kToWireGuard], 0u);
  EXPECT_EQ(gateway_->Counters()[Count::kToWireGuardBytes], 0u);
}

// With many peers another thread finds out whose a handshake is.
TEST_P(GatewayTest, ManyPeers) {
  for (uint32_t n = 0; n < 1000; ++n) {
    PublicKey key = KeyOf('3');
    std::memcpy(key.bytes.data(), &n, sizeof(n));
    config_.peers.push_back({key, "", {}});
  }
  Start();
  stranger_.Send(public_, Initiation(100, KeyOf('9')));
  const Endpoint path = wireguard_.Receive().from;
  const PublicKey last = config_.peers.back().key;
  wireguard_.Send(path, Response(200, 100, last));
  EXPECT_EQ(stranger_.Receive().bytes, Response(200, 100, last));
  ASSERT_TRUE(Counted(Count::kRecognisedMac1, 1));
  wireguard_.Send(path, Transport(200));
  EXPECT_EQ(stranger_.Receive().bytes, Transport(200));
  EXPECT_TRUE(Counted(Count::kConfirmed, 1));
  wireguard_.Send(homes_.back(), Transport(201));
  EXPECT_EQ(stranger_.Receive().bytes, Transport(201));
  // Sent by that thread, as there is nobody to send to before.
  wireguard_.Send(FreeAddress(), Initiation(5, KeyOf('1')));
  EXPECT_EQ(alice_.Receive().bytes, Initiation(5, KeyOf('1')));
  wireguard_.Send(FreeAddress(), Transport(6));
  EXPECT_EQ(alice_.Receive().bytes, Transport(6));
  wireguard_.Send(homes_[kAlice], Initiation(1, KeyOf('8')));
  EXPECT_TRUE(Counted(Count::kUnknownPeer, 1));
}

// Told the wrong home, handshakes still find their peer.
TEST_P(GatewayTest, WrongHome) {
  Start();
  const Bytes initiation = Initiation(5, KeyOf('1'));
  wireguard_.Send(homes_[kBob], initiation);
  EXPECT_EQ(alice_.Receive().bytes, initiation);
  EXPECT_EQ(gateway_->Counters()[Count::kRecognisedMac1], 1u);
}

// Many packets in order, of changing sizes, both ways; at times a handshake message in between.
TEST_P(GatewayTest, OrderBothWays) {
  Start();
  alice_.Send(public_, Transport(7));
  const Endpoint path = wireguard_.Receive().from;
  constexpr uint32_t kPackets = 400;
  const auto packet = [](uint32_t n) {
    if (n % 50 == 49) return Initiation(n, KeyOf('1'));
    return Transport(n, 32 + 16 * (n / 16 % 90));
  };
  for (uint32_t first = 0; first < kPackets; first += 20) {
    for (uint32_t n = first; n < first + 20; ++n) wireguard_.Send(path, packet(n));
    for (uint32_t n = first; n < first + 20; ++n) ASSERT_EQ(alice_.Receive().bytes, packet(n));
    for (uint32_t n = first; n < first + 20; ++n) alice_.Send(public_, packet(n));
    for (uint32_t n = first; n < first + 20; ++n) ASSERT_EQ(wireguard_.Receive().bytes, packet(n));
  }
}

TEST_P(GatewayTest, RestartOnTheSamePorts) {
  config_.listen_port = FreePort();
  Start();
  const std::vector<std::string> lines = gateway_->WgSetLines();
  gateway_->Stop();
  gateway_->Stop();
  EXPECT_FALSE(gateway_->Status().empty());
  gateway_.reset();
  Start();
  EXPECT_EQ(gateway_->WgSetLines(), lines);
  wireguard_.Send(homes_[kAlice], Transport(1));
  EXPECT_EQ(alice_.Receive().bytes, Transport(1));
}

TEST_P(GatewayTest, PortInUse) {
  Start();
  Config second = config_;
  const auto local = Gateway::Start(second);
  ASSERT_FALSE(local.ok());
  EXPECT_THAT(std::string(local.status().message()),
              testing::HasSubstr("Address already in use; choose another local_port"));
  second.local_port = FreePort();
  second.listen_port = gateway_->port();
  const auto listen = Gateway::Start(second);
  ASSERT_FALSE(listen.ok());
  EXPECT_THAT(std::string(listen.status().message()),
              testing::HasSubstr(std::to_string(gateway_->port())));
}

INSTANTIATE_TEST_SUITE_P(All, GatewayTest,
                         testing::Combine(testing::Values(io::Backend::kMmsg, io::Backend::kAuto),
                                          testing::Values(1u, 2u)),
                         [](const auto& info) {
                           const bool mmsg = std::get<0>(info.param) == io::Backend::kMmsg;
                           return std::string(mmsg ? "Mmsg" : "Auto") +
                                  std::to_string(std::get<1>(info.param));
                         });

}  // namespace
}  // namespace ringsock::gateway
