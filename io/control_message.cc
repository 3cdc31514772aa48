// Control messages as struct cmsghdr lays them out: a header, the payload, padding to a word.
#include "io/control_message.h"

#include <netinet/in.h>
#include <netinet/udp.h>
#include <sys/socket.h>

#include <cstring>

namespace ringsock::io {
namespace {

constexpr size_t kHeader = CMSG_LEN(0);

template <typename T>
size_t Append(int level, int type, const T& payload, ControlBuffer* out, size_t at) {
  static_assert(CMSG_SPACE(sizeof(uint16_t)) + CMSG_SPACE(sizeof(in6_pktinfo)) <= kControlSpace);
  cmsghdr header{};
  header.cmsg_level = level;
  header.cmsg_type = type;
  header.cmsg_len = CMSG_LEN(sizeof payload);
  memset(out->data + at, 0, CMSG_SPACE(sizeof payload));
  memcpy(out->data + at, &header, sizeof header);
  memcpy(out->data + at + kHeader, &payload, sizeof payload);
  return at + CMSG_SPACE(sizeof payload);
}

// True, and `*value` filled, if the payload is at least as long as T.
template <typename T>
bool Read(std::span<const std::byte> payload, T* value) {
  if (payload.size() < sizeof *value) return false;
  memcpy(value, payload.data(), sizeof *value);
  return true;
}

void ParseOne(const cmsghdr& header, std::span<const std::byte> payload, ReceiveControl* result) {
  if (header.cmsg_level == SOL_UDP && header.cmsg_type == UDP_GRO) {
    int segment = 0;
    if (Read(payload, &segment) && segment > 0) {
      result->segment_size = static_cast<uint32_t>(segment);
    }
  } else if (header.cmsg_level == IPPROTO_IP && header.cmsg_type == IP_PKTINFO) {
    in_pktinfo info;
    if (Read(payload, &info)) result->to = IpAddress::V4(ntohl(info.ipi_addr.s_addr));
  } else if (header.cmsg_level == IPPROTO_IPV6 && header.cmsg_type == IPV6_PKTINFO) {
    in6_pktinfo info;
    if (!Read(payload, &info)) return;
    memcpy(result->to.bytes.data(), &info.ipi6_addr, sizeof info.ipi6_addr);
    result->to.zone = result->to.IsLinkLocal() ? info.ipi6_ifindex : 0;
  }
}

}  // namespace

size_t BuildSendControl(std::optional<uint32_t> segment_size, const IpAddress& from,
                        bool socket_is_v4, ControlBuffer* out) {
  size_t used = 0;
  if (segment_size.has_value()) {
    used = Append(SOL_UDP, UDP_SEGMENT, static_cast<uint16_t>(*segment_size), out, used);
  }
  if (from.IsUnspecified() || from.IsV4() != socket_is_v4) return used;
  if (socket_is_v4) {
    in_pktinfo info{};
    info.ipi_spec_dst.s_addr = htonl(from.V4HostOrder());
    return Append(IPPROTO_IP, IP_PKTINFO, info, out, used);
  }
  in6_pktinfo info{};
  memcpy(&info.ipi6_addr, from.bytes.data(), sizeof info.ipi6_addr);
  info.ipi6_ifindex = from.zone;
  return Append(IPPROTO_IPV6, IPV6_PKTINFO, info, out, used);
}

ReceiveControl ParseReceiveControl(std::span<const std::byte> control) {
  ReceiveControl result;
  while (control.size() >= kHeader) {
    cmsghdr header;
    memcpy(&header, control.data(), sizeof header);
    if (header.cmsg_len < kHeader || header.cmsg_len > control.size()) break;
    ParseOne(header, control.subspan(kHeader, header.cmsg_len - kHeader), &result);
    const size_t step = CMSG_ALIGN(header.cmsg_len);
    if (step >= control.size()) break;
    control = control.subspan(step);
  }
  return result;
}

}  // namespace ringsock::io
