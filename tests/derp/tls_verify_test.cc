// Whom a client trusts, rule by rule, and what it says when it does not (spec: derp.md, Transport).
#include "derp/tls_verify.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <string>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "tests/derp/tls_certificates.h"
#include "tests/derp/tls_pair.h"

namespace ringsock::derp {
namespace {

using testing::AllOf;
using testing::HasSubstr;

// Whether TLS 1.3 is allowed.
class TlsVerifyTest : public testing::TestWithParam<bool> {
 protected:
  ~TlsVerifyTest() override { SetTestTime(kTestTime); }

  // Connects to a server with this certificate and returns the client's status. Whatever it is, the
  // server must agree on how it ended.
  absl::Status Connect(const TestCertificate& certificate, const TlsTarget& target,
                       const std::string& roots_pem, bool meta_certificate = true) {
    TlsClientContext::Options options;
    options.allow_tls13 = GetParam();
    const auto client = NewTestClient(roots_pem, options);
    const auto server =
        NewTestServer(certificate.chain_pem(), certificate.key_pem, meta_certificate);
    TlsPair pair(client.get(), server.get(), target);
    pair.Handshake();
    EXPECT_EQ(pair.done(), pair.client.status.ok());
    EXPECT_EQ(pair.server.status.ok(), pair.client.status.ok());
    server_status_ = pair.server.status;
    if (!pair.client.status.ok()) {
      EXPECT_EQ(pair.client.handshakes, 0);
      EXPECT_EQ(pair.client.status.code(), absl::StatusCode::kUnauthenticated);
      EXPECT_EQ(pair.server.status.code(), absl::StatusCode::kAborted) << pair.server.status;
      EXPECT_EQ(pair.client.session->Receive({}), pair.client.status);
    }
    return pair.client.status;
  }
  std::string Refusal(const TestCertificate& certificate, const TlsTarget& target,
                      const std::string& roots_pem) {
    return std::string(Connect(certificate, target, roots_pem).message());
  }
  TestCertificate Leaf(TestCertificateOptions options = {}) const {
    return MakeTestCertificate(options, &intermediate_);
  }

