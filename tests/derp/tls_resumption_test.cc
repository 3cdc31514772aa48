// Which sessions are resumed and which never, on both sides of a change of certificate.
#include <gtest/gtest.h>

#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include "derp/tls_client_context.h"
#include "tests/derp/tls_certificates.h"
#include "tests/derp/tls_pair.h"

namespace ringsock::derp {
namespace {

// Whether TLS 1.3 is allowed.
class TlsResumptionTest : public testing::TestWithParam<bool> {
 protected:
  TlsResumptionTest() { client_ = NewClient({}); }
  ~TlsResumptionTest() override { SetTestTime(kTestTime); }

  std::unique_ptr<TlsClientContext> NewClient(TlsClientContext::Options options) {
    options.allow_tls13 = GetParam();
    return NewTestClient(certificate_.pem + other_.pem, options);
  }
  // Connects, says a word each way, and tells whether the session was resumed.
  bool Resumed(const TlsTarget& target) {
    TlsPair pair(client_.get(), server_.get(), target);
    pair.Handshake();
    pair.server.Send("x");
    pair.client.Send("y");
    pair.Pump();
    EXPECT_TRUE(pair.done()) << pair.client.status << ", " << pair.server.status;
    EXPECT_EQ(pair.client.received, "x");
    EXPECT_EQ(pair.client.session->resumed(), pair.server.session->resumed());
    EXPECT_EQ(pair.client.session->fast_start_key().has_value(), GetParam());
    EXPECT_EQ(pair.client.session->Description().find("resumed") != std::string::npos,
              pair.client.session->resumed());
    return pair.client.session->resumed();
  }
  int ResumedOf(int count, const TlsTarget& target) {
    int resumed = 0;
    for (int i = 0; i < count; ++i) resumed += Resumed(target) ? 1 : 0;
    return resumed;
  }

