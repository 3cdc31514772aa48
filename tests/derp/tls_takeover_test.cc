// Where our records take over from BoringSSL's: against one that goes on with its own, in either
// role, with everything that may be under way just then.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "derp/tls_traffic_key.h"
#include "tests/derp/tls_boring_peer.h"
#include "tests/derp/tls_certificates.h"
#include "tests/derp/tls_pair.h"

namespace ringsock::derp {
namespace {

using testing::HasSubstr;

// Ours in one role, BoringSSL in the other.
class TlsTakeoverTest : public testing::TestWithParam<bool> {
 protected:
  bool ours_is_client() const { return GetParam(); }

  void Connect(uint16_t version = TLS1_3_VERSION, size_t chunk = SIZE_MAX) {
    end_ = std::make_unique<TlsEnd>();
    if (ours_is_client()) {
      peer_ = std::make_unique<BoringPeer>(boring_.get(), version);
      end_->session =
          *TlsSession::NewClient(client_.get(), TargetNamed("relay.test"), end_.get(), end_.get());
    } else {
      peer_ = std::make_unique<BoringPeer>(nullptr, version, resume_);
      end_->session = *TlsSession::NewServer(server_.get(), end_.get(), end_.get());
    }
    if (on_done_) end_->on_handshake_done = on_done_;
    end_->status = end_->session->Start();
    peer_->Pump(end_.get(), chunk);
    ASSERT_TRUE(end_->session->handshake_done()) << end_->status;
    ASSERT_FALSE(SSL_in_init(peer_->ssl()));
  }
  void Exchange(const std::string& there, const std::string& back, size_t chunk = SIZE_MAX) {
    const size_t sent = end_->sent, heard = end_->received.size();
    const size_t peer_heard = peer_->received().size();
    end_->Send(there);
    ASSERT_EQ(end_->sent - sent, there.size());
    peer_->Send(back);
    peer_->Pump(end_.get(), chunk);
    ASSERT_TRUE(end_->status.ok()) << end_->status;
    EXPECT_EQ(peer_->received().substr(peer_heard), there);
    EXPECT_EQ(end_->received.substr(heard), back);
  }

  // As if the other side had sent it next.
  void ReceiveBadTicket() {
    bssl::Span<const uint8_t> reads, writes;
    ASSERT_TRUE(bssl::SSL_get_traffic_secrets(peer_->ssl(), &reads, &writes));
    TlsTrafficKey key;
    ASSERT_TRUE(key.Init(SSL_CIPHER_get_protocol_id(SSL_get_current_cipher(peer_->ssl())),
                         {writes.data(), writes.size()}, SSL_get_write_sequence(peer_->ssl())));
    std::vector<std::byte> record(100);
    const std::string ticket("\4\0\0\3bad", 7);
    record.resize(key.Seal(TlsContent::kHandshake, AsBytes(ticket), record));
    TlsEnd source;
    source.Write(record);
    end_->TakeFrom(&source);
  }

