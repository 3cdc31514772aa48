// Many datagrams per system call, each a buffer of its own for the kernel.
#include <sys/socket.h>

#include <algorithm>
#include <vector>

#include "bench/baseline/baseline.h"

namespace ringsock::bench {
namespace {

constexpr size_t kDatagram = 65536;

// Sends messages[0..count); the kernel stops at the first it refuses.
void SendAll(const Baseline& b, mmsghdr* messages, uint32_t count) {
  uint32_t done = 0;
  while (done < count) {
    const int sent = sendmmsg(b.fd, messages + done, count - done, 0);
    if (sent <= 0) {
      ++b.totals->failed;
      ++done;
      continue;
    }
    b.totals->sent += sent;
    done += sent;
  }
}

// Answers requests, a batch of packets at a time.
void Answer(const Baseline& b, uint32_t requests, mmsghdr* messages, iovec* vectors) {
  Source& source = *b.source;
  for (uint32_t i = 0; i < requests * source.trains_per_request; ++i) {
    sockaddr_in* to = source.Next();
    for (uint32_t done = 0; done < source.train;) {
      const uint32_t count = std::min(b.batch, source.train - done);
      for (uint32_t k = 0; k < count; ++k) {
        vectors[k] = {&source.bytes[size_t{done + k} * source.segment], source.segment};
        messages[k].msg_hdr.msg_name = to;
      }
      SendAll(b, messages, count);
      done += count;
    }
  }
}

}  // namespace

absl::Status RunRecvmmsg(const Baseline& b) {
  std::vector<char> buffers(kDatagram * b.batch);
  std::vector<sockaddr_in> from(b.batch);
  std::vector<iovec> rx_vectors(b.batch), tx_vectors(b.batch);
  std::vector<mmsghdr> rx(b.batch), tx(b.batch);
  for (uint32_t i = 0; i < b.batch; ++i) {
    rx_vectors[i] = {&buffers[kDatagram * i], kDatagram};
    rx[i].msg_hdr.msg_name = &from[i];
    rx[i].msg_hdr.msg_iov = &rx_vectors[i];
    rx[i].msg_hdr.msg_iovlen = 1;
    tx[i].msg_hdr.msg_iov = &tx_vectors[i];
    tx[i].msg_hdr.msg_iovlen = 1;
    tx[i].msg_hdr.msg_namelen = sizeof(sockaddr_in);
  }
  const int wait = b.spin ? MSG_DONTWAIT : MSG_WAITFORONE;
  b.Ready();
  while (!b.stop->load(std::memory_order_relaxed)) {
    for (mmsghdr& message : rx) message.msg_hdr.msg_namelen = sizeof(sockaddr_in);
    const int n = recvmmsg(b.fd, rx.data(), b.batch, wait, nullptr);
    if (n <= 0) continue;
    b.Received(n);
    if (b.receive_only) continue;
    if (b.source != nullptr) {
      Answer(b, n, tx.data(), tx_vectors.data());
      continue;
    }
    uint32_t count = 0;
    for (int i = 0; i < n; ++i) {
      const sockaddr_in* to = b.routes->Find(from[i]);
      if (to == nullptr) {
        ++b.totals->unknown;
        continue;
      }
      tx_vectors[count] = {rx_vectors[i].iov_base, rx[i].msg_len};
      tx[count++].msg_hdr.msg_name = const_cast<sockaddr_in*>(to);
    }
    SendAll(b, tx.data(), count);
  }
  return absl::OkStatus();
}

}  // namespace ringsock::bench
