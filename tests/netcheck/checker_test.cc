// A checker on a simulated network, with STUN servers of both dialects and relays: what it finds
// behind each kind of NAT, where UDP is blocked, and where names do not resolve.
#include "netcheck/checker.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "io/sim_network.h"
#include "stun/server.h"
#include "tests/derp/fake_resolver.h"
#include "tests/derp/relay_fixture.h"
#include "tests/io/sim_node.h"

namespace ringsock::netcheck {
namespace {

using io::V4;
using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Pair;
using testing::UnorderedElementsAre;

IpAddress V6(uint8_t last) {
  return IpAddress::V6({0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last});
}

// A host of the map: a STUN server and a relay of plain HTTP.
struct Server {
  Server(io::SimNetwork* net, RegionId id, stun::Dialect dialect)
      : host(net->AddHost(
            "server" + std::to_string(id),
            {V4(198, 51, 100, static_cast<uint8_t>(id)), V6(static_cast<uint8_t>(id))})),
        loop(net->CreateLoop(host, {})),
        relay(loop.get(), &timers,
              {.bind = {V4(198, 51, 100, static_cast<uint8_t>(id)), 443, 0},
               .tls = nullptr,
               .info = {}}),
        stun(loop.get(), dialect) {
    EXPECT_TRUE(stun.Open({IpAddress::AnyV4(), stun::kDefaultPort, 0}).ok());
    EXPECT_TRUE(stun.Open({IpAddress::AnyV6(), stun::kDefaultPort, 0}).ok());
    net->SetRunner(loop.get(), [this, net] {
      loop->Poll(net->now());
      timers.RunDue(net->now());
      return timers.NextDeadline();
    });
    // Round trips of 10, 20, ... ms.
    net->uplink(host).options.delay = milliseconds(10 * id);
  }
  const io::HostId host;
  const std::unique_ptr<io::SimLoop> loop;
  TimerQueue timers;
  derp::RelayFixture relay;
  stun::Server stun;
};

class CheckerTest : public testing::Test {
 protected:
  CheckerTest() {
    for (RegionId id = 1; id <= 3; ++id) {
      servers.push_back(std::make_unique<Server>(
          &net, id, id == 2 ? stun::Dialect::kReference : stun::Dialect::kRfc));
      derp::RelayRegion& region = map.regions[id];
      region.region_id = id;
      region.nodes = {servers.back()->relay.Node(std::to_string(id) + "a", id)};
      region.nodes[0].ipv6 = V6(static_cast<uint8_t>(id)).ToString();
    }
  }
  ~CheckerTest() override {
    if (HasFailure()) ADD_FAILURE() << net.Describe();
  }

  void Open(io::HostId host) {
    loop = net.CreateLoop(host, {});
    resolver.emplace(&net.clock(), &timers);
    checker =
        std::make_unique<Checker>(CheckerDeps{.loop = loop.get(),
                                              .timers = &timers,
                                              .resolver = &*resolver,
                                              .tls = nullptr,
                                              .random = net.random()},
                                  CheckerOptions{.port = 41641, .plain_http_for_tests = true}, map);
    const absl::Status status = checker->Open();
    ASSERT_TRUE(status.ok()) << status;
    net.SetRunner(loop.get(), [this] {
      checker->Turn(net.now());
      return checker->NextDeadline();
    });
  }
  const Findings& Run(const stun::HostFamilies& families, bool full = true, RegionId home = 0) {
    checker->Start(families, {V4(203, 0, 113, 5)}, full, home);
    loop->Wake();
    net.RunFor(seconds(10));
    EXPECT_FALSE(checker->running());
    return checker->findings();
  }
  io::HostId Public() { return net.AddHost("client", {V4(203, 0, 113, 5), V6(99)}); }
  io::HostId Behind(io::NatKind kind) {
    return net.AddHost("inside", {V4(192, 168, 1, 2)},
                       net.AddNat({.kind = kind}, {V4(203, 0, 113, 77)}));
  }

