// Addresses and endpoints: one spelling per address, strict text, sockaddrs, relay endpoints, and a
// hash that spreads the addresses networks really have.
#include "base/endpoint.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <net/if.h>

#include <cmath>
#include <functional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_set.h"

namespace ringsock {
namespace {

Endpoint Ep(const char* text) {
  const absl::StatusOr<Endpoint> endpoint = Endpoint::Parse(text);
  EXPECT_TRUE(endpoint.ok()) << endpoint.status();
  return endpoint.value_or(Endpoint{});
}

// spec: words of magicsock.md, "IPv4 and v4-mapped IPv6 compare equal".
TEST(EndpointTest, MappedV6IsV4) {
  const Endpoint v4 = Ep("192.0.2.1:41641");
  for (const char* text : {"[::ffff:192.0.2.1]:41641", "[::ffff:c000:201]:41641",
                           "[0:0:0:0:0:FFFF:C000:0201]:41641"}) {
    const Endpoint mapped = Ep(text);
    EXPECT_EQ(mapped, v4);
    EXPECT_TRUE(mapped.IsV4());
    EXPECT_EQ(mapped.ToString(), "192.0.2.1:41641");
    EXPECT_EQ(HashEndpoint(mapped, 7), HashEndpoint(v4, 7));
    EXPECT_EQ((absl::flat_hash_set<Endpoint>{mapped, v4}).size(), 1u);
  }
  sockaddr_in6 raw = {};
  raw.sin6_family = AF_INET6;
  raw.sin6_port = htons(41641);
  inet_pton(AF_INET6, "::ffff:192.0.2.1", &raw.sin6_addr);
  EXPECT_EQ(Endpoint::FromSockaddr(reinterpret_cast<sockaddr*>(&raw)), v4);
}

TEST(EndpointTest, CompatibleButNotMappedIsV6) {
  EXPECT_FALSE(Ep("[::192.0.2.1]:1").IsV4());
  EXPECT_FALSE(Ep("[::fffe:c000:201]:1").IsV4());
}

TEST(EndpointTest, TextRoundTrips) {
  for (const char* text :
       {"0.0.0.0:1", "255.255.255.255:65535", "192.0.2.1:41641", "[::]:1", "[::1]:65535",
        "[2001:db8::1]:41641", "[fe80::1%7]:5", "[2001:db8:1:2:3:4:5:6]:80"}) {
    EXPECT_EQ(Ep(text).ToString(), text);
    EXPECT_EQ(Ep(Ep(text).ToString().c_str()), Ep(text));
  }
}

TEST(EndpointTest, MalformedTextIsRefused) {
  const std::string bad[] = {
      "",
      ":",
      "1.2.3.4",
      "1.2.3.4:",
      ":80",
      "1.2.3.4:0",
      "1.2.3.4:65536",
      "1.2.3.4:99999999999",
      "1.2.3.4:-1",
      "1.2.3.4:+1",
      "1.2.3.4: 1",
      "1.2.3.4:1 ",
      " 1.2.3.4:1",
      "1.2.3.4:0x10",
      "1.2.3.4:1:2",
      "1.2.3:1",
      "1.2.3.4.5:1",
      "1.2.3.256:1",
      "01.2.3.4:1",
      "a.b.c.d:1",
      "example.com:1",
      "::1:1",
      "2001:db8::1:80",
      "[::1]",
      "[::1]:",
      "[::1]:0",
      "[::1:80",
      "::1]:80",
      "[]:80",
      "[1.2.3.4]:80",
      "[[::1]]:80",
      "[::1]]:80",
      "[:::1]:80",
      "[1::2::3]:80",
      "[12345::]:80",
      "[::g]:80",
      "[2001:db8::1%1]:80",
      "[fe80::1%]:80",
      "[fe80::1% 1]:80",
      "[fe80::1%+1]:80",
      "[fe80::1%0]:80",
      "[fe80::1%4294967296]:80",
      "[fe80::1%no-such-if]:80",
      "[fe80::1%1%1]:80",
      "1.2.3.4%1:80",
      "[::ffff:169.254.1.1%1]:80",
      std::string("1.2.3.4\0:1", 10),
      std::string("[::1\0]:1", 8),
      std::string("1.2.3.4:1\0", 10),
      std::string("[fe80::1%1\0]:1", 14),
      std::string(100000, '1'),
      std::string(100000, ':'),
  };
  for (const std::string& text : bad) {
    const absl::StatusOr<Endpoint> parsed = Endpoint::Parse(text);
    EXPECT_EQ(parsed.status().code(), absl::StatusCode::kInvalidArgument)
        << '"' << text.substr(0, 80) << '"';
  }
}

TEST(EndpointTest, ErrorsQuoteTheTextAndTheReason) {
  const std::string error(Endpoint::Parse("1.2.3.4:0").status().message());
  EXPECT_NE(error.find("\"1.2.3.4:0\""), std::string::npos);
  EXPECT_NE(error.find("1 to 65535"), std::string::npos);
}

// spec: PEER-1
TEST(EndpointTest, ListsKeepTheirOrderAndFailAsAWhole) {
  const auto list = Endpoint::ParseList("127.3.3.40:1,192.0.2.1:41641,[2001:db8::1]:41641");
  ASSERT_TRUE(list.ok());
  EXPECT_EQ(*list, (std::vector<Endpoint>{RelayEndpoint(1), Ep("192.0.2.1:41641"),
                                          Ep("[2001:db8::1]:41641")}));
  EXPECT_TRUE(Endpoint::ParseList("").value().empty());
  for (const char* text : {",", "1.2.3.4:1,", ",1.2.3.4:1", "1.2.3.4:1,,1.2.3.4:2",
                           "1.2.3.4:1, 1.2.3.4:2", "1.2.3.4:1;1.2.3.4:2", " "}) {
    EXPECT_FALSE(Endpoint::ParseList(text).ok()) << text;
  }
}

TEST(EndpointTest, SockaddrRoundTrips) {
  for (const char* text :
       {"192.0.2.1:41641", "0.0.0.0:1", "[2001:db8::1]:41641", "[::1]:65535", "[fe80::1%7]:5"}) {
    const Endpoint endpoint = Ep(text);
    sockaddr_storage raw;
    std::memset(&raw, 0xff, sizeof(raw));
    const socklen_t size = endpoint.ToSockaddr(&raw);
    EXPECT_EQ(raw.ss_family, endpoint.IsV4() ? AF_INET : AF_INET6);
    EXPECT_EQ(size, endpoint.IsV4() ? sizeof(sockaddr_in) : sizeof(sockaddr_in6));
    EXPECT_EQ(Endpoint::FromSockaddr(raw), endpoint);
  }
  sockaddr_storage unix_address = {};
  unix_address.ss_family = AF_UNIX;
  EXPECT_TRUE(Endpoint::FromSockaddr(unix_address).IsNone());
}

TEST(EndpointTest, WordsRoundTripAndCarryEverything) {
  const Endpoint endpoint = Ep("[fe80::1%7]:5");
  EXPECT_EQ(Endpoint::FromWords(endpoint.Words()), endpoint);
  EXPECT_NE(endpoint, Ep("[fe80::1%8]:5"));
  EXPECT_NE(endpoint, Ep("[fe80::1%7]:6"));
  EXPECT_NE(endpoint, Ep("[fe80::2%7]:5"));
  EXPECT_TRUE(Endpoint{}.IsNone());
  EXPECT_FALSE(endpoint.IsNone());
}

TEST(IpAddressTest, ZonesAreOnlyForLinkLocalIpv6) {
  const std::array<uint8_t, 16> link_local = {0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1};
  EXPECT_EQ(IpAddress::V6(link_local, 3).zone, 3u);
  EXPECT_EQ(IpAddress::V6(link_local, 3).ToString(), "fe80::1%3");
  EXPECT_EQ(IpAddress::Parse("fe80::1").value().zone, 0u);
  EXPECT_EQ(IpAddress::V6(Ep("[2001:db8::1]:1").ip.bytes, 3).zone, 0u);
  // 169.254.0.0/16 is link-local, too, but has no zones: it must stay equal to itself.
  EXPECT_EQ(IpAddress::V6(IpAddress::V4(169, 254, 1, 1).bytes, 3), IpAddress::V4(169, 254, 1, 1));
}

TEST(IpAddressTest, ZonesByName) {
  const uint32_t loopback = if_nametoindex("lo");
  if (loopback == 0) GTEST_SKIP() << "no interface lo here";
  EXPECT_EQ(IpAddress::Parse("fe80::1%lo").value().zone, loopback);
}

TEST(IpAddressTest, Kinds) {
  const auto ip = [](const char* text) { return IpAddress::Parse(text).value(); };
  EXPECT_TRUE(ip("127.0.0.1").IsLoopback());
  EXPECT_TRUE(ip("127.255.255.255").IsLoopback());
  EXPECT_TRUE(ip("::1").IsLoopback());
  EXPECT_FALSE(ip("128.0.0.1").IsLoopback());
  EXPECT_FALSE(ip("::2").IsLoopback());
  EXPECT_TRUE(ip("0.0.0.0").IsUnspecified());
  EXPECT_TRUE(ip("::").IsUnspecified());
  EXPECT_NE(IpAddress::AnyV4(), IpAddress::AnyV6());
  EXPECT_TRUE(ip("169.254.0.1").IsLinkLocal());
  EXPECT_TRUE(ip("fe80::1").IsLinkLocal());
  EXPECT_TRUE(ip("febf::1").IsLinkLocal());
  EXPECT_FALSE(ip("fec0::1").IsLinkLocal());
  EXPECT_EQ(ip("1.2.3.4").V4HostOrder(), 0x01020304u);
  EXPECT_EQ(IpAddress::V4(0x01020304u), ip("1.2.3.4"));
}

// spec: words of magicsock.md, relay endpoint
TEST(RelayEndpointTest, StandsForARegion) {
  const Endpoint relay = RelayEndpoint(17);
  EXPECT_EQ(relay.ToString(), "127.3.3.40:17");
  EXPECT_TRUE(IsRelay(relay));
  EXPECT_EQ(RelayRegion(relay), 17);
  EXPECT_EQ(RelayRegion(RelayEndpoint(65535)), 65535);
  EXPECT_TRUE(IsRelay(Ep("[::ffff:127.3.3.40]:17")));
  EXPECT_FALSE(IsRelay(Ep("127.3.3.41:17")));
  EXPECT_EQ(RelayRegion(Ep("127.3.3.41:17")), 0);
  EXPECT_FALSE(IsRelay(Endpoint{}));
}

// Pearson's chi-squared over 1,024 buckets, by the lowest and by the highest bits, must stay within
// five standard deviations of what a random function gives: mean 1023, deviation sqrt(2 * 1023).
void ExpectSpread(const char* what, const std::function<Endpoint(uint32_t)>& make, uint64_t seed) {
  constexpr size_t kBuckets = 1024;
  constexpr uint32_t kCount = 64 * kBuckets;
  for (const int shift : {0, 54, 57}) {  // 57: seven bits, as control bytes of a table use them
    const size_t buckets = shift == 57 ? 128 : kBuckets;
    std::vector<double> count(buckets);
    for (uint32_t i = 0; i < kCount; ++i) {
      ++count[(HashEndpoint(make(i), seed) >> shift) & (buckets - 1)];
    }
    const double expected = static_cast<double>(kCount) / static_cast<double>(buckets);
    double chi = 0;
    for (const double n : count) chi += (n - expected) * (n - expected) / expected;
    const double mean = static_cast<double>(buckets) - 1;
    EXPECT_LT(chi, mean + 5 * std::sqrt(2 * mean)) << what << ", shift " << shift;
  }
}

TEST(HashEndpointTest, SpreadsSequentialAddresses) {
  for (const uint64_t seed : {uint64_t{0}, uint64_t{1}, uint64_t{0xfedcba9876543210}}) {
    ExpectSpread(
        "v4 addresses",
        [](uint32_t i) {
          return Endpoint{IpAddress::V4(0x0a000000u + i), 41641, 0};
        },
        seed);
    ExpectSpread(
        "ports of one v4 address",
        [](uint32_t i) {
          return Endpoint{IpAddress::V4(192, 0, 2, 1), static_cast<uint16_t>(i), 0};
        },
        seed);
    ExpectSpread(
        "v4 /16 networks",
        [](uint32_t i) {
          return Endpoint{IpAddress::V4(i << 16), 41641, 0};
        },
        seed);
    ExpectSpread(
        "v6 interface ids",
        [](uint32_t i) {
          IpAddress ip = IpAddress::Parse("2001:db8::").value();
          ip.bytes[14] = static_cast<uint8_t>(i >> 8);
          ip.bytes[15] = static_cast<uint8_t>(i);
          return Endpoint{ip, 41641, 0};
        },
        seed);
    ExpectSpread(
        "v6 networks",
        [](uint32_t i) {
          IpAddress ip = IpAddress::Parse("2001:db8::1").value();
          ip.bytes[4] = static_cast<uint8_t>(i >> 8);
          ip.bytes[5] = static_cast<uint8_t>(i);
          return Endpoint{ip, 41641, 0};
        },
        seed);
  }
}

TEST(HashEndpointTest, NoInterfaceIdCancelsTheNetwork) {
  // With the second factor zero the product would be, whatever the first: an address built from the
  // constants of the hash must not do that.
  for (const uint64_t seed : {uint64_t{0}, uint64_t{0x123456789abcdef}}) {
    absl::flat_hash_set<uint64_t> hashes;
    for (uint32_t network = 0; network < 256; ++network) {
      std::array<uint64_t, 3> words = {network, 0x9e3779b97f4a7c15u, 41641};
      hashes.insert(HashEndpoint(Endpoint::FromWords(words), seed | 1));
    }
    EXPECT_EQ(hashes.size(), 256u);
  }
}

TEST(HashEndpointTest, SeedsGiveOtherOrders) {
  const Endpoint endpoint = Ep("192.0.2.1:41641");
  EXPECT_NE(HashEndpoint(endpoint, 1), HashEndpoint(endpoint, 2));
}

}  // namespace
}  // namespace ringsock