  const TestCertificate certificate_ = MakeTestCertificate({}, nullptr);
  const std::unique_ptr<TlsClientContext> client_ = NewTestClient(certificate_.pem);
  const std::unique_ptr<TlsServerContext> server_ =
      NewTestServer(certificate_.pem, certificate_.key_pem);
  const bssl::UniquePtr<SSL_CTX> boring_ = NewBoringServer(certificate_);
  std::function<void()> on_done_;
  SSL_SESSION* resume_ = nullptr;
  std::unique_ptr<TlsEnd> end_;
  std::unique_ptr<BoringPeer> peer_;
};
INSTANTIATE_TEST_SUITE_P(Roles, TlsTakeoverTest, testing::Bool(),
                         [](const auto& info) { return info.param ? "Client" : "Server"; });

TEST_P(TlsTakeoverTest, BytesBothWays) {
  Connect();
  EXPECT_TRUE(end_->session->own_records());
  Exchange("hello", "and back");
  std::string large;
  for (int i = 0; i < 30000; ++i) large += std::to_string(i);
  Exchange(large, large + large);
  Exchange("a", "b");
}

TEST_P(TlsTakeoverTest, InPiecesOfEverySize) {
  for (const size_t chunk : {1, 2, 3, 5, 7, 100, 16383, 16384, 16406}) {
    Connect(TLS1_3_VERSION, chunk);
    Exchange("hello", std::string(chunk > 7 ? 100000 : 3000, 'x'), chunk);
    EXPECT_TRUE(end_->session->own_records());
  }
}

// From within the callback that says the handshake is done, when the other side may not be yet.
TEST_P(TlsTakeoverTest, SendsAsSoonAsItMay) {
  on_done_ = [this] { end_->Send("at once"); };
  Connect();
  EXPECT_EQ(peer_->received(), "at once");
  Exchange("x", "y");
}

TEST_P(TlsTakeoverTest, Tls12StaysWithBoringSsl) {
  Connect(TLS1_2_VERSION);
  EXPECT_FALSE(end_->session->own_records());
  EXPECT_THAT(end_->session->Description(), HasSubstr("TLSv1.2 "));
  Exchange(std::string(50000, 'x'), std::string(50000, 'y'));
  end_->session->Shutdown();
  peer_->Pump(end_.get());
  EXPECT_EQ(peer_->error(), SSL_ERROR_ZERO_RETURN);
}

TEST_P(TlsTakeoverTest, KeyUpdatesOfTheOtherSide) {
  Connect();
  for (int i = 0; i < 40; ++i) {
    const int request = i % 2 == 0 ? SSL_KEY_UPDATE_REQUESTED : SSL_KEY_UPDATE_NOT_REQUESTED;
    ASSERT_EQ(SSL_key_update(peer_->ssl(), request), 1);
    Exchange("there " + std::to_string(i), "back " + std::to_string(i), 11);
  }
  EXPECT_TRUE(end_->session->own_records());
}

TEST_P(TlsTakeoverTest, CloseNotifyBothWays) {
  Connect();
  Exchange("x", "y");
  end_->session->Shutdown();
  peer_->Pump(end_.get());
  EXPECT_EQ(peer_->error(), SSL_ERROR_ZERO_RETURN);
  SSL_shutdown(peer_->ssl());
  peer_->Pump(end_.get());
  EXPECT_TRUE(end_->session->OnStreamEnd().ok());

  Connect();
  EXPECT_EQ(end_->session->OnStreamEnd().code(), absl::StatusCode::kDataLoss);
}

TEST_P(TlsTakeoverTest, OurAlertsAreUnderstood) {
  Connect();
  const std::string garbage("\x17\3\3\0\x30", 5);
  TlsEnd source;
  source.Write(AsBytes(garbage + std::string(0x30, 'g')));
  end_->TakeFrom(&source);
  EXPECT_EQ(end_->status.code(), absl::StatusCode::kInvalidArgument);
  const absl::Status first = end_->status;
  EXPECT_EQ(end_->session->Receive({}), first);
  EXPECT_EQ(end_->session->Send(AsBytes("late")), 0u);
  end_->session->Shutdown();
  peer_->Pump(end_.get());
  EXPECT_EQ(peer_->error(), SSL_ERROR_SSL);
  EXPECT_EQ(peer_->error_text(), "SSLV3_ALERT_BAD_RECORD_MAC");
}

TEST_P(TlsTakeoverTest, ItsAlertsAreTold) {
  Connect();
  ASSERT_EQ(SSL_send_fatal_alert(peer_->ssl(), SSL_AD_INTERNAL_ERROR), 1);
  peer_->Pump(end_.get());
  EXPECT_EQ(end_->status.code(), absl::StatusCode::kAborted);
  EXPECT_THAT(std::string(end_->status.message()), HasSubstr("internal error (alert 80)"));
}

// BoringSSL would say what is wrong with a ticket itself, with the key and the number that it had
// when ours took over: that nonce has been used by then.
TEST_P(TlsTakeoverTest, OfABadTicketOnlyOurAlertIsSent) {
  if (!ours_is_client()) return;
  Connect();  // its ticket waits for its first data
  ReceiveBadTicket();
  EXPECT_FALSE(end_->status.ok());
  peer_->Pump(end_.get());
  EXPECT_EQ(peer_->error(), SSL_ERROR_SSL);
  EXPECT_EQ(peer_->error_text(), "TLSV1_ALERT_DECODE_ERROR");
}

// BoringSSL's part, and the first secrets with it, has gone by the first good ticket: what comes
// later nobody reads.
TEST_P(TlsTakeoverTest, TicketsBehindTheFirstArePassedOver) {
  if (!ours_is_client()) return;
  Connect();
  Exchange("x", "y");
  ReceiveBadTicket();
  EXPECT_TRUE(end_->status.ok()) << end_->status;
  Connect();
  EXPECT_TRUE(end_->session->resumed());
}

// ... or by the first update of a key.
TEST_P(TlsTakeoverTest, TicketsBehindAKeyUpdateArePassedOver) {
  if (!ours_is_client()) return;
  SSL_CTX_set_num_tickets(boring_.get(), 0);
  for (const bool updates : {false, true}) {
    Connect();
    if (updates) {
      ASSERT_EQ(SSL_key_update(peer_->ssl(), SSL_KEY_UPDATE_NOT_REQUESTED), 1);
    }
    Exchange("x", "y");
    ReceiveBadTicket();
    EXPECT_EQ(end_->status.ok(), updates) << end_->status;
  }
}

// Tickets go, and come, under the new records.
TEST_P(TlsTakeoverTest, Resumption) {
  std::unique_ptr<BoringPeer> before;
  for (const bool resumed : {false, true, true}) {
    Connect();
    EXPECT_EQ(end_->session->resumed(), resumed);
    EXPECT_EQ(SSL_session_reused(peer_->ssl()), resumed ? 1 : 0);
    EXPECT_EQ(end_->session->Description().find(", resumed") != std::string::npos, resumed);
    EXPECT_TRUE(end_->session->own_records());
    // Ours does not wait for data to send its ticket along; BoringSSL does.
    EXPECT_EQ(peer_->tickets().size(), ours_is_client() ? 0u : 1u);
    Exchange("x", "y");
    before = std::move(peer_);
    if (!ours_is_client()) resume_ = before->tickets().back().get();
  }
}

}  // namespace
}  // namespace ringsock::derp
