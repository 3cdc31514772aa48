// The relay's certificate: made once and kept, or the operator's; loaded anew, or refused.
#include "relay/certificate_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <memory>
#include <string>

#include "relay/certificate_info.h"
#include "tests/relay/temporary_directory.h"

namespace ringsock::relay {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr int64_t kDay = 86400;
int64_t g_now = 1'800'000'000;  // 2027-01-15
int64_t Now() { return g_now; }

class CertificateStoreTest : public testing::Test {
 protected:
  CertificateStoreTest() {
    g_now = 1'800'000'000;
    auto context = derp::TlsServerContext::Create({});
    EXPECT_TRUE(context.ok()) << context.status();
    context_ = *std::move(context);
    own_ = {.host_name = "relay.example.com",
            .chain_file = "",
            .key_file = "",
            .self_signed_file = dir_ / "self-signed.pem"};
    files_ = own_;
    files_.chain_file = dir_ / "chain.pem";
    files_.key_file = dir_ / "key.pem";
  }

  // Puts a certificate into the operator's files; returns its pin.
  std::array<uint8_t, 32> Deploy(int64_t not_before, int64_t not_after,
                                 const std::string& host = "relay.example.com") {
    const auto made = derp::MakeSelfSignedCertificate(host, not_before, not_after);
    EXPECT_TRUE(made.ok()) << made.status();
    dir_.Write("chain.pem", made->chain_pem, 0644);
    dir_.Write("key.pem", made->key_pem, 0600);
    return *derp::CertificatePin(made->chain_pem);
  }
  static std::string Error(const absl::Status& status) { return std::string(status.message()); }

