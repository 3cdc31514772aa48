// TLS between a client and a server in memory: handshakes, bytes both ways, ends good and bad.
#include "derp/tls.h"

#include <gtest/gtest.h>

#include <string>

#include "tests/derp/tls_certificates.h"
#include "tests/derp/tls_pair.h"

namespace ringsock::derp {
namespace {

// Whether TLS 1.3 is allowed.
class TlsTest : public testing::TestWithParam<bool> {
 protected:
  TlsTest() {
    const auto made = MakeSelfSignedCertificate("relay.test", kTestTime - kDay, kTestTime + kDay);
    EXPECT_TRUE(made.ok()) << made.status();
    certificate_ = *made;
    TlsServerContext::Options server_options;
    server_options.meta_key.bytes = {1, 2, 3};
    server_context_ = *TlsServerContext::Create(server_options);
    EXPECT_TRUE(server_context_->Load(certificate_.chain_pem, certificate_.key_pem).ok());
    client_context_ = NewClientContext(GetParam());
    target_.host_name = "relay.test";
    target_.certificate_name = "relay.test";
  }

  std::unique_ptr<TlsClientContext> NewClientContext(bool allow_tls13) {
    TlsClientContext::Options options;
    options.roots_file = WriteTestFile("roots.pem", certificate_.chain_pem);
    options.allow_tls13 = allow_tls13;
    options.unix_time = [] { return kTestTime; };
    auto context = TlsClientContext::Create(options);
    EXPECT_TRUE(context.ok()) << context.status();
    return *std::move(context);
  }

  SelfSignedCertificate certificate_;
  std::unique_ptr<TlsServerContext> server_context_;
  std::unique_ptr<TlsClientContext> client_context_;
  TlsTarget target_;
};

INSTANTIATE_TEST_SUITE_P(Versions, TlsTest, testing::Bool(),
                         [](const auto& info) { return info.param ? "Tls13" : "Tls12"; });

TEST_P(TlsTest, BytesBothWays) {
  TlsPair pair(client_context_.get(), server_context_.get(), target_);
  pair.Handshake();
  ASSERT_TRUE(pair.done()) << pair.client.status << ", " << pair.server.status;
  EXPECT_EQ(pair.client.handshakes, 1);
  EXPECT_EQ(pair.server.handshakes, 1);
  EXPECT_EQ(pair.client.session->Description().substr(0, 7), GetParam() ? "TLSv1.3" : "TLSv1.2");
  pair.client.Send("from the client");
  pair.server.Send("from the server");
  pair.Pump();
  EXPECT_EQ(pair.server.received, "from the client");
  EXPECT_EQ(pair.client.received, "from the server");
  // spec: derp.md, Fast start: only TLS 1.3 vouches for it.
  EXPECT_EQ(pair.client.session->fast_start_key().has_value(), GetParam());
  if (GetParam()) {
    EXPECT_EQ(pair.client.session->fast_start_key()->bytes[1], 2);
  }
  EXPECT_FALSE(pair.server.session->fast_start_key().has_value());
}

}  // namespace
}  // namespace ringsock::derp
