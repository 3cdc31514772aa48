// Records as RFC 8448 writes them, and what damaged or missing ones do.
#include "bench/relay/record_cipher.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "absl/strings/escaping.h"

namespace ringsock::bench {
namespace {

constexpr uint16_t kAes128 = 0x1301;

std::vector<uint8_t> FromHex(const std::string& hex) {
  const std::string bytes = absl::HexStringToBytes(hex);
  return {bytes.begin(), bytes.end()};
}

std::vector<std::byte> Text(const std::string& text) {
  const auto* data = reinterpret_cast<const std::byte*>(text.data());
  return {data, data + text.size()};
}

RecordCipher Make(uint16_t suite = kAes128, size_t secret = 32) {
  return *RecordCipher::Create(suite, std::vector<uint8_t>(secret, 7));
}

std::vector<std::byte> Seal(RecordCipher& cipher, const std::string& text) {
  std::vector<std::byte> record(text.size() + kRecordOverhead);
  EXPECT_EQ(cipher.Seal(Text(text), record.data()), record.size());
  return record;
}

std::string Open(RecordCipher& cipher, std::vector<std::byte> record) {
  const RecordCipher::Opened opened = cipher.Open(record);
  if (!opened.ok) return "does not open";
  EXPECT_EQ(opened.type, kApplicationData);
  return {reinterpret_cast<const char*>(opened.plaintext.data()), opened.plaintext.size()};
}

// RFC 8448, section 3: the client's application data.
TEST(RecordCipherTest, SealsAsThePublishedTrace) {
  auto cipher = RecordCipher::Create(
      kAes128, FromHex("9e40646ce79a7f9dc05af8889bce6552875afa0b06df0087f792ebb7c17504a5"));
  ASSERT_TRUE(cipher.ok()) << cipher.status();
  std::string plaintext;
  for (char c = 0; c < 50; ++c) plaintext += c;
  const std::vector<std::byte> record = Seal(*cipher, plaintext);
  const std::string hex =
      absl::BytesToHexString({reinterpret_cast<const char*>(record.data()), record.size()});
  EXPECT_EQ(hex,
            "1703030043a23f7054b62c94d0affafe8228ba55cbefacea42f914aa66bcab3f2b9819a8a5b46b395bd54a"
            "9a20441e2b62974e1f5a6292a2977014bd1e3deae63aeebb21694915e4");
}

TEST(RecordCipherTest, EverySuiteOpensWhatItSealed) {
  const std::pair<uint16_t, size_t> suites[] = {{0x1301, 32}, {0x1302, 48}, {0x1303, 32}};
  for (const auto& [suite, secret] : suites) {
    RecordCipher sealer = Make(suite, secret);
    RecordCipher opener = Make(suite, secret);
    for (const size_t size : {size_t{0}, size_t{1}, size_t{1437}, kMaxRecordPlaintext}) {
      const std::string text(size, 'x');
      EXPECT_EQ(Open(opener, Seal(sealer, text)), text) << suite << " " << size;
    }
  }
}

TEST(RecordCipherTest, SkippedRecordsKeepTheCount) {
  RecordCipher sealer = Make();
  RecordCipher opener = Make();
  Seal(sealer, "one");
  Seal(sealer, "two");
  const auto three = Seal(sealer, "three");
  EXPECT_EQ(Open(opener, three), "does not open");
  opener.Skip();
  EXPECT_EQ(Open(opener, three), "three");
}

TEST(RecordCipherTest, DamageDoesNotOpen) {
  RecordCipher sealer = Make();
  const auto record = Seal(sealer, "text");
  for (const size_t at : {size_t{0}, kRecordHeader, record.size() - 1}) {
    RecordCipher opener = Make();
    auto damaged = record;
    damaged[at] ^= std::byte{1};
    EXPECT_EQ(Open(opener, damaged), "does not open") << at;
  }
  RecordCipher opener = Make();
  EXPECT_EQ(Open(opener, {record.begin(), record.begin() + 7}), "does not open");
}

TEST(RecordCipherTest, RefusesWhatItDoesNotKnow) {
  EXPECT_FALSE(RecordCipher::Create(0x1304, std::vector<uint8_t>(32)).ok());
  EXPECT_FALSE(RecordCipher::Create(kAes128, std::vector<uint8_t>(31)).ok());
  EXPECT_FALSE(RecordCipher::Create(0x1302, std::vector<uint8_t>(32)).ok());
}

}  // namespace
}  // namespace ringsock::bench
