// A standing connection through TLS: who is trusted, fast start and its fallback, resumption,
// stalls; in the simulated network, and on real loops.
#include "derp/region_connection.h"
#include "tests/derp/client_world.h"
#include "tests/derp/tls_certificates.h"
#include "tests/io/loop_world.h"

namespace ringsock::derp {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::HasSubstr;

// A relay's certificate and what its clients trust.
struct Trust {
  explicit Trust(const TestCertificateOptions& options = {}, bool meta = true,
                 const PublicKey& meta_key = RelayFixture::Key(1).Public()) {
    const TestCertificate root = MakeTestCertificate(AuthorityNamed("root"), nullptr);
    certificate = MakeTestCertificate(options, &root);
    server = *TlsServerContext::Create({.meta_key = meta_key, .meta_certificate = meta});
    const auto status = server->Load(certificate.chain_pem(), certificate.key_pem);
    EXPECT_TRUE(status.ok()) << status;
    TlsClientContext::Options client_options;
    client_options.roots_file = WriteTestFile("roots.pem", root.pem);
    client_options.unix_time = [] { return kTestTime; };
    client = *TlsClientContext::Create(client_options);
  }
  TestCertificate certificate;
  std::unique_ptr<TlsServerContext> server;
  std::unique_ptr<TlsClientContext> client;
};

RelayRegion Strict(const RelayFixture& relay) {
  RelayRegion region = relay.Region();
  region.nodes[0].insecure_for_tests = false;
  return region;
}

class RegionConnectionTlsTest : public ClientWorldTest {
 protected:
  std::unique_ptr<RegionConnection> ConnectTls(const RelayRegion& region, const Trust& trust,
                                               RegionEvents* to,
                                               const WriteQueueLimits& limits = {}) {
    RegionConnectionDeps deps = Deps();
    deps.tls = trust.client.get();
    RegionConnectionOptions options;
    options.queue = limits;
    return NewRegionConnection(deps, region, key, std::move(options), to);
  }
  RelayFixture& AddTlsRelay(const Trust& trust, uint8_t last = 1) {
    return AddRelay(last, {.bind = {}, .tls = trust.server.get(), .info = {}});
  }
  // How long it takes to be up.
  Duration TimeToUp(const Trust& trust, uint8_t last) {
    RelayFixture& relay = AddTlsRelay(trust, last);
    Recorder recorder;
    Instant up{};
    recorder.on_up = [&] { up = net.now(); };
    const Instant begin = net.now();
    const auto connection = ConnectTls(Strict(relay), trust, &recorder);
    Run(seconds(1));
    EXPECT_EQ(recorder.story, "up ") << connection->Status().last_error;
    return up - begin;
  }
  // Why there is no connection to a relay with this certificate.
  std::string Refused(const Trust& trust, const RelayRegion& region, Duration wait = kEnough) {
    Recorder recorder;
    const auto connection = ConnectTls(region, trust, &recorder);
    Run(wait);
    EXPECT_FALSE(connection->up());
    return connection->Status().last_error;
  }
};

TEST_F(RegionConnectionTlsTest, ConnectsAndResumes) {
  const Trust trust;
  RelayFixture& relay = AddTlsRelay(trust);
  const auto connection = ConnectTls(Strict(relay), trust, &events);
  Run(kEnough);
  ASSERT_TRUE(connection->up()) << connection->Status().last_error;
  EXPECT_THAT(connection->Status().description, HasSubstr("TLSv1.3"));
  EXPECT_THAT(connection->Status().description, testing::Not(HasSubstr("resumed")));
  for (int i = 0; i < 100; ++i) connection->Send(PeerKey(1), Packet(1400));
  connection->Flush();
  relay.Deliver(self, PeerKey(2), Packet(65'536));
  Run(kEnough);
  EXPECT_EQ(relay.packets, 100u);
  EXPECT_EQ(events.sizes, std::vector<size_t>{65'536});
  relay.CloseClients();
  Run(seconds(1));
  EXPECT_EQ(events.story, "up down up ");
  EXPECT_EQ(events.downs[0].message(), "region 1, node 1a: relay closed the connection");
  EXPECT_THAT(connection->Status().description, HasSubstr("resumed"));
}

TEST_F(RegionConnectionTlsTest, FastStartSavesARoundTrip) {
  const Duration fast = TimeToUp(Trust(), 1);
  const Duration slow = TimeToUp(Trust({}, /*meta=*/false), 2);
  EXPECT_EQ(fast, milliseconds(60)) << "TCP, TLS, login";
  EXPECT_EQ(slow, milliseconds(80)) << "and HTTP";
}

TEST_F(RegionConnectionTlsTest, AFastStartThatFailsIsFollowedByTheLongWay) {
  const Trust trust({}, /*meta=*/true, PeerKey(9));  // not this relay's key
  RelayFixture& relay = AddTlsRelay(trust);
  const auto connection = ConnectTls(Strict(relay), trust, &events);
  Run(kEnough);
  EXPECT_TRUE(connection->up()) << connection->Status().last_error;
  EXPECT_EQ(events.story, "up ");
  EXPECT_EQ(relay.accepts, 2u);
  // It is not tried again and again.
  relay.CloseClients();
  Run(seconds(1));
  EXPECT_TRUE(connection->up());
  EXPECT_EQ(relay.accepts, 3u);
}

TEST_F(RegionConnectionTlsTest, SaysWhichCheckFailed) {
  TestCertificateOptions other;
  other.common_name = "other.test";
  other.dns_names = {"other.test"};
  const Trust wrong_name(other);
  EXPECT_THAT(Refused(wrong_name, Strict(AddTlsRelay(wrong_name, 1))), HasSubstr("other.test"));

  TestCertificateOptions old;
  old.not_before = kTestTime - 10 * kDay;
  old.not_after = kTestTime - 5 * kDay;
  const Trust expired(old);
  EXPECT_THAT(Refused(expired, Strict(AddTlsRelay(expired, 2))), HasSubstr("expired"));

  const Trust trust;
  const Trust stranger;
  RelayFixture& relay = AddTlsRelay(trust, 3);
  const std::string unknown = Refused(stranger, Strict(relay));
  EXPECT_THAT(unknown, HasSubstr("region 1 (test): node 1a: "));
  EXPECT_THAT(unknown, HasSubstr("relay.test"));

  RelayRegion pinned = Strict(relay);
  pinned.nodes[0].cert_name = "sha256-raw:" + std::string(64, '0');
  EXPECT_THAT(Refused(trust, pinned), HasSubstr("sha256"));
  // A relay without TLS is no relay.
  EXPECT_THAT(Refused(trust, Strict(AddRelay(4)), seconds(11)),
              HasSubstr("node 1a: TLS handshake not done in time"));
  EXPECT_EQ(relay.logins, 0u);
}

TEST_F(RegionConnectionTlsTest, ACutStreamIsNoOrderlyEnd) {
  const Trust trust;
  RelayFixture& relay = AddTlsRelay(trust);
  const auto connection = ConnectTls(Strict(relay), trust, &events);
  Run(kEnough);
  relay.ResetClients();
  Run(milliseconds(100));
  ASSERT_EQ(events.downs.size(), 1u);
  EXPECT_THAT(events.downs[0].message(), HasSubstr("reset"));
}

TEST_F(RegionConnectionTlsTest, EachPacketIsDeliveredOrCountedAcrossStalls) {
  const Trust trust;
  RelayFixture& relay = AddTlsRelay(trust);
  const auto connection = ConnectTls(Strict(relay), trust, &events, {.max_bytes = 200'000});
  Run(kEnough);
  for (int i = 0; i < 10000; ++i) {
    if (i % 500 == 0) relay.SetStalled(i % 1000 == 500);
    connection->Send(PeerKey(1), Packet(1 + random.Below(random.Chance(0.05) ? 65'536 : 1400)));
    if (random.Chance(0.3)) connection->Flush();
    if (random.Chance(0.2)) Run(milliseconds(10));
  }
  relay.SetStalled(false);
  connection->Flush();
  Run(seconds(2));
  EXPECT_EQ(events.story, "up ");
  const RegionCounters& counters = connection->counters();
  EXPECT_EQ(counters.tx_packets, 10000u);
  EXPECT_GT(counters.tx_dropped_full, 0u);
  EXPECT_EQ(relay.packets + counters.tx_dropped_full + counters.tx_dropped_aged, 10000u);
}

// ---- On real loops ----

class RegionConnectionLoopTest : public testing::TestWithParam<io::WorldParam> {};

INSTANTIATE_TEST_SUITE_P(Worlds, RegionConnectionLoopTest,
                         testing::ValuesIn(io::RealWorldsAndFamilies()), io::ParamName);

TEST_P(RegionConnectionLoopTest, TwoClientsTalkOverARelay) {
  const auto world = GetParam().factory.make();
  io::Loop& loop = world->Add({});
  ASSERT_NE(loop.streams(), nullptr);
  TimerQueue timers;
  const Trust trust;
  RelayFixture relay(
      &loop, &timers,
      {.bind = {world->Address(0, GetParam().v4), 0, 0}, .tls = trust.server.get(), .info = {}});
  FakeResolver resolver(&loop.clock(), &timers);
  const RegionConnectionDeps deps{.loop = &loop,
                                  .timers = &timers,
                                  .resolver = &resolver,
                                  .tls = trust.client.get(),
                                  .random = &SystemRandom()};
  const PrivateKey key_a = RelayFixture::Key(11);
  const PrivateKey key_b = RelayFixture::Key(12);
  Recorder a_events, b_events;
  const auto connect = [&](const PrivateKey& key, Recorder* to) {
    RegionConnectionOptions options;
    options.queue.max_age = seconds(60);  // this thread may not run for a while
    return NewRegionConnection(deps, Strict(relay), key, std::move(options), to);
  };
  const auto a = connect(key_a, &a_events);
  const auto b = connect(key_b, &b_events);
  const auto until = [&](const std::function<bool()>& done) {
    for (const Instant end = SystemClock().Now() + seconds(40); SystemClock().Now() < end;) {
      if (done()) return true;
      const Instant now = loop.clock().Now();
      loop.Poll(std::min(timers.NextDeadline(), now + milliseconds(1)));
      timers.RunDue(loop.clock().Now());
    }
    return false;
  };
  ASSERT_TRUE(until([&] { return a->up() && b->up(); })) << a->Status().last_error;
  // 6 MB in bursts that the queue holds: nothing is lost.
  for (int round = 1; round <= 10; ++round) {
    for (int i = 0; i < 400; ++i) EXPECT_TRUE(a->Send(key_b.Public(), Packet(1400)));
    a->Flush();
    ASSERT_TRUE(until([&] { return b_events.sizes.size() == 400u * round; }))
        << b_events.sizes.size() << " of round " << round;
  }
  EXPECT_EQ(b_events.sources.front(), key_a.Public());
  EXPECT_EQ(a->counters().tx_dropped_bytes, 0u);
  EXPECT_TRUE(b->Send(key_a.Public(), Packet(9)));
  b->Flush();
  ASSERT_TRUE(until([&] { return a_events.sizes.size() == 1; }));
  // The relay goes and comes back.
  relay.ResetClients();
  ASSERT_TRUE(until([&] { return a_events.ups == 2 && b_events.ups == 2; }));
  // A try has 1.5 s, which may have been over when this thread ran again.
  EXPECT_THAT(a_events.story, testing::MatchesRegex("(down )*up (down )+up "));
}

}  // namespace
}  // namespace ringsock::derp
