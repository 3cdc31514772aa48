#include "base/endpoint.h"

#include <arpa/inet.h>
#include <net/if.h>

#include <algorithm>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace ringsock {
namespace {

constexpr uint32_t kRelayAddress = (127u << 24) | (3u << 16) | (3u << 8) | 40u;

bool AllDigits(absl::string_view text) {
  return !text.empty() &&
         std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
}

absl::StatusOr<uint32_t> ParseZone(absl::string_view zone) {
  uint32_t index = 0;
  // SimpleAtoi alone would take blanks and signs.
  if (AllDigits(zone) && absl::SimpleAtoi(zone, &index) && index != 0) return index;
  index = if_nametoindex(std::string(zone).c_str());
  if (index == 0) return absl::InvalidArgumentError(absl::StrCat("no interface \"", zone, "\""));
  return index;
}

}  // namespace

IpAddress IpAddress::V4(uint8_t a, uint8_t b, uint8_t c, uint8_t d) {
  return V4((uint32_t{a} << 24) | (uint32_t{b} << 16) | (uint32_t{c} << 8) | d);
}

IpAddress IpAddress::V6(const std::array<uint8_t, 16>& bytes, uint32_t zone) {
  IpAddress ip;
  ip.bytes = bytes;
  // Kernels report a scope for multicast and link-local sources only; elsewhere it would make one
  // address compare unequal to itself.
  if (ip.IsLinkLocal() && !ip.IsV4()) ip.zone = zone;
  return ip;
}

absl::StatusOr<IpAddress> IpAddress::Parse(absl::string_view text) {
  // The C functions below would stop at a zero byte and take what comes before it.
  if (text.find('\0') != absl::string_view::npos) {
    return absl::InvalidArgumentError("an IP address holds no zero byte");
  }
  const std::vector<std::string> parts = absl::StrSplit(text, absl::MaxSplits('%', 1));
  in_addr v4;
  if (parts.size() == 1 && inet_pton(AF_INET, parts[0].c_str(), &v4) == 1) {
    return V4(ntohl(v4.s_addr));
  }
  std::array<uint8_t, 16> v6;
  if (inet_pton(AF_INET6, parts[0].c_str(), v6.data()) != 1) {
    return absl::InvalidArgumentError(absl::StrCat("\"", text, "\" is not an IP address"));
  }
  if (parts.size() == 1) return V6(v6);
  if (V6(v6).IsV4() || !V6(v6).IsLinkLocal()) {
    return absl::InvalidArgumentError(
        absl::StrCat("\"", text, "\": only a link-local IPv6 address takes a zone"));
  }
  const absl::StatusOr<uint32_t> zone = ParseZone(parts[1]);
  if (!zone.ok()) return zone.status();
  return V6(v6, *zone);
}

bool IpAddress::IsLoopback() const {
  if (IsV4()) return bytes[12] == 127;
  constexpr std::array<uint8_t, 16> kLoopback = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1};
  return bytes == kLoopback;
}

bool IpAddress::IsUnspecified() const { return *this == AnyV6() || *this == AnyV4(); }

bool IpAddress::IsLinkLocal() const {
  if (IsV4()) return bytes[12] == 169 && bytes[13] == 254;
  return bytes[0] == 0xfe && (bytes[1] & 0xc0) == 0x80;
}

std::string IpAddress::ToString() const {
  char text[INET6_ADDRSTRLEN];
  if (IsV4()) {
    inet_ntop(AF_INET, bytes.data() + 12, text, sizeof(text));
    return text;
  }
  inet_ntop(AF_INET6, bytes.data(), text, sizeof(text));
  return zone == 0 ? std::string(text) : absl::StrCat(text, "%", zone);
}

absl::StatusOr<Endpoint> Endpoint::Parse(absl::string_view text) {
  const auto error = [text](absl::string_view why) {
    return absl::InvalidArgumentError(absl::StrCat("\"", text, "\" is not ip:port: ", why));
  };
  const size_t colon = text.rfind(':');
  if (colon == absl::string_view::npos) return error("no port");
  absl::string_view host = text.substr(0, colon);
  const absl::string_view port_text = text.substr(colon + 1);
  const bool bracketed = host.size() >= 2 && host.front() == '[' && host.back() == ']';
  if (bracketed) {
    host = host.substr(1, host.size() - 2);
  } else if (host.find(':') != absl::string_view::npos) {
    return error("an IPv6 address goes in brackets");
  }
  const absl::StatusOr<IpAddress> ip = IpAddress::Parse(host);
  if (!ip.ok()) return error(ip.status().message());
  if (bracketed && host.find(':') == absl::string_view::npos) {
    return error("brackets are for IPv6 addresses");
  }
  uint32_t port = 0;
  if (!AllDigits(port_text) || port_text.size() > 5 || !absl::SimpleAtoi(port_text, &port) ||
      port == 0 || port > 65535) {
    return error("the port is a number from 1 to 65535");
  }
  Endpoint endpoint;
  endpoint.ip = *ip;
  endpoint.port = static_cast<uint16_t>(port);
  return endpoint;
}

absl::StatusOr<std::vector<Endpoint>> Endpoint::ParseList(absl::string_view text) {
  std::vector<Endpoint> endpoints;
  if (text.empty()) return endpoints;
  for (absl::string_view part : absl::StrSplit(text, ',')) {
    absl::StatusOr<Endpoint> endpoint = Parse(part);
    if (!endpoint.ok()) return endpoint.status();
    endpoints.push_back(*endpoint);
  }
  return endpoints;
}

std::string Endpoint::ToString() const {
  return IsV4() ? absl::StrCat(ip.ToString(), ":", port)
                : absl::StrCat("[", ip.ToString(), "]:", port);
}

Endpoint RelayEndpoint(RegionId region) {
  Endpoint endpoint;
  endpoint.ip = IpAddress::V4(kRelayAddress);
  endpoint.port = region;
  return endpoint;
}

bool IsRelay(const Endpoint& endpoint) { return endpoint.ip == IpAddress::V4(kRelayAddress); }

RegionId RelayRegion(const Endpoint& endpoint) { return IsRelay(endpoint) ? endpoint.port : 0; }

}  // namespace ringsock
