// What a relay map means for a netcheck.
#include "core/probe_map.h"

#include <gtest/gtest.h>

namespace ringsock {
namespace {

derp::RelayMap Map(const std::string& nodes) {
  const auto map = derp::ParseRelayMap(
      R"({"Regions": {"7": {"RegionID": 7, "Avoid": true, "Nodes": [)" + nodes + "]}}}", nullptr);
  EXPECT_TRUE(map.ok()) << map.status();
  return *map;
}

stun::ProbeNode Node(const std::string& json) {
  const stun::ProbeMap map = ToProbeMap(Map(json));
  EXPECT_EQ(map.size(), 1u);
  EXPECT_EQ(map[0].nodes.size(), 1u);
  return map[0].nodes[0];
}

const IpAddress kV4 = IpAddress::V4(192, 0, 2, 1);
const IpAddress kV6 = IpAddress::Parse("2001:db8::1").value();

// spec: NC-2, NC-11
TEST(ProbeMapTest, AddressesAreTakenFromTheMapAndNamesLeftToDns) {
  const auto both = Node(R"({"HostName": "a.test", "IPv4": "192.0.2.1", "IPv6": "2001:db8::1"})");
  EXPECT_EQ(both.v4.ip, kV4);
  EXPECT_EQ(both.v6.ip, kV6);
  EXPECT_TRUE(both.HasStun(stun::Family::kV4));
  EXPECT_TRUE(both.HasStun(stun::Family::kV6));
  EXPECT_EQ(both.host_name, "a.test");
  EXPECT_EQ(both.name, "a.test") << "no other";

  const auto dns = Node(R"({"Name": "7a", "HostName": "a.test"})");
  EXPECT_EQ(dns.name, "7a");
  EXPECT_TRUE(dns.v4.enabled);
  EXPECT_TRUE(dns.v6.enabled);
  EXPECT_FALSE(dns.v4.ip.has_value());
  EXPECT_FALSE(dns.v6.ip.has_value());
}

TEST(ProbeMapTest, AFamilyThatIsSetButHasNoAddressIsOff) {
  const auto none = Node(R"({"HostName": "a.test", "IPv4": "192.0.2.1", "IPv6": "none"})");
  EXPECT_TRUE(none.v4.enabled);
  EXPECT_FALSE(none.v6.enabled);
  const auto crossed = Node(R"({"HostName": "a.test", "IPv4": "2001:db8::1"})");
  EXPECT_FALSE(crossed.v4.enabled);
  EXPECT_TRUE(crossed.v6.enabled);
}

TEST(ProbeMapTest, WhatIsNoNameIsNotAskedOfDns) {
  const auto v4 = Node(R"({"HostName": "192.0.2.1"})");
  EXPECT_EQ(v4.v4.ip, kV4);
  EXPECT_FALSE(v4.v6.enabled);
  const auto v6 = Node(R"({"HostName": "2001:db8::1"})");
  EXPECT_FALSE(v6.v4.enabled);
  EXPECT_EQ(v6.v6.ip, kV6);
  // The address field comes before the name.
  const auto other = Node(R"({"HostName": "192.0.2.9", "IPv4": "192.0.2.1"})");
  EXPECT_EQ(other.v4.ip, kV4);
  const auto nameless = Node(R"({"IPv4": "192.0.2.1"})");
  EXPECT_EQ(nameless.v4.ip, kV4);
  EXPECT_FALSE(nameless.v6.enabled);
}

TEST(ProbeMapTest, PortsAndKinds) {
  EXPECT_EQ(Node(R"({"HostName": "a.test"})").stun_port, 3478);
  EXPECT_EQ(Node(R"({"HostName": "a.test", "STUNPort": 53})").stun_port, 53);
  const auto off = Node(R"({"HostName": "a.test", "STUNPort": -1})");
  EXPECT_FALSE(off.stun_port.has_value());
  EXPECT_FALSE(off.HasStun(stun::Family::kV4));
  EXPECT_FALSE(off.stun_only);
  EXPECT_TRUE(Node(R"({"HostName": "a.test", "STUNOnly": true})").stun_only);
  const auto map = ToProbeMap(Map(R"({"HostName": "a.test"}, {"HostName": "b.test"})"));
  EXPECT_EQ(map[0].id, 7);
  EXPECT_TRUE(map[0].avoid);
  EXPECT_EQ(map[0].nodes[1].host_name, "b.test");
  EXPECT_TRUE(ToProbeMap({}).empty());
}

// spec: NC-9
TEST(ProbeMapTest, FindsTheRelayBehindAProbe) {
  const derp::RelayMap map = Map(
      R"({"Name": "7s", "HostName": "s.test", "STUNOnly": true},
         {"Name": "7a", "HostName": "a.test"}, {"HostName": "b.test"})");
  const auto nodes = ToProbeMap(map)[0].nodes;
  EXPECT_EQ(FindProbedRelay(map, 7, nodes[0]), nullptr) << "STUN only";
  EXPECT_EQ(FindProbedRelay(map, 7, nodes[1]), &map.Find(7)->nodes[1]);
  EXPECT_EQ(FindProbedRelay(map, 7, nodes[2]), &map.Find(7)->nodes[2]);
  EXPECT_EQ(FindProbedRelay(map, 8, nodes[1]), nullptr);
  // Another map by now.
  EXPECT_EQ(FindProbedRelay(Map(R"({"Name": "7a", "HostName": "c.test"})"), 7, nodes[1]), nullptr);
}

}  // namespace
}  // namespace ringsock
