// When endpoint updates run and who hears of them, with a fake netcheck and a fake clock.
#include "core/endpoint_updates.h"

#include <gtest/gtest.h>

namespace ringsock {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

const Instant kStart = Instant(std::chrono::hours(1));

class FakeNetwork final : public EndpointUpdatesEnvironment {
 public:
  bool StartNetcheck(Duration timeout) override {
    EXPECT_EQ(timeout, seconds(2));  // spec: EP-5
    ++netchecks;
    return have_map;
  }
  RegionId ChooseHome(RegionId preferred) override { return preferred != 0 ? preferred : 9; }
  EndpointInputs Inputs(const stun::Report& report) override {
    EndpointInputs inputs = local;
    inputs.global_v4 = report.global_v4;
    return inputs;
  }
  void OnEndpoints(const std::vector<OwnEndpoint>& endpoints) override {
    heard.push_back(endpoints);
    if (on_endpoints) on_endpoints();
  }
  void OnNetInfo(const NetInfo& info) override { infos.push_back(info); }

  bool have_map = true;
  int netchecks = 0;
  EndpointInputs local;
  std::function<void()> on_endpoints;
  std::vector<std::vector<OwnEndpoint>> heard;
  std::vector<NetInfo> infos;
};

class EndpointUpdatesTest : public testing::Test {
 protected:
  EndpointUpdatesTest() {
    network_.local.bound_v4 = Endpoint{IpAddress::AnyV4(), 41641};
    network_.local.local.regular = {IpAddress::V4(10, 0, 0, 7)};
  }
  stun::Report ReportOf(const char* global, RegionId preferred = 1) {
    stun::Report report;
    report.started = now_;
    report.udp = true;
    report.preferred = preferred;
    report.global_v4 = Endpoint::Parse(global).value();
    report.latency[preferred].v4 = milliseconds(10);
    return report;
  }

