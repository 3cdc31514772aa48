// Which way a peer is reached, when that is told, and when a dead roaming address is given up.
#include "gateway/path_watch.h"

#include <memory>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace ringsock::gateway {
namespace {

using std::chrono::seconds;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

Endpoint At(const std::string& text) { return *Endpoint::Parse(text); }

// One peer, "p", at relay 7 ("fra") and 192.0.2.1:1.
class PathWatchTest : public testing::Test {
 protected:
  PathWatchTest() {
    derp::RelayRegion region;
    region.region_id = 7;
    region.region_code = "fra";
    config_.derp_map.emplace().regions.emplace(7, region);
    PeerConfig peer;
    peer.key.bytes[0] = 1;
    peer.name = "p";
    peer.endpoints = {RelayEndpoint(7), At("192.0.2.1:1")};
    config_.peers.push_back(peer);
    state_.key = peer.key;
    state_.addresses = peer.endpoints;
    addresses_ = *PathAddresses::Create(config_.range, config_.peers);
    roster_ = std::make_unique<PeerRoster>(config_.peers);
    watch_ = std::make_unique<PathWatch>(config_, *roster_, *addresses_);
  }

  // What WireGuard sends to from now on, and so what it has heard the peer over.
  void HeardOver(const Endpoint& endpoint) {
    const AddressOffset offset = addresses_->Configured(PathKey::Of(endpoint, 0));
    ASSERT_NE(offset, kNoAddress);
    addresses_->SetCurrent(0, offset);
    addresses_->Touch(offset, now_);
  }
  EngineStatus Status() const {
    EngineStatus status;
    status.peers = {state_};
    return status;
  }
  PathWatch::Changes LookAfter(Duration time) {
    now_ += time;
    if (traffic_ && addresses_->Current(0) != kNoAddress) {
      addresses_->Touch(addresses_->Current(0), now_);
    }
    return watch_->Look(Status(), now_);
  }
  std::string Described() const { return watch_->Describe(watch_->PathOf(0, &state_)); }

