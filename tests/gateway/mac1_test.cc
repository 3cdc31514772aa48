// Recognising a peer by the mac1 of a handshake message that is meant for it.
#include "gateway/mac1.h"

#include <blake2.h>

#include <array>
#include <cstring>
#include <span>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <sodium.h>

#include "gateway/wireguard_message.h"

namespace ringsock::gateway {
namespace {

using Bytes = std::vector<std::byte>;

Bytes FromHex(const std::string& hex) {
  Bytes bytes(hex.size() / 2);
  size_t size = 0;
  EXPECT_EQ(sodium_hex2bin(reinterpret_cast<unsigned char*>(bytes.data()), bytes.size(), hex.data(),
                           hex.size(), nullptr, &size, nullptr),
            0);
  return bytes;
}

std::string Blake2s(std::span<const std::byte> input, std::span<const std::byte> key) {
  std::array<uint8_t, 32> out;
  EXPECT_EQ(blake2s(out.data(), input.data(), key.data(), out.size(), input.size(), key.size()), 0);
  std::string hex(2 * out.size() + 1, '\0');
  sodium_bin2hex(hex.data(), hex.size(), out.data(), out.size());
  hex.pop_back();
  return hex;
}

PublicKey Key(const std::string& text) { return *PublicKey::Parse(text); }

const char kReceiver[] = "Cp12ZWOjLKjkJaudNvN1GFTIACpxpTFCmRgdJxVCPHk=";

// A message of counting bytes, with a mac1 that an independent implementation (Python's hashlib)
// computed for kReceiver.
Bytes Message(uint8_t type) {
  const bool initiation = type == 1;
  Bytes message(initiation ? kInitiationSize : kResponseSize);
  const size_t covered = message.size() - 32;
  for (size_t i = 4; i < covered; ++i) message[i] = static_cast<std::byte>(i);
  message[0] = static_cast<std::byte>(type);
  const Bytes mac =
      FromHex(initiation ? "54fbd0ba6dc9dd211139189591a99755" : "e091d8d0af3757f67aa6bff1fe318452");
  std::memcpy(message.data() + covered, mac.data(), mac.size());
  return message;
}

// The library does what RFC 7693 (appendix B) and the reference vectors of BLAKE2 say.
TEST(Mac1Test, Blake2s) {
  const std::string abc = "abc";
  EXPECT_EQ(Blake2s(std::as_bytes(std::span(abc)), {}),
            "508c5e8c327c14e2e1a72ba34eeb452f37458b209ed63a294d999b4c86675982");
  Bytes key(32);
  for (size_t i = 0; i < key.size(); ++i) key[i] = static_cast<std::byte>(i);
  EXPECT_EQ(Blake2s({}, key), "48a8997da407876b3d79c0d92325ad3b89cbb754d86ab71aee047ad345fd2c49");
}

TEST(Mac1Test, MatchesItsReceiverOnly) {
  const Mac1Key receiver(Key(kReceiver));
  const Mac1Key other(Key(std::string(63, '0') + "9"));
  for (const uint8_t type : {1, 2}) {
    const Bytes message = Message(type);
    EXPECT_TRUE(receiver.Matches(message));
    EXPECT_FALSE(other.Matches(message));
  }
}

TEST(Mac1Test, EveryCoveredByteCounts) {
  const Mac1Key receiver(Key(kReceiver));
  for (const uint8_t type : {1, 2}) {
    const Bytes message = Message(type);
    for (size_t i = 0; i < message.size(); ++i) {
      Bytes changed = message;
      changed[i] ^= std::byte{0x80};
      const bool in_mac2 = i >= message.size() - 16;
      EXPECT_EQ(receiver.Matches(changed), in_mac2) << int{type} << " byte " << i;
    }
  }
}

TEST(Mac1Test, OtherSizesAndTypesNeverMatch) {
  const Mac1Key receiver(Key(kReceiver));
  for (const uint8_t type : {1, 2}) {
    const Bytes message = Message(type);
    for (size_t size = 0; size < message.size(); ++size) {
      EXPECT_FALSE(receiver.Matches(std::span(message).first(size))) << size;
    }
    Bytes longer = message;
    longer.push_back(std::byte{0});
    EXPECT_FALSE(receiver.Matches(longer));
  }
}

TEST(Mac1Test, FindsThePeer) {
  std::vector<std::optional<Mac1Key>> keys;
  for (char c = '1'; c <= '9'; ++c) keys.emplace_back(Mac1Key(Key(std::string(64, c))));
  keys.emplace_back(Mac1Key(Key(kReceiver)));
  const Mac1Keys all(keys);
  EXPECT_EQ(all.Find(Message(1)), 9u);
  EXPECT_EQ(all.Find(Message(2)), 9u);
  EXPECT_TRUE(all.Matches(9, Message(1)));
  EXPECT_FALSE(all.Matches(8, Message(1)));
  EXPECT_FALSE(all.Matches(10, Message(1)));
  EXPECT_FALSE(all.Matches(kNoPeer, Message(1)));
  keys.back() = std::nullopt;  // a peer that has gone
  EXPECT_FALSE(Mac1Keys(keys).Matches(9, Message(1)));
  EXPECT_EQ(Mac1Keys(keys).Find(Message(1)), kNoPeer);
  EXPECT_EQ(Mac1Keys().Find(Message(1)), kNoPeer);
}

TEST(WireGuardMessageTest, TypeNeedsItsSize) {
  const auto type = [](uint32_t first, size_t size) {
    Bytes message(size);
    if (size >= 4) std::memcpy(message.data(), &first, sizeof(first));
    return WholeTypeOf(message);
  };
  EXPECT_EQ(type(1, 148), MessageType::kInitiation);
  EXPECT_EQ(type(1, 147), MessageType::kNone);
  EXPECT_EQ(type(2, 92), MessageType::kResponse);
  EXPECT_EQ(type(2, 93), MessageType::kNone);
  EXPECT_EQ(type(3, 64), MessageType::kCookieReply);
  EXPECT_EQ(type(3, 32), MessageType::kNone);
  EXPECT_EQ(type(4, 32), MessageType::kTransport);
  EXPECT_EQ(type(4, 1452), MessageType::kTransport);
  EXPECT_EQ(type(4, 31), MessageType::kNone);
  EXPECT_EQ(type(5, 148), MessageType::kNone);
  EXPECT_EQ(type(0x101, 148), MessageType::kNone);
  EXPECT_EQ(type(0, 0), MessageType::kNone);
}

}  // namespace
}  // namespace ringsock::gateway