  const TestCertificate certificate_ = MakeTestCertificate({}, nullptr);
  const TestCertificate other_ = MakeTestCertificate({}, nullptr);
  const std::unique_ptr<TlsServerContext> server_ =
      NewTestServer(certificate_.pem, certificate_.key_pem);
  std::unique_ptr<TlsClientContext> client_;
  const TlsTarget target_ = TargetNamed("relay.test");
};

INSTANTIATE_TEST_SUITE_P(Versions, TlsResumptionTest, testing::Bool(),
                         [](const auto& info) { return info.param ? "Tls13" : "Tls12"; });

// The meta key is remembered with the session: Resumed() looks for it each time.
TEST_P(TlsResumptionTest, AllButTheFirst) { EXPECT_EQ(ResumedOf(10, target_), 9); }

TEST_P(TlsResumptionTest, NeverUnderAnotherRule) {
  ASSERT_EQ(ResumedOf(2, target_), 1);
  TlsTarget insecure = target_;
  insecure.insecure = true;
  EXPECT_FALSE(Resumed(insecure));
  TlsTarget pinned = target_;
  pinned.pin = *CertificatePin(certificate_.pem);
  EXPECT_FALSE(Resumed(pinned));
  TlsTarget fronted = target_;
  fronted.host_name = "front.test";
  EXPECT_FALSE(Resumed(fronted));
  // Each has a session of its own by now.
  for (const TlsTarget& target : {target_, insecure, pinned, fronted}) {
    EXPECT_TRUE(Resumed(target));
  }
}

// What an unverified session learned never stands in for verification.
TEST_P(TlsResumptionTest, InsecureSessionsHelpNobody) {
  TlsTarget target = target_;
  target.insecure = true;
  ASSERT_EQ(ResumedOf(2, target), 1);
  TlsTarget wrong = TargetNamed("wrong.test");
  wrong.host_name = target.host_name;
  TlsPair pair(client_.get(), server_.get(), wrong);
  pair.Handshake();
  EXPECT_EQ(pair.client.status.code(), absl::StatusCode::kUnauthenticated);
}

TEST_P(TlsResumptionTest, NotAfterTheCertificatesTime) {
  ASSERT_EQ(ResumedOf(2, target_), 1);
  SetTestTime(kTestTime + kDay);
  TlsPair pair(client_.get(), server_.get(), target_);
  pair.Handshake();
  EXPECT_EQ(pair.client.status.code(), absl::StatusCode::kUnauthenticated) << pair.client.status;
}

TEST_P(TlsResumptionTest, TheSameCertificateAgainKeepsTickets) {
  ASSERT_EQ(ResumedOf(2, target_), 1);
  ASSERT_TRUE(server_->Load(certificate_.pem, certificate_.key_pem).ok());
  EXPECT_TRUE(Resumed(target_));
}

TEST_P(TlsResumptionTest, AnotherCertificateEndsTickets) {
  ASSERT_EQ(ResumedOf(2, target_), 1);
  TlsPair pair(client_.get(), server_.get(), target_);
  pair.Handshake();
  ASSERT_TRUE(server_->Load(other_.pem, other_.key_pem).ok());
  // Who is there stays.
  pair.client.Send("still here");
  pair.Pump();
  EXPECT_EQ(pair.server.received, "still here");
  EXPECT_EQ(ResumedOf(2, target_), 1);
  // The pinned one is gone.
  TlsTarget pinned = target_;
  pinned.pin = *CertificatePin(certificate_.pem);
  TlsPair refused(client_.get(), server_.get(), pinned);
  refused.Handshake();
  EXPECT_EQ(refused.client.status.code(), absl::StatusCode::kUnauthenticated);
}

TEST_P(TlsResumptionTest, ABadLoadLeavesWhatWasThere) {
  ASSERT_EQ(ResumedOf(2, target_), 1);
  EXPECT_FALSE(server_->Load(other_.pem, certificate_.key_pem).ok());
  EXPECT_FALSE(server_->Load("", "").ok());
  EXPECT_FALSE(server_->Load(other_.pem, "").ok());
  EXPECT_TRUE(Resumed(target_));
}

TEST_P(TlsResumptionTest, NoSessionsAtAll) {
  TlsClientContext::Options options;
  options.max_sessions = 0;
  client_ = NewClient(options);
  EXPECT_EQ(ResumedOf(3, target_), 0);
}

TEST_P(TlsResumptionTest, TheOldestGoesFirst) {
  TlsClientContext::Options options;
  options.max_sessions = 2;
  client_ = NewClient(options);
  TlsTarget a = target_, b = target_, c = target_;
  a.host_name = "a.test";
  b.host_name = "b.test";
  c.host_name = "c.test";
  EXPECT_FALSE(Resumed(a));
  EXPECT_FALSE(Resumed(b));
  EXPECT_TRUE(Resumed(a));
  EXPECT_FALSE(Resumed(c));  // in the place of b
  EXPECT_EQ(static_cast<TlsClientContextImpl*>(client_.get())->cache()->size(), 2u);
  EXPECT_TRUE(Resumed(a));
  EXPECT_FALSE(Resumed(b));
}

// A session offered in a handshake that came to nothing is not offered again.
TEST_P(TlsResumptionTest, AServerThatChokesOnATicketGetsNoneNext) {
  ASSERT_EQ(ResumedOf(2, target_), 1);
  {
    TlsPair pair(client_.get(), server_.get(), target_);
    ASSERT_TRUE(pair.client.session->Start().ok());
  }
  EXPECT_FALSE(Resumed(target_));
  EXPECT_TRUE(Resumed(target_));
}

// One server context serves threads while its certificate changes under them.
TEST_P(TlsResumptionTest, ThreadsShareAServerContext) {
  std::atomic<bool> stop{false};
  std::vector<std::thread> threads;
  std::vector<int> connected(3, 0);
  for (int& count : connected) {
    threads.emplace_back([this, &count, &stop] {
      TlsClientContext::Options options;
      options.roots_file = "";
      options.allow_tls13 = GetParam();
      const auto client = *TlsClientContext::Create(options);
      TlsTarget target = target_;
      target.insecure = true;
      do {
        TlsPair pair(client.get(), server_.get(), target);
        pair.Handshake();
        pair.client.Send("x");
        pair.Pump();
        if (pair.server.received == "x") ++count;
      } while (!stop);
    });
  }
  for (int i = 0; i < 20; ++i) {
    const TestCertificate& next = i % 2 == 0 ? other_ : certificate_;
    EXPECT_TRUE(server_->Load(next.pem, next.key_pem).ok());
  }
  stop = true;
  for (std::thread& thread : threads) thread.join();
  for (const int count : connected) EXPECT_GT(count, 0);
}

}  // namespace
}  // namespace ringsock::derp
