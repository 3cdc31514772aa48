// Keys, nonces and records against the trace of RFC 8448 and what RFC 8446 says of their bounds.
#include "derp/tls_traffic_key.h"

#include <gtest/gtest.h>

#include <limits>
#include <string>
#include <vector>

#include "absl/strings/escaping.h"

namespace ringsock::derp {
namespace {

std::vector<uint8_t> Hex(const std::string& hex) {
  const std::string bytes = absl::HexStringToBytes(hex);
  return {bytes.begin(), bytes.end()};
}
std::string ToHex(std::span<const std::byte> bytes) {
  return absl::BytesToHexString(
      absl::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size()));
}

// RFC 8448, section 3: client_application_traffic_secret_0 and the client's first record with data.
constexpr char kSecret[] = "9e40646ce79a7f9dc05af8889bce6552875afa0b06df0087f792ebb7c17504a5";
constexpr char kRecord[] =
    "1703030043a23f7054b62c94d0affafe8228ba55cbefacea42f914aa66bcab3f2b9819a8a5b46b395bd54a9a20441e"
    "2b62974e1f5a6292a2977014bd1e3deae63aeebb21694915e4";

class TlsTrafficKeyTest : public testing::TestWithParam<TlsAead::Engine> {
 protected:
  bool Init(TlsTrafficKey* key, uint64_t sequence = 0) {
    return key->Init(kTlsAes128Gcm, Hex(kSecret), sequence, GetParam());
  }
};
INSTANTIATE_TEST_SUITE_P(Engines, TlsTrafficKeyTest,
                         testing::Values(TlsAead::Engine::kBoringSsl, TlsAead::Engine::kBest),
                         [](const auto& info) {
                           return info.param == TlsAead::Engine::kBest ? "Best" : "BoringSsl";
                         });

TEST_P(TlsTrafficKeyTest, Rfc8448) {
  std::vector<std::byte> plaintext;
  for (int i = 0; i < 50; ++i) plaintext.push_back(static_cast<std::byte>(i));
  TlsTrafficKey sealing, opening;
  ASSERT_TRUE(Init(&sealing) && Init(&opening));
  std::vector<std::byte> record(plaintext.size() + kTlsRecordOverhead);
  ASSERT_EQ(sealing.Seal(TlsContent::kApplicationData, plaintext, record), record.size());
  EXPECT_EQ(ToHex(record), kRecord);
  const auto opened = opening.Open(record);
  ASSERT_TRUE(opened.has_value());
  EXPECT_EQ(ToHex(*opened), ToHex(plaintext) + "17");
  // Its close_notify is the second record.
  const std::byte alert[] = {std::byte{1}, std::byte{0}};
  record.resize(sizeof(alert) + kTlsRecordOverhead);
  ASSERT_EQ(sealing.Seal(TlsContent::kAlert, alert, record), record.size());
  EXPECT_EQ(ToHex(record), "1703030013c9872760655666b74d7ff1153efd6db6d0b0e3");
  EXPECT_EQ(sealing.sequence(), 2u);
}

TEST_P(TlsTrafficKeyTest, RecordsOpenInTheirOrderOnly) {
  TlsTrafficKey sealing;
  ASSERT_TRUE(Init(&sealing));
  std::vector<std::vector<std::byte>> records(3, std::vector<std::byte>(10 + kTlsRecordOverhead));
  const std::vector<std::byte> plaintext(10, std::byte{5});
  for (auto& record : records) {
    ASSERT_GT(sealing.Seal(TlsContent::kApplicationData, plaintext, record), 0u);
  }
  TlsTrafficKey again, skipping, behind;
  ASSERT_TRUE(Init(&again) && Init(&skipping) && Init(&behind, 2));
  auto first = records[0], repeated = records[0], third = records[2], at_two = records[2];
  EXPECT_TRUE(again.Open(first).has_value());
  EXPECT_FALSE(again.Open(repeated).has_value());
  skipping.Skip();
  skipping.Skip();
  EXPECT_TRUE(skipping.Open(third).has_value());
  EXPECT_TRUE(behind.Open(at_two).has_value());
}

TEST_P(TlsTrafficKeyTest, AnUpdateChangesTheKeyAndCountsAnew) {
  TlsTrafficKey sealing, old, updated;
  ASSERT_TRUE(Init(&sealing) && Init(&old) && Init(&updated, 17));
  ASSERT_TRUE(sealing.Update() && updated.Update());
  EXPECT_EQ(updated.sequence(), 0u);
  std::vector<std::byte> record(kTlsRecordOverhead);
  ASSERT_GT(sealing.Seal(TlsContent::kApplicationData, {}, record), 0u);
  auto copy = record;
  EXPECT_FALSE(old.Open(copy).has_value());
  EXPECT_TRUE(updated.Open(record).has_value());
}

TEST_P(TlsTrafficKeyTest, NumbersDoNotWrap) {
  TlsTrafficKey sealing, opening;
  constexpr uint64_t kLast = std::numeric_limits<uint64_t>::max();
  ASSERT_TRUE(Init(&sealing, kLast - 1) && Init(&opening, kLast - 1));
  std::vector<std::byte> record(kTlsRecordOverhead);
  EXPECT_GT(sealing.Seal(TlsContent::kApplicationData, {}, record), 0u);
  EXPECT_TRUE(opening.Open(record).has_value());
  EXPECT_EQ(sealing.Seal(TlsContent::kApplicationData, {}, record), 0u);
  EXPECT_FALSE(opening.Open(record).has_value());
}

TEST_P(TlsTrafficKeyTest, BadInput) {
  TlsTrafficKey key, unused;
  EXPECT_FALSE(key.Init(0x1304, Hex(kSecret), 0));
  EXPECT_FALSE(key.Init(kTlsAes256Gcm, Hex(kSecret), 0));
  EXPECT_FALSE(key.Init(kTlsAes128Gcm, {}, 0));
  ASSERT_TRUE(Init(&key));
  std::vector<std::byte> record(kTlsRecordOverhead - 1);
  EXPECT_EQ(key.Seal(TlsContent::kApplicationData, {}, record), 0u);
  for (size_t size = 0; size < record.size(); ++size) {
    EXPECT_FALSE(key.Open(std::span(record).first(size)).has_value());
  }
  EXPECT_EQ(unused.Seal(TlsContent::kApplicationData, {}, record), 0u);
  EXPECT_FALSE(unused.Open(record).has_value());
}

}  // namespace
}  // namespace ringsock::derp