  const TemporaryDirectory dir_;
  std::unique_ptr<derp::TlsServerContext> context_;
  CertificateSource own_;
  CertificateSource files_;
};

TEST_F(CertificateStoreTest, SelfSignedIsMadeOnceKeptAndSecret) {
  CertificateStore first(own_, context_.get(), Now);
  ASSERT_TRUE(first.Load().ok());
  EXPECT_TRUE(first.made());
  EXPECT_EQ(TemporaryDirectory::Mode(own_.self_signed_file), 0600u);
  EXPECT_EQ(first.not_after(), g_now + kSelfSignedSeconds);
  EXPECT_THAT(first.warnings(), IsEmpty());

  g_now += 365 * kDay;
  CertificateStore second(own_, context_.get(), Now);
  ASSERT_TRUE(second.Load().ok());
  EXPECT_FALSE(second.made());
  EXPECT_EQ(second.pin(), first.pin()) << "clients know the relay by it";
}

TEST_F(CertificateStoreTest, SelfSignedIsForNamesAndAddresses) {
  for (const char* host : {"relay.example.com", "192.0.2.7", "2001:db8::7"}) {
    own_.host_name = host;
    own_.self_signed_file = dir_ / host;
    CertificateStore store(own_, context_.get(), Now);
    ASSERT_TRUE(store.Load().ok()) << host;
    EXPECT_THAT(store.warnings(), IsEmpty()) << host;
  }
}

TEST_F(CertificateStoreTest, KeptOneIsSaidToBeForAnotherHostOrAboutToExpire) {
  ASSERT_TRUE(CertificateStore(own_, context_.get(), Now).Load().ok());
  own_.host_name = "other.example.com";
  g_now += kSelfSignedSeconds - 20 * kDay;
  CertificateStore store(own_, context_.get(), Now);
  ASSERT_TRUE(store.Load().ok());
  EXPECT_THAT(store.warnings(), ElementsAre(HasSubstr("expires on 2037-01-12"),
                                            HasSubstr("is not for \"other.example.com\"")));
}

TEST_F(CertificateStoreTest, KeptOneIsNeverReplaced) {
  CertificateStore store(own_, context_.get(), Now);
  ASSERT_TRUE(store.Load().ok());
  const auto pin = store.pin();
  // Expired.
  g_now += kSelfSignedSeconds;
  EXPECT_THAT(Error(store.Load()), HasSubstr("expired on 2037-01-12; move the file away"));
  g_now -= kSelfSignedSeconds;
  // Damaged, readable by others, gone while we run.
  const std::string text = TemporaryDirectory::Read(own_.self_signed_file);
  dir_.Write("self-signed.pem", text.substr(100));
  EXPECT_THAT(Error(store.Load()), HasSubstr("self-signed.pem: "));
  dir_.Write("self-signed.pem", text.substr(0, text.find("-----BEGIN", 10)));
  EXPECT_THAT(Error(store.Load()), HasSubstr("self-signed.pem: "));
  dir_.Write("self-signed.pem", text, 0640);
  EXPECT_THAT(Error(store.Load()), HasSubstr("mode 0640"));
  ASSERT_EQ(std::remove(own_.self_signed_file.c_str()), 0);
  EXPECT_TRUE(absl::IsNotFound(store.Load()));
  EXPECT_EQ(dir_.Files(), 0u);
  EXPECT_EQ(store.pin(), pin);
}

TEST_F(CertificateStoreTest, OperatorsFilesAreLoadedAnew) {
  const auto first = Deploy(g_now - kDay, g_now + 90 * kDay);
  CertificateStore store(files_, context_.get(), Now);
  ASSERT_TRUE(store.Load().ok());
  EXPECT_EQ(store.pin(), first);
  const auto second = Deploy(g_now - kDay, g_now + 180 * kDay);
  ASSERT_NE(first, second);
  ASSERT_TRUE(store.Load().ok());
  EXPECT_EQ(store.pin(), second);
  EXPECT_EQ(store.not_after(), g_now + 180 * kDay);
  EXPECT_FALSE(store.made());
}

TEST_F(CertificateStoreTest, BadNewFilesAreRefusedAndTheOldStay) {
  const auto pin = Deploy(g_now - kDay, g_now + 90 * kDay);
  CertificateStore store(files_, context_.get(), Now);
  ASSERT_TRUE(store.Load().ok());
  const std::string chain = TemporaryDirectory::Read(files_.chain_file);
  const std::string key = TemporaryDirectory::Read(files_.key_file);

  Deploy(g_now - 2 * kDay, g_now - kDay);
  EXPECT_THAT(Error(store.Load()), HasSubstr("expired on 2027-01-14"));
  Deploy(g_now + kDay, g_now + 2 * kDay);
  EXPECT_THAT(Error(store.Load()), HasSubstr("valid from 2027-01-16 on only"));
  // Half of a renewal: the new chain with the old key.
  Deploy(g_now - kDay, g_now + kDay);
  dir_.Write("key.pem", key);
  EXPECT_THAT(Error(store.Load()), HasSubstr("key.pem"));
  dir_.Write("chain.pem", chain, 0644);
  dir_.Write("key.pem", "", 0600);
  EXPECT_FALSE(store.Load().ok());
  dir_.Write("key.pem", key, 0644);
  EXPECT_THAT(Error(store.Load()), HasSubstr("key.pem: is a secret but has mode 0644"));
  dir_.Write("key.pem", key, 0640);
  dir_.Write("chain.pem", "no certificate", 0644);
  EXPECT_THAT(Error(store.Load()), HasSubstr("chain.pem: holds no certificate"));
  dir_.Write("chain.pem", std::string(kMaxCertificateFile + 1, 'x'), 0644);
  EXPECT_THAT(Error(store.Load()), HasSubstr("is larger than"));
  EXPECT_EQ(store.pin(), pin);
  EXPECT_EQ(store.not_after(), g_now + 90 * kDay);

  dir_.Write("chain.pem", chain, 0644);
  EXPECT_TRUE(store.Load().ok()) << "a group may read the key";
}

TEST_F(CertificateStoreTest, WrongHostIsSaid) {
  Deploy(g_now - kDay, g_now + 90 * kDay, "other.example.com");
  CertificateStore store(files_, context_.get(), Now);
  ASSERT_TRUE(store.Load().ok());
  EXPECT_THAT(store.warnings(), ElementsAre(HasSubstr("is not for \"relay.example.com\"")));
}

TEST(CertificateInfoTest, BytesThatAreNoCertificate) {
  for (const std::string& text :
       {std::string(), std::string("-----BEGIN CERTIFICATE-----\n"),
        std::string("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")}) {
    EXPECT_FALSE(ReadCertificateInfo(text, "a").ok());
  }
}

}  // namespace
}  // namespace ringsock::relay
