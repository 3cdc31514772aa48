// Addresses: an IP address, and an endpoint (ip:port). IPv4 is kept as v4-mapped IPv6, so that the
// two spellings of one address compare and hash equal (spec: words of magicsock.md).
#ifndef RINGSOCK_BASE_ENDPOINT_H_
#define RINGSOCK_BASE_ENDPOINT_H_

#include <netinet/in.h>
#include <sys/socket.h>

#include <array>
#include <bit>
#include <cstdint>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace ringsock {

// An IPv4 or IPv6 address, with the zone of a link-local one. A plain value of 20 bytes without
// padding. The default is the IPv6 unspecified address.
struct IpAddress {
  std::array<uint8_t, 16> bytes{};  // network order; v4 as ::ffff:a.b.c.d
  uint32_t zone = 0;                // interface index of a link-local IPv6 address, else 0

  static IpAddress V4(uint8_t a, uint8_t b, uint8_t c, uint8_t d);
  static IpAddress V4(uint32_t host_order) {
    static_assert(std::endian::native == std::endian::little);
    // As words: what is stored in small pieces and then read as a whole makes the processor wait.
    const std::array<uint64_t, 2> halves = {0, uint64_t{htonl(host_order)} << 32 | kV4Quarter};
    return {std::bit_cast<std::array<uint8_t, 16>>(halves), 0};
  }
  static IpAddress V6(const std::array<uint8_t, 16>& bytes, uint32_t zone = 0);
  // The unspecified addresses, 0.0.0.0 and [::]. The latter equals the default value.
  static IpAddress AnyV4() { return V4(0u); }
  static IpAddress AnyV6() { return IpAddress{}; }

  // "192.0.2.1", "2001:db8::1", "fe80::1%eth0" or "fe80::1%3".
  static absl::StatusOr<IpAddress> Parse(absl::string_view text);

  bool IsV4() const { return Half(0) == 0 && Quarter(2) == kV4Quarter; }
  bool IsLoopback() const;
  bool IsUnspecified() const;  // either family's
  bool IsLinkLocal() const;
  uint32_t V4HostOrder() const { return ntohl(Quarter(3)); }  // only if IsV4()
  std::string ToString() const;

  friend bool operator==(const IpAddress& a, const IpAddress& b) {
    return ((a.Half(0) ^ b.Half(0)) | (a.Half(1) ^ b.Half(1)) | (a.zone ^ b.zone)) == 0;
  }

 private:
  static constexpr uint32_t kV4Quarter =
      std::bit_cast<uint32_t>(std::array<uint8_t, 4>{0, 0, 0xff, 0xff});

  // `bytes` as words: a comparison of arrays becomes a call, which the packet path would feel.
  uint64_t Half(size_t index) const {
    uint64_t half;
    std::memcpy(&half, bytes.data() + index * sizeof(half), sizeof(half));
    return half;
  }
  uint32_t Quarter(size_t index) const {
    uint32_t quarter;
    std::memcpy(&quarter, bytes.data() + index * sizeof(quarter), sizeof(quarter));
    return quarter;
  }
};

// ip:port, a trivially copyable value of 24 bytes without padding, compared and hashed as three
// words.
struct Endpoint {
  IpAddress ip;
  uint16_t port = 0;  // host order
  uint16_t reserved = 0;

  // "192.0.2.1:41641" or "[2001:db8::1]:41641". Port 0 is an error here: nothing can be sent there.
  static absl::StatusOr<Endpoint> Parse(absl::string_view text);
  // A comma-separated list; empty text is an empty list.
  static absl::StatusOr<std::vector<Endpoint>> ParseList(absl::string_view text);
  static Endpoint FromSockaddr(const sockaddr_storage& address) {
    return FromSockaddr(reinterpret_cast<const sockaddr*>(&address));
  }
  // Only AF_INET and AF_INET6 are understood; anything else gives the default value.
  static Endpoint FromSockaddr(const sockaddr* address);

  bool IsV4() const { return ip.IsV4(); }
  // True for the default value.
  bool IsNone() const { return *this == Endpoint{}; }
  // Writes a sockaddr_in for IPv4, a sockaddr_in6 otherwise; returns its length.
  socklen_t ToSockaddr(sockaddr_in6* out) const;
  socklen_t ToSockaddr(sockaddr_storage* out) const {
    return ToSockaddr(reinterpret_cast<sockaddr_in6*>(out));
  }
  std::string ToString() const;