  io::SimNetwork net{io::kSeed};
  derp::RelayMap map;
  std::vector<std::unique_ptr<Server>> servers;
  TimerQueue timers;
  std::unique_ptr<io::SimLoop> loop;
  std::optional<derp::FakeResolver> resolver;
  std::unique_ptr<Checker> checker;
};

TEST_F(CheckerTest, DualStackInPublic) {
  Open(Public());
  const Findings& findings = Run({.v4 = true, .v6 = true});
  EXPECT_TRUE(findings.report.udp);
  EXPECT_TRUE(findings.report.ipv6);
  EXPECT_EQ(findings.report.global_v4.ToString(), "203.0.113.5:41641");
  EXPECT_EQ(findings.report.global_v6.ToString(), "[2001:db8::63]:41641");
  EXPECT_EQ(findings.report.hairpin, stun::Answer::kYes);
  EXPECT_EQ(findings.report.preferred, 1);
  EXPECT_EQ(findings.report.latency.size(), 3u) << "both dialects";
  EXPECT_EQ(findings.took, milliseconds(30));
  EXPECT_EQ(BehindNat(findings), stun::Answer::kNo);
  EXPECT_FALSE(findings.https);
  EXPECT_THAT(Advise(findings, map), IsEmpty());
  // Once more, small, from home.
  const Findings again = Run({.v4 = true, .v6 = true}, /*full=*/false, 1);
  EXPECT_FALSE(again.report.full);
  EXPECT_LT(again.stats.probes_sent, 6u);
  EXPECT_EQ(again.report.preferred, 1);
}

TEST_F(CheckerTest, OneFamilyEach) {
  Open(Public());
  const Findings v6 = Run({.v4 = false, .v6 = true});
  EXPECT_TRUE(v6.report.udp);
  EXPECT_TRUE(v6.report.global_v4.IsNone());
  EXPECT_EQ(v6.report.latency.at(1).v6, milliseconds(10));
  EXPECT_THAT(Advise(v6, map), IsEmpty());
  const Findings v4 = Run({.v4 = true, .v6 = false});
  EXPECT_FALSE(v4.report.ipv6);
  EXPECT_EQ(v4.report.latency.at(1).v4, milliseconds(10));
  EXPECT_THAT(Advise(v4, map), IsEmpty());
}

TEST_F(CheckerTest, NatsEasyAndHard) {
  Open(Behind(io::NatKind::kPortRestricted));
  const Findings easy = Run({.v4 = true, .v6 = false});
  EXPECT_EQ(easy.report.mapping_varies, stun::Answer::kNo);
  EXPECT_EQ(BehindNat(easy), stun::Answer::kYes);
  EXPECT_THAT(Advise(easy, map), IsEmpty());
}

TEST_F(CheckerTest, AHardNat) {
  Open(Behind(io::NatKind::kSymmetric));
  const Findings hard = Run({.v4 = true, .v6 = false});
  EXPECT_EQ(hard.report.mapping_varies, stun::Answer::kYes);
  const auto advice = Advise(hard, map);
  ASSERT_EQ(advice.size(), 1u);
  EXPECT_STREQ(advice[0].id, "hard_nat");
}

// spec: NC-9
TEST_F(CheckerTest, UdpBlockedMeansHttps) {
  const io::HostId host = Public();
  net.SetUdpBlocked(host, true);
  servers[1]->relay.refuse = true;
  servers[2]->relay.mute = true;
  Open(host);
  const Findings findings = Run({.v4 = true, .v6 = false});
  EXPECT_FALSE(findings.report.udp);
  EXPECT_TRUE(findings.https);
  EXPECT_EQ(findings.report.preferred, 1);
  ASSERT_EQ(findings.report.latency.size(), 1u);
  EXPECT_EQ(findings.report.latency.at(1).best, milliseconds(10));
  EXPECT_FALSE(findings.report.latency.at(1).v4.has_value());
  EXPECT_THAT(findings.https_errors,
              UnorderedElementsAre(Pair(2, HasSubstr("node 2a: ")),
                                   Pair(3, "node 3a: no answer to the request in time")));
  const auto advice = Advise(findings, map);
  ASSERT_EQ(advice.size(), 1u);
  EXPECT_STREQ(advice[0].id, "udp_blocked");
  // It opens again.
  net.SetUdpBlocked(host, false);
  const Findings again = Run({.v4 = true, .v6 = false}, /*full=*/false);
  EXPECT_TRUE(again.report.udp);
  EXPECT_THAT(again.https_errors, IsEmpty()) << "of the last report";
}

TEST_F(CheckerTest, NothingReachable) {
  const io::HostId host = Public();
  for (const auto& server : servers) net.SetPartition(host, server->host, true);
  Open(host);
  const Findings findings = Run({.v4 = true, .v6 = true});
  EXPECT_EQ(findings.https_errors.size(), 3u) << "each says why, before the report ends";
  const auto advice = Advise(findings, map);
  ASSERT_EQ(advice.size(), 1u);
  EXPECT_STREQ(advice[0].id, "nothing_reachable");
}

// spec: NC-11
TEST_F(CheckerTest, NamesThatDoNotResolveAreNamed) {
  for (auto& [id, region] : map.regions) {
    derp::RelayNode& node = region.nodes[0];
    node.ipv4 = node.ipv6 = "";
    node.host_name = "r" + std::to_string(id) + ".test";
  }
  Open(Public());
  resolver->Set("r1.test", {V4(198, 51, 100, 1)});  // IPv4 alone is no fault
  resolver->Set("r2.test", {V4(198, 51, 100, 2), V6(2)});
  const Findings findings = Run({.v4 = true, .v6 = true});
  EXPECT_EQ(findings.report.latency.size(), 2u);
  EXPECT_THAT(findings.unresolved, UnorderedElementsAre(Pair("r3.test", HasSubstr("DNS"))));
  resolver->silent = true;
  const Findings silent = Run({.v4 = true, .v6 = true});
  EXPECT_EQ(silent.unresolved.size(), 3u);
  EXPECT_EQ(silent.unresolved.at("r1.test"), "the DNS has not answered");
}

TEST_F(CheckerTest, StrangersAreCountedAndBounded) {
  Open(Public());
  io::Node stranger(&net, net.AddHost("stranger", {V4(203, 0, 113, 66)}), 3478);
  const auto forged = stun::EncodeBindingRequest(stun::MakeTransactionId(net.random()));
  std::string text(reinterpret_cast<const char*>(forged.data()), forged.size());
  checker->Start({.v4 = true, .v6 = false}, {}, true, 0);
  text[0] = 1;  // an answer, as they say
  text[1] = 1;
  for (int i = 0; i < 5; ++i) stranger.Send({V4(203, 0, 113, 5), 41641, 0}, text);
  stranger.Send({V4(203, 0, 113, 5), 41641, 0}, "hello");
  loop->Wake();
  net.RunFor(seconds(10));
  const Findings& findings = checker->findings();
  EXPECT_EQ(findings.stats.malformed + findings.stats.unknown_id, 5u);
  EXPECT_EQ(findings.report.latency.size(), 3u);
}

TEST_F(CheckerTest, APortInUseIsAnError) {
  const io::HostId host = Public();
  io::Node other(&net, host, 41641);
  loop = net.CreateLoop(host, {});
  resolver.emplace(&net.clock(), &timers);
  Checker second({.loop = loop.get(),
                  .timers = &timers,
                  .resolver = &*resolver,
                  .tls = nullptr,
                  .random = net.random()},
                 {.port = 41641, .plain_http_for_tests = true}, map);
  const absl::Status status = second.Open();
  EXPECT_THAT(std::string(status.message()), HasSubstr("41641"));
}

}  // namespace
}  // namespace ringsock::netcheck
