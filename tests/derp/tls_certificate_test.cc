// Reading and making certificates: PEM good and bad, the self-signed one, what Load() refuses.
#include "derp/tls_certificate.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "tests/derp/tls_certificates.h"
#include "tests/derp/tls_pair.h"

namespace ringsock::derp {
namespace {

using testing::HasSubstr;

bssl::UniquePtr<X509> FirstOf(const std::string& pem) {
  const auto chain = ReadPemChain(pem);
  return chain.ok() ? ParseCertificate(chain->front().get()) : nullptr;
}

TEST(SelfSignedCertificateTest, SaysWhatItIs) {
  const auto made = MakeSelfSignedCertificate("relay.test", kTestTime, kTestTime + kDay);
  ASSERT_TRUE(made.ok()) << made.status();
  const auto x509 = FirstOf(made->chain_pem);
  ASSERT_NE(x509, nullptr);
  EXPECT_EQ(SubjectText(x509.get()), "relay.test");
  EXPECT_EQ(IssuerText(x509.get()), "relay.test");
  EXPECT_EQ(NamesText(x509.get()), "relay.test");
  EXPECT_EQ(NotBefore(x509.get()), kTestTime);
  EXPECT_EQ(NotAfter(x509.get()), kTestTime + kDay);
  EXPECT_THAT(made->key_pem, HasSubstr("BEGIN PRIVATE KEY"));
}

TEST(SelfSignedCertificateTest, Addresses) {
  for (const char* address : {"192.0.2.1", "2001:db8::1"}) {
    const auto made = MakeSelfSignedCertificate(address, kTestTime, kTestTime + kDay);
    ASSERT_TRUE(made.ok()) << made.status();
    EXPECT_EQ(NamesText(FirstOf(made->chain_pem).get()), address);
  }
}

TEST(SelfSignedCertificateTest, LongNamesStandInTheAlternativeName) {
  const std::string name = std::string(60, 'a') + "." + std::string(60, 'b') + ".test";
  const auto made = MakeSelfSignedCertificate(name, kTestTime, kTestTime + kDay);
  ASSERT_TRUE(made.ok()) << made.status();
  EXPECT_EQ(NamesText(FirstOf(made->chain_pem).get()), name);
}

TEST(SelfSignedCertificateTest, NoTwoAreAlike) {
  const auto a = MakeSelfSignedCertificate("relay.test", kTestTime, kTestTime + kDay);
  const auto b = MakeSelfSignedCertificate("relay.test", kTestTime, kTestTime + kDay);
  EXPECT_NE(*CertificatePin(a->chain_pem), *CertificatePin(b->chain_pem));
  EXPECT_NE(a->key_pem, b->key_pem);
}

TEST(SelfSignedCertificateTest, WhatCannotBeMade) {
  EXPECT_FALSE(MakeSelfSignedCertificate("", kTestTime, kTestTime + kDay).ok());
  EXPECT_FALSE(MakeSelfSignedCertificate(std::string(254, 'a'), kTestTime, kTestTime + 1).ok());
  EXPECT_FALSE(MakeSelfSignedCertificate("relay.test", kTestTime, kTestTime).ok());
  EXPECT_FALSE(MakeSelfSignedCertificate("relay.test", kTestTime, int64_t{1} << 60).ok());
}

TEST(PemTest, ChainsInOrderWithTextBetween) {
  const TestCertificate a = MakeTestCertificate({}, nullptr);
  const TestCertificate b = MakeTestCertificate({}, nullptr);
  const auto chain = ReadPemChain("first\n" + a.pem + a.key_pem + "second\n" + b.pem + "end");
  ASSERT_TRUE(chain.ok()) << chain.status();
  ASSERT_EQ(chain->size(), 2u);
  EXPECT_EQ(CertificatePin(chain->at(1).get()), *CertificatePin(b.pem));
}

TEST(PemTest, EqualCertificatesAreKeptOnce) {
  const TestCertificate a = MakeTestCertificate({}, nullptr);
  EXPECT_EQ(ReadPemChain(a.pem)->front().get() == nullptr, false);
  const auto first = ReadPemChain(a.pem), second = ReadPemChain(a.pem);
  EXPECT_EQ(first->front().get(), second->front().get());
}

TEST(PemTest, CutsAreErrors) {
  const TestCertificate a = MakeTestCertificate({}, nullptr);
  for (size_t size = 0; size + 2 < a.pem.size(); size += 17) {
    const auto chain = ReadPemChain(a.pem.substr(0, size));
    // At most the dashes of the last line may be missing.
    EXPECT_FALSE(chain.ok()) << size;
  }
}

class ServerLoadTest : public testing::Test {
 protected:
  std::string Refusal(const std::string& chain_pem, const std::string& key_pem) {
    const auto context = *TlsServerContext::Create({});
    return std::string(context->Load(chain_pem, key_pem).message());
  }
  const TestCertificate good_ = MakeTestCertificate({}, nullptr);
};

TEST_F(ServerLoadTest, SaysWhatIsWrong) {
  EXPECT_EQ(Refusal(good_.pem, good_.key_pem), "");
  EXPECT_THAT(Refusal("", good_.key_pem), HasSubstr("no PEM block CERTIFICATE"));
  EXPECT_THAT(Refusal(good_.key_pem, good_.pem), HasSubstr("no PEM block CERTIFICATE"));
  EXPECT_THAT(Refusal(good_.pem, ""), HasSubstr("private key"));
  EXPECT_THAT(Refusal(good_.pem, good_.key_pem.substr(0, 100)), HasSubstr("private key"));
  const TestCertificate other = MakeTestCertificate({}, nullptr);
  EXPECT_THAT(Refusal(good_.pem, other.key_pem), HasSubstr("not that of the chain's first"));
  EXPECT_THAT(Refusal(good_.pem,
                      "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIB\n"
                      "-----END ENCRYPTED PRIVATE KEY-----\n"),
              HasSubstr("without a password"));
  std::string many;
  for (int i = 0; i < 17; ++i) many += good_.pem;
  EXPECT_THAT(Refusal(many, good_.key_pem), HasSubstr("too many"));
  EXPECT_THAT(
      Refusal("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", good_.key_pem),
      HasSubstr("cannot be read"));
}

TEST_F(ServerLoadTest, RsaAndEcdsa) {
  TestCertificateOptions options;
  options.rsa_bits = 2048;
  const TestCertificate rsa = MakeTestCertificate(options, nullptr);
  EXPECT_EQ(Refusal(rsa.pem, rsa.key_pem), "");
  EXPECT_THAT(Refusal(rsa.pem, good_.key_pem), HasSubstr("not that of the chain's first"));
}

// No error quotes the key, whatever is wrong with it.
TEST_F(ServerLoadTest, ErrorsDoNotShowTheKey) {
  std::string key = good_.key_pem;
  key[key.size() / 2] = '!';
  const std::string message = Refusal(good_.pem, key);
  EXPECT_NE(message, "");
  EXPECT_EQ(message.find(key.substr(40, 10)), std::string::npos);
}

}  // namespace
}  // namespace ringsock::derp
