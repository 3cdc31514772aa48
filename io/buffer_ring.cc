// Memory of the receive buffers, and the ring they are handed over in.
#include "io/buffer_ring.h"

#include <sys/mman.h>

#include <bit>
#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"

namespace ringsock::io {
namespace {

std::byte* Map(size_t bytes) {
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  return memory == MAP_FAILED ? nullptr : static_cast<std::byte*>(memory);
}

size_t RingBytes(uint32_t slots) { return slots * sizeof(io_uring_buf); }

}  // namespace

BufferRing::~BufferRing() {
  if (ring_ != nullptr) munmap(ring_, RingBytes(slots_));
  if (own_ && buffers_ != nullptr) munmap(buffers_, size_t{count_} * buffer_size_);
}

absl::Status BufferRing::Open(io_uring* ring, uint16_t group, uint32_t count, uint32_t buffer_size,
                              std::span<std::byte> memory) {
  if (count == 0 || count > 32768) {
    return absl::InvalidArgumentError(
        absl::StrCat("receive buffers: ", count, " is not 1 to 32768"));
  }
  count_ = count;
  buffer_size_ = buffer_size;
  slots_ = std::bit_ceil(count);
  group_ = group;
  ring_ = reinterpret_cast<io_uring_buf_ring*>(Map(RingBytes(slots_)));
  own_ = memory.empty();
  buffers_ = own_ ? Map(size_t{count} * buffer_size) : memory.data();
  if (ring_ == nullptr || buffers_ == nullptr) {
    return absl::ResourceExhaustedError(
        absl::StrCat("out of memory for ", count, " receive buffers: ask for fewer"));
  }
  io_uring_buf_reg request{};
  request.ring_addr = reinterpret_cast<uintptr_t>(ring_);
  request.ring_entries = slots_;
  request.bgid = group;
  if (const int result = io_uring_register_buf_ring(ring, &request, 0); result < 0) {
    return absl::InternalError(
        absl::StrCat("IORING_REGISTER_PBUF_RING: ", strerror(-result),
                     result == -ENOMEM ? ": raise RLIMIT_MEMLOCK (ulimit -l)" : ""));
  }
  parked_.resize(count);
  for (uint32_t id = 0; id < count; ++id) Return(static_cast<uint16_t>(id));
  Publish();
  return absl::OkStatus();
}

void BufferRing::Offer(uint16_t id) {
  // Field by field: the tail that the kernel reads lies in the padding of entry 0.
  io_uring_buf& slot = ring_->bufs[tail_ & (slots_ - 1)];
  slot.addr = reinterpret_cast<uintptr_t>(buffers_ + size_t{id} * buffer_size_);
  slot.len = buffer_size_;
  slot.bid = id;
  ++tail_;
  ++available_;
}

void BufferRing::Publish() { io_uring_smp_store_release(&ring_->tail, tail_); }

}  // namespace ringsock::io
