// Control messages of UDP_GRO and UDP_SEGMENT, for the loops that use them.
#ifndef RINGSOCK_BENCH_BASELINE_GRO_H_
#define RINGSOCK_BENCH_BASELINE_GRO_H_

#include <netinet/in.h>
#include <netinet/udp.h>
#include <sys/socket.h>

#include <cstdint>
#include <cstring>

namespace ringsock::bench {

struct SegmentControl {
  alignas(cmsghdr) char bytes[CMSG_SPACE(sizeof(uint16_t))];
};

// Makes `message` a train of `segment`-sized packets; one that is all of `size` needs no control.
inline void SetSegment(msghdr* message, SegmentControl* control, uint32_t size, uint32_t segment) {
  message->msg_control = nullptr;
  message->msg_controllen = 0;
  if (segment == 0 || segment >= size) return;
  message->msg_control = control->bytes;
  message->msg_controllen = sizeof(control->bytes);
  cmsghdr* header = CMSG_FIRSTHDR(message);
  header->cmsg_level = SOL_UDP;
  header->cmsg_type = UDP_SEGMENT;
  header->cmsg_len = CMSG_LEN(sizeof(uint16_t));
  const auto value = static_cast<uint16_t>(segment);
  std::memcpy(CMSG_DATA(header), &value, sizeof(value));
}

// The segment size of what was received; `size` if it is one packet.
inline uint32_t ReceivedSegment(const msghdr& message, uint32_t size) {
  auto* m = const_cast<msghdr*>(&message);
  for (cmsghdr* c = CMSG_FIRSTHDR(m); c != nullptr; c = CMSG_NXTHDR(m, c)) {
    if (c->cmsg_level != SOL_UDP || c->cmsg_type != UDP_GRO) continue;
    int value;
    std::memcpy(&value, CMSG_DATA(c), sizeof(value));
    return static_cast<uint32_t>(value);
  }
  return size;
}

inline uint64_t PacketsOf(uint32_t size, uint32_t segment) {
  return segment == 0 ? 1 : (size + segment - 1) / segment;
}

}  // namespace ringsock::bench

#endif  // RINGSOCK_BENCH_BASELINE_GRO_H_
