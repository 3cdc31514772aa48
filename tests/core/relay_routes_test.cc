// Which relay connection carries a packet, by the rules of DERP-1 to DERP-8 and PEER-3, with
// connections that the test moves and a clock that it sets.
#include "core/relay_routes.h"

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <spdlog/sinks/sink.h>

#include "gtest/gtest.h"
#include "tests/core/relay_routes_fixture.h"

namespace ringsock {
namespace {

using std::chrono::seconds;

// spec: DERP-1: only with a map and a key.
TEST_F(RelayRoutesTest, NothingIsOpenedWithoutMapAndKey) {
  Start();
  Send(1, 7, "no map, no key");
  routes_->SetMap(RelayMapOf({1}));
  Send(1, 7, "no key");
  EXPECT_EQ(relays_.made, 0);
  EXPECT_FALSE(routes_->enabled());
  EXPECT_EQ(Dropped(Drop::kTxNoRelay), 2u);
  EXPECT_EQ(Relayed().tx_packets, 0u);
  EXPECT_EQ(Relayed().tx_bytes, 0u);
  routes_->SetMap(std::nullopt);
  routes_->SetPrivateKey(PrivateKey::Generate());
  Send(1, 7, "no map");
  EXPECT_EQ(relays_.made, 0);
  routes_->SetMap(RelayMapOf({1}));
  EXPECT_EQ(relays_.made, 1);
  EXPECT_EQ(routes_->home(), 1);
}

// spec: DERP-1: on the first send, or because it is home; packets wait with it until it is up.
TEST_F(RelayRoutesTest, OpensOnTheFirstNeed) {
  StartWith({1, 2, 3}, {.home = 2});
  EXPECT_EQ(relays_.regions(), (Regions{2}));
  Send(3, 7, "abcde", 2);
  EXPECT_EQ(relays_.regions(), (Regions{2, 3}));
  EXPECT_EQ(relays_.at(3)->TakeSent(), (Texts{"ab", "cd", "e"}));
  EXPECT_EQ(relays_.at(3)->flushes, 1);
  EXPECT_EQ(relays_.at(2)->calls, 0);
  Send(3, 7, "f");
  EXPECT_EQ(relays_.made, 2);
  EXPECT_EQ(Relayed().tx_packets, 4u);
}

TEST_F(RelayRoutesTest, NoRelayForRegionsThatAreNotThereOrOnlyForStun) {
  Start();
  derp::RelayMap map = RelayMapOf({1, 2});
  map.regions[2].nodes[0].stun_only = true;
  routes_->SetMap(map);
  routes_->SetPrivateKey(PrivateKey::Generate());
  Send(2, 7, "stun only");
  Send(9, 7, "not there");
  EXPECT_EQ(relays_.regions(), (Regions{1}));
  EXPECT_EQ(Dropped(Drop::kTxNoRelay), 2u);
}

TEST_F(RelayRoutesTest, ConnectionsAreBounded) {
  StartWith({1, 2, 3, 4}, {.home = 1, .max_connections = 2});
  Send(2, 7, "a");
  Send(3, 8, "b");
  EXPECT_EQ(relays_.regions(), (Regions{1, 2}));
  EXPECT_EQ(Dropped(Drop::kTxNoRelay), 1u);
}

// spec: DERP-2, DERP-3
TEST_F(RelayRoutesTest, ReverseRouteWhileTheirRegionIsNotOpen) {
  StartWith({1, 2, 3}, {.home = 1});
  relays_.at(1)->Bring(KeyNumber(7), "hello");
  Send(2, 7, "answer");
  EXPECT_EQ(relays_.at(1)->TakeSent(), Texts{"answer"});
  EXPECT_EQ(relays_.at(2), nullptr);
  Send(2, 8, "never heard");
  ASSERT_NE(relays_.at(2), nullptr);
  relays_.at(2)->Up();
  Send(2, 7, "now it is open");
  EXPECT_EQ(relays_.at(2)->TakeSent(), (Texts{"never heard", "now it is open"}));
}

// spec: DERP-2: a connection that is being tried is not open yet.
TEST_F(RelayRoutesTest, ReverseRouteWhileTheirRegionCannotBeReached) {
  StartWith({1, 2}, {.home = 1});
  Send(2, 7, "first");
  EXPECT_EQ(relays_.at(2)->TakeSent(), Texts{"first"});
  relays_.at(1)->Bring(KeyNumber(7), "I am here");
  Send(2, 7, "second");
  EXPECT_EQ(relays_.at(1)->TakeSent(), Texts{"second"});
}

TEST_F(RelayRoutesTest, ReverseRoutesCanBeOff) {
  StartWith({1, 2}, {.reverse_routes = false, .home = 1});
  relays_.at(1)->Bring(KeyNumber(7), "hello");
  Send(2, 7, "answer");
  EXPECT_EQ(relays_.at(2)->TakeSent(), Texts{"answer"});
}

// spec: DERP-3: gone by failure, by a new generation, by close, by the relay's word, by us.
TEST_F(RelayRoutesTest, ReverseRoutesEnd) {
  const auto went_back = [this] {
    relays_.at(1)->TakeSent();
    Send(2, 7, "where?");
    const bool back = !relays_.at(1)->TakeSent().empty();
    return back;
  };
  const std::vector<std::pair<const char*, std::function<void()>>> ends = {
      {"failed", [this] { relays_.at(1)->Down(); }},
      {"another time up", [this] { relays_.at(1)->Down(), relays_.at(1)->Up(); }},
      {"came up anew without a word", [this] { relays_.at(1)->Up(); }},
      {"peer gone", [this] { relays_.at(1)->Gone(KeyNumber(7)); }},
      {"removed", [this] { routes_->ForgetPeer(KeyNumber(7)); }},
      {"link change", [this] { routes_->OnLinkChange("another network"); }},
  };
  for (const auto& [name, end] : ends) {
    StartWith({1, 2}, {.home = 1});
    relays_.at(1)->Bring(KeyNumber(7), "hello");
    EXPECT_TRUE(went_back()) << name;
    end();
    EXPECT_FALSE(went_back()) << name;
  }
  // Of another peer, or on another connection, "gone" says nothing.
  StartWith({1, 2, 3}, {.home = 1});
  relays_.at(1)->Bring(KeyNumber(7), "hello");
  relays_.at(1)->Gone(KeyNumber(8));
  Send(3, 9, "open");
  relays_.at(3)->Up();
  relays_.at(3)->Gone(KeyNumber(7));
  EXPECT_TRUE(went_back());
}

TEST_F(RelayRoutesTest, TheRouteIsWhereThePeerWasHeardLast) {
  StartWith({1, 2, 3}, {.home = 1});
  Send(3, 9, "open");
  relays_.at(3)->Up();
  relays_.at(3)->TakeSent();
  for (const RegionId region : {RegionId{1}, RegionId{3}, RegionId{1}}) {
    relays_.at(region)->Bring(KeyNumber(7), "here");
    Send(2, 7, "there");
    EXPECT_EQ(relays_.at(region)->TakeSent(), Texts{"there"}) << region;
  }
  // Heard again after it was gone.
  relays_.at(1)->Gone(KeyNumber(7));
  relays_.at(1)->Bring(KeyNumber(7), "back");
  Send(2, 7, "there");
  EXPECT_EQ(relays_.at(1)->TakeSent(), Texts{"there"});
}

// Keys that are no peer's leave nothing behind, and peers do so only up to a bound.
TEST_F(RelayRoutesTest, RoutesAreBounded) {
  StartWith({1, 2}, {.home = 1, .max_routes = 3});
  for (uint32_t i = 100; i < 200; ++i) relays_.at(1)->Bring(KeyNumber(i), "stranger");
  EXPECT_EQ(routes_->routes(), 0u);
  for (uint32_t i = 1; i < 50; ++i) relays_.at(1)->Bring(KeyNumber(i), "peer");
  EXPECT_EQ(routes_->routes(), 3u);
  Send(2, 40, "without a route");
  EXPECT_EQ(relays_.at(2)->TakeSent(), Texts{"without a route"});
  EXPECT_EQ(receiver_.got.size(), 149u);
  EXPECT_EQ(receiver_.ends, 149);
}

// spec: DERP-6
TEST_F(RelayRoutesTest, IdleConnectionsAreClosedTheHomeNever) {
  StartWith({1, 2, 3}, {.home = 1});
  const Instant start = clock_.Now();
  Send(2, 7, "x");
  Send(3, 8, "x");
  relays_.at(2)->Up();
  relays_.at(3)->Up();
  while (clock_.Now() < start + seconds(60)) {
    Wait(seconds(1));
    relays_.at(2)->Bring(KeyNumber(7), "what comes is no use of it");
  }
  EXPECT_EQ(relays_.regions(), (Regions{1, 2, 3}));
  Send(3, 8, "used");
  Wait(seconds(15));
  EXPECT_EQ(relays_.regions(), (Regions{1, 3}));
  for (int i = 0; i < 1000; ++i) Wait(seconds(1));
  EXPECT_EQ(relays_.regions(), (Regions{1}));
  EXPECT_NE(routes_->NextDeadline(), Instant::max());
}

// spec: DERP-7
TEST_F(RelayRoutesTest, AnotherMapClosesWhatChanged) {
  StartWith({1, 2, 3}, {.home = 1});
  Send(2, 7, "x");
  Send(3, 8, "x");
  EXPECT_FALSE(routes_->SetMap(RelayMapOf({1, 2, 3})));
  const int made = relays_.made;
  EXPECT_EQ(relays_.regions(), (Regions{1, 2, 3}));
  derp::RelayMap other = RelayMapOf({1, 2, 4});
  other.regions[2].nodes[0].host_name = "elsewhere.example";
  EXPECT_TRUE(routes_->SetMap(other));
  EXPECT_EQ(relays_.regions(), (Regions{1}));
  EXPECT_EQ(relays_.made, made);  // the home is the same connection
  EXPECT_TRUE(routes_->SetMap(std::nullopt));
  EXPECT_TRUE(relays_.regions().empty());
  EXPECT_EQ(routes_->home(), 0);
  EXPECT_FALSE(routes_->SetMap(derp::RelayMap{}));  // the same: no relays
  Send(1, 7, "x");
  EXPECT_EQ(Dropped(Drop::kTxNoRelay), 1u);
}

// spec: DERP-7: the home itself changes, or goes.
TEST_F(RelayRoutesTest, AnotherMapMovesTheHome) {
  StartWith({1, 2});
  const RegionId first = routes_->home();
  derp::RelayMap same_id = RelayMapOf({1, 2});
  same_id.regions[first].nodes[0].derp_port = 8443;
  routes_->SetMap(same_id);
  EXPECT_EQ(routes_->home(), first);
  EXPECT_EQ(relays_.made, 2);  // dialed anew
  EXPECT_TRUE(relays_.at(first)->preferred);
  const RegionId other = first == 1 ? 2 : 1;
  routes_->SetMap(RelayMapOf({other}));
  EXPECT_EQ(routes_->home(), other);
  EXPECT_EQ(relays_.regions(), (Regions{other}));
}

// spec: PEER-3
TEST_F(RelayRoutesTest, AnotherKeyOpensTheHomeAnew) {
  Start({.home = 1});
  routes_->SetMap(RelayMapOf({1, 2}));
  const PrivateKey key = PrivateKey::Generate();
  EXPECT_EQ(routes_->SetPrivateKey(key.Clone()), RelayRoutes::KeyChange::kFirst);
  Send(2, 7, "x");
  EXPECT_EQ(routes_->SetPrivateKey(key.Clone()), RelayRoutes::KeyChange::kSame);
  EXPECT_EQ(relays_.regions(), (Regions{1, 2}));
  EXPECT_EQ(relays_.made, 2);
  const PrivateKey next = PrivateKey::Generate();
  EXPECT_EQ(routes_->SetPrivateKey(next.Clone()), RelayRoutes::KeyChange::kChanged);
  EXPECT_EQ(relays_.regions(), (Regions{1}));
  EXPECT_EQ(relays_.made, 3);
  EXPECT_EQ(relays_.at(1)->key, next.Public());
  EXPECT_EQ(routes_->public_key(), next.Public());
}

TEST_F(RelayRoutesTest, ALinkChangeReconnectsAll) {
  StartWith({1, 2}, {.home = 1});
  Send(2, 7, "x");
  routes_->OnLinkChange("wlan0 went");
  EXPECT_EQ(relays_.at(1)->reconnects, Texts{"wlan0 went"});
  EXPECT_EQ(relays_.at(2)->reconnects, Texts{"wlan0 went"});
  EXPECT_EQ(relays_.made, 2);
}

// Nothing is lost without a counter, and what was lost was not sent.
TEST_F(RelayRoutesTest, WhatConnectionsDropIsCounted) {
  StartWith({1, 2}, {.home = 1});
  for (int i = 0; i < 20; ++i) Send(2, 7, "0123456789");
  FakeConnection& two = *relays_.at(2);
  two.status.counters.tx_dropped_full = 1;
  two.status.counters.tx_dropped_aged = 2;
  two.status.counters.tx_dropped_rate = 3;
  two.status.counters.tx_dropped_broken = 4;
  two.status.counters.tx_dropped_bytes = 100;
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(Dropped(Drop::kTxRelayFull), 1u);
    EXPECT_EQ(Dropped(Drop::kTxRelayAged), 2u);
    EXPECT_EQ(Dropped(Drop::kTxRelayRate), 3u);
    EXPECT_EQ(Dropped(Drop::kTxRelayBroken), 4u);
    EXPECT_EQ(Relayed().tx_packets, 10u);
    EXPECT_EQ(Relayed().tx_bytes, 100u);
  }
  two.largest = 5;
  Send(2, 7, "0123456789abc", 4);
  Send(2, 7, "0123456789");
  EXPECT_EQ(Dropped(Drop::kTxTooLarge), 1u);
  EXPECT_EQ(Relayed().tx_packets, 14u);
  // What still waits when it is closed, and was dropped since we last looked.
  two.status.queued_packets = 3;
  two.status.queued_bytes = 3 * (37 + 10);
  two.status.counters.tx_dropped_full = 2;
  two.status.counters.tx_dropped_bytes = 110;
  routes_->SetMap(RelayMapOf({1}));
  EXPECT_EQ(Dropped(Drop::kTxRelayBroken), 7u);
  EXPECT_EQ(Dropped(Drop::kTxRelayFull), 2u);
  EXPECT_EQ(Relayed().tx_packets, 10u);
  EXPECT_EQ(Relayed().tx_bytes, 73u);
}

// spec: PEER-4
TEST_F(RelayRoutesTest, StatusSaysWhatThereIs) {
  StartWith({1, 2}, {.home = 1});
  relays_.at(1)->status.since = clock_.Now();
  Send(2, 7, "x");
  relays_.at(2)->status.since = clock_.Now();
  relays_.at(2)->Down("connection refused");
  relays_.at(1)->events->OnHealth(*relays_.at(1), "another connection has this key");
  relays_.at(1)->status.queued_bytes = 5;
  clock_.Advance(seconds(9));
  Send(2, 7, "y");
  clock_.Advance(seconds(1));
  std::vector<RelayStatus> status = routes_->Status();
  ASSERT_EQ(status.size(), 2u);
  EXPECT_EQ(status[0].region, 1);
  EXPECT_TRUE(status[0].home && status[0].up);
  EXPECT_EQ(status[0].node, "1a");
  EXPECT_EQ(status[0].age, seconds(10));
  EXPECT_EQ(status[0].idle, seconds(10));
  EXPECT_EQ(status[0].health, "another connection has this key");
  EXPECT_EQ(status[0].queued_bytes, 5u);
  EXPECT_FALSE(status[1].home || status[1].up);
  EXPECT_EQ(status[1].last_error, "connection refused");
  EXPECT_EQ(status[1].idle, seconds(1));
  EXPECT_EQ(status[1].tx_packets, 2u);
  relays_.at(1)->events->OnHealth(*relays_.at(1), "");
  EXPECT_EQ(routes_->Status()[0].health, "");
  EXPECT_EQ(routes_->LastHeard(2), Instant::min());
  relays_.at(1)->Bring(KeyNumber(7), "x");
  EXPECT_EQ(routes_->LastHeard(1), clock_.Now());
}

// spec: DERP-8: once per change, in the words of the rule.
TEST_F(RelayRoutesTest, ChangesOfAPeersRelayAreLogged) {
  Texts lines;
  class Sink final : public spdlog::sinks::sink {
   public:
    explicit Sink(Texts* lines) : lines_(*lines) {}
    void log(const spdlog::details::log_msg& message) override {
      lines_.emplace_back(message.payload.data(), message.payload.size());
    }
    void flush() override {}
    void set_pattern(const std::string&) override {}
    void set_formatter(std::unique_ptr<spdlog::formatter>) override {}

   private:
    Texts& lines_;
  };
  StartWith({1, 2, 3}, {.home = 1});
  const auto sink = std::make_shared<Sink>(&lines);
  Log().sinks().push_back(sink);
  const auto said = [&lines](const char* what) {
    const bool once = lines.size() == 1 && lines[0].find(what) != std::string::npos;
    EXPECT_TRUE(once) << what << ": " << lines.size() << (lines.empty() ? "" : lines[0]);
    lines.clear();
  };
  for (int i = 0; i < 3; ++i) Send(1, 7, "x");
  said("(shared home)");
  for (int i = 0; i < 3; ++i) Send(2, 8, "x");
  said("(their home)");
  relays_.at(1)->Bring(KeyNumber(9), "x");
  for (int i = 0; i < 3; ++i) Send(3, 9, "x");
  said("(our home)");
  relays_.at(2)->Up();
  lines.clear();
  clock_.Advance(kRelayLogInterval);
  relays_.at(2)->Bring(KeyNumber(9), "x");
  for (int i = 0; i < 3; ++i) Send(3, 9, "x");
  said("region 2 (alt), before over 1");
  // Not for every packet of a peer that is heard here and there.
  for (int i = 0; i < 100; ++i) {
    relays_.at(i % 2 == 0 ? 1 : 2)->Bring(KeyNumber(9), "x");
    Send(3, 9, "x");
  }
  EXPECT_EQ(lines.size(), 0u);
  Log().sinks().pop_back();
}

}  // namespace
}  // namespace ringsock