  Config config_;
  PeerStatus state_;
  std::unique_ptr<PathAddresses> addresses_;
  std::unique_ptr<PeerRoster> roster_;
  std::unique_ptr<PathWatch> watch_;
  Instant now_{seconds(1000)};
  bool traffic_ = true;
};

TEST_F(PathWatchTest, WhatPeopleAreTold) {
  EXPECT_EQ(Described(), "none confirmed");
  EXPECT_EQ(watch_->Describe(watch_->PathOf(0, nullptr)), "none confirmed");
  EXPECT_EQ(watch_->Totals(Status()), "0 direct, 0 relayed, 1 without a confirmed path");
  HeardOver(RelayEndpoint(7));
  EXPECT_EQ(Described(), "relay of region 7 (fra)");
  EXPECT_EQ(watch_->Totals(Status()), "0 direct, 1 relayed, 0 without a confirmed path");
  HeardOver(At("192.0.2.1:1"));
  state_.current = At("192.0.2.1:1");
  EXPECT_EQ(Described(), "direct 192.0.2.1:1");
  EXPECT_EQ(watch_->Totals(Status()), "1 direct, 0 relayed, 0 without a confirmed path");
  state_.current = At("198.51.100.1:9");
  state_.roaming = true;
  EXPECT_EQ(Described(), "direct 198.51.100.1:9 (roaming)");
  HeardOver(RelayEndpoint(7));
  EXPECT_EQ(Described(),
            "direct 198.51.100.1:9 (roaming), but last heard over the relay of region 7 (fra)");
  EXPECT_EQ(watch_->Totals({}), "0 direct, 0 relayed, 1 without a confirmed path");
  EXPECT_EQ(watch_->RegionName(9), "region 9");
}

TEST_F(PathWatchTest, ChangesAreToldOnceAndOnlyIfTheyStay) {
  EXPECT_THAT(LookAfter(seconds(1)).lines, IsEmpty());
  HeardOver(RelayEndpoint(7));
  EXPECT_THAT(LookAfter(seconds(1)).lines, IsEmpty());
  EXPECT_THAT(LookAfter(seconds(1)).lines, ElementsAre("peer p: now relay of region 7 (fra)"));
  EXPECT_THAT(LookAfter(seconds(1)).lines, IsEmpty());
  // A handshake over both, and for one look the direct one.
  state_.current = At("192.0.2.1:1");
  EXPECT_THAT(LookAfter(seconds(1)).lines, IsEmpty());
  state_.current = {};
  EXPECT_THAT(LookAfter(seconds(1)).lines, IsEmpty());
  EXPECT_THAT(LookAfter(seconds(1)).lines, IsEmpty());
  state_.current = At("192.0.2.1:1");
  EXPECT_THAT(LookAfter(seconds(1)).lines, IsEmpty());
  EXPECT_THAT(LookAfter(seconds(1)).lines,
              ElementsAre(testing::StartsWith("peer p: now direct 192.0.2.1:1")));
}

// spec: SEND-4, PATH-1
TEST_F(PathWatchTest, ADeadRoamingAddressIsGivenUp) {
  state_.current = At("198.51.100.1:9");
  state_.roaming = true;
  HeardOver(RelayEndpoint(7));
  EXPECT_THAT(LookAfter(seconds(1)).silent, IsEmpty());
  EXPECT_THAT(LookAfter(seconds(3)).silent, IsEmpty());
  // Heard directly in between: from the start.
  HeardOver(At("192.0.2.1:1"));
  EXPECT_THAT(LookAfter(seconds(1)).silent, IsEmpty());
  HeardOver(RelayEndpoint(7));
  EXPECT_THAT(LookAfter(seconds(1)).silent, IsEmpty());
  EXPECT_THAT(LookAfter(seconds(3)).silent, IsEmpty());
  EXPECT_THAT(LookAfter(seconds(1)).silent, ElementsAre(0u));
  // While nothing comes, nothing is known.
  traffic_ = false;
  EXPECT_THAT(LookAfter(seconds(2)).silent, IsEmpty());
  EXPECT_THAT(LookAfter(seconds(30)).silent, IsEmpty());
}

TEST_F(PathWatchTest, WhatIsNotDeadOrHasNoRelayIsKept) {
  HeardOver(RelayEndpoint(7));
  state_.current = At("192.0.2.1:1");
  LookAfter(seconds(1));
  EXPECT_THAT(LookAfter(seconds(10)).silent, IsEmpty());
  state_.roaming = true;
  EXPECT_THAT(LookAfter(seconds(1)).silent, ElementsAre(0u));
  roster_->peers[0].endpoints = {At("192.0.2.1:1")};
  EXPECT_THAT(LookAfter(seconds(1)).silent, IsEmpty());
}

TEST_F(PathWatchTest, ManyChangesAreCutShort) {
  Config config;
  config.range = *LoopbackRange::Parse("127.101.0.0/16");
  EngineStatus status;
  for (uint8_t i = 1; i <= 100; ++i) {
    PeerConfig peer;
    peer.key.bytes[0] = i;
    config.peers.push_back(peer);
    PeerStatus state;
    state.key = peer.key;
    state.current = At("192.0.2.1:" + std::to_string(i));
    status.peers.push_back(state);
  }
  const auto addresses = *PathAddresses::Create(config.range, config.peers);
  const PeerRoster roster(config.peers);
  PathWatch watch(config, roster, *addresses);
  EXPECT_THAT(watch.Look(status, now_).lines, IsEmpty());
  const std::vector<std::string> lines = watch.Look(status, now_).lines;
  ASSERT_EQ(lines.size(), PathWatch::kMaxLines);
  EXPECT_EQ(lines.back(), "... and 81 peers more");
}

TEST(RelayLineTest, SaysWhatIsWrong) {
  RelayStatus relay;
  relay.region = 7;
  relay.home = true;
  relay.node = "7a";
  relay.age = seconds(9);
  relay.last_error = "certificate expired";
  EXPECT_EQ(RelayLine(relay, "region 7"),
            "relay of region 7, home: down for 9 s, node 7a, idle for 0 s, sent 0, received 0, "
            "dropped 0: certificate expired");
  relay.up = true;
  relay.home = false;
  relay.description = "TLSv1.3";
  relay.remote = At("192.0.2.1:443");
  relay.queued_bytes = 5;
  relay.health = "twice";
  EXPECT_EQ(RelayLine(relay, "region 7"),
            "relay of region 7: up for 9 s, node 7a at 192.0.2.1:443, TLSv1.3, idle for 0 s, sent "
            "0, received 0, dropped 0, 5 bytes wait, the relay says: twice");
}

}  // namespace
}  // namespace ringsock::gateway
