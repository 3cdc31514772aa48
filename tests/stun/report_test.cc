// The line of the log, and the choice of a home: the lowest latency of five minutes, held steady.
#include "stun/report.h"

#include <gtest/gtest.h>

#include <chrono>
#include <map>

namespace ringsock::stun {
namespace {

using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::seconds;

// spec: NC-12
TEST(ReportTest, OneLine) {
  Report report;
  EXPECT_EQ(ToLogLine(report),
            "udp=no v6=no mapvarydest=unknown hair=unknown v4a=- v6a=- derp=0 latency=-");
  report.udp = report.ipv6 = true;
  report.mapping_varies = Answer::kNo;
  report.hairpin = Answer::kYes;
  report.preferred = 2;
  report.global_v4 = Endpoint::Parse("192.0.2.1:41641").value();
  report.global_v6 = Endpoint::Parse("[2001:db8::1]:41641").value();
  report.latency[1] = {milliseconds(12), milliseconds(12), milliseconds(14)};
  report.latency[2] = {std::chrono::microseconds(850), {}, {}};
  EXPECT_EQ(ToLogLine(report),
            "udp=yes v6=yes mapvarydest=no hair=yes v4a=192.0.2.1:41641 v6a=[2001:db8::1]:41641 "
            "derp=2 latency=1-v4:12.0ms,1-v6:14.0ms,2-https:0.8ms");
}

class HistoryTest : public testing::Test {
 protected:
  // A report at `now` with latencies in milliseconds; returns the home that follows.
  RegionId Add(const std::map<RegionId, int>& latencies) {
    Report report;
    report.started = now - seconds(1);
    for (const auto& [id, ms] : latencies) report.latency[id] = {milliseconds(ms), {}, {}};
    home.home =
        history.AddAndChoose(report, home, now, [&](RegionId region) { return region != avoided; });
    return home.home;
  }

  Instant now{std::chrono::hours(1)};
  ReportHistory history;
  HomeState home;
  RegionId avoided = 0;
};

// spec: NC-10
TEST_F(HistoryTest, TheLowestLatencyIsTheFirstHome) {
  EXPECT_EQ(Add({{1, 30}, {2, 20}, {3, 40}}), 2);
  EXPECT_EQ(Add({}), 0);  // no data, never a frame
}

// spec: NC-10
TEST_F(HistoryTest, AChangeMustGainTenMillisecondsAndAThird) {
  struct Case {
    int old_ms, new_ms;
    bool moves;
  } const cases[] = {
      {30, 19, true},    // 11 ms, under 20
      {30, 20, false},   // exactly two thirds
      {25, 15, true},    // exactly 10 ms
      {25, 16, false},   // 9 ms
      {14, 5, false},    // 9 ms, though under half
      {100, 67, false},  // 33 ms, but over two thirds
      {100, 66, true},  {300, 250, false},
  };
  for (const Case& c : cases) {
    history.Clear();
    home = {1, {}};
    EXPECT_EQ(Add({{1, c.old_ms}, {2, c.new_ms}}), c.moves ? 2 : 1)
        << c.old_ms << " to " << c.new_ms;
  }
}

// spec: NC-10
TEST_F(HistoryTest, TheBestOfFiveMinutesCounts) {
  ASSERT_EQ(Add({{1, 20}, {2, 100}}), 1);
  now += minutes(4);
  // A bad moment of the home; the other one was never better than 20.
  EXPECT_EQ(Add({{1, 500}, {2, 21}}), 1);
  now += seconds(59);
  EXPECT_EQ(Add({{1, 500}, {2, 21}}), 1);
  now += seconds(2);
  EXPECT_EQ(Add({{1, 500}, {2, 100}}), 2);  // the 20 ms are over five minutes old
}

// spec: NC-10
TEST_F(HistoryTest, OnlyRegionsOfThisReportAreChosen) {
  Add({{1, 10}, {2, 50}});
  home = {};
  EXPECT_EQ(Add({{2, 50}, {3, 60}}), 2);
}

// spec: NC-10
TEST_F(HistoryTest, ASilentHomeIsLeftUnlessItsRelayLives) {
  const Instant start = now;
  const auto after_frame_before = [&](Duration age) {
    now += seconds(20);
    home.last_frame = now - age;
    const RegionId chosen = Add({{2, 19}});
    home.home = 1;
    return chosen;
  };
  ASSERT_EQ(Add({{1, 20}}), 1);
  EXPECT_EQ(after_frame_before(seconds(9)), 2);
  EXPECT_EQ(after_frame_before(seconds(8)), 1);
  EXPECT_EQ(after_frame_before(Duration{}), 1);
  EXPECT_LT(now - start, kHistory);
}

// spec: NC-10
TEST_F(HistoryTest, AFrameSinceTheReportBeganIsASignOfLifeHoweverLongItTook) {
  home = {1, now - seconds(10)};
  Report report;
  report.started = now - seconds(10);
  report.latency[2] = {milliseconds(5), {}, {}};
  const auto all = [](RegionId) { return true; };
  EXPECT_EQ(history.AddAndChoose(report, home, now, all), 1);
  report.started += Duration(1);
  EXPECT_EQ(history.AddAndChoose(report, home, now, all), 2);
}

// spec: NC-10
TEST_F(HistoryTest, WithoutDataTheHomeIsKeptForTwoMinutesAfterItsLastFrame) {
  home = {1, now - seconds(120)};
  EXPECT_EQ(Add({}), 1);
  now += Duration(1);
  EXPECT_EQ(Add({}), 0);
}

// spec: NC-10
TEST_F(HistoryTest, WhatMayNotBeAHomeIsNeverChosenAndIsLeft) {
  avoided = 1;
  EXPECT_EQ(Add({{1, 1}, {2, 90}}), 2);
  EXPECT_EQ(Add({{1, 1}}), 0);
  home = {1, now};
  EXPECT_EQ(Add({{1, 1}, {2, 90}}), 2);
}

TEST_F(HistoryTest, IsBounded) {
  for (int i = 0; i < 1000; ++i) {
    Add({{static_cast<RegionId>(i + 1), 10}});
    EXPECT_LE(history.BestLatencies().size(), ReportHistory::kMaxReports);
  }
}

}  // namespace
}  // namespace ringsock::stun