  // One of three words of 8 bytes.
  uint64_t Word(size_t index) const {
    uint64_t word;
    std::memcpy(&word, reinterpret_cast<const char*>(this) + index * sizeof(word), sizeof(word));
    return word;
  }
  // All of them at once. What looks at them one by one does better with Word(): of an array GCC 12
  // makes a copy on the stack.
  std::array<uint64_t, 3> Words() const { return std::bit_cast<std::array<uint64_t, 3>>(*this); }
  static Endpoint FromWords(const std::array<uint64_t, 3>& words) {
    return std::bit_cast<Endpoint>(words);
  }

  // Without branches: the words are on one cache line, or two, and most often all equal.
  friend bool operator==(const Endpoint& a, const Endpoint& b) {
    return ((a.Word(0) ^ b.Word(0)) | (a.Word(1) ^ b.Word(1)) | (a.Word(2) ^ b.Word(2))) == 0;
  }
  template <typename H>
  friend H AbslHashValue(H h, const Endpoint& e) {
    return H::combine(std::move(h), e.Word(0), e.Word(1), e.Word(2));
  }
};
static_assert(sizeof(Endpoint) == 24);

inline Endpoint Endpoint::FromSockaddr(const sockaddr* address) {
  Endpoint endpoint;
  if (address->sa_family == AF_INET) {
    sockaddr_in v4;
    std::memcpy(&v4, address, sizeof(v4));
    // Its words are those of IpAddress::V4(), and the port with what is beside it.
    const std::array<uint64_t, 2> halves =
        std::bit_cast<std::array<uint64_t, 2>>(IpAddress::V4(ntohl(v4.sin_addr.s_addr)).bytes);
    return FromWords({halves[0], halves[1], uint64_t{ntohs(v4.sin_port)} << 32});
  } else if (address->sa_family == AF_INET6) {
    sockaddr_in6 v6;
    std::memcpy(&v6, address, sizeof(v6));
    endpoint.ip =
        IpAddress::V6(std::bit_cast<std::array<uint8_t, 16>>(v6.sin6_addr), v6.sin6_scope_id);
    endpoint.port = ntohs(v6.sin6_port);
  }
  return endpoint;
}

inline socklen_t Endpoint::ToSockaddr(sockaddr_in6* out) const {
  if (IsV4()) {
    sockaddr_in v4 = {};
    v4.sin_family = AF_INET;
    v4.sin_port = htons(port);
    v4.sin_addr.s_addr = htonl(ip.V4HostOrder());
    std::memcpy(static_cast<void*>(out), &v4, sizeof(v4));
    return sizeof(v4);
  }
  sockaddr_in6 v6 = {};
  v6.sin6_family = AF_INET6;
  v6.sin6_port = htons(port);
  v6.sin6_addr = std::bit_cast<in6_addr>(ip.bytes);
  v6.sin6_scope_id = ip.zone;
  std::memcpy(static_cast<void*>(out), &v6, sizeof(v6));
  return sizeof(v6);
}

// Relay endpoints: the fake address 127.3.3.40:N stands for "the DERP connection of region N" and
// never goes on the wire (spec: words of magicsock.md).
using RegionId = uint16_t;  // 0 is "none"
Endpoint RelayEndpoint(RegionId region);
bool IsRelay(const Endpoint& endpoint);
// The region of a relay endpoint; 0 for any other.
RegionId RelayRegion(const Endpoint& endpoint);

// A fast, well-mixed 64-bit hash for the peer tables. Seeded, so that a sender who chooses source
// addresses cannot aim at one bucket.
inline uint64_t HashEndpoint(const Endpoint& endpoint, uint64_t seed) {
  const auto fold = [](uint64_t a, uint64_t b) {
    const auto product = static_cast<unsigned __int128>(a) * b;
    return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
  };
  // The seed is in both factors: a factor the sender can make zero would cancel the other one.
  const uint64_t low = fold(endpoint.Word(0) ^ seed ^ 0xe7037ed1a0b428dbu,
                            endpoint.Word(1) ^ std::rotl(seed, 32) ^ 0x9e3779b97f4a7c15u);
  return fold(low ^ endpoint.Word(2) ^ 0xd6e8feb86659fd93u, seed ^ 0xa0761d6478bd642fu);
}

}  // namespace ringsock

#endif  // RINGSOCK_BASE_ENDPOINT_H_
