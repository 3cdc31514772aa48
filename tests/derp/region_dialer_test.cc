// Which node and which address a region is dialed at, and how long that may take.
#include "derp/region_dialer.h"

#include "tests/derp/client_world.h"

namespace ringsock::derp {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::HasSubstr;

class RegionDialerTest : public ClientWorldTest, public DialerEvents {
 protected:
  static IpAddress V4(uint8_t last) { return IpAddress::V4(198, 51, 100, last); }
  static IpAddress V6(uint8_t last) {
    IpAddress ip = IpAddress::Parse("2001:db8::").value();
    ip.bytes[15] = last;
    return ip;
  }
  // Accepts connections on port 443 of its addresses and does nothing with them.
  struct Host final : io::ListenHandler, io::StreamHandler {
    Host(io::SimNetwork* net, const std::vector<IpAddress>& addresses)
        : world(net, "host " + addresses[0].ToString(), addresses) {
      for (const IpAddress& ip : addresses) {
        EXPECT_TRUE(world.loop->streams()->Listen({.bind = {ip, 443, 0}}, this).ok());
      }
    }
    io::StreamHandler* OnAccept(io::StreamId, io::StreamId, const Endpoint&) override {
      ++accepts;
      return this;
    }
    void OnConnect(io::StreamId) override {}
    void OnReceive(io::StreamId, std::span<std::byte>) override {}
    void OnWritable(io::StreamId) override {}
    void OnEnd(io::StreamId id) override { world.loop->streams()->Close(id); }
    void OnClose(io::StreamId, const absl::Status&) override { ++resets; }
    WorldHost world;
    int accepts = 0;
    int resets = 0;
  };
  void SetUp() override { net.AddAddress(client.id, V6(99)); }

  Host& AddHost(const std::vector<IpAddress>& addresses) {
    return *hosts.emplace_back(std::make_unique<Host>(&net, addresses));
  }
  // Nobody answers there, and nobody says so.
  void AddSilent(const std::vector<IpAddress>& addresses) {
    Host& host = AddHost(addresses);
    net.SetPartition(client.id, host.world.id, true);
  }
  // A node by name: the table of the fake DNS says where it is.
  void AddNode(const std::string& name, const std::vector<IpAddress>& addresses) {
    RelayNode& node = region.nodes.emplace_back();
    node.name = name;
    node.host_name = name + ".test";
    if (!addresses.empty()) resolver.Set(node.host_name, addresses);
  }
  void Dial() {
    dialer.emplace(&context, &region, this);
    begin = net.now();
    dialer->Start();
    EXPECT_EQ(result, "") << "not from inside the call";
  }
  // Milliseconds since Dial().
  int64_t took() const { return (done - begin) / milliseconds(1); }

  void OnDialed(std::unique_ptr<RelayTransport> dialed) override {
    EXPECT_EQ(result, "");
    transport = std::move(dialed);
    result = dialer->node()->name + " " + transport->remote().ToString();
    done = net.now();
  }
  void OnDialFailed(const absl::Status& why) override {
    EXPECT_EQ(result, "");
    result = why.ToString();
    done = net.now();
  }

