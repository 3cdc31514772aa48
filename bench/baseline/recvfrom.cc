// One system call per datagram and direction.
#include <sys/socket.h>

#include <vector>

#include "bench/baseline/baseline.h"

namespace ringsock::bench {

absl::Status RunRecvfrom(const Baseline& b) {
  std::vector<char> buffer(65536);
  while (!b.stop->load(std::memory_order_relaxed)) {
    sockaddr_in from = {};
    socklen_t length = sizeof(from);
    const ssize_t size = recvfrom(b.fd, buffer.data(), buffer.size(), 0,
                                  reinterpret_cast<sockaddr*>(&from), &length);
    if (size < 0) continue;
    b.Received(1);
    if (b.receive_only) continue;
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
