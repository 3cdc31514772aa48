// A bare io_uring loop: multishot receive into a buffer ring with GRO, and each train sent from the
// buffer it arrived in.
#include <liburing.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include <array>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "bench/baseline/baseline.h"
#include "bench/baseline/gro.h"

namespace ringsock::bench {
namespace {

constexpr uint32_t kBuffers = 16;
constexpr uint32_t kBufferSize = 65536 + 256;  // a train, and the header the kernel writes first
constexpr uint32_t kEntries = 64;
constexpr uint64_t kReceive = ~0ull;  // user data; a send's is its buffer, or
constexpr uint64_t kAnswer = ~1ull;   // that of a train that was asked for

class UringLoop final : public BareLoop {
 public:
  explicit UringLoop(const Baseline& b) : b_(b) {}
  ~UringLoop() override;
  absl::Status Open() override;
  void Turn() override;

 private:
  struct Tx {
    msghdr message;
    iovec vector;
    SegmentControl control;
    uint64_t packets;
    uint32_t size;
  };

  io_uring_sqe* NextEntry();
  void Wait();
  void Arm();
  void Return(uint32_t buffer);
  void OnCompletion(const io_uring_cqe& completion);
  void OnReceive(uint32_t buffer, uint32_t size);
  void Answer();
  std::byte* Data(uint32_t buffer) { return &memory_[size_t{kBufferSize} * buffer]; }

