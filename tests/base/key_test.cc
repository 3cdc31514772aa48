// Keys: text forms, vectors, and that a secret does not leak through errors, copies or moves.
#include "base/key.h"

#include <gtest/gtest.h>

#include <cctype>
#include <set>
#include <string>
#include <type_traits>
#include <utility>

#include "absl/container/flat_hash_set.h"

namespace ringsock {
namespace {

// RFC 7748, section 6.1.
constexpr char kAlice[] = "77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a";
constexpr char kAlicePublic[] = "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a";
constexpr char kBob[] = "5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb";
constexpr char kBobPublic[] = "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f";
constexpr char kBobBase64[] = "XasIfmJKikt54X+Lg4AO5m87sSkmGLb9HC+LJ/+I4Os=";

PublicKey Sequential() {
  PublicKey key;
  for (size_t i = 0; i < kKeySize; ++i) key.bytes[i] = static_cast<uint8_t>(i);
  return key;
}

TEST(PrivateKeyTest, PublicKeyOfTheRfcVectors) {
  EXPECT_EQ(PrivateKey::Parse(kAlice).value().Public().ToHex(), kAlicePublic);
  EXPECT_EQ(PrivateKey::Parse(kBob).value().Public().ToHex(), kBobPublic);
}

TEST(PrivateKeyTest, ClampingDoesNotChangeThePublicKey) {
  auto bytes = PrivateKey::Parse(kAlice).value().bytes();
  bytes[0] &= 248;
  bytes[31] = static_cast<uint8_t>((bytes[31] & 127) | 64);
  EXPECT_EQ(PrivateKey::FromBytes(bytes).Public().ToHex(), kAlicePublic);
}

TEST(PrivateKeyTest, Base64AndHexAreTheSameKey) {
  EXPECT_EQ(PrivateKey::Parse(kBobBase64).value(), PrivateKey::Parse(kBob).value());
  EXPECT_EQ(PrivateKey::Parse(kBob).value().ToBase64(), kBobBase64);
}

TEST(PrivateKeyTest, GeneratedKeysAreClampedAndDiffer) {
  std::set<std::string> seen;
  for (int i = 0; i < 64; ++i) {
    const PrivateKey key = PrivateKey::Generate();
    EXPECT_EQ(key.bytes()[0] & 7, 0);
    EXPECT_EQ(key.bytes()[31] & 0xc0, 0x40);
    EXPECT_TRUE(seen.insert(key.ToBase64()).second);
  }
}

TEST(PrivateKeyTest, MovedFromKeyIsZero) {
  PrivateKey from = PrivateKey::Parse(kAlice).value();
  PrivateKey to = std::move(from);
  EXPECT_TRUE(from.IsZero());  // NOLINT(bugprone-use-after-move): that is what is tested
  EXPECT_EQ(to, PrivateKey::Parse(kAlice).value());
  PrivateKey assigned;
  assigned = std::move(to);
  EXPECT_TRUE(to.IsZero());  // NOLINT(bugprone-use-after-move)
  PrivateKey& same = assigned;
  assigned = std::move(same);
  EXPECT_FALSE(assigned.IsZero());
}

TEST(PrivateKeyTest, CopiesAreExplicit) {
  static_assert(!std::is_copy_constructible_v<PrivateKey>);
  static_assert(!std::is_copy_assignable_v<PrivateKey>);
  const PrivateKey key = PrivateKey::Parse(kAlice).value();
  EXPECT_EQ(key.Clone(), key);
}

TEST(PrivateKeyTest, KeyIsZeroedWhenItDies) {
  alignas(PrivateKey) unsigned char memory[sizeof(PrivateKey)];
  auto* key = new (memory) PrivateKey(PrivateKey::Parse(kAlice).value());
  ASSERT_EQ(memory[0], 0x77);
  key->~PrivateKey();
  for (const unsigned char byte : memory) EXPECT_EQ(byte, 0);
}

TEST(PrivateKeyTest, EveryDifferentByteMakesKeysUnequal) {
  const PrivateKey key = PrivateKey::Parse(kAlice).value();
  for (size_t i = 0; i < kKeySize; ++i) {
    auto bytes = key.bytes();
    bytes[i] ^= 0x80;
    EXPECT_FALSE(PrivateKey::FromBytes(bytes) == key) << i;
  }
}

TEST(KeyTextTest, MalformedTextIsRefusedWithoutRepeatingIt) {
  const std::string hex = kAlice;
  const std::string base64 = kBobBase64;
  const auto with = [](std::string text, size_t at, char c) {
    text[at] = c;
    return text;
  };
  const std::string bad[] = {
      "",
      " ",
      hex.substr(1),
      hex + "0",
      " " + hex.substr(1),
      with(hex, 63, 'g'),
      with(hex, 0, ' '),
      with(hex, 20, '\0'),
      "0x" + hex.substr(2),
      base64.substr(0, 43),
      base64 + "=",
      base64 + "\n",
      with(base64, 43, 'A'),  // 33 bytes
      with(base64, 42, '='),  // 31 bytes
      with(base64, 42, 't'),  // bits set that no byte holds
      with(base64, 10, '-'),  // the URL alphabet
      with(base64, 10, '\n'),
      with(base64, 10, '\0'),
      with(base64, 39, '\xe4'),  // taken for a letter by libsodium
      with(hex, 20, '\xb1'),
      std::string(44, '='),
      std::string(64, '-'),
      std::string(100000, 'A'),
  };
  for (const std::string& text : bad) {
    for (const absl::Status& status :
         {PrivateKey::Parse(text).status(), PublicKey::Parse(text).status()}) {
      EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << text;
      // No eight characters of it in a row: neither all of a secret nor a part of it.
      for (size_t i = 0; i + 8 <= std::min<size_t>(text.size(), 100); ++i) {
        EXPECT_EQ(status.ToString().find(text.substr(i, 8)), std::string::npos) << text;
      }
    }
  }
}

// One text per key and alphabet: no byte in any place stands for another.
TEST(KeyTextTest, NoByteIsAnAliasOfAnother) {
  const std::string base64 = kBobBase64;
  for (const size_t at : {size_t{0}, size_t{1}, size_t{2}, size_t{3}, size_t{39}, size_t{42}}) {
    for (int byte = 0; byte < 256; ++byte) {
      std::string text = base64;
      text[at] = static_cast<char>(byte);
      const absl::StatusOr<PublicKey> key = PublicKey::Parse(text);
      if (key.ok()) {
        EXPECT_EQ(key->ToBase64(), text) << at << " " << byte;
      }
    }
  }
}

TEST(KeyTextTest, ZeroKeyIsRefused) {
  for (const std::string& zero : {std::string(64, '0'), std::string(43, 'A') + "="}) {
    EXPECT_FALSE(PublicKey::Parse(zero).ok());
    EXPECT_FALSE(PrivateKey::Parse(zero).ok());
  }
  EXPECT_TRUE(PublicKey{}.IsZero());
  EXPECT_TRUE(PrivateKey{}.IsZero());
}

TEST(PublicKeyTest, TextFormsRoundTrip) {
  const PublicKey key = Sequential();
  EXPECT_EQ(key.ToHex(), "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f");
  EXPECT_EQ(key.ToBase64(), "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=");
  EXPECT_EQ(key.ToShortString(), "[AAECA]");
  EXPECT_EQ(PublicKey::Parse(key.ToHex()).value(), key);
  EXPECT_EQ(PublicKey::Parse(key.ToBase64()).value(), key);
  std::string upper = key.ToHex();
  for (char& c : upper) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  EXPECT_EQ(PublicKey::Parse(upper).value(), key);
}

TEST(PublicKeyTest, OrderedAndHashed) {
  PublicKey larger = Sequential();
  ++larger.bytes[31];
  EXPECT_LT(Sequential(), larger);
  const absl::flat_hash_set<PublicKey> set = {Sequential(), larger, Sequential()};
  EXPECT_EQ(set.size(), 2u);
}

}  // namespace
}  // namespace ringsock
