// Many trains per system call: the kernel hands over merged datagrams and splits them again.
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <vector>

#include "absl/strings/str_cat.h"
#include "bench/baseline/baseline.h"
#include "bench/baseline/gro.h"

namespace ringsock::bench {
namespace {

constexpr size_t kTrain = 65536;

struct Control {
  alignas(cmsghdr) char bytes[CMSG_SPACE(sizeof(int))];
};

struct Batch {
  explicit Batch(uint32_t n)
      : buffers(kTrain * n),
        from(n),
        rx_vectors(n),
        tx_vectors(n),
        rx_controls(n),
        tx_controls(n),
        rx(n),
        tx(n),
        packets(n) {
    for (uint32_t i = 0; i < n; ++i) {
      rx_vectors[i] = {&buffers[kTrain * i], kTrain};
      rx[i].msg_hdr.msg_name = &from[i];
      rx[i].msg_hdr.msg_iov = &rx_vectors[i];
      rx[i].msg_hdr.msg_iovlen = 1;
      rx[i].msg_hdr.msg_control = rx_controls[i].bytes;
      tx[i].msg_hdr.msg_iov = &tx_vectors[i];
      tx[i].msg_hdr.msg_iovlen = 1;
      tx[i].msg_hdr.msg_namelen = sizeof(sockaddr_in);
    }
  }

  std::vector<char> buffers;
  std::vector<sockaddr_in> from;
  std::vector<iovec> rx_vectors, tx_vectors;
  std::vector<Control> rx_controls;
  std::vector<SegmentControl> tx_controls;
  std::vector<mmsghdr> rx, tx;
  std::vector<uint64_t> packets;  // in each train to send
};

void SendAll(const Baseline& b, Batch* batch, uint32_t count) {
  uint32_t done = 0;
  while (done < count) {
    const int sent = sendmmsg(b.fd, &batch->tx[done], count - done, 0);
    if (sent <= 0) {
      b.totals->failed += batch->packets[done++];
      continue;
    }
    for (int i = 0; i < sent; ++i) b.totals->sent += batch->packets[done++];
  }
}

// Answers requests, a batch of trains at a time.
void Answer(const Baseline& b, uint64_t requests, Batch* batch) {
  Source& source = *b.source;
  const auto size = static_cast<uint32_t>(source.bytes.size());
  for (uint64_t left = requests * source.trains_per_request; left > 0;) {
    const auto count = static_cast<uint32_t>(std::min<uint64_t>(b.batch, left));
    for (uint32_t i = 0; i < count; ++i) {
      batch->packets[i] = source.train;
      batch->tx_vectors[i] = {source.bytes.data(), size};
      msghdr& message = batch->tx[i].msg_hdr;
      message.msg_name = source.Next();
      SetSegment(&message, &batch->tx_controls[i], size, source.segment);
    }
    SendAll(b, batch, count);
    left -= count;
  }
}

class RecvmmsgGro final : public BareLoop {
 public:
  explicit RecvmmsgGro(const Baseline& b)
      : b_(b), batch_(b.batch), wait_(b.spin ? MSG_DONTWAIT : MSG_WAITFORONE) {}
  absl::Status Open() override;
  void Turn() override;

 private:
  const Baseline& b_;
  Batch batch_;
  const int wait_;
};

absl::Status RecvmmsgGro::Open() {
  const int on = 1;
  if (setsockopt(b_.fd, SOL_UDP, UDP_GRO, &on, sizeof(on)) == 0) return absl::OkStatus();
  return absl::UnavailableError(absl::StrCat("UDP_GRO: ", std::strerror(errno)));
}

void RecvmmsgGro::Turn() {
  for (mmsghdr& message : batch_.rx) {
    message.msg_hdr.msg_namelen = sizeof(sockaddr_in);
    message.msg_hdr.msg_controllen = sizeof(Control);
  }
  const int n = recvmmsg(b_.fd, batch_.rx.data(), b_.batch, wait_, nullptr);
  uint32_t count = 0;
  uint64_t requests = 0;
  for (int i = 0; i < n; ++i) {
    const uint32_t size = batch_.rx[i].msg_len;
    const uint32_t segment = ReceivedSegment(batch_.rx[i].msg_hdr, size);
    const uint64_t packets = PacketsOf(size, segment);
    requests += packets;
    if (b_.receive_only || b_.source != nullptr) continue;
    const sockaddr_in* to = b_.routes->Find(batch_.from[i]);
    if (to == nullptr) {
      b_.totals->unknown += packets;
      continue;
    }
    batch_.packets[count] = packets;
    batch_.tx_vectors[count] = {batch_.rx_vectors[i].iov_base, size};
    msghdr& message = batch_.tx[count].msg_hdr;
    message.msg_name = const_cast<sockaddr_in*>(to);
    SetSegment(&message, &batch_.tx_controls[count], size, segment);
    ++count;
  }
  if (requests > 0) b_.Received(requests);
  SendAll(b_, &batch_, count);
  if (b_.source != nullptr) Answer(b_, requests, &batch_);
}

}  // namespace

std::unique_ptr<BareLoop> NewRecvmmsgGro(const Baseline& baseline) {
  return std::make_unique<RecvmmsgGro>(baseline);
}

absl::Status RunRecvmmsgGro(const Baseline& b) {
  RecvmmsgGro loop(b);
  if (absl::Status status = loop.Open(); !status.ok()) return status;
  b.Ready();
  while (!b.stop->load(std::memory_order_relaxed)) loop.Turn();
  return absl::OkStatus();
}

}  // namespace ringsock::bench
