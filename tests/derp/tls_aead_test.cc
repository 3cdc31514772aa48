// Both implementations against published vectors, each other, and everything that may be changed on
// a record's way.
#include "derp/tls_aead.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "absl/strings/escaping.h"
#include "base/random.h"

namespace ringsock::derp {
namespace {

using Engine = TlsAead::Engine;

std::vector<uint8_t> Hex(const std::string& hex) {
  const std::string bytes = absl::HexStringToBytes(hex);
  return {bytes.begin(), bytes.end()};
}
std::vector<std::byte> Bytes(const std::vector<uint8_t>& from) {
  std::vector<std::byte> bytes(from.size());
  std::transform(from.begin(), from.end(), bytes.begin(), [](uint8_t b) { return std::byte{b}; });
  return bytes;
}
TlsNonce Nonce(const std::vector<uint8_t>& from) {
  TlsNonce nonce{};
  std::copy(from.begin(), from.end(), nonce.begin());
  return nonce;
}

struct Vector {
  const char* name;
  uint16_t suite;
  const char *key, *nonce, *header, *plaintext, *sealed;
};

constexpr char kGcmPlaintext[] =
    "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b5"
    "25b16aedf5aa0de657ba637b39";
constexpr Vector kVectors[] = {
    // "The Galois/Counter Mode of Operation" as submitted to NIST, test cases 4 and 16.
    {"AES-128-GCM", kTlsAes128Gcm, "feffe9928665731c6d6a8f9467308308", "cafebabefacedbaddecaf888",
     "feedfacedeadbeeffeedfacedeadbeefabaddad2", kGcmPlaintext,
     "42831ec2217774244b7221b784d0d49ce3aa212f2c02a4e035c17e2329aca12e21d514b25466931c7d8f6a5aac84a"
     "a"
     "051ba30b396a0aac973d58e0915bc94fbc3221a5db94fae95ae7121a47"},
    {"AES-256-GCM", kTlsAes256Gcm,
     "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308", "cafebabefacedbaddecaf888",
     "feedfacedeadbeeffeedfacedeadbeefabaddad2", kGcmPlaintext,
     "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056828"
     "8"
     "38c5f61e6393ba7a0abcc9f66276fc6ece0f4e1768cddf8853bb2d551b"},
    // RFC 8439, section 2.8.2.
    {"ChaCha20-Poly1305", kTlsChaCha20Poly1305,
     "808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f", "070000004041424344454647",
     "50515253c0c1c2c3c4c5c6c7",
     "4c616469657320616e642047656e746c656d656e206f662074686520636c617373206f66202739393a20496620492"
     "0"
     "636f756c64206f6666657220796f75206f6e6c79206f6e652074697020666f7220746865206675747572652c20737"
     "5"
     "6e73637265656e20776f756c642062652069742e",
     "d31a8d34648e60db7b86afbc53ef7ec2a4aded51296e08fea9e2b5a736ee62d63dbea45e8ca9671282fafb69da927"
     "2"
     "8b1a71de0a9e060b2905d6a5b67ecd3b3692ddbd7f2d778b8c9803aee328091b58fab324e4fad675945585808b483"
     "1"
     "d7bc3ff4def08e4b7a9de576d26586cec64b61161ae10b594f09e26a7e902ecbd0600691"},
};

// The engines that have `suite` here. BoringSSL's comes first.
std::vector<std::unique_ptr<TlsAead>> Engines(uint16_t suite, const std::vector<uint8_t>& key) {
  std::vector<std::unique_ptr<TlsAead>> found;
  found.push_back(TlsAead::Create(suite, key, Engine::kBoringSsl));
  EXPECT_NE(found[0], nullptr);
  if (auto fast = TlsAead::Create(suite, key, Engine::kIpsecMb)) found.push_back(std::move(fast));
  return found;
}

TEST(TlsAeadTest, Vectors) {
  for (const Vector& v : kVectors) {
    const auto key = Hex(v.key);
    const auto nonce = Nonce(Hex(v.nonce));
    const auto header = Bytes(Hex(v.header)), plaintext = Bytes(Hex(v.plaintext));
    const auto sealed = Bytes(Hex(v.sealed));
    for (const auto& aead : Engines(v.suite, key)) {
      // The last byte goes as the type.
      std::vector<std::byte> out(sealed.size());
      ASSERT_TRUE(aead->Seal(nonce, header, std::span(plaintext).first(plaintext.size() - 1),
                             plaintext.back(), out));
      EXPECT_EQ(out, sealed) << v.name;
      ASSERT_TRUE(aead->Open(nonce, header, out)) << v.name;
      out.resize(plaintext.size());
      EXPECT_EQ(out, plaintext) << v.name;
    }
  }
}

class TlsAeadSuiteTest : public testing::TestWithParam<uint16_t> {
 protected:
  std::vector<std::byte> Random(size_t size) {
    std::vector<std::byte> bytes(size);
    for (std::byte& byte : bytes) byte = static_cast<std::byte>(random_.Next());
    return bytes;
  }
  SeededRandom random_{7};
  const std::vector<uint8_t> key_ = [] {
    std::vector<uint8_t> key(TlsAead::KeySize(GetParam()));
    for (size_t i = 0; i < key.size(); ++i) key[i] = static_cast<uint8_t>(3 * i + 1);
    return key;
  }();
  const TlsNonce nonce_{1, 2, 3};
};
INSTANTIATE_TEST_SUITE_P(Suites, TlsAeadSuiteTest,
                         testing::Values(kTlsAes128Gcm, kTlsAes256Gcm, kTlsChaCha20Poly1305),
                         [](const auto& info) { return std::to_string(info.param & 0xff); });

// Every length to some blocks, then those around what is treated apart; each at places of every
// alignment, with sentinels on both sides, which no sanitizer watches inside a foreign library.
TEST_P(TlsAeadSuiteTest, EnginesAgreeAtEveryLength) {
  std::vector<size_t> sizes = {1023, 1024, 1025, 1400, 1441, 4095, 4096, 16383, 16384};
  for (size_t size = 0; size < 400; ++size) sizes.push_back(size);
  const auto engines = Engines(GetParam(), key_);
  const auto header = Random(kTlsHeaderSize);
  for (const size_t size : sizes) {
    const auto plaintext = Random(size);
    const size_t sealed_size = size + 1 + kTlsTagSize;
    std::vector<std::byte> expected(sealed_size);
    ASSERT_TRUE(engines[0]->Seal(nonce_, header, plaintext, std::byte{23}, expected));
    const size_t shift = size % 64;
    constexpr std::byte kSentinel{0xa5};
    for (const auto& engine : engines) {
      std::vector<std::byte> room(shift + sealed_size + 64, kSentinel);
      const std::span<std::byte> out = std::span(room).subspan(shift, sealed_size);
      ASSERT_TRUE(engine->Seal(nonce_, header, plaintext, std::byte{23}, out));
      ASSERT_TRUE(std::equal(out.begin(), out.end(), expected.begin())) << size;
      ASSERT_TRUE(engine->Open(nonce_, header, out)) << size;
      ASSERT_TRUE(std::equal(plaintext.begin(), plaintext.end(), out.begin())) << size;
      ASSERT_EQ(out[size], std::byte{23});
      const auto untouched = [](std::byte byte) { return byte == kSentinel; };
      ASSERT_TRUE(
          std::all_of(room.begin(), room.begin() + static_cast<ptrdiff_t>(shift), untouched));
      ASSERT_TRUE(std::all_of(room.end() - 64, room.end(), untouched)) << size;
    }
  }
}

TEST_P(TlsAeadSuiteTest, EveryChangedBitIsSeen) {
  for (const auto& engine : Engines(GetParam(), key_)) {
    for (const size_t size : {size_t{0}, size_t{60}, size_t{1200}}) {
      auto header = Random(kTlsHeaderSize);
      const auto plaintext = Random(size);
      std::vector<std::byte> sealed(size + 1 + kTlsTagSize);
      ASSERT_TRUE(engine->Seal(nonce_, header, plaintext, std::byte{22}, sealed));
      for (size_t i = 0; i < sealed.size(); ++i) {
        auto changed = sealed;
        changed[i] ^= static_cast<std::byte>(1 << (i % 8));
        ASSERT_FALSE(engine->Open(nonce_, header, changed)) << i;
        // Nobody is to see what was in it.
        const bool shown = std::equal(plaintext.begin(), plaintext.end(), changed.begin());
        ASSERT_TRUE(size == 0 || !shown) << i;
      }
      for (size_t i = 0; i < header.size(); ++i) {
        auto copy = sealed;
        header[i] ^= std::byte{1};
        ASSERT_FALSE(engine->Open(nonce_, header, copy));
        header[i] ^= std::byte{1};
      }
      for (size_t i = 0; i < nonce_.size(); ++i) {
        auto copy = sealed;
        TlsNonce nonce = nonce_;
        nonce[i] ^= 0x80;
        ASSERT_FALSE(engine->Open(nonce, header, copy));
      }
      for (size_t cut = 1; cut <= sealed.size(); ++cut) {
        auto copy = sealed;
        ASSERT_FALSE(engine->Open(nonce_, header, std::span(copy).first(copy.size() - cut)));
      }
      ASSERT_TRUE(engine->Open(nonce_, header, sealed));
    }
  }
}

TEST_P(TlsAeadSuiteTest, TooLittleRoomIsRefused) {
  for (const auto& engine : Engines(GetParam(), key_)) {
    const auto plaintext = Random(100);
    std::vector<std::byte> out(plaintext.size() + kTlsTagSize);
    EXPECT_FALSE(engine->Seal(nonce_, {}, plaintext, std::byte{23}, out));
  }
}

TEST(TlsAeadTest, UnknownSuitesAndWrongKeysAreRefused) {
  const std::vector<uint8_t> key(32);
  for (const Engine engine : {Engine::kBest, Engine::kBoringSsl, Engine::kIpsecMb}) {
    EXPECT_EQ(TlsAead::Create(0x1304, key, engine), nullptr);
    EXPECT_EQ(TlsAead::Create(kTlsAes128Gcm, key, engine), nullptr);
    EXPECT_EQ(TlsAead::Create(kTlsAes256Gcm, std::span(key).first(31), engine), nullptr);
    EXPECT_EQ(TlsAead::Create(kTlsAes128Gcm, {}, engine), nullptr);
  }
  EXPECT_EQ(TlsAead::Create(kTlsChaCha20Poly1305, key, Engine::kIpsecMb), nullptr);
  EXPECT_NE(TlsAead::Create(kTlsChaCha20Poly1305, key), nullptr);
}

}  // namespace
}  // namespace ringsock::derp
