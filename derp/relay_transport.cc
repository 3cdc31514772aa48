#include "derp/relay_transport.h"

#include <algorithm>
#include <utility>

namespace ringsock::derp {
namespace {

// Bytes that TCP may leave unacknowledged for so long, a window that stays shut included, before
// the connection counts as broken: sooner than a silence shows it.
constexpr Duration kUserTimeout = std::chrono::seconds(30);

}  // namespace

io::StreamOptions TransportStreamOptions() {
  io::StreamOptions options;
  options.send_queue = kTransportQueue;
  options.not_sent_low_water = kTransportQueue;
  options.user_timeout = kUserTimeout;
  return options;
}

absl::Status RelayTransport::Connect(const io::ConnectConfig& config) {
  auto stream = streams_->Connect(config, this);
  if (!stream.ok()) return stream.status();
  stream_ = *stream;
  return absl::OkStatus();
}

absl::Status RelayTransport::StartTls(TlsClientContext* context, const TlsTarget& target) {
  auto session = TlsSession::NewClient(context, target, this, this);
  if (!session.ok()) return session.status();
  tls_ = std::move(*session);
  return tls_->Start();
}

absl::Status RelayTransport::AcceptTls(TlsServerContext* context) {
  auto session = TlsSession::NewServer(context, this, this);
  if (!session.ok()) return session.status();
  tls_ = std::move(*session);
  return tls_->Start();
}

size_t RelayTransport::Send(std::span<const std::byte> bytes) {
  if (!ready_ || bytes.empty()) return 0;
  size_t taken = 0;
  if (tls_ != nullptr) {
    taken = tls_->Send(bytes);
  } else {
    // In the pieces that TLS would have: a frame is then rarely cut.
    while (taken < bytes.size()) {
      const size_t piece = std::min(bytes.size() - taken, kMaxTlsPlaintext);
      if (Room() < piece) break;
      const size_t sent = streams_->Send(stream_, bytes.subspan(taken, piece));
      taken += sent;
      if (sent < piece) break;
    }
  }
  // Asking for more room than there is brings OnWritable.
  if (taken < bytes.size()) streams_->SendSpace(stream_, io::kMaxSendSpace);
  return taken;
}

void RelayTransport::Close() {
  if (!is_open()) return;
  if (tls_ != nullptr && ready_) tls_->Shutdown();
  ready_ = false;
  streams_->Close(std::exchange(stream_, io::kNoStream));
}

void RelayTransport::Abort() {
  if (!is_open()) return;
  ready_ = false;
  streams_->Abort(std::exchange(stream_, io::kNoStream));
}

std::string RelayTransport::Description() const {
  return tls_ != nullptr ? tls_->Description() : "plain TCP";
}

// ---- The stream ----

void RelayTransport::OnConnect(io::StreamId) { events_->OnTransportConnected(); }

void RelayTransport::OnReceive(io::StreamId stream, std::span<std::byte> bytes) {
  absl::Status status;
  if (tls_ != nullptr) {
    status = tls_->Receive(bytes);
  } else if (ready_) {
    status = events_->OnTransportBytes(bytes);
  }
  if (stream_ != stream) return;  // closed from inside
  if (status.ok() && overflow_) {
    status = absl::ResourceExhaustedError("the other side of TLS asks for more than it takes");
  }
  if (!status.ok()) return Fail(status);
  if (ready_) events_->OnTransportBytesEnd();
}

void RelayTransport::OnWritable(io::StreamId) {
  if (ready_) events_->OnTransportWritable();
}

void RelayTransport::OnEnd(io::StreamId) {
  Fail(tls_ != nullptr ? tls_->OnStreamEnd() : absl::OkStatus());
}

void RelayTransport::OnClose(io::StreamId, const absl::Status& why) {
  stream_ = io::kNoStream;
  ready_ = false;
  events_->OnTransportClosed(why);
}

void RelayTransport::Fail(const absl::Status& why) {
  // Not Abort(): the alert that says what was wrong is in the queue.
  Close();
  events_->OnTransportClosed(why);
}

// ---- TLS ----

size_t RelayTransport::Room() const { return is_open() ? streams_->SendRoom(stream_) : 0; }

void RelayTransport::Write(std::span<const std::byte> ciphertext) {
  if (!is_open()) return;
  if (streams_->Send(stream_, ciphertext) < ciphertext.size()) overflow_ = true;
}

std::span<std::byte> RelayTransport::Reserve(size_t bytes) {
  return streams_->SendSpace(stream_, bytes);
}

void RelayTransport::Commit(size_t bytes) { streams_->CommitSend(stream_, bytes); }

void RelayTransport::OnHandshakeDone() {
  ready_ = true;
  events_->OnTransportReady();
}

absl::Status RelayTransport::OnPlaintext(std::span<std::byte> bytes) {
  // Closed from inside an earlier piece: the rest is thrown away.
  if (!is_open()) return absl::CancelledError("closed");
  return events_->OnTransportBytes(bytes);
}

}  // namespace ringsock::derp
