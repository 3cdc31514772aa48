// What a sender says, read back with the decoder of the protocol.
#include "bench/relay/frame_burst.h"

#include <gtest/gtest.h>

#include <cstring>

#include "bench/wire.h"

namespace ringsock::bench {
namespace {

constexpr uint64_t kRun = 77;

PublicKey Key(uint8_t n) {
  PublicKey key;
  key.bytes.fill(n);
  return key;
}

struct Seen {
  PublicKey to;
  size_t size = 0;
  WireHeader header;
};

std::vector<Seen> Decode(std::vector<std::byte>* bytes) {
  std::vector<Seen> seen;
  derp::FrameDecoder decoder(derp::Direction::kToServer);
  derp::MutableBytes input(*bytes);
  derp::Frame frame;
  while (decoder.Next(&input, &frame) == derp::FrameDecoder::Result::kFrame) {
    derp::SendPacketFrame packet;
    EXPECT_EQ(frame.type, derp::FrameType::kSendPacket);
    EXPECT_TRUE(derp::Parse(frame.payload(), &packet));
    Seen one{.to = packet.destination, .size = packet.packet.size(), .header = {}};
    std::memcpy(&one.header, packet.packet.data(), sizeof(one.header));
    seen.push_back(one);
  }
  EXPECT_EQ(decoder.buffered(), 0u);
  return seen;
}

TEST(FrameBurstTest, FramesInTurnWithNumbersOfTheirOwn) {
  FrameBurst burst(100, 5, kRun, {Key(1), Key(2), Key(3)});
  std::vector<std::byte> bytes(7 * burst.frame_size());
  EXPECT_EQ(burst.Append(4, 1000, nullptr, bytes.data()), 4 * burst.frame_size());
  EXPECT_EQ(burst.Append(3, 2000, nullptr, bytes.data() + 4 * burst.frame_size()),
            3 * burst.frame_size());
  const std::vector<Seen> seen = Decode(&bytes);
  ASSERT_EQ(seen.size(), 7u);
  for (size_t i = 0; i < seen.size(); ++i) {
    EXPECT_EQ(seen[i].to, Key(static_cast<uint8_t>(1 + i % 3))) << i;
    EXPECT_EQ(seen[i].size, 100u);
    EXPECT_EQ(seen[i].header.counter, i / 3) << i;
    EXPECT_EQ(seen[i].header.receiver, 5u);
    EXPECT_EQ(seen[i].header.run, kRun);
    EXPECT_EQ(seen[i].header.stamp, i < 4 ? 1000 : 2000);
  }
  EXPECT_EQ(burst.packets(), 7u);
  EXPECT_EQ(burst.by_destination(), (std::vector<uint64_t>{3, 2, 2}));
}

// Eleven frames of 1437 bytes are what fits into 16384.
TEST(FrameBurstTest, RecordsAreFull) {
  FrameBurst burst(1400, 0, kRun, {Key(1)});
  EXPECT_EQ(burst.frames_per_record(), 11u);
  const std::vector<uint8_t> secret(32, 1);
  RecordCipher sealer = *RecordCipher::Create(0x1301, secret);
  RecordCipher opener = *RecordCipher::Create(0x1301, secret);
  std::vector<std::byte> sealed(burst.SealedSize(25));
  ASSERT_EQ(burst.Append(25, 1, &sealer, sealed.data()), sealed.size());
  std::vector<std::byte> plain;
  std::vector<size_t> records;
  for (std::span<std::byte> left(sealed); !left.empty();) {
    const size_t size = kRecordHeader + RecordBody(left);
    const RecordCipher::Opened opened = opener.Open(left.first(size));
    ASSERT_TRUE(opened.ok);
    plain.insert(plain.end(), opened.plaintext.begin(), opened.plaintext.end());
    records.push_back(opened.plaintext.size() / burst.frame_size());
    left = left.subspan(size);
  }
  EXPECT_EQ(records, (std::vector<size_t>{11, 11, 3}));
  EXPECT_EQ(Decode(&plain).size(), 25u);
}

TEST(FrameBurstTest, LargestPacketFitsIntoARecord) {
  FrameBurst burst(kMaxRelayPacket, 0, kRun, {Key(1)});
  EXPECT_EQ(burst.frames_per_record(), 1u);
  EXPECT_EQ(burst.frame_size(), kMaxRecordPlaintext);
}

}  // namespace
}  // namespace ringsock::bench
