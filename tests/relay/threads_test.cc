// The relay as it runs: threads, real loops, TLS. Clients of a test share one loop, the test's.
#include <gmock/gmock.h>

#include <ctime>

#include "absl/strings/str_cat.h"
#include "derp/tls.h"
#include "tests/relay/relay_world.h"

namespace ringsock::relay {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

class ThreadsTest : public testing::Test {
 protected:
  ThreadsTest() {
    options_.identity = &identity_;
    auto loop = io::CreateLoop({});
    EXPECT_TRUE(loop.ok()) << loop.status();
    loop_ = std::move(loop).value();
  }
  ~ThreadsTest() override { clients_.clear(); }

  void Start(int workers, bool tls) {
    if (tls) {
      auto context = derp::TlsServerContext::Create({.meta_key = identity_.public_key()});
      ASSERT_TRUE(context.ok()) << context.status();
      server_tls_ = std::move(context).value();
      const int64_t now = time(nullptr);
      auto certificate = derp::MakeSelfSignedCertificate("localhost", now - 60, now + 3600);
      ASSERT_TRUE(certificate.ok()) << certificate.status();
      const auto loaded = server_tls_->Load(certificate->chain_pem, certificate->key_pem);
      ASSERT_TRUE(loaded.ok()) << loaded;
      pin_ = *derp::CertificatePin(certificate->chain_pem);
      auto client_tls = derp::TlsClientContext::Create({});
      ASSERT_TRUE(client_tls.ok()) << client_tls.status();
      client_tls_ = std::move(client_tls).value();
      options_.tls = server_tls_.get();
    }
    // Threads that do not run for a while are no reason to drop anything.
    options_.queues.max_age = options_.queues.write_timeout = seconds(60);
    options_.workers = workers;
    options_.listen = {{{IpAddress::V4(127, 0, 0, 1), 0, 0}, tls}};
    auto server = Server::Create(std::move(options_));
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = std::move(server).value();
    const auto started = server_->Start();
    ASSERT_TRUE(started.ok()) << started;
  }
  TestClient& Join(uint8_t number) {
    TestClient::Config config;
    config.tls = client_tls_.get();
    config.target.host_name = "localhost";
    config.target.pin = pin_;
    clients_.push_back(std::make_unique<TestClient>(
        loop_.get(), KeyOf(number), server_->LocalEndpoints().at(0), std::move(config)));
    TestClient& client = *clients_.back();
    Until([&] { return client.ready(); }, "login");
    return client;
  }
  void Until(const std::function<bool()>& predicate, const char* what) {
    const Instant end = SystemClock().Now() + seconds(60);
    while (!predicate()) {
      const Instant now = SystemClock().Now();
      ASSERT_LT(now, end) << "never happened: " << what;
      loop_->Poll(now + milliseconds(10));
    }
  }

