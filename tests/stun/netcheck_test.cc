// The netcheck in a world of scripted servers: what it asks, what it concludes, and when it ends.
#include "stun/netcheck.h"

#include <gtest/gtest.h>

#include "tests/stun/netcheck_fixture.h"

namespace ringsock::stun {
namespace {

constexpr HostFamilies kV4Only{.v4 = true, .v6 = false};
constexpr HostFamilies kV6Only{.v4 = false, .v6 = true};
constexpr HostFamilies kDualStack{.v4 = true, .v6 = true};

// spec: NC-2, NC-6, NC-8
TEST_F(NetcheckTest, AFullReportOverIPv4) {
  netcheck.SetMap(Regions(3));
  Serve(1, milliseconds(30));
  Serve(2, milliseconds(10));
  Serve(3, milliseconds(20));
  const Report report = Run();
  EXPECT_EQ(Sent(), "1@0 2@0 3@0");
  EXPECT_TRUE(report.full);
  EXPECT_TRUE(report.udp);
  EXPECT_FALSE(report.ipv6);
  EXPECT_EQ(report.mapping_varies, Answer::kNo);
  EXPECT_EQ(report.hairpin, Answer::kYes);
  EXPECT_EQ(report.preferred, 2);
  EXPECT_EQ(report.global_v4, our_v4);
  EXPECT_TRUE(report.global_v6.IsNone());
  ASSERT_EQ(report.latency.size(), 3u);
  EXPECT_EQ(report.latency.at(1), (RegionLatency{milliseconds(30), milliseconds(30), {}}));
  EXPECT_EQ(took, milliseconds(30));
  EXPECT_EQ(netcheck.stats().answers, 3u);
  EXPECT_EQ(netcheck.NextDeadline(), Instant::max());
}

TEST_F(NetcheckTest, DualStackTakesBothFamilies) {
  netcheck.SetMap(Regions(2));
  Serve(1, milliseconds(30));
  Serve(2, milliseconds(40));
  ServerOf(ServerV6(2)).round_trip = milliseconds(20);
  const Report report = Run({.host = kDualStack});
  EXPECT_EQ(Sent(), "1@0 v6:1@0 2@0 v6:2@0");
  EXPECT_TRUE(report.ipv6);
  EXPECT_EQ(report.global_v4, our_v4);
  EXPECT_EQ(report.global_v6, our_v6);
  EXPECT_EQ(report.latency.at(2),
            (RegionLatency{milliseconds(20), milliseconds(40), milliseconds(20)}));
  EXPECT_EQ(report.preferred, 2);
}

TEST_F(NetcheckTest, IPv6Only) {
  netcheck.SetMap(Regions(2));
  Serve(1, milliseconds(30));
  Serve(2, milliseconds(20));
  const Report report = Run({.host = kV6Only});
  EXPECT_EQ(Sent(), "v6:1@0 v6:2@0");
  EXPECT_TRUE(report.udp && report.ipv6);
  EXPECT_EQ(report.mapping_varies, Answer::kUnknown);
  EXPECT_EQ(report.hairpin, Answer::kUnknown);
  EXPECT_TRUE(hairpins.empty());
  EXPECT_EQ(report.preferred, 2);
}

// spec: NC-5, NC-8
TEST_F(NetcheckTest, ASilentRegionIsTriedThreeTimesAndHoldsTheReportToItsEnd) {
  netcheck.SetMap(Regions(3));
  Serve(1, milliseconds(30));
  Serve(3, milliseconds(250));
  const Report report = Run();
  EXPECT_EQ(Sent(), "1@0 2@0 3@0 2@100 3@100 2@200 3@200");
  EXPECT_EQ(took, seconds(3));
  EXPECT_EQ(report.latency.size(), 2u);
  EXPECT_EQ(report.latency.at(3).best, milliseconds(250));
  EXPECT_EQ(report.mapping_varies, Answer::kNo);
  // spec: EP-5
  EXPECT_TRUE(Run({.host = kV4Only, .full = true, .timeout = seconds(2)}).udp);
  EXPECT_EQ(took, seconds(2));
  Run({.host = kV4Only, .full = true, .timeout = seconds(9)});
  EXPECT_EQ(took, seconds(3));
}

// spec: NC-5
TEST_F(NetcheckTest, ProbesWithoutNewsAreSpared) {
  netcheck.SetMap(Regions(2));
  Serve(1, milliseconds(30));
  Serve(2, milliseconds(30));
  ServerOf(ServerV6(2)).round_trip.reset();  // silent: but v6 is known by region 1
  const Report report = Run({.host = kDualStack});
  EXPECT_EQ(Sent(), "1@0 v6:1@0 2@0 v6:2@0");
  EXPECT_EQ(netcheck.stats().probes_spared, 2u);
  EXPECT_EQ(took, milliseconds(100));  // the set ends where its next probe is spared
  EXPECT_FALSE(report.latency.at(2).v6.has_value());
}

// spec: NC-5: the second answer of IPv4 is wanted though its region is known by IPv6.
TEST_F(NetcheckTest, SecondIPv4AnswerIsNews) {
  netcheck.SetMap(Regions(2));
  Serve(1, milliseconds(30));
  Serve(2, milliseconds(30));
  ServerOf(ServerV4(2)).round_trip = milliseconds(150);
  EXPECT_EQ(Run({.host = kDualStack}).mapping_varies, Answer::kNo);
  EXPECT_EQ(Sent(), "1@0 v6:1@0 2@0 v6:2@0 2@100");
}

// spec: NC-6
TEST_F(NetcheckTest, MappingVariesByDestination) {
  netcheck.SetMap(Regions(3));
  for (RegionId id : {1, 2, 3}) Serve(id, milliseconds(10 * id));
  ServerOf(ServerV4(3)).mapped = At("203.0.113.9:5");
  const Report report = Run();
  EXPECT_EQ(report.mapping_varies, Answer::kYes);
  EXPECT_EQ(report.global_v4, our_v4);  // the first answer's
}

// spec: NC-6: one destination, even under two regions, shows nothing about others.
TEST_F(NetcheckTest, OneServerSaysNothingAboutMapping) {
  ProbeMap map = Regions(2);
  map[1].nodes[0].v4.ip = ServerV4(1);
  netcheck.SetMap(map);
  Serve(1, milliseconds(10));
  EXPECT_EQ(Run().mapping_varies, Answer::kUnknown);
}

// spec: NC-7
TEST_F(NetcheckTest, HairpinIsSeenWithinHalfASecondOrNot) {
  netcheck.SetMap(Regions(2));
  Serve(1, milliseconds(10));
  Serve(2, milliseconds(20));
  struct Case {
    std::optional<Duration> time;
    Answer answer;
    Duration took;
  } const cases[] = {
      {milliseconds(5), Answer::kYes, milliseconds(20)},
      {milliseconds(500), Answer::kYes, milliseconds(510)},
      {milliseconds(501), Answer::kNo, milliseconds(510) + Duration(1)},
      {std::nullopt, Answer::kNo, milliseconds(510) + Duration(1)},
  };
  for (const Case& c : cases) {
    hairpins.clear();
    hairpin_time = c.time;
    EXPECT_EQ(Run({.host = kV4Only, .full = true}).hairpin, c.answer);
    EXPECT_EQ(took, c.took);
    EXPECT_EQ(hairpins, std::vector<Endpoint>{our_v4});
  }
}

// spec: NC-7
TEST_F(NetcheckTest, AHairpinRequestThatCouldNotBeSentSaysNothing) {
  netcheck.SetMap(Regions(1));
  Serve(1, milliseconds(10));
  hairpin_sends = false;
  hairpin_time.reset();
  EXPECT_EQ(Run({.host = kV4Only, .full = true}).hairpin, Answer::kUnknown);
}

// spec: NC-4, NC-10: latencies of another network are none.
TEST_F(NetcheckTest, AnotherNetworkIsMeasuredAnew) {
  netcheck.SetMap(Regions(5));
  for (int region = 1; region <= 5; ++region) Serve(region, milliseconds(10 * region));
  EXPECT_EQ(Run().preferred, 1);
  EXPECT_FALSE(Run().full);
  netcheck.OnNetworkChange();
  for (int region = 1; region <= 5; ++region) Serve(region, milliseconds(200 - 10 * region));
  const Report report = Run();
  EXPECT_TRUE(report.full);
  EXPECT_EQ(report.preferred, 5);
  EXPECT_FALSE(Run().full);
}

// spec: NC-7
TEST_F(NetcheckTest, ASmallReportRepeatsTheHairpinAnswerWhileTheAddressStays) {
  netcheck.SetMap(Regions(2));
  Serve(1, milliseconds(10));
  Serve(2, milliseconds(20));
  EXPECT_EQ(Run().hairpin, Answer::kYes);
  hairpin_time.reset();
  const Report second = Run();
  EXPECT_FALSE(second.full);
  EXPECT_EQ(second.hairpin, Answer::kYes);
  EXPECT_EQ(hairpins.size(), 1u);
  our_v4 = At("203.0.113.10:1");
  EXPECT_EQ(Run().hairpin, Answer::kNo);
  EXPECT_EQ(hairpins.size(), 2u);
}

// spec: NC-3, NC-4
TEST_F(NetcheckTest, FullAtFirstWhenAskedForWithANewMapAndAfterFiveMinutes) {
  const ProbeMap map = Regions(5);
  netcheck.SetMap(map);
  for (RegionId id = 1; id <= 5; ++id) Serve(id, milliseconds(10 * id));
  EXPECT_TRUE(Run().full);
  const Instant full = started;
  EXPECT_FALSE(Run().full);
  EXPECT_EQ(Sent(), "1@0 2@0 3@0");
  EXPECT_TRUE(Run({.host = kV4Only, .full = true}).full);
  const Instant again = started;
  EXPECT_GT(again, full);
  clock.Set(again + minutes(5));
  EXPECT_FALSE(Run().full);
  clock.Set(again + minutes(5) + seconds(1));
  EXPECT_TRUE(Run().full);
  EXPECT_FALSE(Run().full);
  netcheck.SetMap(map);
  EXPECT_TRUE(Run().full);
}

// spec: NC-4: there is nothing to choose the fastest from.
TEST_F(NetcheckTest, FullAfterAReportWithoutData) {
  netcheck.SetMap(Regions(2));
  EXPECT_FALSE(Run().udp);
  EXPECT_TRUE(Run().full);
}

// spec: NC-9
TEST_F(NetcheckTest, HttpsWhenUdpIsBlocked) {
  ProbeMap map = Regions(3);
  map[2].nodes[0].stun_only = true;
  netcheck.SetMap(map);
  https[1] = milliseconds(80);
  https[2] = milliseconds(40);
  const Report report = Run();
  EXPECT_EQ(https_asked, (std::vector<std::string>{"n1", "n2"}));
  EXPECT_EQ(https_at, milliseconds(1500));
  EXPECT_EQ(took, seconds(3));
  EXPECT_FALSE(report.udp);
  EXPECT_EQ(report.preferred, 2);
  EXPECT_EQ(report.latency.at(1), (RegionLatency{milliseconds(80), {}, {}}));
  EXPECT_TRUE(report.global_v4.IsNone());
  EXPECT_EQ(report.hairpin, Answer::kUnknown);
}

// spec: NC-9
TEST_F(NetcheckTest, HttpsThatFailsOrNeverAnswersIsBounded) {
  netcheck.SetMap(Regions(3));
  https[1] = milliseconds(80);
  https[2] = std::nullopt;
  EXPECT_EQ(Run().latency.size(), 1u);
  EXPECT_EQ(took, milliseconds(1500) + seconds(5));
  netcheck.OnHttpsLatency(3, milliseconds(1), clock.Now());  // after the end
  EXPECT_EQ(reports.size(), 1u);
}

// spec: NC-9: UDP works after all, only slowly.
TEST_F(NetcheckTest, LateUdpBeatsHttps) {
  netcheck.SetMap(Regions(2));
  Serve(1, milliseconds(1700));
  https[1] = milliseconds(10);
  https[2] = milliseconds(10);
  const Report report = Run();
  EXPECT_TRUE(report.udp);
  ASSERT_EQ(report.latency.size(), 1u);
  EXPECT_EQ(report.latency.at(1).best, milliseconds(1700));
  EXPECT_EQ(took, seconds(3));
}

// spec: NC-10
TEST_F(NetcheckTest, HomeStaysUnlessTheGainIsReal) {
  ProbeMap map = Regions(3);
  map[2].avoid = true;
  netcheck.SetMap(map);
  Serve(1, milliseconds(30));
  Serve(2, milliseconds(21));
  Serve(3, milliseconds(1));
  EXPECT_EQ(Run({.host = kV4Only, .home = 1}).preferred, 1);
  Serve(2, milliseconds(19));
  EXPECT_EQ(Run({.host = kV4Only, .home = 1}).preferred, 2);
}

// spec: NC-10
TEST_F(NetcheckTest, FramesOfTheHomeAreSignsOfLife) {
  netcheck.SetMap(Regions(2));
  Serve(1, milliseconds(20));
  EXPECT_EQ(Run().preferred, 1);
  servers.clear();
  Serve(2, milliseconds(19));
  After(milliseconds(500), [&] { netcheck.OnRelayFrame(1, clock.Now()); });
  EXPECT_EQ(Run({.host = kV4Only, .home = 1}).preferred, 1);
  clock.Advance(seconds(9));
  EXPECT_EQ(Run({.host = kV4Only, .home = 1}).preferred, 2);
  netcheck.OnRelayFrame(2, clock.Now());
  netcheck.OnRelayFrame(77, clock.Now());  // not in the map
  servers.clear();
  EXPECT_EQ(Run({.host = kV4Only, .home = 2}).preferred, 2);  // no data
  EXPECT_EQ(Run({.host = kV4Only, .home = 77}).preferred, 0);
  clock.Advance(seconds(120));
  EXPECT_EQ(Run({.host = kV4Only, .home = 2}).preferred, 0);
}

// spec: NC-11
TEST_F(NetcheckTest, OneReportAtATime) {
  netcheck.SetMap(Regions(1));
  EXPECT_TRUE(netcheck.Start({.host = kV4Only}, clock.Now()));
  EXPECT_FALSE(netcheck.Start({.host = kV4Only}, clock.Now()));
  EXPECT_EQ(probes.size(), 1u);
}

// spec: NC-11
TEST_F(NetcheckTest, StrangersChangeNothingAndAreCounted) {
  netcheck.SetMap(Regions(1));
  started = clock.Now();
  ASSERT_TRUE(netcheck.Start({.host = kV4Only}, clock.Now()));
  ASSERT_EQ(probes.size(), 1u);
  const Endpoint server = probes[0].to;
  const Bytes good = ResponseTo(probes[0].packet, our_v4);
  Bytes forged = good;
  forged[19] ^= std::byte{1};
  Receive(server, forged);
  Receive({ServerV4(2), kDefaultPort, 0}, good);
  Receive({server.ip, 3479, 0}, good);
  Receive(server, ResponseTo(probes[0].packet, our_v6));
  Receive(server, Bytes(good.begin(), good.end() - 4));
  Receive(server, {});
  const auto request = EncodeBindingRequest(MakeTransactionId(&random));
  Receive(server, Bytes(request.begin(), request.end()));
  Bytes error = good;
  error[1] = std::byte{0x11};
  error[3] = std::byte{8};
  const std::array<uint8_t, 8> code = {0, 9, 0, 4, 0, 0, 4, 20};
  for (size_t i = 0; i < code.size(); ++i) error[20 + i] = static_cast<std::byte>(code[i]);
  Receive(server, error);
  EXPECT_TRUE(netcheck.running());
  const NetcheckStats& stats = netcheck.stats();
  EXPECT_EQ(stats.unknown_id, 2u);
  EXPECT_EQ(stats.wrong_source, 2u);
  EXPECT_EQ(stats.wrong_family, 1u);
  EXPECT_EQ(stats.malformed, 2u);
  EXPECT_EQ(stats.refused, 1u);
  EXPECT_EQ(stats.answers, 0u);

  hairpin_time.reset();
  Receive(server, good);
  Receive(server, good);
  EXPECT_EQ(stats.answers, 1u);
  EXPECT_EQ(stats.repeated, 1u);
  while (netcheck.running()) Step();
  EXPECT_EQ(reports.at(0).latency.at(1).best, Duration{});
  Receive(server, good);
  EXPECT_EQ(stats.late, 1u);
  EXPECT_EQ(reports.size(), 1u);
  // Of the report before the last one.
  Run({.host = kV4Only, .full = true});
  Receive(server, good);
  EXPECT_EQ(stats.unknown_id, 3u);
}

// spec: NC-11
TEST_F(NetcheckTest, NamesAreResolvedOnlyWhereAnAddressIsMissing) {
  ProbeMap map = Regions(3);
  map[1].nodes[0].v4.ip.reset();
  map[2].nodes[0].v4.ip.reset();
  netcheck.SetMap(map);
  for (RegionId id : {1, 2, 3}) Serve(id, milliseconds(20));
  ServerOf(ServerV4(3)).round_trip.reset();
  names["n2.test/4"] = {ServerV6(2), ServerV4(2)};  // of the wrong family, then the right one
  names["n3.test/4"] = {};
  const Report report = Run();
  EXPECT_EQ(resolves, (std::vector<std::string>{"n2.test/4", "n3.test/4"}));
  EXPECT_EQ(Sent(), "1@0 2@5");
  EXPECT_EQ(report.latency.size(), 2u);
  EXPECT_EQ(took, milliseconds(25));  // nothing is waited for where nothing was sent
  EXPECT_EQ(netcheck.stats().unresolved, 3u);
}

// spec: NC-11
TEST_F(NetcheckTest, SlowDnsDoesNotBunchProbesAndSilentDnsEndsWithTheReport) {
  ProbeMap map = Regions(2);
  map[0].nodes[0].v4.ip.reset();
  map[1].nodes[0].v4.ip.reset();
  netcheck.SetMap(map);
  names["n1.test/4"] = {ServerV4(1)};
  dns_time = milliseconds(400);
  const Report report = Run();
  EXPECT_EQ(Sent(), "1@400 1@500 1@600");
  EXPECT_EQ(took, milliseconds(1500) + seconds(5));
  EXPECT_FALSE(report.udp);
}

TEST_F(NetcheckTest, WithoutAMapOrAFamilyItEndsAtOnce) {
  EXPECT_EQ(Run().latency.size(), 0u);
  EXPECT_EQ(took, Duration{});
  ProbeMap map = Regions(1);
  map.push_back(map[0]);                      // repeated
  map.push_back({0, false, {map[0].nodes}});  // no region
  map[0].nodes[0].stun_only = true;
  netcheck.SetMap(map);
  EXPECT_EQ(Run({.host = {.v4 = false, .v6 = false}}).preferred, 0);
  EXPECT_EQ(took, Duration{});
  Serve(1, milliseconds(5));
  // Measured, but no home: it has no relay.
  const Report report = Run();
  EXPECT_EQ(Sent(), "1@0");
  EXPECT_EQ(report.latency.size(), 1u);
  EXPECT_EQ(report.preferred, 0);
}

}  // namespace
}  // namespace ringsock::stun
