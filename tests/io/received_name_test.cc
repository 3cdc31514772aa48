// The source of a datagram, read as Endpoint::FromSockaddr() reads it, and never beyond its end.
#include "io/received_name.h"

#include <gtest/gtest.h>
#include <netinet/in.h>

#include <cstring>
#include <memory>

#include "base/endpoint.h"

namespace ringsock::io {
namespace {

// Every byte of what was there before must go.
Endpoint Read(const void* name, size_t length) {
  const auto exact = std::make_unique<std::byte[]>(length);  // for the address sanitizer
  if (length > 0) memcpy(exact.get(), name, length);
  Endpoint from;
  memset(static_cast<void*>(&from), 0xa5, sizeof from);
  ReadReceivedName({exact.get(), length}, &from);
  return from;
}

TEST(ReceivedNameTest, BothFamilies) {
  for (const char* text : {"192.0.2.7:4500", "255.255.255.255:65535", "[2001:db8::7]:4500"}) {
    const Endpoint endpoint = Endpoint::Parse(text).value();
    sockaddr_storage name{};
    const socklen_t length = endpoint.ToSockaddr(&name);
    EXPECT_EQ(Read(&name, length), endpoint) << text;
    EXPECT_EQ(Read(&name, length), Endpoint::FromSockaddr(name)) << text;
  }
}

TEST(ReceivedNameTest, TheZoneOfALinkLocalAddress) {
  sockaddr_in6 name{};
  name.sin6_family = AF_INET6;
  name.sin6_addr.s6_addr[0] = 0xfe;
  name.sin6_addr.s6_addr[1] = 0x80;
  name.sin6_port = htons(7);
  name.sin6_scope_id = 3;
  EXPECT_EQ(Read(&name, sizeof name).ip.zone, 3u);
}

TEST(ReceivedNameTest, NoneIfNotWholeOrOfAnotherFamily) {
  for (const char* text : {"192.0.2.7:4500", "[2001:db8::7]:4500"}) {
    sockaddr_storage name{};
    const socklen_t length = Endpoint::Parse(text)->ToSockaddr(&name);
    for (socklen_t cut = 0; cut < length; ++cut) {
      EXPECT_TRUE(Read(&name, cut).IsNone()) << text << ", " << cut;
    }
    name.ss_family = AF_UNIX;
    EXPECT_TRUE(Read(&name, length).IsNone());
  }
}

}  // namespace
}  // namespace ringsock::io
