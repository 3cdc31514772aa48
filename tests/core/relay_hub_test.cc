// Packets between shards' rings and relay connections, with shards and connections that the test
// moves by hand; and relay maps made by hand, which are held to the rules of those that are read.
#include "core/relay_hub.h"

#include <chrono>
#include <string>
#include <vector>

#include "core/packet_train.h"
#include "core/shard_of.h"
#include "gtest/gtest.h"
#include "tests/core/engine_fixture.h"
#include "tests/core/fake_loop.h"
#include "tests/core/fake_relays.h"

namespace ringsock {
namespace {

derp::RelayMap Map() {
  derp::RelayMap map;
  derp::RelayRegion& region = map.regions[3];
  region.region_id = 3;
  derp::RelayNode node;
  node.name = "3a";
  node.region_id = 3;
  node.host_name = "derp3.example";
  region.nodes.push_back(node);
  return map;
}

TEST(CheckRelayMapTest, TakesWhatTheReaderTakes) {
  EXPECT_TRUE(CheckRelayMap(Map()).ok()) << CheckRelayMap(Map()).ToString();
  EXPECT_TRUE(CheckRelayMap({}).ok());  // relaying is off
}

TEST(CheckRelayMapTest, NamesWhatIsWrong) {
  const auto error = [](auto change) {
    derp::RelayMap map = Map();
    change(map);
    const absl::Status status = CheckRelayMap(map);
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << status.ToString();
    return std::string(status.message());
  };
  EXPECT_NE(error([](auto& map) { map.regions[3].nodes.clear(); }).find("Nodes"),
            std::string::npos);
  EXPECT_NE(error([](auto& map) { map.regions[3].region_id = 4; }).find("Region"),
            std::string::npos);
  EXPECT_NE(error([](auto& map) { map.regions[3].nodes[0].region_id = 4; }).find("RegionID"),
            std::string::npos);
  EXPECT_NE(error([](auto& map) { map.regions[3].nodes[0].derp_port = 65536; }).find("DERPPort"),
            std::string::npos);
  EXPECT_NE(error([](auto& map) { map.regions[3].nodes[0].host_name = "a b"; }).find("HostName"),
            std::string::npos);
  EXPECT_NE(error([](auto& map) { map.regions[0] = map.regions[3]; }).find("Region"),
            std::string::npos);
}

using Texts = std::vector<std::string>;

class RelayHubTest : public testing::Test {
 protected:
  static constexpr uint32_t kRingPackets = 4;

  RelayHubTest() : hub_(Options(), Environment()) {
    hub_.OnPeerChange(nullptr, peers_.FindById(Add(1)));
  }
  static RelayOptions Options() {
    RelayOptions options;
    options.ring_packets = kRingPackets;
    options.home = 1;
    return options;
  }
  RelayHub::Environment Environment() {
    return {.clock = &clock_,
            .peers = &peers_,
            .shard_loops = {&loops_[0], &loops_[1]},
            .connector = &relays_,
            .random = 0};
  }
  PeerId Add(uint32_t number) { return *peers_.Create(KeyNumber(number), {}); }
  // With regions 1 and 2, a key, and the home, 1, up.
  void StartRelaying() {
    ASSERT_TRUE(hub_.SetMap(RelayMapOf({1, 2})).ok());
    hub_.SetPrivateKey(PrivateKey::Generate());
    relays_.at(1)->Up();
  }
  uint32_t Push(uint32_t shard, RegionId region, uint32_t peer, const std::string& bytes,
                size_t segment = 0) {
    const uint32_t taken =
        hub_.queue()->Push(shard, region, KeyNumber(peer), TrainOf(bytes, segment));
    hub_.queue()->Flush(shard);
    return taken;
  }
  // What relays brought for a shard, as "number of the region:bytes", "?" before it for no peer.
  Texts Received(uint32_t shard) {
    Texts all;
    PacketRing* ring = hub_.queue()->Received(shard);
    while (const PacketRecord* record = ring->Next()) {
      ++trains_;
      ForEachPiece(record->packets, 1, [&](const PacketTrain& packet) {
        all.push_back(absl::StrCat(
            record->peer == PeerId::kNone ? "?" : "", RelayRegion(record->address), ":",
            std::string(reinterpret_cast<const char*>(packet.data), packet.size)));
      });
    }
    ring->Release();
    return all;
  }
  uint64_t Dropped(Drop drop) const { return hub_.Counters().drops[static_cast<size_t>(drop)]; }

