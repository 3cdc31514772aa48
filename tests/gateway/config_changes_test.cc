// What is different between two configurations, and what of it takes a restart.
#include "gateway/config_changes.h"

#include <functional>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/gateway/wireguard_messages.h"

namespace ringsock::gateway {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Pair;

Endpoint At(const std::string& text) { return *Endpoint::Parse(text); }

PeerConfig Peer(char digit, const std::string& name, const std::string& endpoint) {
  return {.key = KeyOf(digit), .name = name, .endpoints = {At(endpoint)}};
}

TEST(ComparePeersTest, ByKeyWhateverTheOrder) {
  const std::vector<PeerConfig> list = {
      Peer('1', "a", "192.0.2.1:1"), Peer('2', "b", "192.0.2.2:1"), Peer('3', "c", "192.0.2.3:1"),
      Peer('4', "d", "192.0.2.4:1")};
  PeerRoster roster(list);
  EXPECT_FALSE(ComparePeers(roster, list).any());
  EXPECT_FALSE(ComparePeers(roster, {list.rbegin(), list.rend()}).any());

  const std::vector<PeerConfig> next = {Peer('5', "e", "192.0.2.5:1"),
                                        Peer('4', "d", "192.0.2.9:1"),
                                        Peer('2', "B", "192.0.2.2:1"), list[0]};
  const PeerChanges changes = ComparePeers(roster, next);
  EXPECT_THAT(changes.added, ElementsAre(0u));
  EXPECT_THAT(changes.removed, ElementsAre(2u));
  EXPECT_THAT(changes.moved, ElementsAre(Pair(3u, 1u)));
  EXPECT_THAT(changes.renamed, ElementsAre(Pair(1u, 2u)));
  EXPECT_EQ(DescribeChanges(changes),
            "peers: 1 added, 1 removed, 1 with other endpoints, 1 renamed");

  // One that went and comes back is added, and one that has gone is not removed again.
  roster.there[2] = false;
  EXPECT_THAT(ComparePeers(roster, list).added, ElementsAre(2u));
  EXPECT_THAT(ComparePeers(roster, {list[0], list[1], list[3]}).removed, IsEmpty());
}

TEST(CheckReloadableTest, WhatTakesARestartIsNamed) {
  struct Case {
    const char* name;
    std::function<void(Config*)> change;
  };
  const Case cases[] = {
      {"wireguard.port", [](Config* c) { c->wireguard_port = 9; }},
      {"wireguard.address", [](Config* c) { c->wireguard_address = IpAddress::V4(127, 0, 0, 9); }},
      {"wireguard.interface", [](Config* c) { c->wireguard_interface = "wg7"; }},
      {"listen_port", [](Config* c) { c->listen_port = 9; }},
      {"local_port", [](Config* c) { c->local_port = 9; }},
      {"loopback_range", [](Config* c) { c->range.size /= 2; }},
      {"derp_home", [](Config* c) { c->derp_home = 9; }},
      {"derp_roots_file", [](Config* c) { c->derp_roots_file = "x"; }},
      {"engine.shards", [](Config* c) { c->shards = 9; }},
      {"engine.pin_threads", [](Config* c) { c->pin_threads = false; }},
      {"engine.steering", [](Config* c) { c->steering = io::Steering::kSource; }},
      {"engine.backend", [](Config* c) { c->io.backend = io::Backend::kMmsg; }},
      {"engine.gso", [](Config* c) { c->io.gso = false; }},
      {"engine.gro", [](Config* c) { c->io.gro = false; }},
      {"engine.zero_copy", [](Config* c) { c->io.zero_copy = false; }},
      {"engine.spin_us", [](Config* c) { c->io.spin = std::chrono::microseconds(9); }},
      {"engine.rx_buffers", [](Config* c) { c->io.rx_buffers = 9; }},
      {"engine.rx_batch", [](Config* c) { c->io.rx_batch = 9; }},
      {"engine.tx_queue", [](Config* c) { c->io.tx_queue = 9; }},
      {"engine.tx_slabs", [](Config* c) { c->io.tx_slabs = 9; }},
      {"engine.socket_buffer", [](Config* c) { c->socket_buffer = 9; }},
      {"engine.ipv4", [](Config* c) { c->ipv4 = false; }},
      {"engine.ipv6", [](Config* c) { c->ipv6 = false; }},
      {"engine.relay_queue_bytes", [](Config* c) { c->relay_queue.bytes = 9; }},
      {"engine.relay_queue_ms", [](Config* c) { c->relay_queue.age = std::chrono::seconds(9); }},
      {"engine.netcheck", [](Config* c) { c->netcheck = false; }},
      {"engine.port_mapping", [](Config* c) { c->port_mapping = true; }},
      {"engine.bind_ipv4", [](Config* c) { c->bind_v4 = IpAddress::V4(127, 0, 0, 9); }},
      {"engine.bind_ipv6", [](Config* c) { c->bind_v6 = *IpAddress::Parse("::1"); }},
  };
  const Config now;
  EXPECT_TRUE(CheckReloadable(now, now).ok());
  for (const Case& one : cases) {
    Config next;
    one.change(&next);
    const absl::Status status = CheckReloadable(now, next);
    EXPECT_EQ(status.message(),
              std::string(one.name) + ": cannot change while running; a restart is needed");
  }
  Config two;
  two.shards = 2;
  two.local_port = 2;
  EXPECT_THAT(std::string(CheckReloadable(now, two).message()),
              HasSubstr("local_port, engine.shards: cannot"));
}

TEST(CheckReloadableTest, WhatCanChangeIsDescribed) {
  const Config now;
  EXPECT_EQ(DescribeChanges(now, now), "");
  Config next;
  next.log_level = "debug";
  next.derp_map.emplace();
  next.private_key = std::make_shared<const PrivateKey>(*PrivateKey::Parse(std::string(64, '5')));
  next.wireguard_key = next.private_key->Public();
  next.endpoints_file = "x";
  next.endpoints_command = {"x"};
  EXPECT_TRUE(CheckReloadable(now, next).ok());
  EXPECT_EQ(DescribeChanges(now, next),
            "the key of private_key_file, derp_map, endpoints_file, endpoints_command, log_level");
  Config same = next;
  same.private_key = std::make_shared<const PrivateKey>(*PrivateKey::Parse(std::string(64, '5')));
  EXPECT_EQ(DescribeChanges(next, same), "");
}

}  // namespace
}  // namespace ringsock::gateway
