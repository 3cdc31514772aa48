// Building and parsing ancillary data, also where it is cut short or lies about its length.
#include "io/control_message.h"

#include <gtest/gtest.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <sys/socket.h>

#include <cstring>
#include <vector>

namespace ringsock::io {
namespace {

using Bytes = std::vector<std::byte>;

// One message as the kernel writes it. `length` overrides the truth.
Bytes Message(int level, int type, const void* payload, size_t size, size_t length = 0) {
  Bytes bytes(CMSG_SPACE(size));
  cmsghdr header{};
  header.cmsg_level = level;
  header.cmsg_type = type;
  header.cmsg_len = length == 0 ? CMSG_LEN(size) : length;
  memcpy(bytes.data(), &header, sizeof header);
  memcpy(bytes.data() + CMSG_LEN(0), payload, size);
  return bytes;
}
Bytes Gro(int segment) { return Message(SOL_UDP, UDP_GRO, &segment, sizeof segment); }
Bytes operator+(Bytes a, const Bytes& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

Bytes PktInfoV4(uint8_t last) {
  in_pktinfo info{};
  info.ipi_addr.s_addr = htonl(0x7f000000u + last);
  return Message(IPPROTO_IP, IP_PKTINFO, &info, sizeof info);
}

TEST(ControlMessageTest, ParsesWhatTheKernelAttaches) {
  EXPECT_EQ(ParseReceiveControl({}).segment_size, 0u);
  EXPECT_EQ(ParseReceiveControl(Gro(1400)).segment_size, 1400u);
  const ReceiveControl both = ParseReceiveControl(PktInfoV4(7) + Gro(99));
  EXPECT_EQ(both.segment_size, 99u);
  EXPECT_EQ(both.to, IpAddress::V4(127, 0, 0, 7));
  EXPECT_EQ(ParseReceiveControl(Gro(99) + PktInfoV4(7)).to, IpAddress::V4(127, 0, 0, 7));

  const int unknown = 5;
  EXPECT_EQ(
      ParseReceiveControl(Message(SOL_SOCKET, 99, &unknown, sizeof unknown) + Gro(3)).segment_size,
      3u);
}

TEST(ControlMessageTest, KeepsTheZoneOfALinkLocalAddressOnly) {
  for (const char* text : {"fe80::1", "2001:db8::1"}) {
    in6_pktinfo info{};
    const IpAddress address = IpAddress::Parse(text).value();
    memcpy(&info.ipi6_addr, address.bytes.data(), 16);
    info.ipi6_ifindex = 4;
    const ReceiveControl control =
        ParseReceiveControl(Message(IPPROTO_IPV6, IPV6_PKTINFO, &info, sizeof info));
    EXPECT_EQ(control.to.bytes, address.bytes);
    EXPECT_EQ(control.to.zone, address.IsLinkLocal() ? 4u : 0u);
  }
}

TEST(ControlMessageTest, NeverReadsBeyondTheEnd) {
  const Bytes good = PktInfoV4(7) + Gro(99);
  for (size_t size = 0; size <= good.size(); ++size) {
    const Bytes cut(good.begin(), good.begin() + static_cast<ptrdiff_t>(size));
    ParseReceiveControl(cut);  // for the address sanitizer
  }
  const int segment = 1400;
  for (const size_t length : {size_t{1}, CMSG_LEN(0) - 1, CMSG_LEN(0), CMSG_LEN(3), CMSG_LEN(9),
                              size_t{1} << 40, ~size_t{0}}) {
    const Bytes liar = Message(SOL_UDP, UDP_GRO, &segment, sizeof segment, length);
    EXPECT_EQ(ParseReceiveControl(liar).segment_size, 0u) << length;
    ParseReceiveControl(Gro(7) + liar);
  }
  for (const int bad : {0, -1, -2147483647}) {
    EXPECT_EQ(ParseReceiveControl(Gro(bad)).segment_size, 0u);
  }
}

TEST(ControlMessageTest, BuildsWhatASendNeeds) {
  ControlBuffer buffer;
  EXPECT_EQ(BuildSendControl({}, IpAddress::AnyV6(), true, &buffer), 0u);
  EXPECT_EQ(BuildSendControl({}, IpAddress::AnyV4(), true, &buffer), 0u);
  EXPECT_EQ(BuildSendControl({}, IpAddress::V4(127, 0, 0, 1), false, &buffer), 0u);

  const size_t size = BuildSendControl(1400, IpAddress::V4(127, 0, 0, 9), true, &buffer);
  msghdr header{};
  header.msg_control = buffer.data;
  header.msg_controllen = size;
  const cmsghdr* first = CMSG_FIRSTHDR(&header);
  ASSERT_NE(first, nullptr);
  EXPECT_EQ(first->cmsg_level, SOL_UDP);
  EXPECT_EQ(first->cmsg_type, UDP_SEGMENT);
  uint16_t segment = 0;
  ASSERT_EQ(first->cmsg_len, CMSG_LEN(sizeof segment));
  memcpy(&segment, CMSG_DATA(first), sizeof segment);
  EXPECT_EQ(segment, 1400);
  const cmsghdr* second = CMSG_NXTHDR(&header, const_cast<cmsghdr*>(first));
  ASSERT_NE(second, nullptr);
  EXPECT_EQ(second->cmsg_type, IP_PKTINFO);
  in_pktinfo info;
  memcpy(&info, CMSG_DATA(second), sizeof info);
  EXPECT_EQ(ntohl(info.ipi_spec_dst.s_addr), 0x7f000009u);

  const IpAddress v6 = IpAddress::Parse("fe80::5%1").value();
  const size_t v6_size = BuildSendControl({}, v6, false, &buffer);
  // The kernel's IPV6_PKTINFO reads the same both ways.
  EXPECT_EQ(ParseReceiveControl({buffer.data, v6_size}).to, v6);
}

}  // namespace
}  // namespace ringsock::io