  ManualClock clock_;
  FakeLoop loops_[2];
  Quiescence quiescence_;
  PeerTable peers_{{}, &quiescence_};
  FakeRelays relays_;
  RelayHub hub_;
  size_t trains_ = 0;  // of Received()
};

// An engine without relays pays nothing for the rings, and its packets for them are no queue's.
TEST_F(RelayHubTest, RingsExistOnceTheyAreNeeded) {
  EXPECT_FALSE(hub_.queue()->open());
  EXPECT_EQ(hub_.queue()->Received(0), nullptr);
  EXPECT_EQ(Push(0, 1, 1, "x"), 0u);
  EXPECT_FALSE(hub_.Run());
  ASSERT_TRUE(hub_.SetMap(RelayMapOf({1})).ok());
  EXPECT_FALSE(hub_.queue()->open());
  hub_.SetPrivateKey(PrivateKey::Generate());
  EXPECT_TRUE(hub_.queue()->open());
  ASSERT_TRUE(hub_.SetMap(std::nullopt).ok());
  EXPECT_FALSE(hub_.queue()->open());
}

TEST_F(RelayHubTest, PacketsGoFromEveryShardToTheirRelay) {
  StartRelaying();
  EXPECT_EQ(Push(0, 2, 1, "abcde", 2), 3u);
  EXPECT_EQ(Push(1, 1, 1, "home"), 1u);
  EXPECT_EQ(hub_.NextDeadline(), Instant::min());
  EXPECT_FALSE(hub_.Run());
  EXPECT_GT(hub_.NextDeadline(), clock_.Now());
  EXPECT_EQ(relays_.at(2)->TakeSent(), (Texts{"ab", "cd", "e"}));
  EXPECT_EQ(relays_.at(1)->TakeSent(), Texts{"home"});
  EXPECT_EQ(relays_.at(1)->flushes + relays_.at(2)->flushes, 2);
}

// spec: SEND-7: what finds the ring full is not taken, and from there on nothing of the train.
TEST_F(RelayHubTest, AFullRingTakesTheFirstPackets) {
  StartRelaying();
  // Pieces of a train that is longer than a ring's record can be: 46 packets of 1,400 bytes each.
  const std::string train(1400 * 46 * 7, 'x');
  const uint32_t taken = Push(0, 1, 1, train, 1400);
  EXPECT_GT(taken, 0u);
  EXPECT_LT(taken, 46u * 7u);
  EXPECT_EQ(taken % 46, 0u);
  EXPECT_EQ(Push(0, 1, 1, std::string(65000, 'y')), 0u);
  EXPECT_EQ(Push(1, 1, 1, "another shard"), 1u);
  hub_.Run();
  EXPECT_EQ(relays_.at(1)->TakeSent().size(), taken + 1);
  EXPECT_EQ(Push(0, 1, 1, "room again"), 1u);
}

// One turn has a bound, whatever waits: others are served between two of them.
TEST_F(RelayHubTest, ATurnIsBounded) {
  RelayOptions options = Options();
  options.ring_packets = 4096;
  RelayHub hub(options, Environment());
  ASSERT_TRUE(hub.SetMap(RelayMapOf({1})).ok());
  hub.SetPrivateKey(PrivateKey::Generate());
  const std::string small = "small", large(60'000, 'x');
  Add(2);
  for (uint32_t i = 0; i < 1000; ++i) {  // of two peers by turns: trains of one packet
    hub.queue()->Push(0, 1, KeyNumber(1 + i % 2), TrainOf(small));
  }
  for (int i = 0; i < 50; ++i) hub.queue()->Push(1, 1, KeyNumber(1), TrainOf(large));
  for (const uint32_t shard : {0, 1}) hub.queue()->Flush(shard);
  EXPECT_TRUE(hub.Run());
  size_t smalls = 0, larges = 0;
  for (const std::string& packet : relays_.at(1)->TakeSent()) {
    ++(packet == small ? smalls : larges);
  }
  EXPECT_EQ(smalls, 256u);  // neither shard's share is the other's
  EXPECT_EQ(larges, 5u);
  int turns = 1;
  while (hub.Run()) ++turns;
  EXPECT_EQ(turns, 9);  // 50 / 5, the last of which finds no more
  EXPECT_EQ(relays_.at(1)->TakeSent().size(), 1050u - 261u);
}

// spec: PEER-2: what waits for a peer that was removed is not sent.
TEST_F(RelayHubTest, PacketsOfRemovedPeersGoNoFurther) {
  StartRelaying();
  EXPECT_EQ(Push(0, 1, 1, "abcd", 2), 2u);
  peers_.Update({}, [this](const Peer& peer) { hub_.OnPeerChange(&peer, nullptr); });
  EXPECT_EQ(Push(0, 1, 1, "ef"), 1u);
  hub_.Run();
  EXPECT_TRUE(relays_.at(1)->TakeSent().empty());
  EXPECT_EQ(Dropped(Drop::kTxUnknownPeer), 3u);
  EXPECT_EQ(hub_.routes().routes(), 0u);  // and leaves nothing behind
}

// spec: RECV-3
TEST_F(RelayHubTest, RelayedPacketsGoToTheShardOfTheirPeer) {
  StartRelaying();
  uint32_t other = 2;
  const uint32_t shard = ShardOf(peers_.FindByKey(KeyNumber(1))->id(), 2);
  while (ShardOf(Add(other), 2) == shard) ++other;
  FakeConnection& home = *relays_.at(1);
  const int before[] = {loops_[0].wakes(), loops_[1].wakes()};
  home.Bring(KeyNumber(1), "one", /*end=*/false);
  home.Bring(KeyNumber(other), "other", /*end=*/false);
  home.Bring(KeyNumber(1), "two", /*end=*/false);
  EXPECT_EQ(loops_[0].wakes(), before[0]);
  home.Bring(KeyNumber(1), "three");
  EXPECT_EQ(loops_[0].wakes(), before[0] + 1);  // once for all of them
  EXPECT_EQ(loops_[1].wakes(), before[1] + 1);
  EXPECT_EQ(Received(shard), (Texts{"1:one", "1:two", "1:three"}));
  EXPECT_EQ(trains_, 2u);  // "three" is longer
  EXPECT_EQ(Received(1 - shard), Texts{"1:other"});
}

// spec: RECV-1, RECV-3, RECV-6: what a relay may bring that is nobody's packet.
TEST_F(RelayHubTest, GarbageOfARelayIsCounted) {
  StartRelaying();
  FakeConnection& home = *relays_.at(1);
  home.Bring(KeyNumber(1), "");
  home.Bring(KeyNumber(1), std::string(65508, 'x'));
  std::string stun("\0\1\0\0\x21\x12\xa4\x42", 8);
  stun.resize(20, 'i');
  home.Bring(KeyNumber(1), stun);
  home.Bring(hub_.routes().public_key(), "our own");
  EXPECT_EQ(Dropped(Drop::kRxEmpty), 1u);
  EXPECT_EQ(Dropped(Drop::kRxTruncated), 1u);
  EXPECT_EQ(Dropped(Drop::kRxStun), 1u);
  EXPECT_EQ(Dropped(Drop::kRxRelaySelf), 1u);
  EXPECT_TRUE(Received(0).empty() && Received(1).empty());
  // An unknown key: like an unknown address, for the handler to judge.
  home.Bring(KeyNumber(99), "stranger");
  const uint32_t shard = ShardOf(RelayEndpoint(1), 2);
  EXPECT_EQ(Received(shard), Texts{"?1:stranger"});
  EXPECT_EQ(hub_.routes().routes(), 0u);
  // The largest that there is.
  home.Bring(KeyNumber(1), std::string(65507, 'x'));
  EXPECT_EQ(Received(0).size() + Received(1).size(), 1u);
}

TEST_F(RelayHubTest, AShardThatTakesNothingLosesOnlyItsOwn) {
  StartRelaying();
  uint32_t other = 2;
  const uint32_t shard = ShardOf(peers_.FindByKey(KeyNumber(1))->id(), 2);
  while (ShardOf(Add(other), 2) == shard) ++other;
  for (int i = 0; i < 10; ++i) relays_.at(1)->Bring(KeyNumber(1), "x");
  EXPECT_EQ(Dropped(Drop::kRxRelayFull), 10u - kRingPackets);
  relays_.at(1)->Bring(KeyNumber(other), "y");
  EXPECT_EQ(Received(1 - shard), Texts{"1:y"});
  EXPECT_EQ(Received(shard).size(), kRingPackets);
}

// What is under way at the end is counted, in both directions.
TEST_F(RelayHubTest, CloseCountsWhatWaits) {
  StartRelaying();
  Push(0, 1, 1, "abcd", 2);
  Push(1, 1, 1, "ef");
  relays_.at(1)->Bring(KeyNumber(1), "x");
  relays_.at(1)->status.queued_packets = 2;
  relays_.at(1)->status.queued_bytes = 80;
  hub_.Close();
  EXPECT_EQ(Dropped(Drop::kClosed), 4u);
  EXPECT_EQ(Dropped(Drop::kTxRelayBroken), 2u);
  EXPECT_TRUE(relays_.open.empty());
  EXPECT_FALSE(hub_.queue()->open());
  EXPECT_FALSE(hub_.SetMap(RelayMapOf({1})).ok());
  hub_.SetPrivateKey(PrivateKey::Generate());
  hub_.OnLinkChange("late");
  EXPECT_EQ(hub_.OnPreferredRegion(1), 0);
  Push(0, 1, 1, "late");
  EXPECT_FALSE(hub_.Run());
  EXPECT_EQ(hub_.NextDeadline(), Instant::max());
  EXPECT_TRUE(relays_.open.empty());
}

TEST_F(RelayHubTest, AMapThatCannotBeUsedChangesNothing) {
  StartRelaying();
  relays_.prepare = absl::NotFoundError("/etc/roots.pem: no such file");
  EXPECT_TRUE(absl::IsNotFound(hub_.SetMap(RelayMapOf({1, 2, 3}))));
  relays_.prepare = absl::OkStatus();
  EXPECT_TRUE(absl::IsInvalidArgument(hub_.SetMap(RelayMapOf({2}))));  // without the fixed home
  EXPECT_NE(relays_.at(1), nullptr);
  EngineStatus status;
  hub_.AddStatus(&status);
  EXPECT_EQ(status.home, 1);
  EXPECT_EQ(status.relays.size(), 1u);
}

// spec: DERP-7, PEER-3
TEST_F(RelayHubTest, ChangesAskForAnEndpointUpdate) {
  Texts reasons;
  hub_.SetUpdateWanted([&reasons](absl::string_view reason) { reasons.emplace_back(reason); });
  ASSERT_TRUE(hub_.SetMap(RelayMapOf({1})).ok());
  ASSERT_TRUE(hub_.SetMap(RelayMapOf({1})).ok());
  hub_.SetPrivateKey(PrivateKey::Generate());
  hub_.SetPrivateKey(PrivateKey::Generate());
  EXPECT_EQ(reasons, (Texts{"relay map", "private key"}));
  ASSERT_TRUE(hub_.SetMap(std::nullopt).ok());
  EXPECT_EQ(reasons.size(), 2u);
}

// spec: EP-6: regions of peers are those of their first relay, as they change.
TEST_F(RelayHubTest, HomeIsWherePeersAre) {
  RelayOptions options = Options();
  options.home = 0;
  RelayHub hub(options, Environment());
  ASSERT_TRUE(hub.SetMap(RelayMapOf({1, 2, 3})).ok());
  EXPECT_EQ(hub.routes().home(), 1);
  const Endpoint lists[][2] = {{*Endpoint::Parse("192.0.2.1:1"), RelayEndpoint(3)},
                               {RelayEndpoint(2), RelayEndpoint(3)}};
  const auto set = [&](const Endpoint(&list)[2]) {
    const Peer* before = peers_.FindByKey(KeyNumber(50));
    hub.OnPeerChange(before, peers_.FindById(*peers_.Create(KeyNumber(50), list)));
    clock_.Advance(kHomeSettle);
    hub.Run();
    return hub.routes().home();
  };
  EXPECT_EQ(set(lists[0]), 3);
  EXPECT_EQ(set(lists[1]), 2);
  // An engine that goes on with the peers of another one knows them too.
  RelayHub next(options, Environment());
  ASSERT_TRUE(next.SetMap(RelayMapOf({1, 2, 3})).ok());
  EXPECT_EQ(next.routes().home(), 2);
}

}  // namespace
}  // namespace ringsock
