#include "io/epoll_streams.h"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "io/tcp_socket.h"

namespace ringsock::io {
namespace {

constexpr size_t kReadBuffer = 64 << 10;
constexpr size_t kEvents = 256;
// Connections taken from one listener before others get their turn.
constexpr int kAcceptBatch = 64;
// How long a listener rests when descriptors or memory have run out.
constexpr Duration kAcceptPause = std::chrono::milliseconds(100);

}  // namespace

absl::Status EpollStreams::OpenEpoll() {
  if (epoll_.valid()) return absl::OkStatus();
  epoll_ = Fd(epoll_create1(EPOLL_CLOEXEC));
  if (!epoll_.valid()) {
    return absl::ResourceExhaustedError(absl::StrCat("epoll_create1: ", strerror(errno)));
  }
  buffer_.resize(kReadBuffer);
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<Stream>> EpollStreams::OpenConnector(const ConnectConfig& config) {
  if (auto status = OpenEpoll(); !status.ok()) return status;
  auto fd = OpenTcpConnector(config, /*blocking=*/false);
  if (!fd.ok()) return fd.status();
  auto stream = std::make_unique<EpollStream>();
  stream->fd = std::move(fd).value();
  return std::unique_ptr<Stream>(std::move(stream));
}

absl::StatusOr<std::unique_ptr<Stream>> EpollStreams::OpenListener(const ListenConfig& config) {
  if (auto status = OpenEpoll(); !status.ok()) return status;
  auto fd = OpenTcpListener(config, /*blocking=*/false);
  if (!fd.ok()) return fd.status();
  auto stream = std::make_unique<EpollStream>();
  stream->fd = std::move(fd).value();
  stream->local = TcpLocalEndpoint(stream->fd.get());
  return std::unique_ptr<Stream>(std::move(stream));
}

void EpollStreams::StartConnect(Stream& stream) {
  EpollStream& s = Get(stream);
  sockaddr_storage address{};
  const socklen_t length = stream.remote.ToSockaddr(&address);
  if (connect(s.fd.get(), reinterpret_cast<const sockaddr*>(&address), length) != 0 &&
      errno != EINPROGRESS) {
    return FailLater(stream, "connect", errno);
  }
  Watch(s);
}

void EpollStreams::StartAccepting(Stream& listener) { Watch(Get(listener)); }

// ---- Interest ----

void EpollStreams::Watch(EpollStream& stream) {
  switch (stream.state) {
    case Stream::State::kListening:
      return SetInterest(stream, EPOLLIN);
    case Stream::State::kConnecting:
      return SetInterest(stream, EPOLLOUT);
    default:
      return SetInterest(stream, (stream.receiving && !stream.peer_ended ? EPOLLIN : 0u) |
                                     (stream.writing ? EPOLLOUT : 0u));
  }
}

void EpollStreams::SetInterest(EpollStream& stream, uint32_t interest) {
  // A stream that wants nothing still hears of errors, but each only once.
  if (interest == 0) interest = EPOLLET;
  if (stream.known && stream.interest == interest) return;
  epoll_event event{};
  event.events = interest;
  event.data.u64 = stream.id;
  const int operation = stream.known ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
  if (epoll_ctl(epoll_.get(), operation, stream.fd.get(), &event) != 0) {
    return FailLater(stream, "epoll_ctl", errno);
  }
  stream.known = true;
  stream.interest = interest;
}

// ---- Events ----

size_t EpollStreams::Deliver() {
  if (!epoll_.valid()) return 0;
  std::array<epoll_event, kEvents> events;
  const int count = epoll_wait(epoll_.get(), events.data(), kEvents, 0);
  for (int i = 0; i < count; ++i) {
    Stream* stream = Find(events[static_cast<size_t>(i)].data.u64);
    if (stream != nullptr) Dispatch(Get(*stream), events[static_cast<size_t>(i)].events);
  }
  return count > 0 ? static_cast<size_t>(count) : 0;
}

void EpollStreams::Dispatch(EpollStream& stream, uint32_t events) {
  if (stream.state == Stream::State::kListening) return Accept(stream);
  if (stream.state == Stream::State::kConnecting) {
    if (const int error = TakeTcpError(stream.fd.get()); error != 0) {
      return FailLater(stream, "connect", error);
    }
    stream.local = TcpLocalEndpoint(stream.fd.get());
    Connected(stream);
    if (stream.live()) Watch(stream);
    return;
  }
  if ((events & EPOLLOUT) != 0 && stream.writing) {
    stream.writing = false;
    MarkDirty(stream);
    Watch(stream);
  }
  if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) == 0) return;
  // What came before the error is read before it.
  if (stream.receiving && !stream.peer_ended) return Read(stream);
  if ((events & EPOLLERR) == 0) return;
  if (const int error = TakeTcpError(stream.fd.get()); error != 0) {
    FailLater(stream, "receive", error);
  }
}

void EpollStreams::Accept(EpollStream& listener) {
  for (int i = 0; i < kAcceptBatch && listener.live(); ++i) {
    auto stream = std::make_unique<EpollStream>();
    stream->fd = Fd(accept4(listener.fd.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (!stream->fd.valid()) {
      if (errno == EAGAIN) return;
      if (!AcceptMustWait(errno)) continue;  // that connection broke before it was taken
      ++totals_.accept_errors;
      SetInterest(listener, 0);
      return SetTimer(listener, clock_.Now() + kAcceptPause);
    }
    stream->local = TcpLocalEndpoint(stream->fd.get());
    stream->remote = TcpRemoteEndpoint(stream->fd.get());
    Accepted(listener, std::move(stream));
  }
}

void EpollStreams::Read(EpollStream& stream) {
  const ssize_t size = recv(stream.fd.get(), buffer_.data(), buffer_.size(), 0);
  if (size > 0) return Received(stream, {buffer_.data(), static_cast<size_t>(size)});
  if (size == 0) {
    PeerEnded(stream);
    if (stream.live()) Watch(stream);
    return;
  }
  if (errno != EAGAIN && errno != EINTR) FailLater(stream, "receive", errno);
}

// ---- Sending ----

void EpollStreams::Write(Stream& stream) {
  std::array<iovec, 32> pieces;
  while (!stream.queue.empty()) {
    msghdr message{};
    message.msg_iov = pieces.data();
    message.msg_iovlen = stream.queue.Front(pieces);
    const ssize_t sent = sendmsg(Get(stream).fd.get(), &message, MSG_NOSIGNAL);
    if (sent >= 0) {
      Wrote(stream, static_cast<size_t>(sent));
      continue;
    }
    if (errno == EINTR) continue;
    if (errno != EAGAIN) return FailLater(stream, "send", errno);
    stream.writing = true;
    break;
  }
  Watch(Get(stream));
}

void EpollStreams::SendFin(Stream& stream) { shutdown(Get(stream).fd.get(), SHUT_WR); }

uint64_t EpollStreams::Acked(const Stream& stream) const {
  return TcpAckedBytes(static_cast<const EpollStream&>(stream).fd.get());
}

void EpollStreams::Release(Stream& stream, bool reset) {
  if (reset) ResetOnClose(Get(stream).fd.get());
  Get(stream).fd.Close();  // which also takes it out of epoll
  Free(stream);
}

void EpollStreams::Refuse(Stream& unborn) { ResetOnClose(Get(unborn).fd.get()); }

}  // namespace ringsock::io
