// The source address of a received datagram, as the kernel wrote it, into its place in a train.
#ifndef RINGSOCK_IO_RECEIVED_NAME_H_
#define RINGSOCK_IO_RECEIVED_NAME_H_

#include <netinet/in.h>
#include <sys/socket.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

#include "base/endpoint.h"

namespace ringsock::io {

// `name`: what the kernel wrote of it. `*out` is the default value if that is not a whole address.
//
// IPv4, by far the most common, goes word by word into its place: what is put together elsewhere in
// pieces and then copied makes the processor wait until the pieces have left its store queue, which
// cost as much as the rest of taking a train in.
inline void ReadReceivedName(std::span<const std::byte> name, Endpoint* out) {
  sa_family_t family = AF_UNSPEC;
  if (name.size() >= sizeof family) memcpy(&family, name.data(), sizeof family);
  if (family == AF_INET && name.size() >= sizeof(sockaddr_in)) {
    sockaddr_in v4;
    memcpy(&v4, name.data(), sizeof v4);
    // ::ffff:a.b.c.d, and the port.
    const uint64_t words[] = {0, uint64_t{v4.sin_addr.s_addr} << 32 | htonl(0xffff),
                              uint64_t{ntohs(v4.sin_port)} << 32};
    auto* const to = reinterpret_cast<std::byte*>(out);
    memcpy(to, &words[0], sizeof(uint64_t));
    memcpy(to + 8, &words[1], sizeof(uint64_t));
    memcpy(to + 16, &words[2], sizeof(uint64_t));
  } else if (family == AF_INET6 && name.size() >= sizeof(sockaddr_in6)) {
    *out = Endpoint::FromSockaddr(reinterpret_cast<const sockaddr*>(name.data()));
  } else {
    *out = {};
  }
}

}  // namespace ringsock::io

#endif  // RINGSOCK_IO_RECEIVED_NAME_H_
