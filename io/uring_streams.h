// Streams on the loop's io_uring: multishot accepts, multishot receives into a ring of small
// buffers of their own, and for each stream at most one send under way, so that bytes keep their
// order whatever the kernel does with a request.
//
// Reap() of the loop brings completions here one by one; what they mean for a handler waits in a
// queue until Deliver(), because handlers may enter the ring.
#ifndef RINGSOCK_IO_URING_STREAMS_H_
#define RINGSOCK_IO_URING_STREAMS_H_

#include <netinet/in.h>
#include <sys/socket.h>

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "io/buffer_ring.h"
#include "io/fd.h"
#include "io/loop.h"
#include "io/stream_core.h"
#include "io/uring.h"

namespace ringsock::io {

class UringStreams final : public StreamCore {
 public:
  // The ring outlives this, but Stop() must have been called before it goes, on its thread.
  UringStreams(const LoopOptions& options, Uring* ring);
  ~UringStreams() override;

  // One completion of a kind kStream...; must not enter the kernel's ring.
  void OnCompletion(CompletionTag tag, const io_uring_cqe& cqe);
  // Calls handlers for what has been completed. Returns the number of events.
  size_t Deliver();
  // Arms connects, accepts and receives that wait for it; after Turn().
  void Arm();
  bool HasEvents() const { return next_event_ < events_.size() || !unarmed_.empty(); }
  // Ends everything without calling a handler. True: nothing is left in the kernel; else the caller
  // waits for completions and asks again.
  bool Stop();

 private:
  // More than a queue of the usual length has: one request takes all of it.
  static constexpr size_t kPieces = 32;
  // A send under way. Its memory goes back to the loop when it has completed.
  struct Request {
    msghdr message{};
    std::array<iovec, kPieces> pieces{};
  };
  struct UringStream final : Stream {
    Fd fd;
    uint32_t in_kernel = 0;  // requests without their last completion
    bool armed = false;      // a connect, an accept or a receive is in the kernel
    bool queued = false;     // in unarmed_
    bool watched = false;    // a poll for errors is in the kernel
    bool released = false;
    std::unique_ptr<Request> request;           // of several pieces
    std::unique_ptr<sockaddr_storage> address;  // of a connect under way
  };
  struct Event {
    enum class Kind : uint8_t { kConnected, kAccepted, kReceived, kEnded, kFailed } kind;
    StreamId stream;
    int32_t value;  // a descriptor; a number of bytes; an error
    uint16_t buffer;
    const char* failed = "";  // what
  };

  absl::StatusOr<std::unique_ptr<Stream>> OpenConnector(const ConnectConfig& config) override;
  absl::StatusOr<std::unique_ptr<Stream>> OpenListener(const ListenConfig& config) override;
  // The ring may not be entered before the first Poll(), nor by another thread: Arm() does it.
  void StartConnect(Stream& stream) override { QueueArm(Get(stream)); }
  void StartAccepting(Stream& listener) override { QueueArm(Get(listener)); }
  void UpdateReceiving(Stream& stream) override;
  void Write(Stream& stream) override;
  void SendFin(Stream& stream) override { shutdown(Get(stream).fd.get(), SHUT_WR); }
  uint64_t Acked(const Stream& stream) const override;
  void Release(Stream& stream, bool reset) override;
  void Refuse(Stream& unborn) override;
  void OnTimer(Stream& stream) override { QueueArm(Get(stream)); }

  static UringStream& Get(Stream& stream) { return static_cast<UringStream&>(stream); }
  absl::Status OpenBuffers();
  io_uring_sqe* NextSqe(UringStream& stream, CompletionTag::Kind kind);
  void QueueArm(UringStream& stream);
  void ArmConnect(UringStream& stream);
  void Watch(UringStream& stream);
  void OnAcceptCompletion(UringStream& stream, const io_uring_cqe& cqe);
  void OnReceiveCompletion(UringStream& stream, const io_uring_cqe& cqe);
  void OnWatchCompletion(UringStream& stream, const io_uring_cqe& cqe);
  void OnSendCompletion(UringStream& stream, int result);
  void Handle(const Event& event);
  void HandleAccepted(Stream* listener, int fd);
  void LetGo(UringStream& stream);

  const uint32_t buffer_count_;
  const uint32_t buffer_size_;
  Uring* const ring_;
  BufferRing buffers_;
  bool open_ = false;
  bool stopping_ = false;
  std::vector<Event> events_;
  size_t next_event_ = 0;
  std::vector<StreamId> unarmed_, arming_;
  std::vector<std::unique_ptr<Request>> free_requests_;
  uint32_t in_kernel_ = 0;
};

}  // namespace ringsock::io

#endif  // RINGSOCK_IO_URING_STREAMS_H_
