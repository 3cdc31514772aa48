// Tests of the packet classifier: single packets, every short length, and trains against the answer
// for each packet by itself.
#include "core/wireguard.h"

#include <random>
#include <vector>

#include "gtest/gtest.h"

namespace ringsock {
namespace {

std::vector<std::byte> Packet(std::initializer_list<int> bytes, size_t size) {
  std::vector<std::byte> packet(size);
  size_t i = 0;
  for (int b : bytes) {
    if (i < size) packet[i++] = static_cast<std::byte>(b);
  }
  return packet;
}

bool Handshake(const std::vector<std::byte>& p) { return IsHandshake(p.data(), p.size()); }
bool Stun(const std::vector<std::byte>& p) { return IsStun(p.data(), p.size()); }

// spec: SEND-1, SEND-2
TEST(WireguardTest, TypesOneToThreeAreHandshakes) {
  EXPECT_FALSE(Handshake(Packet({0, 0, 0, 0}, 148)));
  EXPECT_TRUE(Handshake(Packet({1, 0, 0, 0}, 148)));
  EXPECT_TRUE(Handshake(Packet({2, 0, 0, 0}, 92)));
  EXPECT_TRUE(Handshake(Packet({3, 0, 0, 0}, 64)));
  EXPECT_FALSE(Handshake(Packet({4, 0, 0, 0}, 32)));
  EXPECT_FALSE(Handshake(Packet({5, 0, 0, 0}, 32)));
  EXPECT_FALSE(Handshake(Packet({255, 255, 255, 255}, 32)));
}

// spec: SEND-1
TEST(WireguardTest, TheTypeIsFourBytesLittleEndian) {
  EXPECT_FALSE(Handshake(Packet({1, 1, 0, 0}, 148)));
  EXPECT_FALSE(Handshake(Packet({1, 0, 0, 1}, 148)));
  EXPECT_FALSE(Handshake(Packet({0, 0, 0, 1}, 148)));
  const auto packet = Packet({0x78, 0x56, 0x34, 0x12}, 4);
  EXPECT_EQ(static_cast<uint32_t>(TypeOf(packet.data(), packet.size())), 0x12345678u);
}

// spec: SEND-1
TEST(WireguardTest, ShorterThanFourBytesIsNeverAHandshake) {
  for (size_t size = 0; size < 4; ++size) {
    const auto packet = Packet({1, 0, 0}, size);
    EXPECT_FALSE(Handshake(packet)) << size;
    EXPECT_EQ(TypeOf(packet.data(), size), MessageType::kNone) << size;
    EXPECT_EQ(FindHandshake(packet.data(), size, size), kNoPacket) << size;
  }
  EXPECT_TRUE(Handshake(Packet({1, 0, 0, 0}, 4)));
}

// spec: RECV-1
TEST(WireguardTest, StunIsTwentyBytesTopBitsZeroAndTheCookie) {
  EXPECT_TRUE(Stun(Packet({0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42}, 20)));
  EXPECT_TRUE(Stun(Packet({0x3f, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42}, 1500)));
  EXPECT_FALSE(Stun(Packet({0x40, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42}, 20)));
  EXPECT_FALSE(Stun(Packet({0x80, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42}, 20)));
  EXPECT_FALSE(Stun(Packet({0, 1, 0, 0, 0x42, 0xa4, 0x12, 0x21}, 20)));
  for (size_t size = 0; size < 20; ++size) {
    EXPECT_FALSE(Stun(Packet({0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42}, size))) << size;
  }
}

TEST(WireguardTest, IndicesByTypeAndOnlyIfTheyAreThere) {
  const auto at = [](int type, size_t size) {
    return Packet({type, 0, 0, 0, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88}, size);
  };
  const auto sender = [&](int type, size_t size) {
    return SenderIndex(at(type, size).data(), size);
  };
  const auto receiver = [&](int type, size_t size) {
    return ReceiverIndex(at(type, size).data(), size);
  };
  EXPECT_EQ(sender(1, 148), 0x44332211u);
  EXPECT_EQ(sender(2, 92), 0x44332211u);
  EXPECT_EQ(sender(3, 64), std::nullopt);
  EXPECT_EQ(sender(4, 64), std::nullopt);
  EXPECT_EQ(receiver(1, 148), std::nullopt);
  EXPECT_EQ(receiver(2, 92), 0x88776655u);
  EXPECT_EQ(receiver(3, 64), 0x44332211u);
  EXPECT_EQ(receiver(4, 64), 0x44332211u);
  for (size_t size = 0; size < 8; ++size) {
    for (int type = 1; type <= 4; ++type) {
      EXPECT_EQ(sender(type, size), std::nullopt);
      EXPECT_EQ(receiver(type, size), std::nullopt);
    }
  }
  EXPECT_EQ(receiver(2, 11), std::nullopt);
  EXPECT_EQ(receiver(2, 12), 0x88776655u);
}

// Every train scan must say what asking each packet would, and read nothing beyond the train (the
// vector is exactly as long, which address sanitizer checks).
TEST(WireguardTest, TrainScansAgreeWithSinglePackets) {
  std::mt19937 random(1);
  int stuns = 0, handshakes = 0;
  for (int round = 0; round < 20000; ++round) {
    const size_t segment = 1 + random() % (round % 2 == 0 ? 24 : 200);
    const size_t packets = 1 + random() % 64;
    const size_t size = segment * (packets - 1) + 1 + random() % segment;
    std::vector<std::byte> train(size);
    for (size_t at = 0; at < size; at += segment) {
      const int kind = static_cast<int>(random() % 40);
      const auto head =
          kind == 0 ? Packet({static_cast<int>(random() % 128), 1, 0, 0, 0x21, 0x12, 0xa4, 0x42}, 8)
          : kind == 1 ? Packet({static_cast<int>(random() % 5), 0, 0, 0}, 8)
                      : Packet({4, 0, 0, 0, 1, 2, 3, 4}, 8);
      std::copy_n(head.begin(), std::min(head.size(), size - at),
                  train.begin() + static_cast<ptrdiff_t>(at));
    }
    const uint32_t first = static_cast<uint32_t>(random() % (packets + 1));
    uint32_t want_stun = kNoPacket, want_handshake = kNoPacket;
    for (uint32_t i = first; i < packets; ++i) {
      const std::byte* at = train.data() + i * segment;
      const size_t length = std::min(segment, size - i * segment);
      if (want_stun == kNoPacket && IsStun(at, length)) want_stun = i;
      if (want_handshake == kNoPacket && IsHandshake(at, length)) want_handshake = i;
    }
    stuns += want_stun != kNoPacket;
    handshakes += want_handshake != kNoPacket;
    ASSERT_EQ(FindStun(train.data(), size, segment, first), want_stun);
    ASSERT_EQ(FindHandshake(train.data(), size, segment, first), want_handshake);
  }
  EXPECT_GT(stuns, 100);
  EXPECT_GT(handshakes, 100);
}

TEST(WireguardTest, ATrainOfOneMayLeaveOutTheSegmentSize) {
  const auto packet = Packet({1, 0, 0, 0, 0x21, 0x12, 0xa4, 0x42}, 148);
  EXPECT_EQ(FindHandshake(packet.data(), packet.size(), 0), 0u);
  EXPECT_EQ(FindHandshake(packet.data(), packet.size(), 9000), 0u);
  EXPECT_EQ(FindStun(packet.data(), packet.size(), 0), 0u);
  EXPECT_EQ(FindStun(nullptr, 0, 0), kNoPacket);
  EXPECT_EQ(FindHandshake(nullptr, 0, 0), kNoPacket);
}

}  // namespace
}  // namespace ringsock
