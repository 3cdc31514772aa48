// The kinds of NAT boxes: mapping, filtering, time-outs, hairpinning, and boxes behind boxes.
#include <gtest/gtest.h>

#include <chrono>
#include <string>

#include "io/sim_network.h"
#include "tests/io/sim_node.h"

namespace ringsock::io {
namespace {

using std::chrono::seconds;

// a is behind a box; b (two ports) and c are outside. a sends to b's first port; which of the
// others may answer tells the kind.
struct NatCase {
  NatKind kind;
  bool other_port;    // b's second port gets through
  bool other_host;    // c gets through
  bool same_mapping;  // b and c see the same source
};

class SimNatTest : public SimNetworkTest, public testing::WithParamInterface<NatCase> {};

TEST_P(SimNatTest, MapsAndFiltersAsItsKind) {
  const NatCase& expect = GetParam();
  const IpAddress outside = V4(203, 0, 113, 1);
  const RealmId home = net.AddNat({.kind = expect.kind}, {outside});
  Node a(&net, net.AddHost("a", {V4(192, 168, 1, 2)}, home), 1000);
  const HostId host_b = net.AddHost("b", {at_b.ip});
  Node b(&net, host_b, 2000);
  Node b2(&net, host_b, 2001);
  Node c(&net, net.AddHost("c", {at_c.ip}), 3000);

  c.Send({outside, 1000, 0}, "uninvited");
  net.RunUntilIdle();
  EXPECT_EQ(a.Text(), "");

  a.Send(at_b, "out");
  net.RunUntilIdle();
  ASSERT_EQ(b.Text(), "out|");
  const Endpoint mapped = b.LastFrom();
  EXPECT_EQ(mapped.ip, outside);
  b.Send(mapped, "b");
  b2.Send(mapped, "b2");
  c.Send(mapped, "c");
  net.RunUntilIdle();
  EXPECT_EQ(a.Text(),
            std::string("b|") + (expect.other_port ? "b2|" : "") + (expect.other_host ? "c|" : ""));
  a.Send(at_c, "out");
  net.RunUntilIdle();
  EXPECT_EQ(c.LastFrom() == mapped, expect.same_mapping);
  EXPECT_EQ(net.nat(home).mappings(), expect.same_mapping ? 1u : 2u);
}

INSTANTIATE_TEST_SUITE_P(Kinds, SimNatTest,
                         testing::Values(NatCase{NatKind::kFullCone, true, true, true},
                                         NatCase{NatKind::kAddressRestricted, true, false, true},
                                         NatCase{NatKind::kPortRestricted, false, false, true},
                                         NatCase{NatKind::kSymmetric, false, false, false}));

TEST_F(SimNetworkTest, MappingsTimeOutUnlessUsed) {
  const RealmId home = net.AddNat({.timeout = seconds(30)}, {V4(203, 0, 113, 1)});
  Node a(&net, net.AddHost("a", {V4(192, 168, 1, 2)}, home), 1000);
  Node b(&net, net.AddHost("b", {at_b.ip}), 2000);
  a.Send(at_b, "1");
  net.RunFor(seconds(29));
  a.Send(at_b, "2");
  net.RunFor(seconds(29));
  b.Send(b.LastFrom(), "in time");
  net.RunFor(seconds(1));
  b.Send(b.LastFrom(), "too late");  // what comes in does not refresh
  net.RunFor(seconds(1));
  EXPECT_EQ(a.Text(), "in time|");
  EXPECT_EQ(net.trace().count(SimEvent::kNatFiltered), 1u);
}

TEST_F(SimNetworkTest, HairpinOnlyWhereTheBoxHasIt) {
  for (const bool hairpin : {false, true}) {
    const IpAddress outside = V4(203, 0, 113, hairpin ? 1 : 2);
    const RealmId home = net.AddNat({.kind = NatKind::kFullCone, .hairpin = hairpin}, {outside});
    Node a(&net, net.AddHost("a", {V4(192, 168, 1, 2)}, home), 1000);
    Node a2(&net, net.AddHost("a2", {V4(192, 168, 1, 3)}, home), 1001);
    a2.Send(at_b, "opens the mapping");
    a.Send({outside, 1001, 0}, "round the bend");
    net.RunUntilIdle();
    EXPECT_EQ(a2.Text(), hairpin ? "round the bend|" : "");
    EXPECT_EQ(a2.LastFrom().ip == outside, hairpin);
  }
}

TEST_F(SimNetworkTest, TwoHostsBehindTwoBoxesPunchThroughAndNestedBoxesWork) {
  const RealmId carrier = net.AddNat({}, {V4(203, 0, 113, 1)});
  const RealmId home = net.AddNat({}, {V4(100, 64, 0, 5)}, carrier);
  const RealmId office = net.AddNat({}, {V4(203, 0, 113, 2)});
  Node a(&net, net.AddHost("a", {V4(192, 168, 1, 2)}, home), 1000);
  Node b(&net, net.AddHost("b", {V4(192, 168, 1, 2)}, office), 2000);
  const Endpoint a_outside{V4(203, 0, 113, 1), 1000, 0};
  const Endpoint b_outside{V4(203, 0, 113, 2), 2000, 0};
  a.Send(b_outside, "1");  // filtered at b's box, but opens a's
  net.RunUntilIdle();
  b.Send(a_outside, "2");
  net.RunUntilIdle();
  a.Send(b_outside, "3");
  net.RunUntilIdle();
  EXPECT_EQ(a.Text(), "2|");
  EXPECT_EQ(b.Text(), "3|");
}

TEST_F(SimNetworkTest, MappingsAreBoundedAndARestartForgetsThem) {
  const RealmId home = net.AddNat({.max_mappings = 3}, {V4(203, 0, 113, 1)});
  const HostId host = net.AddHost("a", {V4(192, 168, 1, 2)}, home);
  Node b(&net, net.AddHost("b", {at_b.ip}), 2000);
  for (uint16_t port = 1000; port < 1005; ++port) Node(&net, host, port).Send(at_b, "x");
  net.RunUntilIdle();
  EXPECT_EQ(b.packets.size(), 3u);
  EXPECT_EQ(net.trace().count(SimEvent::kNatExhausted), 2u);
  net.nat(home).Restart();
  b.Send(b.LastFrom(), "x");
  net.RunUntilIdle();
  EXPECT_EQ(net.trace().count(SimEvent::kNatFiltered), 1u);
}

TEST_F(SimNetworkTest, Ipv6PassesBesideAnIpv4Box) {
  const RealmId home = net.AddNat({}, {V4(203, 0, 113, 1)});
  const IpAddress v6 = IpAddress::Parse("2001:db8::1").value();
  const IpAddress v6_b = IpAddress::Parse("2001:db8::2").value();
  const HostId host = net.AddHost("a", {V4(192, 168, 1, 2)}, home);
  net.AddAddress(host, v6);
  Node a(&net, host, 1000, {}, IpAddress::AnyV6());
  Node b(&net, net.AddHost("b", {v6_b}), 2000, {}, IpAddress::AnyV6());
  a.Send({v6_b, 2000, 0}, "six");
  a.Send(at_b, "four");  // an IPv6 socket is IPv6 only
  net.RunUntilIdle();
  EXPECT_EQ(b.Text(), "six|");
  EXPECT_EQ(b.LastFrom(), (Endpoint{v6, 1000, 0}));
  EXPECT_EQ(a.failures, std::vector<int>{ENETUNREACH});
}

}  // namespace
}  // namespace ringsock::io
