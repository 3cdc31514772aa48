// What a relay connection runs on: one TCP stream of the loop, with TLS on it or (tests, an
// explicit switch) without. Joins io/stream.h and derp/tls.h; knows nothing of DERP. Either role.
//
//   stream ──OnReceive──▶ TlsSession ──OnPlaintext──▶ TransportEvents::OnTransportBytes
//   stream ◀──Send─────── TlsSession ◀──Send()──────── owner, as long as the stream's queue is
//   short
#ifndef RINGSOCK_DERP_RELAY_TRANSPORT_H_
#define RINGSOCK_DERP_RELAY_TRANSPORT_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "base/endpoint.h"
#include "base/key.h"
#include "derp/tls.h"
#include "io/stream.h"

namespace ringsock::derp {

// Bytes of one connection that may wait for the kernel. They are sealed, so they cannot be dropped
// when they get old: the queue that can is its owner's.
inline constexpr uint32_t kTransportQueue = 64 << 10;

// Options of every stream to or from a relay, as far as both ends want the same.
io::StreamOptions TransportStreamOptions();

// Called from inside the loop's turn only. May call everything of the transport; must not destroy
// it, but for OnTransportClosed.
class TransportEvents {
 public:
  virtual ~TransportEvents() = default;
  // The TCP connection stands. Only after Connect(); TLS is started by the owner.
  virtual void OnTransportConnected() = 0;
  // TLS is done: Send() works, and bytes may come.
  virtual void OnTransportReady() = 0;
  // Bytes in order; they may be written to. An error closes the transport with that error.
  virtual absl::Status OnTransportBytes(std::span<std::byte> bytes) = 0;
  // After the last OnTransportBytes() of what came in one go.
  virtual void OnTransportBytesEnd() = 0;
  // After a Send() that took less than it was given.
  virtual void OnTransportWritable() = 0;
  // It is closed: it broke, a check failed, or (OK) the other side ended it as it should.
  virtual void OnTransportClosed(const absl::Status& why) = 0;
};

// Not thread safe. `streams`, the TLS contexts and the events outlive it. Destroying it aborts what
// is open.
class RelayTransport final : public io::StreamHandler, private TlsSink, private TlsEvents {
 public:
  RelayTransport(io::StreamLoop* streams, TransportEvents* events)
      : streams_(streams), events_(events) {}
  ~RelayTransport() override { Abort(); }
  RelayTransport(const RelayTransport&) = delete;
  RelayTransport& operator=(const RelayTransport&) = delete;

  void set_events(TransportEvents* events) { events_ = events; }

  // Begins to connect. OnTransportConnected or OnTransportClosed follows.
  absl::Status Connect(const io::ConnectConfig& config);
  // Takes a stream that was accepted; the listener's handler returns this transport.
  void Adopt(io::StreamId stream) { stream_ = stream; }

  // One of these once the stream stands. Their errors close nothing; OnTransportReady follows.
  absl::Status StartTls(TlsClientContext* context, const TlsTarget& target);
  absl::Status AcceptTls(TlsServerContext* context);
  // No TLS: ready at once, OnTransportReady is not called.
  void StartPlain() { ready_ = true; }

  // Takes bytes to send and returns how many: all, or as many as there is room for, by whole TLS
  // records of up to kMaxTlsPlaintext; then OnTransportWritable follows. 0 before it is ready.
  size_t Send(std::span<const std::byte> bytes);

  // Ends it as both protocols want it, in the background; no event follows. What Send() took still
  // goes out.
  void Close();
  // Ends it with a reset.
  void Abort();

  bool ready() const { return ready_; }
  bool is_open() const { return stream_ != io::kNoStream; }
  io::StreamId stream() const { return stream_; }
  Endpoint remote() const { return streams_->RemoteEndpoint(stream_); }
  // Null without TLS.
  const TlsSession* tls() const { return tls_.get(); }
  std::string Description() const;

 private:
  void OnConnect(io::StreamId stream) override;
  void OnReceive(io::StreamId stream, std::span<std::byte> bytes) override;
  void OnWritable(io::StreamId stream) override;
  void OnEnd(io::StreamId stream) override;
  void OnClose(io::StreamId stream, const absl::Status& why) override;
  size_t Room() const override;
  void Write(std::span<const std::byte> ciphertext) override;
  std::span<std::byte> Reserve(size_t bytes) override;
  void Commit(size_t bytes) override;
  void OnHandshakeDone() override;
  absl::Status OnPlaintext(std::span<std::byte> bytes) override;

  void Fail(const absl::Status& why);

  io::StreamLoop* const streams_;
  TransportEvents* events_;
  io::StreamId stream_ = io::kNoStream;
  std::unique_ptr<TlsSession> tls_;
  bool ready_ = false;
  bool overflow_ = false;  // a handshake message found no room
};

}  // namespace ringsock::derp

#endif  // RINGSOCK_DERP_RELAY_TRANSPORT_H_
