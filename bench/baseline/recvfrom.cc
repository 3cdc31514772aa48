// One system call per datagram and direction.
#include <sys/socket.h>

#include <vector>

#include "bench/baseline/baseline.h"

namespace ringsock::bench {

namespace {

void Answer(const Baseline& b) {
  Source& source = *b.source;
  for (uint32_t i = 0; i < source.trains_per_request; ++i) {
    const auto* to = reinterpret_cast<const sockaddr*>(source.Next());
    for (uint32_t n = 0; n < source.train; ++n) {
      const char* packet = &source.bytes[size_t{n} * source.segment];
      const ssize_t sent = sendto(b.fd, packet, source.segment, 0, to, sizeof(sockaddr_in));
      ++(sent == source.segment ? b.totals->sent : b.totals->failed);
    }
  }
}

}  // namespace

absl::Status RunRecvfrom(const Baseline& b) {
  std::vector<char> buffer(65536);
  b.Ready();
  while (!b.stop->load(std::memory_order_relaxed)) {
    sockaddr_in from = {};
    socklen_t length = sizeof(from);
    const ssize_t size = recvfrom(b.fd, buffer.data(), buffer.size(), b.spin ? MSG_DONTWAIT : 0,
                                  reinterpret_cast<sockaddr*>(&from), &length);
    if (size < 0) continue;
    b.Received(1);
    if (b.receive_only) continue;
    if (b.source != nullptr) {
      Answer(b);
      continue;
    }
    const sockaddr_in* to = b.routes->Find(from);
    if (to == nullptr) {
      ++b.totals->unknown;
    } else if (sendto(b.fd, buffer.data(), size, 0, reinterpret_cast<const sockaddr*>(to),
                      sizeof(*to)) == size) {
      ++b.totals->sent;
    } else {
      ++b.totals->failed;
    }
  }
  return absl::OkStatus();
}

}  // namespace ringsock::bench
