#include "io/uring_streams.h"

#include <poll.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <utility>

#include "io/tcp_socket.h"

namespace ringsock::io {
namespace {

constexpr uint16_t kStreamBufferGroup = 1;
// Room for the frame of a TLS record of full length; an odd number of cache lines, see
// kRxBufferSize.
constexpr uint32_t kExtraSize = 64;
// How long a listener rests when descriptors or memory have run out.
constexpr Duration kAcceptPause = std::chrono::milliseconds(100);
constexpr size_t kKeptRequests = 256;
// Requests of a kind in one turn of the loop. Most complete at once, and it may be two turns before
// completions are taken: they fit in the smallest completion queue, of 1,024. One that overflows
// costs an allocation for each completion, and ends every multishot receive.
constexpr size_t kMostPerTurn = 128;

}  // namespace

UringStreams::UringStreams(const LoopOptions& options, Uring* ring)
    : StreamCore(&SystemClock(), options.max_streams, kMostPerTurn),
      buffer_count_(options.stream_buffers),
      buffer_size_(std::clamp(options.stream_buffer_size, 1u << 10, 1u << 20) + kExtraSize),
      ring_(ring) {}

UringStreams::~UringStreams() {
  for (; next_event_ < events_.size(); ++next_event_) {
    if (events_[next_event_].kind == Event::Kind::kAccepted) Fd closes(events_[next_event_].value);
  }
}

absl::Status UringStreams::OpenBuffers() {
  if (open_) return absl::OkStatus();
  auto status = buffers_.Open(ring_->get(), kStreamBufferGroup, buffer_count_, buffer_size_);
  open_ = status.ok();
  return status;
}

absl::StatusOr<std::unique_ptr<Stream>> UringStreams::OpenConnector(const ConnectConfig& config) {
  if (auto status = OpenBuffers(); !status.ok()) return status;
  auto fd = OpenTcpConnector(config, /*blocking=*/true);
  if (!fd.ok()) return fd.status();
  auto stream = std::make_unique<UringStream>();
  stream->fd = std::move(fd).value();
  return std::unique_ptr<Stream>(std::move(stream));
}

absl::StatusOr<std::unique_ptr<Stream>> UringStreams::OpenListener(const ListenConfig& config) {
  if (auto status = OpenBuffers(); !status.ok()) return status;
  auto fd = OpenTcpListener(config, /*blocking=*/true);
  if (!fd.ok()) return fd.status();
  auto stream = std::make_unique<UringStream>();
  stream->fd = std::move(fd).value();
  stream->local = TcpLocalEndpoint(stream->fd.get());
  return std::unique_ptr<Stream>(std::move(stream));
}

// ---- Requests ----

io_uring_sqe* UringStreams::NextSqe(UringStream& stream, CompletionTag::Kind kind) {
  ++stream.in_kernel;
  ++in_kernel_;
  // The slot is not given to another stream before the last completion has come.
  return ring_->NextSqe({kind, 0, Slot(stream.id)});
}

void UringStreams::QueueArm(UringStream& stream) {
  if (stream.armed || std::exchange(stream.queued, true)) return;
  unarmed_.push_back(stream.id);
}

void UringStreams::ArmConnect(UringStream& stream) {
  stream.address = std::make_unique<sockaddr_storage>();
  const socklen_t length = stream.remote.ToSockaddr(stream.address.get());
  io_uring_prep_connect(NextSqe(stream, CompletionTag::kStreamConnect), stream.fd.get(),
                        reinterpret_cast<const sockaddr*>(stream.address.get()), length);
}

void UringStreams::UpdateReceiving(Stream& stream) {
  UringStream& s = Get(stream);
  if (stream.receiving && stream.peer_ended) return;
  if (stream.receiving || !s.armed) return QueueArm(s);
  // Its end, however it comes, puts the stream in the list of those to arm.
  const CompletionTag receive{CompletionTag::kStreamReceive, 0, Slot(stream.id)};
  io_uring_prep_cancel64(ring_->NextSqe({CompletionTag::kCancel, 0, 0}), receive.Pack(), 0);
}

// Without a receive nothing would tell of a reset. Edge by edge, since the other side's end counts
// as an event too; stays when receiving is on again, as who paused once does so again.
void UringStreams::Watch(UringStream& stream) {
  if (!std::exchange(stream.watched, true)) {
    io_uring_prep_poll_multishot(NextSqe(stream, CompletionTag::kStreamWatch), stream.fd.get(), 0);
  } else if (const int error = TakeTcpError(stream.fd.get()); error != 0) {
    // Its edge may have come while the receive was still to tell of it.
    FailLater(stream, "receive", error);
  }
}

void UringStreams::Arm() {
  if (unarmed_.empty()) return;
  MoveFront(unarmed_, arming_, kMostPerTurn);
  for (const StreamId id : arming_) {
    Stream* found = Find(id);
    if (found == nullptr) continue;
    UringStream& stream = Get(*found);
    stream.queued = false;
    if (stream.armed || stream.error != 0) continue;
    if (stream.state == Stream::State::kListening) {
      io_uring_prep_multishot_accept(NextSqe(stream, CompletionTag::kStreamAccept), stream.fd.get(),
                                     nullptr, nullptr, SOCK_CLOEXEC);
    } else if (stream.state == Stream::State::kConnecting) {
      ArmConnect(stream);
    } else if (!stream.receiving) {
      Watch(stream);
      continue;
    } else if (!stream.peer_ended) {
      io_uring_sqe* sqe = NextSqe(stream, CompletionTag::kStreamReceive);
      io_uring_prep_recv_multishot(sqe, stream.fd.get(), nullptr, 0, 0);
      sqe->flags |= IOSQE_BUFFER_SELECT;
      sqe->buf_group = kStreamBufferGroup;
    } else {
      continue;
    }
    stream.armed = true;
  }
  arming_.clear();
}

void UringStreams::Write(Stream& stream) {
  UringStream& s = Get(stream);
  stream.writing = true;
  io_uring_sqe* sqe = NextSqe(s, CompletionTag::kStreamSend);
  // Waits in the kernel until all of it is taken: one completion, not one per opening of the
  // window.
  constexpr int kFlags = MSG_NOSIGNAL | MSG_WAITALL;
  if (std::array<iovec, 2> first; stream.queue.Front(first) == 1) {
    return io_uring_prep_send(sqe, s.fd.get(), first[0].iov_base, first[0].iov_len, kFlags);
  }
  if (free_requests_.empty()) {
    s.request = std::make_unique<Request>();
  } else {
    s.request = std::move(free_requests_.back());
    free_requests_.pop_back();
  }
  s.request->message.msg_iov = s.request->pieces.data();
  s.request->message.msg_iovlen = stream.queue.Front(s.request->pieces);
  io_uring_prep_sendmsg(sqe, s.fd.get(), &s.request->message, kFlags);
}

uint64_t UringStreams::Acked(const Stream& stream) const {
  return TcpAckedBytes(static_cast<const UringStream&>(stream).fd.get());
}

void UringStreams::Release(Stream& stream, bool reset) {
  UringStream& s = Get(stream);
  if (reset) ResetOnClose(s.fd.get());
  s.released = true;
  if (s.in_kernel == 0) return LetGo(s);
  io_uring_sqe* sqe = ring_->NextSqe({CompletionTag::kCancel, 0, 0});
  io_uring_prep_cancel_fd(sqe, s.fd.get(), IORING_ASYNC_CANCEL_ALL);
}

void UringStreams::LetGo(UringStream& stream) {
  stream.fd.Close();
  Free(stream);
}

void UringStreams::Refuse(Stream& unborn) { ResetOnClose(Get(unborn).fd.get()); }

// ---- Completions ----

void UringStreams::OnCompletion(CompletionTag tag, const io_uring_cqe& cqe) {
  UringStream& stream = Get(*FindAny(tag.id()));
  switch (tag.kind()) {
    case CompletionTag::kStreamConnect:
      stream.address.reset();
      stream.armed = false;
      if (cqe.res < 0) {
        FailLater(stream, "connect", -cqe.res);
      } else {
        events_.push_back({Event::Kind::kConnected, stream.id, 0, 0});
      }
      break;
    case CompletionTag::kStreamAccept:
      OnAcceptCompletion(stream, cqe);
      break;
    case CompletionTag::kStreamReceive:
      OnReceiveCompletion(stream, cqe);
      break;
    case CompletionTag::kStreamWatch:
      OnWatchCompletion(stream, cqe);
      break;
    default:
      OnSendCompletion(stream, cqe.res);
  }
  if ((cqe.flags & IORING_CQE_F_MORE) != 0) return;
  --in_kernel_;
  if (--stream.in_kernel == 0 && stream.released) LetGo(stream);
}

void UringStreams::OnAcceptCompletion(UringStream& stream, const io_uring_cqe& cqe) {
  if (cqe.res >= 0) events_.push_back({Event::Kind::kAccepted, stream.id, cqe.res, 0});
  if ((cqe.flags & IORING_CQE_F_MORE) != 0) return;
  stream.armed = false;
  if (stream.released) return;
  if (cqe.res < 0 && AcceptMustWait(-cqe.res)) {
    ++totals_.accept_errors;
    SetTimer(stream, clock_.Now() + kAcceptPause);
  } else {
    QueueArm(stream);
  }
}

void UringStreams::OnReceiveCompletion(UringStream& stream, const io_uring_cqe& cqe) {
  if ((cqe.flags & IORING_CQE_F_BUFFER) != 0) {
    const auto buffer = static_cast<uint16_t>(cqe.flags >> IORING_CQE_BUFFER_SHIFT);
    buffers_.Taken();
    if (cqe.res > 0 && !stream.released) {
      events_.push_back({Event::Kind::kReceived, stream.id, cqe.res, buffer});
    } else {
      buffers_.Return(buffer);
      buffers_.Publish();
    }
  }
  if ((cqe.flags & IORING_CQE_F_MORE) != 0) return;
  stream.armed = false;
  if (stream.released) return;
  if (cqe.res == 0) {
    events_.push_back({Event::Kind::kEnded, stream.id, 0, 0});
    if (!stream.receiving) QueueArm(stream);
  } else if (cqe.res > 0 || cqe.res == -ENOBUFS || cqe.res == -ECANCELED || cqe.res == -EINTR) {
    if (cqe.res == -ENOBUFS) ++stream.stats.rx_starved;
    QueueArm(stream);  // Arm() looks whether it is still wanted
  } else {
    events_.push_back({Event::Kind::kFailed, stream.id, -cqe.res, 0, "receive"});
  }
}

void UringStreams::OnWatchCompletion(UringStream& stream, const io_uring_cqe& cqe) {
  if ((cqe.flags & IORING_CQE_F_MORE) == 0) stream.watched = false;
  // While it receives, the receive tells, after all that came before.
  if (stream.receiving || stream.released) return;
  if (!stream.watched) QueueArm(stream);
  if (cqe.res < 0 || (cqe.res & (POLLERR | POLLHUP)) == 0) return;
  const int error = TakeTcpError(stream.fd.get());
  if (error != 0) FailLater(stream, "receive", error);
}

void UringStreams::OnSendCompletion(UringStream& stream, int result) {
  if (stream.request != nullptr && free_requests_.size() < kKeptRequests) {
    free_requests_.push_back(std::move(stream.request));
  } else {
    stream.request.reset();
  }
  if (result >= 0) {
    Wrote(stream, static_cast<size_t>(result));
  } else if (result == -EINTR || result == -EAGAIN) {
    Wrote(stream, 0);
  } else {
    events_.push_back({Event::Kind::kFailed, stream.id, -result, 0, "send"});
  }
}

// ---- Handlers ----

size_t UringStreams::Deliver() {
  size_t count = 0;
  for (; next_event_ < events_.size(); ++count) Handle(Event(events_[next_event_++]));
  events_.clear();
  next_event_ = 0;
  return count;
}

void UringStreams::Handle(const Event& event) {
  Stream* stream = Find(event.stream);
  switch (event.kind) {
    case Event::Kind::kConnected:
      if (stream == nullptr) return;
      stream->local = TcpLocalEndpoint(Get(*stream).fd.get());
      return Connected(*stream);
    case Event::Kind::kAccepted:
      return HandleAccepted(stream, event.value);
    case Event::Kind::kReceived:
      if (stream != nullptr) {
        Received(*stream, buffers_.Buffer(event.buffer, static_cast<uint32_t>(event.value)));
      }
      buffers_.Return(event.buffer);
      return buffers_.Publish();
    case Event::Kind::kEnded:
      if (stream != nullptr) PeerEnded(*stream);
      return;
    case Event::Kind::kFailed:
      // In its turn: what came before it is given first.
      if (stream != nullptr) FailLater(*stream, event.failed, event.value);
  }
}

void UringStreams::HandleAccepted(Stream* listener, int fd) {
  auto stream = std::make_unique<UringStream>();
  stream->fd = Fd(fd);
  if (listener == nullptr) return Refuse(*stream);
  stream->local = TcpLocalEndpoint(fd);
  stream->remote = TcpRemoteEndpoint(fd);
  Accepted(*listener, std::move(stream));
}

bool UringStreams::Stop() {
  if (!std::exchange(stopping_, true)) KillAll();
  return in_kernel_ == 0;
}

}  // namespace ringsock::io
