// TLS between a client and a server in memory: handshakes, bytes both ways, ends good and bad.
#include "derp/tls.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <utility>

#include "derp/tls_ssl.h"
#include "tests/derp/tls_certificates.h"
#include "tests/derp/tls_pair.h"

namespace ringsock::derp {
namespace {

using testing::HasSubstr;

// Whether TLS 1.3 is allowed.
class TlsTest : public testing::TestWithParam<bool> {
 protected:
  TlsTest() {
    TlsClientContext::Options options;
    options.allow_tls13 = GetParam();
    client_ = NewTestClient(certificate_.pem, options);
  }

  const TestCertificate certificate_ = MakeTestCertificate({}, nullptr);
  const std::unique_ptr<TlsServerContext> server_ =
      NewTestServer(certificate_.pem, certificate_.key_pem);
  std::unique_ptr<TlsClientContext> client_;
};

INSTANTIATE_TEST_SUITE_P(Versions, TlsTest, testing::Bool(),
                         [](const auto& info) { return info.param ? "Tls13" : "Tls12"; });

// What TLS 1.2 does not have.
class Tls13Only : public TlsTest {};
INSTANTIATE_TEST_SUITE_P(Versions, Tls13Only, testing::Values(true));

// A pair does not move: its sessions know where its ends are.
#define CONNECT(pair)                                                    \
  TlsPair pair(client_.get(), server_.get(), TargetNamed("relay.test")); \
  pair.Handshake();                                                      \
  ASSERT_TRUE(pair.done()) << pair.client.status << ", " << pair.server.status

TEST_P(TlsTest, BytesBothWays) {
  CONNECT(pair);
  EXPECT_EQ(pair.client.handshakes, 1);
  EXPECT_EQ(pair.server.handshakes, 1);
  EXPECT_EQ(pair.client.session->Description().substr(0, 7), GetParam() ? "TLSv1.3" : "TLSv1.2");
  EXPECT_FALSE(pair.client.session->resumed());
  pair.client.Send("from the client");
  pair.server.Send("from the server");
  pair.Pump();
  EXPECT_EQ(pair.server.received, "from the client");
  EXPECT_EQ(pair.client.received, "from the server");
}

// spec: derp.md, Fast start: only a transcript of TLS 1.3 vouches for the key.
TEST_P(TlsTest, MetaKeyIsSeenOverTls13) {
  CONNECT(pair);
  const auto key = pair.client.session->fast_start_key();
  ASSERT_EQ(key.has_value(), GetParam());
  if (key.has_value()) {
    EXPECT_EQ(key->bytes[1], 2);
  }
  EXPECT_FALSE(pair.server.session->fast_start_key().has_value());
}

TEST_P(TlsTest, NoMetaKeyWithoutMetaCertificate) {
  const auto server = NewTestServer(certificate_.pem, certificate_.key_pem, false);
  TlsPair pair(client_.get(), server.get(), TargetNamed("relay.test"));
  pair.Handshake();
  ASSERT_TRUE(pair.done());
  EXPECT_FALSE(pair.client.session->fast_start_key().has_value());
}

TEST_P(TlsTest, AnyChunking) {
  for (const size_t chunk : {size_t{1}, size_t{2}, size_t{3}, size_t{7}, size_t{100}}) {
    TlsPair pair(client_.get(), server_.get(), TargetNamed("relay.test"));
    pair.Handshake(chunk);
    ASSERT_TRUE(pair.done()) << chunk << ": " << pair.client.status << ", " << pair.server.status;
    pair.client.Send(std::string(5000, 'c'));
    pair.server.Send(std::string(5000, 's'));
    pair.Pump(chunk);
    EXPECT_EQ(pair.server.received, std::string(5000, 'c'));
    EXPECT_EQ(pair.client.received, std::string(5000, 's'));
  }
}

TEST_P(TlsTest, FullRecordsComeInOnePieceEach) {
  CONNECT(pair);
  pair.server.Send(std::string(3 * kMaxTlsPlaintext, 'x'));
  EXPECT_EQ(pair.server.sent, 3 * kMaxTlsPlaintext);
  pair.client.deliveries = 0;
  pair.Pump(100000);
  EXPECT_EQ(pair.client.received.size(), 3 * kMaxTlsPlaintext);
  EXPECT_EQ(pair.client.deliveries, 3);
}

TEST_P(TlsTest, SendTakesWholeRecordsThatFit) {
  CONNECT(pair);
  pair.server.room = 2 * (kMaxTlsPlaintext + kMaxTlsOverhead) + 1000;
  pair.server.Send(std::string(5 * kMaxTlsPlaintext, 'x'));
  EXPECT_EQ(pair.server.sent, 2 * kMaxTlsPlaintext);
  EXPECT_LE(pair.server.written.size(), pair.server.room);
  pair.server.room = 10;
  pair.server.Send("x");
  EXPECT_EQ(pair.server.sent, 2 * kMaxTlsPlaintext);
}

TEST_P(TlsTest, NothingIsSentBeforeTheHandshakeOrAfterShutdown) {
  TlsPair pair(client_.get(), server_.get(), TargetNamed("relay.test"));
  pair.client.Send("early");
  EXPECT_EQ(pair.client.sent, 0u);
  pair.Handshake();
  pair.client.session->Shutdown();
  pair.client.Send("late");
  EXPECT_EQ(pair.client.sent, 0u);
}

TEST_P(TlsTest, SendFromInsideEvents) {
  TlsPair pair(client_.get(), server_.get(), TargetNamed("relay.test"));
  pair.client.on_handshake_done = [&pair] { pair.client.Send("ping"); };
  pair.server.on_plaintext = [&pair] {
    pair.server.Send("pong");
    return absl::OkStatus();
  };
  pair.Handshake();
  EXPECT_EQ(pair.server.received, "ping");
  EXPECT_EQ(pair.client.received, "pong");
}

TEST_P(TlsTest, ErrorOfTheReceiverEndsTheSession) {
  CONNECT(pair);
  pair.server.on_plaintext = [] { return absl::InvalidArgumentError("not a frame"); };
  pair.client.Send("x");
  pair.client.Send("y");
  pair.Pump();
  EXPECT_EQ(pair.server.status, absl::InvalidArgumentError("not a frame"));
  EXPECT_EQ(pair.server.received, "x");
  EXPECT_EQ(pair.server.session->Receive({}), pair.server.status);
  EXPECT_EQ(pair.server.session->OnStreamEnd(), pair.server.status);
}

TEST_P(TlsTest, CloseNotifyIsAGoodEnd) {
  CONNECT(pair);
  pair.client.Send("last words");
  pair.client.session->Shutdown();
  pair.client.session->Shutdown();
  pair.Pump();
  EXPECT_TRUE(pair.server.status.ok());
  EXPECT_EQ(pair.server.received, "last words");
  EXPECT_TRUE(pair.server.session->OnStreamEnd().ok());
}

TEST_P(TlsTest, AStreamThatIsCutIsAnError) {
  CONNECT(pair);
  pair.client.Send("x");
  pair.client.written.pop_back();
  pair.Pump();
  EXPECT_EQ(pair.server.received, "");
  const absl::Status status = pair.server.session->OnStreamEnd();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(status.message()), HasSubstr("close_notify"));
}

TEST_P(TlsTest, AStreamThatEndsInTheHandshakeIsAnError) {
  TlsPair pair(client_.get(), server_.get(), TargetNamed("relay.test"));
  ASSERT_TRUE(pair.client.session->Start().ok());
  EXPECT_THAT(std::string(pair.client.session->OnStreamEnd().message()), HasSubstr("handshake"));
}

TEST_P(TlsTest, AChangedRecordEndsTheSession) {
  CONNECT(pair);
  pair.client.Send("a packet");
  pair.client.written.back() ^= std::byte{1};
  pair.Pump();
  EXPECT_THAT(std::string(pair.server.status.message()), HasSubstr("does not decrypt"));
  EXPECT_EQ(pair.server.received, "");
  // The client hears why.
  EXPECT_EQ(pair.client.status.code(), absl::StatusCode::kAborted);
}

TEST_P(TlsTest, AReplayedRecordEndsTheSession) {
  CONNECT(pair);
  pair.client.Send("once");
  const std::vector<std::byte> record = pair.client.written;
  pair.Pump();
  EXPECT_EQ(pair.server.received, "once");
  pair.client.written = record;
  pair.Pump();
  EXPECT_FALSE(pair.server.status.ok());
  EXPECT_EQ(pair.server.received, "once");
}

TEST_P(TlsTest, EveryBitOfAHandshakeCounts) {
  // Each byte of the server's first flight in turn, which nobody may change unseen.
  TlsPair sample(client_.get(), server_.get(), TargetNamed("relay.test"));
  ASSERT_TRUE(sample.client.session->Start().ok());
  sample.server.TakeFrom(&sample.client);
  const size_t size = sample.server.written.size();
  ASSERT_GT(size, 500u);
  for (size_t at = 5; at < size; at += 41) {
    TlsPair pair(client_.get(), server_.get(), TargetNamed("relay.test"));
    ASSERT_TRUE(pair.client.session->Start().ok());
    pair.server.TakeFrom(&pair.client);
    if (at >= pair.server.written.size()) break;
    pair.server.written[at] ^= std::byte{0x10};
    pair.Pump();
    EXPECT_FALSE(pair.client.session->handshake_done() && pair.server.session->handshake_done())
        << at;
  }
}

TEST_P(TlsTest, GarbageIsRefusedByBothSides) {
  for (const std::string& garbage :
       {std::string("GET / HTTP/1.1\r\nHost: relay.test\r\n\r\n"), std::string(4000, '\xff'),
        std::string(4000, '\0'), std::string("SSH-2.0-OpenSSH_9.2\r\n"),
        std::string("\x16\x03\x01\xff\xff", 5), std::string("\x15\x03\x03\x00\x02\x02\x28", 7)}) {
    TlsPair pair(client_.get(), server_.get(), TargetNamed("relay.test"));
    ASSERT_TRUE(pair.client.session->Start().ok());
    TlsEnd source;
    for (TlsEnd* end : {&pair.client, &pair.server}) {
      source.Write(AsBytes(garbage));
      end->TakeFrom(&source, 9);
      EXPECT_FALSE(end->status.ok()) << garbage.substr(0, 10);
      EXPECT_FALSE(end->session->handshake_done());
    }
  }
}

TEST_P(TlsTest, PlainHttpIsNamed) {
  TlsPair pair(client_.get(), server_.get(), TargetNamed("relay.test"));
  TlsEnd source;
  source.Write(AsBytes("GET / HTTP/1.1\r\n\r\n"));
  pair.server.TakeFrom(&source);
  EXPECT_THAT(std::string(pair.server.status.message()), HasSubstr("plain HTTP"));
}

// Records that carry nothing, warnings without end: each is legal alone.
TEST_P(TlsTest, AnEndlessHandshakeIsBounded) {
  TlsPair pair(client_.get(), server_.get(), TargetNamed("relay.test"));
  ASSERT_TRUE(pair.client.session->Start().ok());
  // A server hello that says it is 16 MB long, a byte in a record.
  const std::string head("\x16\x03\x03\x00\x04\x02\xff\xff\xff", 9);
  const std::string more("\x16\x03\x03\x00\x01\x00", 6);
  TlsEnd source;
  source.Write(AsBytes(head));
  size_t given = head.size();
  pair.client.TakeFrom(&source);
  while (pair.client.status.ok() && given < (1 << 20)) {
    source.Write(AsBytes(more));
    pair.client.TakeFrom(&source);
    given += more.size();
  }
  EXPECT_FALSE(pair.client.status.ok());
  EXPECT_LE(given, size_t{128} << 10);
}

TEST_P(TlsTest, NoCertificateNoService) {
  const auto server = *TlsServerContext::Create({});
  TlsEnd end;
  EXPECT_EQ(TlsSession::NewServer(server.get(), &end, &end).status().code(),
            absl::StatusCode::kFailedPrecondition);
}

TEST_P(TlsTest, HostNamesThatAreNone) {
  for (const std::string& name : {std::string(300, 'a'), std::string("a\0b", 3)}) {
    TlsEnd end;
    EXPECT_FALSE(TlsSession::NewClient(client_.get(), TargetNamed(name), &end, &end).ok());
  }
}

// What our own client does not do: another one, of bare BoringSSL, against our server.
class BareClient {
 public:
  BareClient(TlsServerContext* server, int version) : ctx_(SSL_CTX_new(TLS_method())) {
    end_.session = *TlsSession::NewServer(server, &end_, &end_);
    SSL_CTX_set_max_proto_version(ctx_.get(), static_cast<uint16_t>(version));
    ssl_.reset(SSL_new(ctx_.get()));
    transport_.sink = &written_;
    AttachTransport(ssl_.get(), &transport_);
    SSL_set_connect_state(ssl_.get());
  }
  // Does what `call` says until it needs no more bytes.
  template <typename Call>
  int Run(Call call) {
    int result = 0;
    while (true) {
      result = call(ssl_.get());
      end_.TakeFrom(&written_);
      if (result > 0 || end_.written.empty()) return result;
      input_ = std::exchange(end_.written, {});
      transport_.input = input_;
    }
  }
  SSL* ssl() { return ssl_.get(); }
  TlsEnd* server() { return &end_; }