  DialContext context{.streams = client.loop->streams(),
                      .clock = &client.loop->clock(),
                      .timers = &client.timers,
                      .resolver = &resolver,
                      .prefer_ipv6 = false,
                      .device = {}};
  RelayRegion region{.region_id = 1, .region_code = "test", .region_name = {}, .nodes = {}};
  std::vector<std::unique_ptr<Host>> hosts;
  std::optional<RegionDialer> dialer;
  std::unique_ptr<RelayTransport> transport;
  std::string result;
  Instant begin{}, done{};
};

TEST_F(RegionDialerTest, TheFirstNodeThatAnswers) {
  AddHost({V4(1)});
  AddHost({V4(2)});
  AddNode("a", {V4(1)});
  AddNode("b", {V4(2)});
  Dial();
  Run(seconds(1));
  EXPECT_EQ(result, "a 198.51.100.1:443");
  EXPECT_EQ(took(), 20);
  EXPECT_EQ(dialer->ideal_node(), "");
  // Its login failed: the next one.
  transport.reset();
  result.clear();
  dialer->Next(absl::InternalError("no login"));
  Run(seconds(1));
  EXPECT_EQ(result, "b 198.51.100.2:443");
  EXPECT_EQ(dialer->ideal_node(), "a");
  transport.reset();
  result.clear();
  dialer->Next(absl::InternalError("nor here"));
  Run(seconds(1));
  EXPECT_EQ(result, "UNAVAILABLE: region 1 (test): no login; nor here");
}

TEST_F(RegionDialerTest, StunOnlyNodesAreLeftOut) {
  AddHost({V4(1)});
  AddHost({V4(2)});
  AddNode("a", {V4(1)});
  AddNode("b", {V4(2)});
  region.nodes[0].stun_only = true;
  Dial();
  Run(seconds(1));
  EXPECT_EQ(result, "b 198.51.100.2:443");
  EXPECT_EQ(dialer->ideal_node(), "") << "the first with a relay is the ideal one";
  region.nodes[1].stun_only = true;
  result.clear();
  Dial();
  Run(seconds(1));
  EXPECT_EQ(result, "UNAVAILABLE: region 1 (test): no node with a relay");
}

TEST_F(RegionDialerTest, ADeadNodeCosts1500MsARefusingOneNothing) {
  AddSilent({V4(1)});
  net.AddHost("refuses", {V4(2)});
  AddHost({V4(3)});
  AddNode("silent", {V4(1)});
  AddNode("refuses", {V4(2)});
  AddNode("good", {V4(3)});
  Dial();
  Run(seconds(3));
  EXPECT_EQ(result, "good 198.51.100.3:443");
  EXPECT_EQ(took(), 1500 + 10 + 20);
}

TEST_F(RegionDialerTest, TenSecondsInAll) {
  AddSilent({V4(1)});
  for (int i = 0; i < 20; ++i) AddNode("n" + std::to_string(i), {V4(1)});
  Dial();
  Run(seconds(20));
  EXPECT_EQ(took(), 10'000);
  EXPECT_THAT(result, HasSubstr("DEADLINE_EXCEEDED: region 1 (test): not connected within 10 s"));
  EXPECT_THAT(result, HasSubstr("node n0: IPv4: TCP 198.51.100.1:443: connect: Connection timed"));
  EXPECT_THAT(result, HasSubstr("node n5"));
}

TEST_F(RegionDialerTest, FamiliesRaceAndTheFirstConnectionWins) {
  Host& host = AddHost({V4(1), V6(1)});
  AddNode("a", {V4(1), V6(1)});
  Dial();
  Run(seconds(1));
  EXPECT_THAT(result, testing::AnyOf("a 198.51.100.1:443", "a [2001:db8::1]:443"));
  EXPECT_EQ(took(), 20);
  EXPECT_EQ(host.accepts, 2);
  EXPECT_EQ(host.resets, 1) << "the loser";
}

TEST_F(RegionDialerTest, ASilentFamilyDoesNotHoldUpTheOther) {
  AddSilent({V6(1)});
  AddHost({V4(1)});
  AddNode("a", {V4(1), V6(1)});
  Dial();
  Run(seconds(1));
  EXPECT_EQ(result, "a 198.51.100.1:443");
  EXPECT_EQ(took(), 20);
  // The other way round.
  AddSilent({V4(2)});
  AddHost({V6(2)});
  region.nodes.clear();
  AddNode("b", {V4(2), V6(2)});
  result.clear();
  Dial();
  Run(seconds(1));
  EXPECT_EQ(result, "b [2001:db8::2]:443");
  EXPECT_EQ(took(), 20);
}

TEST_F(RegionDialerTest, APreferredFamilyHasAHeadStart) {
  context.prefer_ipv6 = true;
  Host& host = AddHost({V4(1), V6(1)});
  AddNode("a", {V4(1), V6(1)});
  Dial();
  Run(seconds(1));
  EXPECT_EQ(result, "a [2001:db8::1]:443");
  EXPECT_EQ(host.accepts, 1) << "the other was not even tried";
  // Of 200 ms where IPv6 is silent, of none where it fails.
  AddSilent({V6(2)});
  AddHost({V4(2)});
  region.nodes.clear();
  AddNode("b", {V4(2), V6(2)});
  result.clear();
  Dial();
  Run(seconds(1));
  EXPECT_EQ(result, "b 198.51.100.2:443");
  EXPECT_EQ(took(), 220);
  region.nodes.clear();
  AddNode("c", {V4(2)});
  result.clear();
  Dial();
  Run(seconds(1));
  EXPECT_EQ(result, "c 198.51.100.2:443");
  EXPECT_EQ(took(), 20);
}

TEST_F(RegionDialerTest, AHostWithoutIPv6) {
  net.RemoveAddress(client.id, V6(99));
  context.prefer_ipv6 = true;
  AddHost({V4(1), V6(1)});
  AddNode("a", {V4(1), V6(1)});
  Dial();
  Run(seconds(1));
  EXPECT_EQ(result, "a 198.51.100.1:443");
  EXPECT_EQ(took(), 20) << "no head start for what fails";
}

TEST_F(RegionDialerTest, ThousandsOfNodesAreAShortError) {
  for (int i = 0; i < 5000; ++i) AddNode("n" + std::to_string(i), {});
  Dial();
  Run(seconds(11));
  EXPECT_THAT(result, HasSubstr("and so on"));
  EXPECT_LT(result.size(), 3000u);
}

TEST_F(RegionDialerTest, TheMapSaysWhichFamiliesAndAddresses) {
  AddHost({V4(1), V6(1)});
  AddNode("a", {V4(9), V6(9)});
  region.nodes[0].ipv4 = "198.51.100.1";
  region.nodes[0].ipv6 = "none";
  Dial();
  Run(seconds(1));
  EXPECT_EQ(result, "a 198.51.100.1:443");
  EXPECT_EQ(resolver.requests, 0u);
  region.nodes[0].ipv4 = "none";
  region.nodes[0].ipv6 = "2001:db8::1";
  result.clear();
  Dial();
  Run(seconds(1));
  EXPECT_EQ(result, "a [2001:db8::1]:443");
  region.nodes[0].ipv6 = "none";
  result.clear();
  Dial();
  Run(seconds(1));
  EXPECT_EQ(result,
            "UNAVAILABLE: region 1 (test): node a: IPv4: off in the relay map; IPv6: off in the "
            "relay map");
  // An address for a name needs no DNS.
  region.nodes.clear();
  AddNode("b", {});
  region.nodes[0].host_name = "198.51.100.1";
  result.clear();
  Dial();
  Run(seconds(1));
  EXPECT_EQ(result, "b 198.51.100.1:443");
  EXPECT_EQ(resolver.requests, 0u);
}

TEST_F(RegionDialerTest, AllAddressesOfANameAreTried) {
  AddSilent({V4(1)});
  net.AddHost("refuses", {V4(2)});
  AddHost({V4(3)});
  AddNode("a", {V4(1), V4(2), V4(3)});
  Dial();
  Run(seconds(1));
  EXPECT_EQ(result, "a 198.51.100.3:443");
  EXPECT_EQ(took(), 250 + 10 + 20);
}

TEST_F(RegionDialerTest, WhenTheDnsFails) {
  AddHost({V4(1)});
  AddNode("unknown", {});
  AddNode("good", {V4(1)});
  resolver.delay = milliseconds(30);
  Dial();
  Run(seconds(1));
  EXPECT_EQ(result, "good 198.51.100.1:443");
  EXPECT_EQ(took(), 30 + 30 + 20);
  result.clear();
  resolver.down = true;
  Dial();
  Run(seconds(1));
  EXPECT_THAT(result, HasSubstr("node good: IPv4: DNS: no answer for good.test; IPv6: DNS"));
  // A DNS that says nothing costs the node's time.
  result.clear();
  resolver.silent = true;
  Dial();
  Run(seconds(4));
  EXPECT_EQ(took(), 3000);
  EXPECT_THAT(result, HasSubstr("the DNS has not answered for good.test"));
}

TEST_F(RegionDialerTest, AnEndedDialerLeavesNothingBehind) {
  AddSilent({V4(1)});
  AddNode("a", {V4(1), V4(2), V6(3)});
  resolver.delay = milliseconds(5);
  for (const int wait : {0, 3, 50, 300}) {
    Dial();
    Run(milliseconds(wait));
    dialer.reset();
    EXPECT_EQ(client.timers.size(), 0u) << wait;
    EXPECT_EQ(resolver.running(), 0u);
    Run(seconds(1));
    EXPECT_EQ(client.loop->streams()->totals().open, 0u);
  }
  EXPECT_EQ(result, "");
}

}  // namespace
}  // namespace ringsock::derp
