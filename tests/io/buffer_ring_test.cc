// The layout of received messages: what the kernel writes, and what no kernel should.
#include "io/buffer_ring.h"

#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <cstring>
#include <optional>
#include <span>
#include <vector>

#include "io/received_name.h"
#include "io/uring.h"

namespace ringsock::io {
namespace {

struct Message {
  io_uring_recvmsg_out header{};
  sockaddr_storage name{};
  std::vector<std::byte> payload;

  std::vector<std::byte> Bytes() const {
    std::vector<std::byte> bytes(kHeaderRoom);
    memcpy(bytes.data(), &header, sizeof header);
    memcpy(bytes.data() + sizeof header, &name, kNameRoom);
    bytes.insert(bytes.end(), payload.begin(), payload.end());
    return bytes;
  }
};

Message From(const char* endpoint, size_t payload) {
  Message message;
  message.header.namelen = Endpoint::Parse(endpoint).value().ToSockaddr(&message.name);
  message.header.payloadlen = static_cast<uint32_t>(payload);
  message.payload.assign(payload, std::byte{0x5a});
  return message;
}

Endpoint FromOf(const ReceivedMessage& message) {
  Endpoint from{.ip = IpAddress::AnyV4(), .port = 1, .reserved = 1};
  ReadReceivedName(message.name, &from);
  return from;
}

std::optional<ReceivedMessage> Parse(std::span<std::byte> bytes) {
  ReceivedMessage message;
  if (!ParseReceivedMessage(bytes, &message)) return std::nullopt;
  return message;
}

TEST(ReceivedMessageTest, ReadsBothFamilies) {
  for (const char* endpoint : {"192.0.2.7:4500", "[2001:db8::7]:4500"}) {
    Message message = From(endpoint, 100);
    message.header.controllen = 24;
    auto bytes = message.Bytes();
    const auto parsed = Parse(bytes);
    ASSERT_TRUE(parsed.has_value());
    EXPECT_FALSE(parsed->truncated);
    EXPECT_EQ(FromOf(*parsed).ToString(), endpoint);
    EXPECT_EQ(parsed->control.size(), 24u);
    EXPECT_EQ(parsed->payload.data(), bytes.data() + kHeaderRoom);
    EXPECT_EQ(parsed->payload.size(), 100u);
  }
}

TEST(ReceivedMessageTest, AnEmptyDatagramIsOne) {
  auto bytes = From("192.0.2.7:4500", 0).Bytes();
  const auto parsed = Parse(bytes);
  ASSERT_TRUE(parsed.has_value());
  EXPECT_TRUE(parsed->payload.empty());
  EXPECT_FALSE(parsed->truncated);
}

TEST(ReceivedMessageTest, AShortBufferIsMalformed) {
  const auto whole = From("192.0.2.7:4500", 0).Bytes();
  for (size_t size = 0; size < kHeaderRoom; ++size) {
    std::vector<std::byte> bytes(whole.begin(), whole.begin() + static_cast<ptrdiff_t>(size));
    EXPECT_FALSE(Parse(bytes).has_value()) << size;
  }
}

TEST(ReceivedMessageTest, LengthsBeyondTheirRoomsAreMalformed) {
  Message message = From("192.0.2.7:4500", 10);
  message.header.namelen = kNameRoom + 1;
  auto bytes = message.Bytes();
  EXPECT_FALSE(Parse(bytes).has_value());
  message = From("192.0.2.7:4500", 10);
  message.header.controllen = kControlRoom + 1;
  bytes = message.Bytes();
  EXPECT_FALSE(Parse(bytes).has_value());
}

TEST(ReceivedMessageTest, AnAddressThatIsNotWholeIsNone) {
  Message message = From("[2001:db8::7]:4500", 10);
  for (uint32_t length = 0; length < sizeof(sockaddr_in6); ++length) {
    message.header.namelen = length;
    auto bytes = message.Bytes();
    const auto parsed = Parse(bytes);
    ASSERT_TRUE(parsed.has_value());
    EXPECT_TRUE(FromOf(*parsed).IsNone()) << length;
  }
}

TEST(ReceivedMessageTest, SaysWhatWasCut) {
  Message message = From("192.0.2.7:4500", 10);
  message.header.flags = MSG_TRUNC;
  auto bytes = message.Bytes();
  EXPECT_TRUE(Parse(bytes)->truncated);
  message.header.flags = MSG_CTRUNC;
  bytes = message.Bytes();
  EXPECT_TRUE(Parse(bytes)->truncated);
  message.header.flags = 0;
  message.header.payloadlen = 11;  // more than the buffer holds
  bytes = message.Bytes();
  EXPECT_TRUE(Parse(bytes)->truncated);
}

TEST(BufferRingTest, HoldsBackWhatIsOverTheWindow) {
  BufferRing buffers;
  Uring ring;  // goes first
  if (!ProbeUring().ok()) GTEST_SKIP();
  ASSERT_TRUE(ring.Open(4, 8).ok());
  buffers.SetWindow(2);
  ASSERT_TRUE(buffers.Open(ring.get(), 0, 5, 4096).ok());
  EXPECT_EQ(buffers.available(), 2u);
  buffers.SetWindow(4);
  EXPECT_EQ(buffers.available(), 4u);
  for (int i = 0; i < 3; ++i) buffers.Taken();
  buffers.SetWindow(2);
  for (uint16_t id = 0; id < 3; ++id) buffers.Return(id);
  EXPECT_EQ(buffers.available(), 2u) << "one came back, two wait";
  buffers.SetWindow(100);
  EXPECT_EQ(buffers.available(), 5u) << "none is lost";
}

}  // namespace
}  // namespace ringsock::io
