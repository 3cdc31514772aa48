// Which region a whole engine is at home in as latencies change, and answers that come to other
// shards than asked, in a simulated network.
#include <gtest/gtest.h>

#include "tests/core/net_checker_fixture.h"

namespace ringsock {
namespace {

using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::seconds;

class NetCheckerHomeTest : public NetCheckerFixture {
 protected:
  void SetLatency(RegionId region, Duration latency) {
    net_.uplink(ServerHost(region)).options.delay = latency;
  }
  // With relays that are connected to.
  std::unique_ptr<CheckedNode> AtHome(RegionId expected) {
    auto node = Open({IpAddress::V4(192, 0, 2, 5)});
    EXPECT_TRUE(node->engine->SetPrivateKey(PrivateKey::Generate()).ok());
    node->SetMap(Map());
    node->AddPeer(1);
    Run(seconds(10));
    EXPECT_EQ(Home(*node), expected);
    return node;
  }
  static RegionId Home(const CheckedNode& node) { return node.engine->Status().home; }
};

// spec: NC-10, EP-7
TEST_F(NetCheckerHomeTest, MovesOnlyForAGainOfTenMillisecondsAndAThird) {
  SetLatency(1, milliseconds(40));
  SetLatency(2, milliseconds(60));
  SetLatency(3, milliseconds(200));
  auto node = AtHome(1);
  ASSERT_NE(world_.relays.at(1), nullptr);
  EXPECT_TRUE(world_.relays.at(1)->preferred);
  SetLatency(2, milliseconds(31));  // 9 ms
  Run(minutes(12));
  EXPECT_EQ(Home(*node), 1);
  SetLatency(2, milliseconds(28));  // 12 ms, but not a third
  Run(minutes(12));
  EXPECT_EQ(Home(*node), 1);
  SetLatency(2, milliseconds(20));
  Run(minutes(12));
  EXPECT_EQ(Home(*node), 2);
  ASSERT_NE(world_.relays.at(2), nullptr);
  EXPECT_TRUE(world_.relays.at(2)->preferred);
  // A substantial change (spec: EP-5).
  EXPECT_EQ(node->observer.infos.back().home, 2);
}

// What was taken for a home before anything was measured has no right to stay.
TEST_F(NetCheckerHomeTest, TheFirstReportChoosesTheNearest) {
  for (const RegionId nearest : {RegionId{1}, RegionId{2}, RegionId{3}}) {
    for (const RegionId id : {RegionId{1}, RegionId{2}, RegionId{3}}) {
      SetLatency(id, id == nearest ? milliseconds(29) : milliseconds(30));
    }
    auto node = Open({IpAddress::V4(192, 0, 2, static_cast<uint8_t>(nearest))});
    node->SetMap(Map());
    EXPECT_NE(Home(*node), 0);
    Run();
    EXPECT_EQ(Home(*node), nearest);
  }
}

// spec: NC-10: a home that answers no STUN any more stays while its relay is heard.
TEST_F(NetCheckerHomeTest, RelayFramesAreASignOfLife) {
  auto node = AtHome(1);
  FakeConnection* relay = world_.relays.at(1);
  ASSERT_NE(relay, nullptr);
  relay->Up();
  net_.SetUdpBlocked(ServerHost(1), true);
  const PublicKey peer = KeyNumber(1);
  for (int i = 0; i < 240; ++i) {
    relay->Bring(peer, "frame");
    Run(seconds(1));
    ASSERT_EQ(Home(*node), 1) << "after " << i << " s";
  }
  EXPECT_FALSE(node->Report().latency.contains(1));
  // In silence it goes to who answers.
  Run(minutes(1));
  EXPECT_EQ(Home(*node), 2);
}

// spec: NC-10: without data of any region the home stays for 120 s after its last frame; with UDP
// open again it is chosen as ever.
TEST_F(NetCheckerHomeTest, SilenceAllAround) {
  auto node = AtHome(1);
  world_.relays.at(1)->Up();
  net_.SetUdpBlocked(node->host, true);
  Run(minutes(5));
  EXPECT_FALSE(node->Report().udp);
  EXPECT_EQ(Home(*node), 1);  // no peer has a region (spec: EP-6)
  net_.SetUdpBlocked(node->host, false);
  SetLatency(1, milliseconds(300));
  Run(minutes(12));
  EXPECT_EQ(Home(*node), 2);
}

// spec: NC-1: one port for all shards, so the kernel gives an answer to any of them.
TEST_F(NetCheckerHomeTest, AnswersMayComeToOtherShards) {
  for (const size_t shards : {2u, 4u, 8u}) {
    const auto last = static_cast<uint8_t>(100 + shards);
    auto node = Open({IpAddress::V4(192, 0, 2, last)}, shards);
    node->SetMap(Map());
    Run();
    EXPECT_EQ(node->Report().latency.size(), 3u);
    EXPECT_EQ(node->Stats().answers, 3u);
    size_t others = 0;
    for (size_t i = 1; i < shards; ++i) {
      const auto counters = node->engine->shard(i).Counters();
      others += counters.drops[static_cast<size_t>(Drop::kRxStun)];
    }
    EXPECT_EQ(others, 0u);
  }
}

// More probes at one instant than the rings to the shards hold: the rest goes when there is room.
TEST_F(NetCheckerHomeTest, AMapOfManyRegions) {
  constexpr RegionId kRegions = 300;
  derp::RelayMap map = RelayMapOf({});
  for (RegionId id = 1; id <= kRegions; ++id) {
    derp::RelayRegion region = Map({1}).regions[1];
    region.region_id = region.nodes[0].region_id = id;
    region.nodes[0].name = absl::StrCat(id, "a");
    region.nodes[0].ipv4 = IpAddress::V4(198, 51, 100, static_cast<uint8_t>(1 + id % 3)).ToString();
    map.regions[id] = region;
  }
  auto node = Open({IpAddress::V4(192, 0, 2, 5)});
  node->SetMap(map);
  Run();
  EXPECT_EQ(node->Report().latency.size(), size_t{kRegions});
  EXPECT_EQ(node->engine->Counters().drops[static_cast<size_t>(Drop::kTxQueueFull)], 0u);
}

// In turns, so that a test can be repeated from its seed.
TEST_F(NetCheckerHomeTest, TheSameSeedGivesTheSameRun) {
  const auto run = [this] {
    io::SimNetwork net{99};
    FakeWorld world;
    const IpAddress ip = IpAddress::V4(192, 0, 2, 5);
    CheckedNode node(&net, &world, net.AddHost("node", {ip}), StateOf({ip}));
    net.RunFor(seconds(1));
    node.SetMap(Map());
    node.AddPeer(1);
    net.RunFor(minutes(5));
    return net.trace().hash();
  };
  EXPECT_EQ(run(), run());
}

}  // namespace
}  // namespace ringsock
