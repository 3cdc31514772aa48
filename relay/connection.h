// A stream of a worker, with TLS or without, and what waits to be sent on it: control frames of its
// session first, then the queue of packets. What the frames mean is for those who derive from it:
// clients (relay/client.h) and links to meshed servers (relay/mesh_link.h).
#ifndef RINGSOCK_RELAY_CONNECTION_H_
#define RINGSOCK_RELAY_CONNECTION_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "absl/status/status.h"
#include "base/clock.h"
#include "base/endpoint.h"
#include "base/timer_queue.h"
#include "derp/frame.h"
#include "derp/tls.h"
#include "io/stream.h"
#include "relay/counters.h"
#include "relay/frame_queue.h"
#include "relay/route.h"

namespace ringsock::relay {

class Worker;

// For the thread of its worker, which owns it and outlives it.
class Connection : public io::StreamHandler, private derp::TlsSink, private derp::TlsEvents {
 public:
  // Room in the stream's queue that packets leave to what TLS has to say beside them.
  static constexpr uint32_t kHandshakeRoom = 8 << 10;
  // A stream tells that it is writable when its queue is half empty. With less than this of
  // QueueLimits::stream_bytes a record might not fit then.
  static constexpr uint32_t kMinStreamBytes = 64 << 10;
  static_assert((kMinStreamBytes - kHandshakeRoom) / 2 >=
                derp::kMaxTlsPlaintext + derp::kMaxTlsOverhead);

  Connection(Worker* worker, const ConnectionRef& ref, const Endpoint& remote);
  ~Connection() override;

  void SetStream(io::StreamId stream) { stream_ = stream; }
  const ConnectionRef& ref() const { return ref_; }
  const Endpoint& remote() const { return remote_; }
  bool closed() const { return closed_; }

  // Queues a whole frame, given in one part or two; it leaves at the end of the turn.
  void Queue(derp::Bytes first, derp::Bytes second, Instant now);
  // Something waits to be sent: Flush() at the end of the turn.
  void MarkDirty();
  // Seals and hands over what the stream takes. Packets handed over have been counted.
  void Flush(Instant now);
  bool drained() const { return queue_.empty() && Control().empty(); }

  // Closes, counting it as `reason`. Gracefully: what is in the stream's queue is still sent.
  void Close(Counter Counters::*reason, bool gracefully);

 protected:
  // ---- What a kind of connection does ----
  // Plaintext; may be written to. An error ends the connection.
  virtual absl::Status OnBytes(derp::MutableBytes bytes, Instant now) = 0;
  virtual void OnSecure() {}  // the TLS handshake is done
  virtual derp::Bytes Control() const = 0;
  virtual void ConsumeControl(size_t count) = 0;
  // After each flush.
  virtual void OnFlushed(Instant) {}
  // The stream broke, or the other side sent what it must not: `why` says it. Calls Close().
  virtual void OnLost(const absl::Status& why, bool broken) = 0;
  virtual void OnEnd() = 0;
  // It is being closed.
  virtual void OnClosed() = 0;
  virtual void OnTimer(Instant now) = 0;
  virtual Instant OwnDeadline() const = 0;
  // So many frames, of `bytes` together, have been handed to the stream to their end.
  virtual void CountOut(uint32_t frames, size_t bytes) = 0;

  // ---- StreamHandler ----
  void OnConnect(io::StreamId) override {}
  void OnReceive(io::StreamId stream, std::span<std::byte> bytes) override;
  void OnWritable(io::StreamId) override { MarkDirty(); }
  void OnEnd(io::StreamId) override;
  void OnClose(io::StreamId, const absl::Status& why) override;

  // Sets the timer to the earliest of what is to come.
  void Reschedule();
  void SetTls(std::unique_ptr<derp::TlsSession> tls) { tls_ = std::move(tls); }
  derp::TlsSession* tls() const { return tls_.get(); }
  derp::TlsSink* sink() { return this; }
  derp::TlsEvents* tls_events() { return this; }
  io::StreamId stream() const { return stream_; }

  Worker* const worker_;
  FrameQueue queue_;
  uint64_t frames_out_ = 0;
  uint64_t frames_dropped_ = 0;
  Instant since_{};

 private:
  // ---- TlsSink ----
  size_t Room() const override;
  void Write(std::span<const std::byte> ciphertext) override;
  std::span<std::byte> Reserve(size_t bytes) override;
  void Commit(size_t bytes) override;
  // ---- TlsEvents ----
  Instant Now() const override { return now_; }
  void OnHandshakeDone() override { OnSecure(); }
  absl::Status OnPlaintext(std::span<std::byte> bytes) override {
    return closed_ ? absl::CancelledError("closed") : OnBytes(bytes, now_);
  }

  size_t Hand(derp::Bytes bytes);
  bool FlushControl();
  bool FlushQueue();
  void CountDrops(const FrameDrops& drops);
  void RunTimer();
  void WatchProgress(Instant now);
  bool Progresses(Instant now);

  const ConnectionRef ref_;
  const Endpoint remote_;
  io::StreamId stream_ = io::kNoStream;
  std::unique_ptr<derp::TlsSession> tls_;
  bool closed_ = false;
  bool dirty_ = false;
  bool overflow_ = false;     // the stream did not take what TLS had to write
  uint32_t begun_bytes_ = 0;  // handed over of a frame that was not handed over to its end
  Instant now_{};             // of the bytes being received
  Timer timer_;
  // Writing makes progress as long as this changes.
  uint64_t acked_ = 0;
  Instant progress_at_ = Instant::max();  // when it last did; max: nothing is being sent
  Instant progress_check_ = Instant::max();
};

}  // namespace ringsock::relay

#endif  // RINGSOCK_RELAY_CONNECTION_H_
