// The NaCl box against the recorded ones, and against keys and boxes that must not pass.
#include "derp/box.h"

#include <gtest/gtest.h>

#include <array>
#include <string>
#include <utility>

#include "tests/derp/vectors.h"

namespace ringsock::derp {
namespace {

BoxKey ClientToServer() { return *BoxKey::Agree(PrivateVector("client"), PublicVector("server")); }
BoxKey ServerToClient() { return *BoxKey::Agree(PrivateVector("server"), PublicVector("client")); }

BoxNonce NonceOf(const std::string& name) {
  const ByteVector bytes = FromHex(Vector("/" + name + "/nonce"));
  BoxNonce nonce;
  std::copy(bytes.begin(), bytes.end(), nonce.begin());
  return nonce;
}

void ExpectVector(const BoxKey& sender, const BoxKey& receiver, const std::string& name) {
  const ByteVector plain = FromText(Vector("/" + name + "/json"));
  const BoxNonce nonce = NonceOf(name);
  ByteVector box(plain.size() + kBoxOverhead);
  sender.Seal(nonce, plain, box);
  EXPECT_EQ(ToHex(box), Vector("/" + name + "/box"));
  ByteVector opened(plain.size());
  ASSERT_TRUE(receiver.Open(nonce, box, opened));
  EXPECT_EQ(opened, plain);
}

// spec: derp.md, Frames: "The NaCl box is crypto_box".
TEST(BoxTest, RecordedBoxesSealAndOpen) {
  ExpectVector(ClientToServer(), ServerToClient(), "client_info_box");
  ExpectVector(ServerToClient(), ClientToServer(), "server_info_box");
  ExpectVector(ServerToClient(), ClientToServer(), "server_info_token_bucket_box");
}

TEST(BoxTest, NonceGoesInFront) {
  ScriptedRandom random;
  random.Script(NonceOf("client_info_box"));
  const ByteVector sealed =
      ClientToServer().SealWithNonce(FromText(Vector("/client_info_box/json")), random);
  EXPECT_EQ(ToHex(sealed), Vector("/client_info_box/nonce") + Vector("/client_info_box/box"));
  const auto opened = ServerToClient().OpenWithNonce(sealed);
  ASSERT_TRUE(opened.ok());
  EXPECT_EQ(AsText(*opened), Vector("/client_info_box/json"));
}

TEST(BoxTest, EveryChangedByteIsSeen) {
  ScriptedRandom random;
  const ByteVector sealed = ClientToServer().SealWithNonce(FromText("hello"), random);
  for (size_t i = 0; i < sealed.size(); ++i) {
    ByteVector changed = sealed;
    changed[i] ^= std::byte{0x80};
    EXPECT_FALSE(ServerToClient().OpenWithNonce(changed).ok()) << i;
  }
  for (size_t size = 0; size < sealed.size(); ++size) {
    EXPECT_FALSE(ServerToClient().OpenWithNonce(std::span(sealed).first(size)).ok()) << size;
  }
}

TEST(BoxTest, AnotherKeyDoesNotOpen) {
  ScriptedRandom random;
  const ByteVector sealed = ClientToServer().SealWithNonce(FromText("hello"), random);
  const BoxKey other = *BoxKey::Agree(PrivateVector("server"), PublicVector("peer"));
  EXPECT_FALSE(other.OpenWithNonce(sealed).ok());
}

TEST(BoxTest, EmptyMessage) {
  ScriptedRandom random;
  const ByteVector sealed = ClientToServer().SealWithNonce({}, random);
  EXPECT_EQ(sealed.size(), kBoxNonceSize + kBoxOverhead);
  const auto opened = ServerToClient().OpenWithNonce(sealed);
  ASSERT_TRUE(opened.ok());
  EXPECT_TRUE(opened->empty());
}

// The points of small order of Curve25519 that make a shared key everybody can compute.
TEST(BoxTest, LowOrderKeysAreRefused) {
  for (const char* hex : {
           "0000000000000000000000000000000000000000000000000000000000000000",
           "0100000000000000000000000000000000000000000000000000000000000000",
           "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
           "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
           "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
           "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
           "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
       }) {
    PublicKey key;
    const ByteVector bytes = FromHex(hex);
    std::memcpy(key.bytes.data(), bytes.data(), bytes.size());
    EXPECT_FALSE(BoxKey::Agree(PrivateVector("client"), key).ok()) << hex;
  }
}

TEST(BoxTest, MovedFromKeyIsGone) {
  BoxKey first = ClientToServer();
  BoxKey second = std::move(first);
  ScriptedRandom random;
  const ByteVector sealed = second.SealWithNonce(FromText("hello"), random);
  EXPECT_TRUE(ServerToClient().OpenWithNonce(sealed).ok());
  EXPECT_FALSE(first.OpenWithNonce(sealed).ok());  // zeroed
}

}  // namespace
}  // namespace ringsock::derp
