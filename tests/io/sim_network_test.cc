// Runs that repeat, links with faults, partitions, blocked UDP, addresses that come and go, ports,
// and the order in which a simulated network runs its loops.
#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "io/sim_network.h"
#include "tests/io/sim_node.h"

namespace ringsock::io {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

// Two hosts on a bad line; the traffic is the same every time.
std::pair<uint64_t, std::string> BadLine(uint64_t seed) {
  SimNetwork net(seed, {.shuffle_loops = true});
  Node a(&net, net.AddHost("a", {V4(198, 51, 100, 1)}), 1000);
  Node b(&net, net.AddHost("b", {V4(198, 51, 100, 2)}), 2000);
  b.echo = true;
  net.uplink(a.host).options = {.delay = milliseconds(5),
                                .jitter = milliseconds(3),
                                .loss = 0.1,
                                .duplicate = 0.05,
                                .reorder = 0.1};
  a.loop->faults(a.socket).gro = GroMode::kRandom;
  for (int i = 0; i < 300; ++i) {
    a.Send({V4(198, 51, 100, 2), 2000, 0}, "packet " + std::to_string(i));
    net.RunFor(milliseconds(1));
  }
  EXPECT_TRUE(net.RunUntilIdle());
  return {net.trace().hash(), a.Text()};
}

TEST(SimNetworkSeedTest, SameSeedSameRunOtherSeedOtherRun) {
  EXPECT_EQ(BadLine(1), BadLine(1));
  EXPECT_NE(BadLine(1).first, BadLine(2).first);
  EXPECT_NE(BadLine(1).second, BadLine(2).second);
}

TEST_F(SimNetworkTest, DelayIsExactAndTimeStandsWhereRunForEnds) {
  Node a(&net, net.AddHost("a", {V4(198, 51, 100, 1)}), 1000);
  Node b(&net, net.AddHost("b", {at_b.ip}), 2000);
  net.uplink(a.host).options.delay = milliseconds(20);
  net.path(a.host, b.host).options.delay = milliseconds(7);
  net.downlink(b.host).options.delay = milliseconds(3);
  const Instant start = net.now();
  a.Send(at_b, "x");
  net.RunFor(milliseconds(30) - Duration(1));
  EXPECT_TRUE(b.packets.empty());
  EXPECT_EQ(net.now(), start + milliseconds(30) - Duration(1));
  net.RunFor(milliseconds(1));
  ASSERT_EQ(b.packets.size(), 1u);
  EXPECT_EQ(b.packets[0].at, start + milliseconds(30));
  EXPECT_EQ(b.packets[0].from, (Endpoint{V4(198, 51, 100, 1), 1000, 0}));
  EXPECT_FALSE(net.Step());
}

TEST_F(SimNetworkTest, LossRateIsWhatWasAskedForAndEveryPacketIsAccountedFor) {
  Node a(&net, net.AddHost("a", {V4(198, 51, 100, 1)}), 1000);
  Node b(&net, net.AddHost("b", {at_b.ip}), 2000);
  net.uplink(a.host).options.loss = 0.2;
  constexpr int kPackets = 5000;
  for (int i = 0; i < kPackets; ++i) a.Send(at_b, "x");
  ASSERT_TRUE(net.RunUntilIdle());
  // Five standard deviations: sqrt(5000 * 0.2 * 0.8) = 28.
  EXPECT_NEAR(static_cast<double>(b.packets.size()), 0.8 * kPackets, 142);
  EXPECT_EQ(net.trace().count(SimEvent::kLost) + b.packets.size(), uint64_t{kPackets});
  EXPECT_EQ(net.trace().count(SimEvent::kSent), uint64_t{kPackets});
}

TEST_F(SimNetworkTest, JitterKeepsOrderReorderingDoesNot) {
  Node a(&net, net.AddHost("a", {V4(198, 51, 100, 1)}), 1000);
  Node b(&net, net.AddHost("b", {at_b.ip}), 2000);
  const auto count_inversions = [&](const LinkOptions& options) {
    b.packets.clear();
    net.uplink(a.host).options = options;
    for (int i = 0; i < 200; ++i) {
      a.Send(at_b, std::string(1, static_cast<char>(i)));
      net.RunFor(std::chrono::microseconds(100));
    }
    net.RunUntilIdle();
    EXPECT_EQ(b.packets.size(), 200u);
    int inversions = 0;
    for (size_t i = 1; i < b.packets.size(); ++i) {
      inversions += static_cast<uint8_t>(b.packets[i].bytes[0]) <
                    static_cast<uint8_t>(b.packets[i - 1].bytes[0]);
    }
    return inversions;
  };
  EXPECT_EQ(count_inversions({.delay = milliseconds(1), .jitter = milliseconds(5)}), 0);
  EXPECT_GT(count_inversions({.delay = milliseconds(1), .reorder = 0.2}), 10);
}

TEST_F(SimNetworkTest, DuplicatesArriveTwice) {
  Node a(&net, net.AddHost("a", {V4(198, 51, 100, 1)}), 1000);
  Node b(&net, net.AddHost("b", {at_b.ip}), 2000);
  net.downlink(b.host).options.duplicate = 1;
  a.Send(at_b, "x");
  net.RunUntilIdle();
  EXPECT_EQ(b.Text(), "x|x|");
}

TEST_F(SimNetworkTest, RateSpacesDatagramsAndItsQueueIsBounded) {
  Node a(&net, net.AddHost("a", {V4(198, 51, 100, 1)}), 1000);
  Node b(&net, net.AddHost("b", {at_b.ip}), 2000);
  // 100 bytes on the wire each: one per millisecond, five of them queued.
  net.uplink(a.host).options = {.bytes_per_second = 100'000, .queue_bytes = 500};
  const Instant start = net.now();
  for (int i = 0; i < 8; ++i) a.Send(at_b, std::string(72, 'x'));
  net.RunUntilIdle();
  ASSERT_EQ(b.packets.size(), 5u);
  for (int i = 0; i < 5; ++i) EXPECT_EQ(b.packets[i].at, start + milliseconds(i + 1));
  EXPECT_EQ(net.trace().count(SimEvent::kQueueFull), 3u);
}

TEST_F(SimNetworkTest, MtuOfTheOwnLinkIsAnErrorThatOfAnotherALoss) {
  Node a(&net, net.AddHost("a", {V4(198, 51, 100, 1)}), 1000);
  Node b(&net, net.AddHost("b", {at_b.ip}), 2000);
  net.uplink(a.host).options.mtu = 1500;
  a.Send(at_b, std::string(1472, 'x'));
  a.Send(at_b, std::string(1473, 'x'));
  EXPECT_EQ(a.failures, std::vector<int>{EMSGSIZE});
  // A train of segments that do not fit goes packet by packet; here none fits but the last.
  a.Send(at_b, std::string(1473 * 2 + 10, 'y'), 1473);
  EXPECT_EQ(a.failures, (std::vector<int>{EMSGSIZE, EMSGSIZE, EMSGSIZE}));
  net.RunUntilIdle();
  EXPECT_EQ(b.packets.size(), 2u);
  net.uplink(a.host).options.fragment = true;
  net.downlink(b.host).options.mtu = 1280;
  a.Send(at_b, std::string(1473, 'x'));
  net.RunUntilIdle();
  EXPECT_EQ(b.packets.size(), 2u);
  EXPECT_EQ(net.trace().count(SimEvent::kTooBig), 1u);
}

TEST_F(SimNetworkTest, PartitionAndBlockedUdpDropSilentlyUntilTheyEnd) {
  Node a(&net, net.AddHost("a", {V4(198, 51, 100, 1)}), 1000);
  Node b(&net, net.AddHost("b", {at_b.ip}), 2000);
  Node c(&net, net.AddHost("c", {at_c.ip}), 3000);
  const auto both = [&](const char* text) {
    a.Send(at_b, text);
    b.Send({V4(198, 51, 100, 1), 1000, 0}, text);
    a.Send(at_c, text);
    net.RunUntilIdle();
  };
  net.SetPartition(a.host, b.host, true);
  both("1");
  net.SetPartition(a.host, b.host, false);
  both("2");
  net.SetUdpBlocked(b.host, true);
  both("3");
  b.Send({V4(127, 0, 0, 1), 2000, 0}, "to itself");
  net.RunUntilIdle();
  EXPECT_EQ(a.Text(), "2|");
  EXPECT_EQ(b.Text(), "2|to itself|");
  EXPECT_EQ(c.Text(), "1|2|3|");
  EXPECT_TRUE(a.failures.empty());
  EXPECT_EQ(net.trace().count(SimEvent::kPartitioned), 2u);
  EXPECT_EQ(net.trace().count(SimEvent::kUdpBlocked), 2u);
}

TEST_F(SimNetworkTest, AddressesComeAndGoWhileDatagramsAreUnderWay) {
  const HostId roaming = net.AddHost("a", {V4(198, 51, 100, 1)});
  Node a(&net, roaming, 1000);
  Node bound(&net, roaming, 1001, {}, V4(198, 51, 100, 1));
  Node b(&net, net.AddHost("b", {at_b.ip}), 2000);
  b.echo = true;
  net.uplink(b.host).options.delay = milliseconds(10);
  a.Send(at_b, "old");
  net.At(net.now() + milliseconds(5), [&] {
    net.RemoveAddress(roaming, V4(198, 51, 100, 1));
    net.AddAddress(roaming, V4(203, 0, 113, 9));
  });
  net.RunUntilIdle();
  EXPECT_TRUE(a.packets.empty()) << "the answer went to an address that is gone";
  EXPECT_EQ(net.trace().count(SimEvent::kNoRoute), 1u);
  a.Send(at_b, "new");
  bound.Send(at_b, "bound");
  net.RunUntilIdle();
  EXPECT_EQ(a.Text(), "new|");
  EXPECT_EQ(b.LastFrom(), (Endpoint{V4(203, 0, 113, 9), 1000, 0}));
  EXPECT_EQ(bound.failures, std::vector<int>{EINVAL});
  net.RemoveAddress(roaming, V4(203, 0, 113, 9));
  a.Send(at_b, "none");
  EXPECT_EQ(a.failures, std::vector<int>{ENETUNREACH});
}

TEST_F(SimNetworkTest, BindErrorsAreThoseOfTheKernel) {
  const HostId host = net.AddHost("a", {V4(198, 51, 100, 1)});
  Node first(&net, host, 1000);
  const auto code = [&](const UdpConfig& config) {
    return first.loop->OpenUdp(config, &first).status().code();
  };
  EXPECT_EQ(code({.bind = {IpAddress::AnyV4(), 1000, 0}}), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(code({.bind = {V4(198, 51, 100, 1), 1000, 0}}), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(code({.bind = {V4(198, 51, 100, 9), 1001, 0}}), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(code({.bind = {IpAddress::AnyV4(), 0, 0}, .device = "wg7"}),
            absl::StatusCode::kNotFound);
  EXPECT_EQ(code({.bind = {IpAddress::AnyV6(), 1000, 0}}), absl::StatusCode::kOk);
  first.loop->CloseUdp(first.socket);
  EXPECT_EQ(code({.bind = {IpAddress::AnyV4(), 1000, 0}}), absl::StatusCode::kOk);
}

TEST_F(SimNetworkTest, LoopsThatShareAPortEachKeepTheirSenders) {
  const HostId server = net.AddHost("b", {at_b.ip});
  struct Keeper final : UdpHandler {
    void OnReceive(SocketId, std::span<const RxTrain> trains) override {
      for (const RxTrain& train : trains) ++count[train.from.port];
    }
    void OnSendFailure(SocketId, const SendFailure&) override {}
    std::map<uint16_t, int> count;
  };
  Keeper keepers[2];
  std::vector<std::unique_ptr<SimLoop>> loops;
  for (Keeper& keeper : keepers) {
    loops.push_back(net.CreateLoop(server, {}));
    ASSERT_TRUE(loops.back()->OpenUdp({.bind = at_b, .reuse_port = true}, &keeper).ok());
  }
  const HostId client = net.AddHost("a", {V4(198, 51, 100, 1)});
  for (uint16_t port = 5000; port < 5064; ++port) {
    Node sender(&net, client, port);
    for (int i = 0; i < 3; ++i) sender.Send(at_b, "x");
    net.RunUntilIdle();
  }
  for (uint16_t port = 5000; port < 5064; ++port) {
    EXPECT_EQ(keepers[0].count[port] + keepers[1].count[port], 3);
    EXPECT_EQ(keepers[0].count[port] * keepers[1].count[port], 0) << "one sender on two loops";
  }
  const auto used = std::count_if(keepers[0].count.begin(), keepers[0].count.end(),
                                  [](const auto& entry) { return entry.second > 0; });
  EXPECT_GT(used, 16);
  EXPECT_LT(used, 48);
}

TEST_F(SimNetworkTest, RunnersAreCalledForWorkAndForTheirTimers) {
  Node a(&net, net.AddHost("a", {V4(198, 51, 100, 1)}), 1000);
  Node b(&net, net.AddHost("b", {at_b.ip}), 2000);
  std::vector<Duration> at;
  const Instant start = net.now();
  net.SetRunner(b.loop.get(), [&] {
    at.push_back(net.now() - start);
    b.loop->Poll(net.now());
    return at.size() < 3 ? net.now() + seconds(10) : Instant::max();
  });
  net.At(start + seconds(15), [&] { a.Send(at_b, "x"); });
  net.RunFor(seconds(100));
  EXPECT_EQ(at, (std::vector<Duration>{seconds(0), seconds(10), seconds(15)}));
  b.loop->Wake();
  net.RunUntilIdle();
  EXPECT_EQ(at.size(), 4u);
}

}  // namespace
}  // namespace ringsock::io