  const TestCertificate root_ = MakeTestCertificate(AuthorityNamed("Test Root"), nullptr);
  const TestCertificate intermediate_ =
      MakeTestCertificate(AuthorityNamed("Test Intermediate"), &root_);
  absl::Status server_status_;
};

INSTANTIATE_TEST_SUITE_P(Versions, TlsVerifyTest, testing::Bool(),
                         [](const auto& info) { return info.param ? "Tls13" : "Tls12"; });

TEST_P(TlsVerifyTest, ChainToARootWithAndWithoutMetaCertificate) {
  const TestCertificate leaf = Leaf();
  EXPECT_TRUE(Connect(leaf, TargetNamed("relay.test"), root_.pem, true).ok());
  EXPECT_TRUE(Connect(leaf, TargetNamed("relay.test"), root_.pem, false).ok());
}

TEST_P(TlsVerifyTest, AnyTrustedCertificateMayEndTheChain) {
  const TestCertificate leaf = Leaf();
  EXPECT_TRUE(Connect(leaf, TargetNamed("relay.test"), intermediate_.pem).ok());
  EXPECT_TRUE(Connect(leaf, TargetNamed("relay.test"), leaf.pem).ok());
  const auto self = MakeSelfSignedCertificate("relay.test", kTestTime - 1, kTestTime + 1);
  ASSERT_TRUE(self.ok());
  EXPECT_TRUE(
      Connect({self->chain_pem, self->key_pem, ""}, TargetNamed("relay.test"), self->chain_pem)
          .ok());
}

TEST_P(TlsVerifyTest, ExpiredSaysWhen) {
  const TestCertificate leaf = Leaf();
  SetTestTime(kTestTime + kDay - 1);
  EXPECT_TRUE(Connect(leaf, TargetNamed("relay.test"), root_.pem).ok());
  SetTestTime(kTestTime + kDay);
  EXPECT_EQ(Refusal(leaf, TargetNamed("relay.test"), root_.pem),
            "certificate expired on 2026-01-16 12:00:00 UTC (of \"relay.test\")");
  EXPECT_THAT(std::string(server_status_.message()), HasSubstr("expired"));
}

TEST_P(TlsVerifyTest, NotYetValidSaysWhenAndWhatTheClockSays) {
  const TestCertificate leaf = Leaf();
  SetTestTime(kTestTime - kDay);
  EXPECT_TRUE(Connect(leaf, TargetNamed("relay.test"), root_.pem).ok());
  SetTestTime(kTestTime - kDay - 1);
  EXPECT_EQ(Refusal(leaf, TargetNamed("relay.test"), root_.pem),
            "certificate not valid before 2026-01-14 12:00:00 UTC (of \"relay.test\"): the clock "
            "here says 2026-01-14 11:59:59 UTC");
}

TEST_P(TlsVerifyTest, AnExpiredIntermediateIsNamed) {
  TestCertificateOptions options = AuthorityNamed("Old Intermediate");
  options.not_after = kTestTime - 1;
  const TestCertificate old = MakeTestCertificate(options, &root_);
  EXPECT_THAT(Refusal(MakeTestCertificate({}, &old), TargetNamed("relay.test"), root_.pem),
              AllOf(HasSubstr("expired"), HasSubstr("Old Intermediate")));
}

TEST_P(TlsVerifyTest, WrongNameSaysWhichItHas) {
  TestCertificateOptions options;
  options.dns_names = {"a.test", "*.b.test"};
  options.ip_addresses = {"192.0.2.1", "2001:db8::1"};
  EXPECT_EQ(Refusal(Leaf(options), TargetNamed("relay.test"), root_.pem),
            "certificate for another name: wanted \"relay.test\", it is for a.test, *.b.test, "
            "192.0.2.1, 2001:db8::1");
}

TEST_P(TlsVerifyTest, NamesAndAddresses) {
  TestCertificateOptions options;
  options.common_name = "common.test";
  options.dns_names = {"a.test", "*.b.test"};
  options.ip_addresses = {"192.0.2.1", "2001:db8::1"};
  const TestCertificate leaf = Leaf(options);
  for (const char* good :
       {"a.test", "A.Test", "a.test.", "x.b.test", "192.0.2.1", "2001:db8::1", "2001:db8:0::1"}) {
    EXPECT_TRUE(Connect(leaf, TargetNamed(good), root_.pem).ok()) << good;
  }
  for (const char* bad : {"b.test", "x.y.b.test", "192.0.2.2", "2001:db8::2", "common.test", "",
                          "a.test.evil.test", "xa.test"}) {
    EXPECT_FALSE(Connect(leaf, TargetNamed(bad), root_.pem).ok()) << bad;
  }
}

// A name that looks like an address proves nothing about the address.
TEST_P(TlsVerifyTest, AnAddressWantsAnAddress) {
  TestCertificateOptions options;
  options.common_name = "192.0.2.1";
  options.dns_names = {"192.0.2.1"};
  EXPECT_FALSE(Connect(Leaf(options), TargetNamed("192.0.2.1"), root_.pem).ok());
}

TEST_P(TlsVerifyTest, CertificateNameRulesWhereItDiffersFromTheHost) {
  TlsTarget target = TargetNamed("relay.test");
  target.host_name = "front.test";
  EXPECT_TRUE(Connect(Leaf(), target, root_.pem).ok());
  target.host_name = "relay.test";
  target.certificate_name = "other.test";
  EXPECT_FALSE(Connect(Leaf(), target, root_.pem).ok());
}

TEST_P(TlsVerifyTest, UnknownIssuerIsNamed) {
  const TestCertificate other = MakeTestCertificate(AuthorityNamed("Other Root"), nullptr);
  EXPECT_THAT(Refusal(Leaf(), TargetNamed("relay.test"), other.pem),
              AllOf(HasSubstr("issuer unknown: \"Test Root\""), HasSubstr("roots.pem")));
  EXPECT_THAT(Refusal(MakeTestCertificate({}, nullptr), TargetNamed("relay.test"), other.pem),
              AllOf(HasSubstr("issuer unknown: self-signed"), HasSubstr("relay.test")));
  // The server forgot to send the intermediate.
  TestCertificate alone = Leaf();
  alone.above_pem.clear();
  EXPECT_THAT(Refusal(alone, TargetNamed("relay.test"), root_.pem),
              HasSubstr("issuer unknown: \"Test Intermediate\""));
}

// An authority of the same name with another key.
TEST_P(TlsVerifyTest, WrongSignature) {
  const TestCertificate impostor = MakeTestCertificate(AuthorityNamed("Test Root"), nullptr);
  EXPECT_THAT(Refusal(MakeTestCertificate({}, &impostor), TargetNamed("relay.test"), root_.pem),
              HasSubstr("signature wrong"));
}

TEST_P(TlsVerifyTest, OnlyAuthoritiesIssue) {
  const TestCertificate leaf = Leaf();
  EXPECT_FALSE(Connect(MakeTestCertificate({}, &leaf), TargetNamed("relay.test"), root_.pem).ok());
}

TEST_P(TlsVerifyTest, OnlyForServers) {
  TestCertificateOptions options;
  options.extended_key_usage = "clientAuth";
  EXPECT_THAT(Refusal(Leaf(options), TargetNamed("relay.test"), root_.pem),
              HasSubstr("not meant for servers"));
  options.extended_key_usage = "";
  EXPECT_TRUE(Connect(Leaf(options), TargetNamed("relay.test"), root_.pem).ok());
}

TEST_P(TlsVerifyTest, WeakSignaturesAndKeys) {
  TestCertificateOptions options;
  options.sha1 = true;
  EXPECT_THAT(Refusal(Leaf(options), TargetNamed("relay.test"), root_.pem),
              AllOf(HasSubstr("weak"), HasSubstr("sha1")));
  options.sha1 = false;
  options.rsa_bits = 1024;
  EXPECT_THAT(Refusal(Leaf(options), TargetNamed("relay.test"), root_.pem),
              AllOf(HasSubstr("weak"), HasSubstr("RSA of 1024 bits")));
  options.rsa_bits = 2048;
  EXPECT_TRUE(Connect(Leaf(options), TargetNamed("relay.test"), root_.pem).ok());
}

// A pin: the one certificate; its issuers and names do not matter, its time does.
TEST_P(TlsVerifyTest, Pin) {
  TlsTarget target = TargetNamed("other.test");
  const TestCertificate leaf = Leaf();
  target.pin = *CertificatePin(leaf.chain_pem());
  EXPECT_TRUE(Connect(leaf, target, "").ok());
  SetTestTime(kTestTime + 2 * kDay);
  EXPECT_THAT(Refusal(leaf, target, ""), HasSubstr("expired on 2026-01-16"));
  SetTestTime(kTestTime - 2 * kDay);
  EXPECT_THAT(Refusal(leaf, target, ""), HasSubstr("not valid before 2026-01-14"));
}

TEST_P(TlsVerifyTest, WrongPinSaysBoth) {
  TlsTarget target = TargetNamed("relay.test");
  target.pin.emplace().fill(0xab);
  const TestCertificate leaf = Leaf();
  const auto pin = *CertificatePin(leaf.pem);
  const std::string had = absl::BytesToHexString(
      absl::string_view(reinterpret_cast<const char*>(pin.data()), pin.size()));
  std::string wanted;
  for (int i = 0; i < 32; ++i) wanted += "ab";
  // Trust in its issuer does not help.
  EXPECT_EQ(Refusal(leaf, target, root_.pem),
            absl::StrCat("certificate is not the pinned one: wanted sha256-raw:", wanted,
                         ", got sha256-raw:", had));
}

// Only the leaf is pinned, whatever else the server sends.
TEST_P(TlsVerifyTest, AnIssuersPinIsNotTheLeafs) {
  TlsTarget target = TargetNamed("relay.test");
  target.pin = *CertificatePin(intermediate_.pem);
  EXPECT_FALSE(Connect(Leaf(), target, root_.pem).ok());
}

TEST_P(TlsVerifyTest, InsecureTakesAnything) {
  TlsTarget target = TargetNamed("relay.test");
  target.insecure = true;
  TestCertificateOptions options;
  options.dns_names = {"other.test"};
  options.not_after = kTestTime - 1;
  EXPECT_TRUE(Connect(MakeTestCertificate(options, nullptr), target, root_.pem).ok());
}

// Nothing but the two test fields of a node switches verification off.
TEST(TlsTargetTest, OfANode) {
  RelayNode node;
  node.host_name = "relay.test";
  TlsTarget target = TlsTarget::Of(node);
  EXPECT_EQ(target.host_name, "relay.test");
  EXPECT_EQ(target.certificate_name, "relay.test");
  EXPECT_FALSE(target.pin.has_value() || target.insecure);
  node.cert_name = "other.test";
  EXPECT_EQ(TlsTarget::Of(node).certificate_name, "other.test");
  node.cert_name = "sha256-raw:" + std::string(64, '1');
  EXPECT_EQ(TlsTarget::Of(node).pin->at(31), 0x11);
  EXPECT_FALSE(TlsTarget::Of(node).insecure);
  node.insecure_for_tests = true;
  EXPECT_TRUE(TlsTarget::Of(node).insecure);
}

// What comes from the network may not write its own log lines.
TEST_P(TlsVerifyTest, NamesInErrorsAreEscaped) {
  const TestCertificate other =
      MakeTestCertificate(AuthorityNamed("evil\n[info] all is well"), nullptr);
  EXPECT_THAT(Refusal(MakeTestCertificate({}, &other), TargetNamed("relay.test"), root_.pem),
              AllOf(HasSubstr("evil\\n[info]"), testing::Not(HasSubstr("\n"))));
}

TEST(TlsRootsTest, FilesAndDirectories) {
  const TestCertificate a = MakeTestCertificate(AuthorityNamed("A"), nullptr);
  const TestCertificate b = MakeTestCertificate(AuthorityNamed("B"), nullptr);
  const std::string file = WriteTestFile("two.pem", "text around\n" + a.pem + b.pem);
  EXPECT_EQ(TlsRoots::Load(file, "")->size(), 2u);
  const std::string folder = std::filesystem::path(file).parent_path().string() + "/roots";
  std::filesystem::create_directory(folder);
  WriteTestFile("roots/a.pem", a.pem);
  WriteTestFile("roots/README", "not a certificate");
  EXPECT_EQ(TlsRoots::Load("", folder)->size(), 1u);
  EXPECT_EQ(TlsRoots::Load(WriteTestFile("b.pem", b.pem), folder)->size(), 2u);
}

TEST(TlsRootsTest, BadFilesAreNamed) {
  const auto message = [](const std::string& file, const std::string& folder) {
    return std::string(TlsRoots::Load(file, folder).status().message());
  };
  EXPECT_THAT(message("/nowhere/roots.pem", ""), HasSubstr("/nowhere/roots.pem"));
  EXPECT_THAT(message("", "/nowhere"), HasSubstr("/nowhere"));
  EXPECT_THAT(message(WriteTestFile("empty.pem", ""), ""), HasSubstr("no PEM block CERTIFICATE"));
  EXPECT_THAT(message(WriteTestFile("bad.pem", "-----BEGIN CERTIFICATE-----\n!!!\n"), ""),
              HasSubstr("damaged"));
  EXPECT_THAT(
      message(WriteTestFile("junk.pem",
                            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
              ""),
      HasSubstr("no usable certificate"));
}

}  // namespace
}  // namespace ringsock::derp