  Instant now_ = kStart;
  FakeNetwork network_;
  SeededRandom random_{1};
  EndpointUpdates updates_{&random_, &network_};
};

// spec: EP-1
TEST_F(EndpointUpdatesTest, RepeatsEvery20To26SecondsWhileThereIsAPeer) {
  updates_.SetHavePeers(true, now_);
  Duration least = Duration::max();
  Duration most{};
  for (int i = 1; i <= 200; ++i) {
    ASSERT_EQ(network_.netchecks, i);
    EXPECT_EQ(updates_.NextDeadline(), Instant::max()) << "one is running";
    updates_.OnReport(ReportOf("192.0.2.1:7"), now_);
    const Duration wait = updates_.NextDeadline() - now_;
    least = std::min(least, wait);
    most = std::max(most, wait);
    updates_.Advance(now_ + wait - milliseconds(1));
    ASSERT_EQ(network_.netchecks, i);
    now_ += wait;
    updates_.Advance(now_);
  }
  EXPECT_GE(least, seconds(20));
  EXPECT_LT(least, seconds(21));
  EXPECT_LE(most, seconds(26));
  EXPECT_GT(most, seconds(25));
}

// spec: EP-1: when asked, also without a peer; and then not again.
TEST_F(EndpointUpdatesTest, WithoutPeersOnlyWhenAsked) {
  updates_.Request("start", now_);
  EXPECT_EQ(network_.netchecks, 1);
  updates_.OnReport(ReportOf("192.0.2.1:7"), now_);
  EXPECT_EQ(updates_.NextDeadline(), Instant::max());
  updates_.SetHavePeers(true, now_);  // spec: PEER-2
  EXPECT_EQ(network_.netchecks, 2);
  updates_.OnReport(ReportOf("192.0.2.1:7"), now_);
  updates_.SetHavePeers(false, now_);
  EXPECT_EQ(updates_.NextDeadline(), Instant::max());
  updates_.Advance(now_ + std::chrono::hours(1));
  EXPECT_EQ(network_.netchecks, 2);
}

// spec: EP-2
TEST_F(EndpointUpdatesTest, RequestsDuringAnUpdateComeAfterItOnce) {
  updates_.Request("one", now_);
  updates_.Request("two", now_);
  updates_.Request("three", now_);
  EXPECT_EQ(network_.netchecks, 1);
  updates_.OnReport(ReportOf("192.0.2.1:7"), now_);
  EXPECT_LE(updates_.NextDeadline(), now_);
  updates_.Advance(now_);
  EXPECT_EQ(network_.netchecks, 2);
  updates_.OnReport(ReportOf("192.0.2.1:7"), now_);
  updates_.Advance(now_);
  EXPECT_EQ(network_.netchecks, 2) << "three requests, one update for them";
}

TEST_F(EndpointUpdatesTest, PeersThatGoDoNotCancelARequest) {
  updates_.SetHavePeers(true, now_);
  updates_.Request("link change", now_);
  updates_.OnReport(ReportOf("192.0.2.1:7"), now_);
  updates_.SetHavePeers(false, now_);
  updates_.Advance(now_);
  EXPECT_EQ(network_.netchecks, 2);
}

// A callback that always wants one more neither nests nor hangs.
TEST_F(EndpointUpdatesTest, CallbacksMayAskForMore) {
  network_.have_map = false;
  uint8_t host = 1;
  network_.on_endpoints = [&] {
    network_.local.local.regular = {IpAddress::V4(10, 0, 0, ++host)};
    updates_.Request("from the callback", now_);
  };
  updates_.Request("start", now_);
  EXPECT_EQ(network_.netchecks, 1);
  for (int i = 2; i < 10; ++i) {
    updates_.Advance(now_);
    EXPECT_EQ(network_.netchecks, i);
  }
}

// spec: EP-4
TEST_F(EndpointUpdatesTest, OnlyAChangedListIsTold) {
  for (const char* global : {"192.0.2.1:7", "192.0.2.1:7", "192.0.2.1:8", "192.0.2.1:8"}) {
    updates_.Request("test", now_);
    updates_.OnReport(ReportOf(global), now_);
  }
  ASSERT_EQ(network_.heard.size(), 2u);
  EXPECT_EQ(ToString(network_.heard[1]), "192.0.2.1:8 (stun), 10.0.0.7:41641 (local)");
}

// spec: EP-5
TEST_F(EndpointUpdatesTest, OnlyASubstantialChangeOfNetInfoIsTold) {
  const auto update = [&](const stun::Report& report) {
    updates_.Request("test", now_);
    updates_.OnReport(report, now_);
    return network_.infos.size();
  };
  stun::Report report = ReportOf("192.0.2.1:7");
  EXPECT_EQ(update(report), 1u);
  report.latency[1].v4 = milliseconds(99);
  EXPECT_EQ(update(report), 1u) << "latency alone";
  EXPECT_EQ(updates_.net_info()->latency.at("1-v4"), milliseconds(99)) << "but it is remembered";
  report.mapping_varies = stun::Answer::kYes;
  EXPECT_EQ(update(report), 2u);
  report.hairpin = stun::Answer::kNo;
  EXPECT_EQ(update(report), 3u);
  report.preferred = 2;
  EXPECT_EQ(update(report), 4u);
  report.ipv6 = true;
  EXPECT_EQ(update(report), 5u);
  report.udp = false;
  report.preferred = 0;
  EXPECT_EQ(update(report), 6u);
  EXPECT_EQ(network_.infos.back().home, 9) << "the fallback, spec: EP-6";
}

TEST_F(EndpointUpdatesTest, WithoutARelayMapLocalAddressesAreTold) {
  network_.have_map = false;
  updates_.Request("start", now_);
  ASSERT_EQ(network_.heard.size(), 1u);
  EXPECT_EQ(ToString(network_.heard[0]), "10.0.0.7:41641 (local)");
  EXPECT_TRUE(network_.infos.empty()) << "nobody was asked";
}

TEST_F(EndpointUpdatesTest, AReportNobodyWaitsForIsIgnored) {
  updates_.OnReport(ReportOf("192.0.2.1:7"), now_);
  EXPECT_TRUE(network_.heard.empty());
}

// ---- the list itself, spec: EP-3 ----

std::string ListOf(const EndpointInputs& inputs) { return ToString(ListOwnEndpoints(inputs)); }

TEST(OwnEndpointsTest, OrderAndRepeats) {
  EndpointInputs inputs;
  inputs.global_v4 = Endpoint::Parse("192.0.2.1:7").value();
  inputs.global_v6 = Endpoint::Parse("[2001:db8::1]:41641").value();
  inputs.port_mapping = Endpoint::Parse("192.0.2.1:8").value();
  inputs.bound_v4 = Endpoint{IpAddress::AnyV4(), 41641};
  inputs.bound_v6 = Endpoint{IpAddress::AnyV6(), 41641};
  inputs.local.regular = {IpAddress::V4(10, 0, 0, 7), IpAddress::Parse("2001:db8::1").value(),
                          IpAddress::Parse("fd00::1").value()};
  inputs.local.loopback = {IpAddress::V4(127, 0, 0, 1)};
  EXPECT_EQ(ListOf(inputs),
            "192.0.2.1:7 (stun), [2001:db8::1]:41641 (stun), 192.0.2.1:8 (portmap), "
            "10.0.0.7:41641 (local), [fd00::1]:41641 (local)");
}

TEST(OwnEndpointsTest, LoopbackOnlyWithoutOthers) {
  EndpointInputs inputs;
  inputs.bound_v4 = Endpoint{IpAddress::AnyV4(), 41641};
  inputs.local.loopback = {IpAddress::V4(127, 0, 0, 1), IpAddress::Parse("::1").value()};
  EXPECT_EQ(ListOf(inputs), "127.0.0.1:41641 (loopback)");
  // An address of a family that is off is not one that others could use.
  inputs.local.regular = {IpAddress::Parse("2001:db8::1").value()};
  EXPECT_EQ(ListOf(inputs), "127.0.0.1:41641 (loopback)");
}

TEST(OwnEndpointsTest, ABoundAddressInPlaceOfAllOthers) {
  EndpointInputs inputs;
  inputs.bound_v4 = Endpoint::Parse("10.0.0.7:41641").value();
  inputs.local.regular = {IpAddress::V4(10, 0, 0, 7), IpAddress::V4(10, 0, 0, 8)};
  EXPECT_EQ(ListOf(inputs), "10.0.0.7:41641 (socket)");
  inputs.bound_v6 = Endpoint{IpAddress::AnyV6(), 41641};
  inputs.local.regular.push_back(IpAddress::Parse("fd00::1").value());
  EXPECT_EQ(ListOf(inputs), "[fd00::1]:41641 (local), 10.0.0.7:41641 (socket)");
}

TEST(OwnEndpointsTest, NothingIsNone) { EXPECT_EQ(ListOf(EndpointInputs{}), "none"); }

}  // namespace
}  // namespace ringsock