  const Baseline& b_;
  io_uring ring_ = {};
  bool open_ = false;
  bool armed_ = false;
  uint64_t received_ = 0;  // packets of this turn
  io_uring_buf_ring* buffers_ = nullptr;
  std::vector<std::byte> memory_ = std::vector<std::byte>(size_t{kBufferSize} * kBuffers);
  msghdr receive_ = {};
  std::array<Tx, kBuffers> tx_ = {};
  std::array<Tx, kEntries / 2> answers_ = {};
};

UringLoop::~UringLoop() {
  if (open_) io_uring_queue_exit(&ring_);
  if (buffers_ != nullptr) munmap(buffers_, kBuffers * sizeof(io_uring_buf));
}

absl::Status UringLoop::Open() {
  io_uring_params params = {};
  params.flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_CQSIZE |
                 IORING_SETUP_TASKRUN_FLAG;
  params.cq_entries = 16 * kEntries;
  int error = io_uring_queue_init_params(kEntries, &ring_, &params);
  if (error != 0) return absl::UnavailableError(absl::StrCat("io_uring: ", std::strerror(-error)));
  open_ = true;
  void* memory = mmap(nullptr, kBuffers * sizeof(io_uring_buf), PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return absl::ResourceExhaustedError("mmap");
  buffers_ = static_cast<io_uring_buf_ring*>(memory);
  io_uring_buf_reg registration = {};
  registration.ring_addr = reinterpret_cast<uint64_t>(buffers_);
  registration.ring_entries = kBuffers;
  error = io_uring_register_buf_ring(&ring_, &registration, 0);
  if (error != 0) {
    return absl::UnavailableError(absl::StrCat("io_uring buffer ring: ", std::strerror(-error)));
  }
  for (uint32_t i = 0; i < kBuffers; ++i) Return(i);
  const int on = 1;
  if (setsockopt(b_.fd, SOL_UDP, UDP_GRO, &on, sizeof(on)) != 0) {
    return absl::UnavailableError(absl::StrCat("UDP_GRO: ", std::strerror(errno)));
  }
  receive_.msg_namelen = sizeof(sockaddr_in);
  receive_.msg_controllen = CMSG_SPACE(sizeof(int));
  return absl::OkStatus();
}

io_uring_sqe* UringLoop::NextEntry() {
  io_uring_sqe* entry = io_uring_get_sqe(&ring_);
  if (entry == nullptr) {
    io_uring_submit(&ring_);
    entry = io_uring_get_sqe(&ring_);
  }
  return entry;
}

void UringLoop::Arm() {
  io_uring_sqe* entry = NextEntry();
  io_uring_prep_recvmsg_multishot(entry, b_.fd, &receive_, 0);
  entry->flags |= IOSQE_BUFFER_SELECT;
  entry->buf_group = 0;
  io_uring_sqe_set_data64(entry, kReceive);
  armed_ = true;
}

void UringLoop::Return(uint32_t buffer) {
  io_uring_buf_ring_add(buffers_, Data(buffer), kBufferSize, static_cast<uint16_t>(buffer),
                        io_uring_buf_ring_mask(kBuffers), 0);
  io_uring_buf_ring_advance(buffers_, 1);
}

void UringLoop::OnReceive(uint32_t buffer, uint32_t size) {
  io_uring_recvmsg_out* out = io_uring_recvmsg_validate(Data(buffer), size, &receive_);
  if (out == nullptr) return Return(buffer);
  const uint32_t length = io_uring_recvmsg_payload_length(out, size, &receive_);
  uint32_t segment = length;
  for (cmsghdr* c = io_uring_recvmsg_cmsg_firsthdr(out, &receive_); c != nullptr;
       c = io_uring_recvmsg_cmsg_nexthdr(out, &receive_, c)) {
    int value;
    std::memcpy(&value, CMSG_DATA(c), sizeof(value));
    if (c->cmsg_level == SOL_UDP && c->cmsg_type == UDP_GRO) segment = value;
  }
  const uint64_t packets = PacketsOf(length, segment);
  received_ += packets;
  if (b_.receive_only) return Return(buffer);
  if (b_.source != nullptr) {
    for (uint64_t i = 0; i < packets; ++i) Answer();
    return Return(buffer);
  }
  const auto* from = static_cast<const sockaddr_in*>(io_uring_recvmsg_name(out));
  const sockaddr_in* to = b_.routes->Find(*from);
  if (to == nullptr) {
    b_.totals->unknown += packets;
    return Return(buffer);
  }
  Tx& tx = tx_[buffer];
  tx.vector = {io_uring_recvmsg_payload(out, &receive_), length};
  tx.message.msg_name = const_cast<sockaddr_in*>(to);
  tx.message.msg_namelen = sizeof(*to);
  tx.message.msg_iov = &tx.vector;
  tx.message.msg_iovlen = 1;
  SetSegment(&tx.message, &tx.control, length, segment);
  tx.packets = packets;
  tx.size = length;
  io_uring_sqe* entry = NextEntry();
  io_uring_prep_sendmsg(entry, b_.fd, &tx.message, 0);
  io_uring_sqe_set_data64(entry, buffer);
}

// The kernel is done with the messages when they have been submitted.
void UringLoop::Answer() {
  Source& source = *b_.source;
  const auto size = static_cast<uint32_t>(source.bytes.size());
  for (uint32_t i = 0; i < source.trains_per_request; ++i) {
    Tx& tx = answers_[i];
    tx.vector = {source.bytes.data(), size};
    tx.message.msg_name = source.Next();
    tx.message.msg_namelen = sizeof(sockaddr_in);
    tx.message.msg_iov = &tx.vector;
    tx.message.msg_iovlen = 1;
    SetSegment(&tx.message, &tx.control, size, source.segment);
    io_uring_sqe* entry = NextEntry();
    io_uring_prep_sendmsg(entry, b_.fd, &tx.message, 0);
    io_uring_sqe_set_data64(entry, kAnswer);
  }
  io_uring_submit(&ring_);
}

void UringLoop::OnCompletion(const io_uring_cqe& completion) {
  if (completion.user_data == kAnswer) {
    (completion.res > 0 ? b_.totals->sent : b_.totals->failed) += b_.source->train;
    return;
  }
  if (completion.user_data != kReceive) {
    const auto buffer = static_cast<uint32_t>(completion.user_data);
    const Tx& tx = tx_[buffer];
    const bool sent = completion.res == static_cast<int>(tx.size);
    (sent ? b_.totals->sent : b_.totals->failed) += tx.packets;
    return Return(buffer);
  }
  if ((completion.flags & IORING_CQE_F_MORE) == 0) armed_ = false;
  if ((completion.flags & IORING_CQE_F_BUFFER) == 0) return;
  const uint32_t buffer = completion.flags >> IORING_CQE_BUFFER_SHIFT;
  if (completion.res < 0) return Return(buffer);
  OnReceive(buffer, static_cast<uint32_t>(completion.res));
}

// Until there is a completion, or some milliseconds have passed.
void UringLoop::Wait() {
  if (b_.spin) {
    io_uring_submit(&ring_);
    while (io_uring_cq_ready(&ring_) == 0 && !b_.stop->load(std::memory_order_relaxed)) {
      if ((IO_URING_READ_ONCE(*ring_.sq.kflags) & IORING_SQ_TASKRUN) != 0) {
        io_uring_get_events(&ring_);
      }
    }
    return;
  }
  __kernel_timespec timeout = {.tv_sec = 0, .tv_nsec = 20'000'000};
  io_uring_cqe* first = nullptr;
  io_uring_submit_and_wait_timeout(&ring_, &first, 1, &timeout, nullptr);
}

void UringLoop::Turn() {
  if (!armed_) Arm();
  Wait();
  std::array<io_uring_cqe*, 8> completions;
  while (const unsigned n = io_uring_peek_batch_cqe(&ring_, completions.data(), 8)) {
    for (unsigned i = 0; i < n; ++i) OnCompletion(*completions[i]);
    io_uring_cq_advance(&ring_, n);
    if (n < 8) break;
    io_uring_submit(&ring_);
  }
  b_.Received(std::exchange(received_, 0));
}

}  // namespace

std::unique_ptr<BareLoop> NewUring(const Baseline& baseline) {
  return std::make_unique<UringLoop>(baseline);
}

absl::Status RunUring(const Baseline& baseline) {
  UringLoop loop(baseline);
  if (absl::Status status = loop.Open(); !status.ok()) return status;
  baseline.Ready();
  while (!baseline.stop->load(std::memory_order_relaxed)) loop.Turn();
  return absl::OkStatus();
}

}  // namespace ringsock::bench