 private:
  bssl::UniquePtr<SSL_CTX> ctx_;
  TlsTransport transport_;
  bssl::UniquePtr<SSL> ssl_;
  TlsEnd written_;
  TlsEnd end_;
  std::vector<std::byte> input_;
};

TEST_P(Tls13Only, KeyUpdatesAreFollowed) {
  BareClient client(server_.get(), TLS1_3_VERSION);
  ASSERT_EQ(client.Run(&SSL_do_handshake), 1);
  for (int i = 0; i < 5; ++i) {
    ASSERT_EQ(SSL_key_update(client.ssl(), SSL_KEY_UPDATE_REQUESTED), 1);
    ASSERT_GT(client.Run([](SSL* ssl) { return SSL_write(ssl, "x", 1); }), 0);
    client.server()->Send("y");  // under a new key as well, as was asked
    char text[10];
    ASSERT_EQ(client.Run([&text](SSL* ssl) { return SSL_read(ssl, text, sizeof(text)); }), 1);
  }
  EXPECT_EQ(client.server()->received, "xxxxx");
  EXPECT_TRUE(client.server()->status.ok()) << client.server()->status;
}

TEST_P(Tls13Only, KeyUpdatesWithoutEndAreNotFollowed) {
  BareClient client(server_.get(), TLS1_3_VERSION);
  ASSERT_EQ(client.Run(&SSL_do_handshake), 1);
  for (int i = 0; i < 1000 && client.server()->status.ok(); ++i) {
    SSL_key_update(client.ssl(), SSL_KEY_UPDATE_NOT_REQUESTED);
    client.Run([](SSL* ssl) { return SSL_write(ssl, "", 0); });
  }
  EXPECT_FALSE(client.server()->status.ok());
}

// A browser offers h2 and http/1.1; whoever offers only what we have not is served all the same.
TEST_P(TlsTest, Http11IsChosenWhereOffered) {
  const std::string both("\x02h2\x08http/1.1", 12), other("\x02h2", 3);
  for (const std::string& offer : {both, other}) {
    BareClient client(server_.get(), GetParam() ? TLS1_3_VERSION : TLS1_2_VERSION);
    SSL_set_alpn_protos(client.ssl(), reinterpret_cast<const uint8_t*>(offer.data()),
                        static_cast<unsigned>(offer.size()));
    ASSERT_EQ(client.Run(&SSL_do_handshake), 1);
    const uint8_t* chosen = nullptr;
    unsigned size = 0;
    SSL_get0_alpn_selected(client.ssl(), &chosen, &size);
    EXPECT_EQ(std::string(reinterpret_cast<const char*>(chosen), size),
              offer == both ? "http/1.1" : "");
  }
}

TEST_P(TlsTest, OldVersionsAreRefused) {
  BareClient client(server_.get(), TLS1_1_VERSION);
  EXPECT_LE(client.Run(&SSL_do_handshake), 0);
  EXPECT_THAT(std::string(client.server()->status.message()), HasSubstr("no common version"));
}

}  // namespace
}  // namespace ringsock::derp
