// Receive buffers shared with the kernel (IORING_REGISTER_PBUF_RING): it takes them from the front,
// we give them back at the end. And the layout of a datagram that a multishot receive left in one.
#ifndef RINGSOCK_IO_BUFFER_RING_H_
#define RINGSOCK_IO_BUFFER_RING_H_

#include <liburing.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

#include "absl/status/status.h"

namespace ringsock::io {

// Rooms for the parts of a received message in front of its payload. Chosen so that control
// messages are aligned and the payload begins a cache line.
inline constexpr uint32_t kNameRoom = 32;
static_assert(sizeof(sockaddr_in6) <= kNameRoom);
inline constexpr uint32_t kControlRoom = 144;
inline constexpr uint32_t kHeaderRoom = sizeof(io_uring_recvmsg_out) + kNameRoom + kControlRoom;
static_assert(kHeaderRoom % 64 == 0);
// An odd number of cache lines, so that the headers of all buffers do not compete for one cache
// set.
inline constexpr uint32_t kRxBufferSize = kHeaderRoom + (64 << 10) + 64;

// One datagram or train as the kernel wrote it.
struct ReceivedMessage {
  bool truncated = false;           // payload or control data did not fit
  std::span<const std::byte> name;  // see io/received_name.h
  std::span<const std::byte> control;
  std::span<std::byte> payload;
};

// `buffer` is what the completion says was written. False if it is malformed. Not by an optional
// value: copying that costs what io/received_name.h is about.
inline bool ParseReceivedMessage(std::span<std::byte> buffer, ReceivedMessage* out) {
  if (buffer.size() < kHeaderRoom) return false;
  io_uring_recvmsg_out header;
  memcpy(&header, buffer.data(), sizeof header);
  if (header.namelen > kNameRoom || header.controllen > kControlRoom) return false;

  const std::byte* const name = buffer.data() + sizeof header;
  out->name = {name, header.namelen};
  out->control = {name + kNameRoom, header.controllen};
  out->payload = buffer.subspan(kHeaderRoom);
  // Lost control data would be a lost segment size: the train could not be cut.
  out->truncated =
      (header.flags & (MSG_TRUNC | MSG_CTRUNC)) != 0 || header.payloadlen > out->payload.size();
  if (!out->truncated) out->payload = out->payload.first(header.payloadlen);
  return true;
}

class BufferRing {
 public:
  BufferRing() = default;
  ~BufferRing();
  BufferRing(const BufferRing&) = delete;
  BufferRing& operator=(const BufferRing&) = delete;

  // Allocates `count` buffers (1 to 32,768) of `buffer_size` bytes, or cuts them from `memory` of
  // the caller, registers them as `group` and gives all to the kernel. The ring must not be closed
  // before this object has gone, or unregistering is left to its end.
  absl::Status Open(io_uring* ring, uint16_t group, uint32_t count,
                    uint32_t buffer_size = kRxBufferSize, std::span<std::byte> memory = {});

  uint16_t group() const { return group_; }
  // The first `size` bytes of a buffer that the kernel handed out.
  std::span<std::byte> Buffer(uint16_t id, uint32_t size) const {
    return {buffers_ + size_t{id} * buffer_size_, size};
  }
  uint32_t count() const { return count_; }
  // Buffers that the kernel may fill.
  uint32_t available() const { return available_; }
  // The kernel handed one out.
  void Taken() { --available_; }
  // Gives one back. Seen by the kernel after Publish().
  void Return(uint16_t id) {
    if (available_ < window_) return Offer(id);
    parked_[parked_count_++] = id;
  }
  void Publish();
  // How many the kernel may have at a time, without a word all; the others wait here, and the one
  // that was used last is the next to go. Before Open(), or with a Publish() behind it.
  void SetWindow(uint32_t buffers) {
    window_ = buffers;
    while (available_ < window_ && parked_count_ > 0) Offer(parked_[--parked_count_]);
  }

 private:
  void Offer(uint16_t id);

  io_uring_buf_ring* ring_ = nullptr;
  std::byte* buffers_ = nullptr;
  bool own_ = false;  // the memory of the buffers
  uint32_t buffer_size_ = 0;
  uint32_t count_ = 0;
  uint32_t slots_ = 0;  // count_ rounded up to a power of two
  uint32_t available_ = 0;
  uint32_t window_ = UINT32_MAX;
  std::vector<uint16_t> parked_;
  uint32_t parked_count_ = 0;
  uint16_t tail_ = 0;
  uint16_t group_ = 0;
};

}  // namespace ringsock::io

#endif  // RINGSOCK_IO_BUFFER_RING_H_
