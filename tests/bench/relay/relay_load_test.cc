// The load beside a relay of the tests' own and beside the floor: it delivers, and says what did
// not come.
#include "bench/relay/relay_load.h"

#include <gtest/gtest.h>

#include "bench/relay/relay_process.h"
#include "tests/bench/relay/fake_relay.h"

namespace ringsock::bench {
namespace {

using std::chrono::milliseconds;

RelayLoadConfig Plain(const FakeRelay& relay, const RelayTraffic& traffic) {
  RelayLoadConfig config = {.traffic = traffic, .target = {}, .run = 42};
  config.target.address = relay.endpoint();
  config.target.tls = false;
  return config;
}

RelayLoadTotals Carry(const RelayLoadConfig& config, Duration time = milliseconds(60)) {
  auto load = RelayLoad::Create(config);
  EXPECT_TRUE(load.ok()) << load.status();
  if (!load.ok()) return {};
  (*load)->RunFor(time / 2, false);
  // A busy host may keep this thread from running in any one of them.
  for (int i = 0; i < 100 && (*load)->latency().total() == 0; ++i) (*load)->RunFor(time / 2, true);
  (*load)->Drain();
  EXPECT_GT((*load)->latency().total(), 0u);
  return (*load)->Totals();
}

void ExpectAllArrived(const RelayLoadTotals& totals) {
  EXPECT_GT(totals.sent, 0u);
  EXPECT_EQ(totals.offered, totals.sent + totals.held_back);
  EXPECT_EQ(totals.received.packets + totals.received_extra, totals.sent);
  EXPECT_EQ(totals.received.duplicates + totals.received.reordered, 0u);
  EXPECT_EQ(totals.received.misdelivered + totals.received.invalid, 0u);
  EXPECT_EQ(totals.closed, 0u);
}

TEST(RelayLoadTest, EveryShapeOverARelay) {
  const RelayTraffic shapes[] = {
      {.senders = 1, .receivers = 1, .size = 1400, .rate = 5000},
      {.senders = 1, .receivers = 5, .size = 64, .rate = 5000},
      {.senders = 3, .receivers = 3, .size = 64},
      {.senders = 2, .receivers = 4, .size = 500, .rate = 2000, .tick = milliseconds(5)},
  };
  for (const RelayTraffic& traffic : shapes) {
    SCOPED_TRACE(testing::Message() << traffic.senders << " to " << traffic.receivers);
    FakeRelay relay;
    ExpectAllArrived(Carry(Plain(relay, traffic)));
  }
}

TEST(RelayLoadTest, PacedOffersWhatIsDue) {
  FakeRelay relay;
  RelayTraffic traffic = {.senders = 2, .receivers = 2, .size = 64, .rate = 10'000};
  const RelayLoadTotals totals = Carry(Plain(relay, traffic), milliseconds(100));
  // However late this thread ran, no more than was due by the end; nothing if it never ran.
  EXPECT_GT(totals.offered, 0u);
  EXPECT_EQ(totals.received.packets, totals.sent);
}

TEST(RelayLoadTest, OneInFlight) {
  FakeRelay relay;
  const RelayLoadTotals totals =
      Carry(Plain(relay, {.size = 128, .one_in_flight = true}), milliseconds(40));
  ExpectAllArrived(totals);
}

TEST(RelayLoadTest, SeesLossAndDuplicates) {
  const RelayTraffic traffic = {.senders = 1, .receivers = 1, .size = 64, .rate = 20'000};
  FakeRelay lossy({.drop_every = 10});
  const RelayLoadTotals lost = Carry(Plain(lossy, traffic));
  EXPECT_EQ(lost.sent - lost.received.packets, lost.sent / 10);
  EXPECT_EQ(lost.received.duplicates, 0u);
  FakeRelay twice({.duplicate_every = 10});
  const RelayLoadTotals doubled = Carry(Plain(twice, traffic));
  EXPECT_GT(doubled.received.duplicates, 0u);
}

TEST(RelayLoadTest, AnExtraReceiverIsCountedApart) {
  FakeRelay relay;
  const RelayTraffic traffic = {.senders = 2,
                                .receivers = 2,
                                .size = 64,
                                .rate = 10'000,
                                .extra = RelayTraffic::Extra::kReads};
  const RelayLoadTotals totals = Carry(Plain(relay, traffic));
  ExpectAllArrived(totals);
  EXPECT_GT(totals.received_extra, 0u);
  EXPECT_EQ(totals.received_extra, totals.sent_extra);
}

// One that blocks for the receiver that does not read: everything is held up, and the load says so
// rather than hang or call it lost.
TEST(RelayLoadTest, HeldBackBehindOneThatStalls) {
  FakeRelay relay;
  const RelayTraffic traffic = {.senders = 1,
                                .receivers = 1,
                                .size = 16000,
                                .rate = 20'000,
                                .extra = RelayTraffic::Extra::kStalls};
  auto load = RelayLoad::Create(Plain(relay, traffic));
  ASSERT_TRUE(load.ok()) << load.status();
  for (int i = 0; i < 100 && (*load)->Totals().held_back == 0; ++i) {
    (*load)->RunFor(milliseconds(50), false);
  }
  EXPECT_GT((*load)->Totals().held_back, 0u);
}

TEST(RelayLoadTest, NobodyThere) {
  RelayLoadConfig config;
  config.target.address = {IpAddress::V4(127, 0, 0, 1), 1};
  EXPECT_FALSE(RelayLoad::Create(config).ok());
}

TEST(FloorTest, EveryShape) {
  const RelayTraffic shapes[] = {
      {.senders = 1, .receivers = 1, .size = 1400},
      {.senders = 1, .receivers = 7, .size = 64, .rate = 20'000},
      {.senders = 4, .receivers = 4, .size = 64, .rate = 20'000},
      {.senders = 1, .receivers = 1, .size = 128, .one_in_flight = true},
  };
  for (const RelayTraffic& traffic : shapes) {
    SCOPED_TRACE(testing::Message() << traffic.senders << " to " << traffic.receivers);
    auto floor = RelayProcess::Start(RelaySubjectSpec(), {});
    ASSERT_TRUE(floor.ok()) << floor.status();
    for (const uint32_t check : {1, 8}) {
      ExpectAllArrived(Carry({.traffic = traffic,
                              .target = (*floor)->target(),
                              .derp = false,
                              .check = check,
                              .run = 7}));
      if (traffic.one_in_flight) break;
    }
    EXPECT_TRUE((*floor)->CheckAlive().ok());
  }
}

TEST(FloorTest, AnotherCertificateThanThePinned) {
  auto floor = RelayProcess::Start(RelaySubjectSpec(), {});
  ASSERT_TRUE(floor.ok()) << floor.status();
  LinkTarget target = (*floor)->target();
  target.pin = std::array<uint8_t, 32>{};
  const auto link = Link::Open(target);
  EXPECT_EQ(link.status().code(), absl::StatusCode::kPermissionDenied) << link.status();
}

TEST(RelayProcessTest, SaysWhatTheProgramSaid) {
  RelaySubjectSpec spec;
  spec.kind = RelaySubjectSpec::Kind::kCommand;
  spec.command = "/bin/ls --no-such-flag {port}";
  const auto process = RelayProcess::Start(spec, {});
  ASSERT_FALSE(process.ok());
  EXPECT_NE(process.status().message().find("no-such-flag"), absl::string_view::npos)
      << process.status();
}

}  // namespace
}  // namespace ringsock::bench