  const derp::ServerIdentity identity_{KeyOf(200)};
  Options options_;
  std::unique_ptr<derp::TlsServerContext> server_tls_;
  std::unique_ptr<derp::TlsClientContext> client_tls_;
  std::optional<std::array<uint8_t, 32>> pin_;
  std::unique_ptr<io::Loop> loop_;
  std::unique_ptr<Server> server_;
  std::vector<std::unique_ptr<TestClient>> clients_;
};

TEST_F(ThreadsTest, ForwardsOverTls) {
  Start(1, /*tls=*/true);
  TestClient& a = Join(1);
  TestClient& b = Join(2);
  std::string expected;
  for (int i = 0; i < 300; ++i) {
    const std::string packet = absl::StrCat(i, ":", std::string(static_cast<size_t>(i) * 7, 'x'));
    Until([&] { return a.Send(b.key(), packet); }, "room");
    absl::StrAppend(&expected, packet, "|");
  }
  Until([&] { return b.packets.size() == 300; }, "all arrives");
  EXPECT_EQ(b.Text(&a), expected);
  // A worker counts what it has sent a moment later.
  Until([&] { return server_->GetStats().packets_out >= 300; }, "all is counted");
  EXPECT_EQ(server_->GetStats().packets_out, 300u);
  const std::vector<ClientStatus> clients = server_->Clients(10);
  ASSERT_EQ(clients.size(), 2u);
  EXPECT_THAT(clients[0].tls, testing::HasSubstr("TLSv1.3"));
  EXPECT_EQ(server_->Clients(1).size(), 1u);
  EXPECT_TRUE(server_->Responsive(seconds(30)));
  server_->Stop(milliseconds(100));
  EXPECT_FALSE(server_->Responsive(seconds(1)));
  EXPECT_EQ(server_->GetStats().clients, 0u);
}

TEST_F(ThreadsTest, GarbageInsteadOfTlsIsEndedAndTheOthersGoOn) {
  Start(1, /*tls=*/true);
  TestClient::Config config;
  config.login = false;
  TestClient garbage(loop_.get(), KeyOf(9), server_->LocalEndpoints().at(0), std::move(config));
  Until([&] { return garbage.connected; }, "connects");
  ASSERT_TRUE(garbage.SendRaw("GET /derp HTTP/1.1\r\n\r\n"));
  Until([&] { return garbage.closed; }, "is closed");
  Until([&] { return server_->GetStats().login_failed == 1; }, "is counted");
  Join(1);
}

// Clients come and go, and send to one another across workers, all the time.
TEST_F(ThreadsTest, TwoWorkersUnderChange) {
  Start(2, /*tls=*/false);
  SeededRandom random(11);
  std::vector<TestClient*> all;
  for (uint8_t i = 0; i < 12; ++i) all.push_back(&Join(1 + i));
  uint64_t sent = 0;
  for (int round = 0; round < 60; ++round) {
    for (TestClient* from : all) {
      for (int i = 0; i < 5; ++i) {
        sent += from->Send(all[random.Below(all.size())]->key(), std::string(200, 'x')) ? 1 : 0;
      }
    }
    loop_->Poll(SystemClock().Now());
    if (round % 5 == 0) {
      const size_t who = random.Below(all.size());
      const auto number = static_cast<uint8_t>(1 + who);
      all[who]->Close();
      all[who] = &Join(number);
    }
    if (round % 20 == 0) server_->Clients(100);
  }
  const auto accounted = [&] {
    const Stats stats = server_->GetStats();
    return stats.packets_out + stats.dropped_gone + stats.dropped_unknown +
           stats.dropped_queue_full + stats.dropped_queue_age + stats.dropped_memory +
           stats.dropped_between_workers;
  };
  // What has been sent may still be on its way to a worker that does not run.
  Until([&] { return server_->GetStats().packets_out > sent / 2; }, "most arrive");
  Until(
      [&] {
        const uint64_t in = server_->GetStats().packets_in;
        return accounted() >= in;
      },
      "all is accounted for");
  EXPECT_LE(accounted(), sent);
  server_->Stop(milliseconds(500));
}

TEST_F(ThreadsTest, AServerThatIsDestroyedEndsAtOnce) {
  Start(2, /*tls=*/false);
  Join(1);
  Join(2);
  server_.reset();
  Until([&] { return clients_[0]->closed && clients_[1]->closed; }, "closed");
}

TEST_F(ThreadsTest, AnAddressThatIsTakenIsAnError) {
  Start(1, /*tls=*/false);
  Options options;
  options.identity = &identity_;
  options.listen = {{server_->LocalEndpoints().at(0), false}};
  auto second = Server::Create(std::move(options));
  ASSERT_TRUE(second.ok());
  const auto status = (*second)->Start();
  EXPECT_FALSE(status.ok());
  EXPECT_THAT(std::string(status.message()), testing::HasSubstr("127.0.0.1"));
}

}  // namespace
}  // namespace ringsock::relay
