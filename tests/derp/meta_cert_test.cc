// The meta certificate: the recorded one, our own against it byte for byte, and bad ones.
#include "derp/meta_cert.h"

#include <gtest/gtest.h>
#include <openssl/evp.h>
#include <openssl/x509.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "tests/derp/vectors.h"

namespace ringsock::derp {
namespace {

using Der = std::vector<uint8_t>;

constexpr std::array<uint8_t, 32> kSeed = {1, 2, 3};
// 2026-10-23 08:08:32 and 2026-12-22 08:08:32 UTC, the times of the recorded one.
constexpr int64_t kNotBefore = 1792742912;
constexpr int64_t kNotAfter = 1797926912;

Der Recorded() {
  std::string bytes;
  EXPECT_TRUE(absl::Base64Unescape(Vector("/meta_cert_der_base64"), &bytes));
  return Der(bytes.begin(), bytes.end());
}

Der Make() {
  const auto der = MakeMetaCert({PublicVector("server"), 2}, kNotBefore, kNotAfter, kSeed);
  EXPECT_TRUE(der.ok()) << der.status();
  return *der;
}

// spec: derp.md, Transport: Fast start.
TEST(MetaCertTest, RecordedCertificateNamesTheServer) {
  const auto cert = ParseMetaCert(Recorded());
  ASSERT_TRUE(cert.has_value());
  EXPECT_EQ(cert->server_key, PublicVector("server"));
  EXPECT_EQ(cert->version, 2);
}

// Whatever does not depend on the throw-away key is as the reference makes it.
TEST(MetaCertTest, OursHasTheBytesOfTheRecorded) {
  Der ours = Make();
  Der recorded = Recorded();
  ASSERT_EQ(ours.size(), recorded.size());
  // The key ends before the extensions (18 bytes), algorithm (7) and signature (3 + 64).
  const size_t key_end = recorded.size() - 18 - 7 - 67;
  for (Der* der : {&ours, &recorded}) {
    std::fill_n(der->begin() + static_cast<ptrdiff_t>(key_end) - 32, 32, 0);
    std::fill(der->end() - 64, der->end(), 0);
  }
  EXPECT_EQ(ours, recorded);
}

TEST(MetaCertTest, OursIsAValidSelfSignedCertificate) {
  const Der der = Make();
  const uint8_t* at = der.data();
  const std::unique_ptr<X509, decltype(&X509_free)> x509(
      d2i_X509(nullptr, &at, static_cast<long>(der.size())), &X509_free);
  ASSERT_NE(x509, nullptr);
  const std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)> key(X509_get_pubkey(x509.get()),
                                                                &EVP_PKEY_free);
  ASSERT_NE(key, nullptr);
  EXPECT_EQ(EVP_PKEY_id(key.get()), EVP_PKEY_ED25519);
  EXPECT_EQ(X509_verify(x509.get(), key.get()), 1);
  const auto parsed = ParseMetaCert(der);
  ASSERT_TRUE(parsed.has_value());
  EXPECT_EQ(parsed->server_key, PublicVector("server"));
}

TEST(MetaCertTest, EveryCutAndMostChangesAreNoMetaCertificate) {
  const Der der = Recorded();
  for (size_t size = 0; size < der.size(); ++size) {
    EXPECT_FALSE(ParseMetaCert(std::span(der).first(size)).has_value()) << size;
  }
  Der longer = der;
  longer.push_back(0);
  EXPECT_FALSE(ParseMetaCert(longer).has_value());
}

// Changes the first place where `from` stands after `skip` others; both have the same size.
Der Changed(const std::string& from, const std::string& to, int skip) {
  Der der = Recorded();
  auto at = der.begin();
  for (int i = 0; i <= skip; ++i) {
    at = std::search(at, der.end(), from.begin(), from.end());
    EXPECT_NE(at, der.end());
    if (i < skip) ++at;
  }
  std::copy(to.begin(), to.end(), at);
  return der;
}

TEST(MetaCertTest, OnlyTheSubjectCounts) {
  EXPECT_TRUE(ParseMetaCert(Changed("derpkey", "xerpkey", 0)).has_value());   // issuer
  EXPECT_FALSE(ParseMetaCert(Changed("derpkey", "xerpkey", 1)).has_value());  // subject
  EXPECT_FALSE(ParseMetaCert(Changed("derpkey1", "derpkeyg", 1)).has_value());
}

TEST(MetaCertTest, SerialMustBeAVersion) {
  const std::string serial("\x02\x01\x02\x30", 4);  // INTEGER 2, and what follows it
  EXPECT_EQ(ParseMetaCert(Changed(serial, std::string("\x02\x01\x03\x30", 4), 0))->version, 3);
  EXPECT_FALSE(ParseMetaCert(Changed(serial, std::string("\x02\x01\xff\x30", 4), 0)).has_value());
}

TEST(MetaCertTest, TimesThatCannotBeWrittenAreErrors) {
  const MetaCert cert{PublicVector("server"), 2};
  EXPECT_FALSE(MakeMetaCert(cert, -1000000000000, kNotAfter, kSeed).ok());
  EXPECT_FALSE(MakeMetaCert(cert, kNotBefore, 2524608000, kSeed).ok());  // 2050
  EXPECT_TRUE(MakeMetaCert(cert, kNotBefore, 2524607999, kSeed).ok());
  EXPECT_FALSE(MakeMetaCert({PublicVector("server"), 128}, kNotBefore, kNotAfter, kSeed).ok());
}

}  // namespace
}  // namespace ringsock::derp
