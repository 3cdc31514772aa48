// Bytes a session has to send: handshake and control frames, whole, in order, bounded. Packets do
// not pass through here; they are encoded where the sender queues them.
#ifndef RINGSOCK_DERP_OUTPUT_BUFFER_H_
#define RINGSOCK_DERP_OUTPUT_BUFFER_H_

#include <cstddef>
#include <cstring>
#include <vector>

#include "derp/frame.h"

namespace ringsock::derp {

// Holds memory only while it holds bytes. Not thread safe.
class OutputBuffer {
 public:
  explicit OutputBuffer(size_t max_bytes) : max_bytes_(max_bytes) {}

  // What is to be sent next; valid until the next call that changes the buffer.
  Bytes bytes() const { return Bytes(buffer_).subspan(sent_); }
  size_t size() const { return buffer_.size() - sent_; }
  bool empty() const { return size() == 0; }

  // Drops `count` bytes, which were sent, from the front.
  void Consume(size_t count) {
    sent_ += count;
    if (sent_ >= buffer_.size()) Clear();
  }
  void Clear() {
    buffer_ = {};
    sent_ = 0;
  }

  // All or nothing: false if the bound would be passed.
  bool Append(Bytes bytes) {
    if (bytes.size() > max_bytes_ - size()) return false;
    Compact();
    buffer_.insert(buffer_.end(), bytes.begin(), bytes.end());
    return true;
  }
  // Encodes a frame of at most `max_size` bytes, header included. All or nothing.
  template <typename Payload>
  bool AppendFrame(const Payload& frame, size_t max_size = 128) {
    Compact();
    const size_t old_size = buffer_.size();
    buffer_.resize(old_size + max_size);
    const size_t size = Encode(frame, MutableBytes(buffer_).subspan(old_size));
    const bool fits = size > 0 && old_size + size <= max_bytes_;
    buffer_.resize(fits ? old_size + size : old_size);
    return fits;
  }

 private:
  // Moves what is left to the front once most has been sent.
  void Compact() {
    if (sent_ == 0 || sent_ < buffer_.size() / 2) return;
    buffer_.erase(buffer_.begin(), buffer_.begin() + static_cast<ptrdiff_t>(sent_));
    sent_ = 0;
  }

  const size_t max_bytes_;
  std::vector<std::byte> buffer_;
  size_t sent_ = 0;
};

}  // namespace ringsock::derp

#endif  // RINGSOCK_DERP_OUTPUT_BUFFER_H_
