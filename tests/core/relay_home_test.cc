// Which region is our home, by EP-6 and EP-7: core/relay_routes.h.
#include <chrono>
#include <optional>

#include "core/relay_routes.h"
#include "gtest/gtest.h"
#include "tests/core/relay_routes_fixture.h"

namespace ringsock {
namespace {

using std::chrono::seconds;

// spec: EP-6
TEST_F(RelayRoutesTest, HomeWithoutANetcheck) {
  struct Case {
    const char* name;
    Regions peers;    // of each peer
    RegionId before;  // home that a netcheck had found; 0: none
    RegionId want;
  };
  const Case cases[] = {
      {"kept: a peer is on it", {2, 3, 3}, 2, 2},
      {"kept: no peer has a region", {}, 2, 2},
      {"kept: no peer has a region that is there", {77, 78}, 2, 2},
      {"where most peers are", {1, 3, 3}, 2, 3},
      {"where most peers are, from nothing", {1, 3, 3, 77, 77, 77}, 0, 3},
      {"by chance", {}, 0, 2},
      {"by chance: peers are only where a home may not be", {4, 4, 5}, 0, 2},
      {"never to be avoided", {1, 4, 4, 4}, 0, 1},
      {"never without a relay", {1, 5, 5, 5}, 0, 1},
  };
  for (const Case& test : cases) {
    Start({.random = 4});  // of 1, 2 and 3 the second
    derp::RelayMap map = RelayMapOf({1, 2, 3, 4, 5});
    map.regions[4].avoid = true;
    map.regions[5].nodes[0].stun_only = true;
    for (const RegionId region : test.peers) routes_->AddPeerOf(region);
    if (test.before != 0) {
      EXPECT_EQ(routes_->OnPreferredRegion(test.before), 0);  // no map yet
    }
    routes_->SetMap(map);
    if (test.before != 0) {
      EXPECT_EQ(routes_->home(), test.before) << test.name;
    }
    EXPECT_EQ(routes_->OnPreferredRegion(std::nullopt), test.want) << test.name;
    EXPECT_EQ(routes_->OnPreferredRegion(std::nullopt), test.want) << test.name;
  }
}

TEST_F(RelayRoutesTest, NoHomeWhereNoRegionWillDo) {
  Start();
  derp::RelayMap map = RelayMapOf({4, 5});
  map.regions[4].avoid = true;
  map.regions[5].nodes[0].stun_only = true;
  routes_->SetMap(map);
  routes_->SetPrivateKey(PrivateKey::Generate());
  EXPECT_EQ(routes_->home(), 0);
  EXPECT_EQ(routes_->OnPreferredRegion(4), 0);
  Send(4, 7, "to be avoided as a home is no ban");
  EXPECT_EQ(relays_.regions(), (Regions{4}));
}

// Peers that come after the map: the home follows once the list has settled.
TEST_F(RelayRoutesTest, HomeFollowsThePeersOnce) {
  StartWith({1, 2, 3}, {.random = 0});
  EXPECT_EQ(routes_->home(), 1);
  routes_->AddPeerOf(2);
  for (int i = 0; i < 5; ++i) routes_->AddPeerOf(3);
  EXPECT_EQ(routes_->home(), 1);
  Wait(kHomeSettle);
  EXPECT_EQ(routes_->home(), 3);
  EXPECT_FALSE(relays_.at(1)->preferred);
  EXPECT_TRUE(relays_.at(3)->preferred);
  for (int i = 0; i < 9; ++i) routes_->AddPeerOf(2);
  Wait(kHomeSettle);
  EXPECT_EQ(routes_->home(), 3);  // a peer is on it
  for (int i = 0; i < 5; ++i) routes_->RemovePeerOf(3);
  Wait(kHomeSettle);
  EXPECT_EQ(routes_->home(), 2);
}

// spec: EP-7
TEST_F(RelayRoutesTest, EveryRelayIsToldOfANewHome) {
  StartWith({1, 2, 3});
  routes_->OnPreferredRegion(1);
  Send(2, 7, "x");
  const auto preferred = [this] {
    Regions all;
    for (const auto& [region, connection] : relays_.open) {
      if (connection->preferred) all.push_back(region);
    }
    return all;
  };
  EXPECT_EQ(preferred(), (Regions{1}));
  EXPECT_EQ(routes_->OnPreferredRegion(2), 2);
  EXPECT_EQ(preferred(), (Regions{2}));
  EXPECT_EQ(routes_->OnPreferredRegion(3), 3);  // not open before
  EXPECT_EQ(preferred(), (Regions{3}));
  EXPECT_EQ(relays_.regions(), (Regions{1, 2, 3}));
  EXPECT_EQ(routes_->OnPreferredRegion(99), 3);  // unknown: as if there were none
  // What was home is closed when idle, like any other.
  for (int i = 0; i < 80; ++i) Wait(seconds(1));
  EXPECT_EQ(relays_.regions(), (Regions{3}));
}

TEST_F(RelayRoutesTest, AFixedHomeStays) {
  StartWith({1, 2, 3}, {.home = 2});
  routes_->AddPeerOf(3);
  EXPECT_EQ(routes_->OnPreferredRegion(1), 2);
  Wait(kHomeSettle);
  EXPECT_EQ(routes_->home(), 2);
}

TEST_F(RelayRoutesTest, AHomeThatCouldNotBeMadeIsTriedAgain) {
  Start({.home = 1});
  relays_.refuse = true;
  routes_->SetMap(RelayMapOf({1, 2}));
  routes_->SetPrivateKey(PrivateKey::Generate());
  Send(2, 7, "x");
  EXPECT_TRUE(relays_.regions().empty());
  EXPECT_EQ(Dropped(Drop::kTxNoRelay), 1u);
  relays_.refuse = false;
  Wait(kRelayCleanInterval);
  EXPECT_EQ(relays_.regions(), (Regions{1}));
}

}  // namespace
}  // namespace ringsock
