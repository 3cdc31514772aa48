// The seam's other half: TCP streams on the same Loop and thread as its datagrams, for relay
// connections. Loop::streams() gives the StreamLoop of a loop. Behind it stand io_uring
// (io/uring_streams.h), epoll (io/epoll_streams.h) and the simulated network (io/sim_streams.h);
// what they share is in io/stream_core.h, and one suite (tests/io/stream_test.cc) runs on all.
//
// Life of a received byte: the kernel fills a buffer of the loop, StreamHandler::OnReceive gets a
// view of it, may write to it (decrypt in place), and the buffer is used again when it returns.
// Life of a sent byte: Send() copies it to the stream's queue, or its owner writes it there
// (SendSpace, CommitSend); the queue is handed to the kernel when Poll() flushes, as one request,
// however many calls it came from.
//
// Bytes in the queue cannot be taken back. Who wants to drop what has become old keeps it in a
// queue of its own and this one short: StreamOptions::send_queue bounds what waits here,
// not_sent_low_water what waits in the kernel.
#ifndef RINGSOCK_IO_STREAM_H_
#define RINGSOCK_IO_STREAM_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/clock.h"
#include "base/endpoint.h"

namespace ringsock::io {

// A stream or a listener of one StreamLoop. Never used again for another one.
using StreamId = uint64_t;
inline constexpr StreamId kNoStream = 0;
// The most that SendSpace() gives at once: a TLS record of full length with room for its frame.
inline constexpr size_t kMaxSendSpace = (16 << 10) + 512;

// What holds for a connection from its first packet on; accepted ones have their listener's.
struct StreamOptions {
  // Bytes that may wait for the kernel; what is more is not taken by Send(). 64 KiB keep a stream
  // busy: while one request is under way the next is queued.
  uint32_t send_queue = 256 << 10;
  bool no_delay = true;  // TCP_NODELAY
  // Probes on an idle connection (SO_KEEPALIVE); 0 idle time: none.
  Duration keepalive_idle = std::chrono::seconds(30);
  Duration keepalive_interval = std::chrono::seconds(15);
  int keepalive_probes = 4;
  // How long sent bytes may stay unacknowledged (TCP_USER_TIMEOUT, RFC 5482); 0: the kernel's.
  Duration user_timeout = std::chrono::seconds(0);
  int receive_buffer = 0;  // bytes, SO_RCVBUF; 0: the kernel adjusts it
  int send_buffer = 0;     // bytes, SO_SNDBUF; 0: the kernel adjusts it
  // Bytes that the kernel takes before it may send them (TCP_NOTSENT_LOWAT); 0: as many as its send
  // buffer holds, which grows to megabytes. When TCP stalls the queue here then fills at once and
  // its owner learns of it, where otherwise some megabytes would go stale in the kernel first.
  uint32_t not_sent_low_water = 0;
  // How long Close() goes on sending what is queued and waits for the other side's end.
  Duration linger = std::chrono::seconds(2);
};

struct ConnectConfig {
  Endpoint to;
  Endpoint bind = {};                 // source address and port; none: the kernel's choice
  std::string device = {};            // SO_BINDTODEVICE; "": any
  Instant deadline = Instant::max();  // no connection by then: OnClose with DeadlineExceeded
  StreamOptions options = {};
};

struct ListenConfig {
  Endpoint bind;  // the address family follows from it; port 0 lets the kernel choose
  int backlog = 1024;
  bool reuse_port = false;  // several loops share one port; the kernel spreads connections
  // Accepted streams open at one time. One more is reset at once and counted.
  uint32_t max_streams = 1 << 16;
  StreamOptions options = {};
};

// Gets the events of one stream, on the loop's thread, from inside Poll() only. May call everything
// of StreamLoop and Loop::Send(), for this stream and others; must not call Poll().
class StreamHandler {
 public:
  virtual ~StreamHandler() = default;
  // The connection that Connect() asked for stands. Not called for accepted streams.
  virtual void OnConnect(StreamId stream) = 0;
  // Bytes in order, in pieces of any size. The view ends with the call.
  virtual void OnReceive(StreamId stream, std::span<std::byte> bytes) = 0;
  // After a Send() that took less than it was given, or a SendSpace() that gave less than was
  // wanted: the queue is half empty, or better.
  virtual void OnWritable(StreamId stream) = 0;
  // The other side has sent all it will. It may still receive.
  virtual void OnEnd(StreamId stream) = 0;
  // The stream broke, or could not be made; it is closed. The message names the remote address,
  // what failed and why. Codes: DeadlineExceeded (connecting, or unacknowledged for too long),
  // Unavailable (refused, reset, no route), ResourceExhausted, PermissionDenied, Internal.
  virtual void OnClose(StreamId stream, const absl::Status& why) = 0;
};

class ListenHandler {
 public:
  virtual ~ListenHandler() = default;
  // A new stream, open. Returns its handler, which must outlive it; null: reset it.
  virtual StreamHandler* OnAccept(StreamId listener, StreamId stream, const Endpoint& from) = 0;
};

struct StreamStats {
  uint64_t rx_bytes = 0;
  uint64_t rx_pieces = 0;   // calls of OnReceive
  uint64_t rx_starved = 0;  // times the kernel found no buffer and receiving re-armed
  uint64_t tx_bytes = 0;    // taken by the kernel, counted when a request has been taken whole
  uint64_t tx_requests = 0;
  uint64_t tx_refused = 0;  // bytes not taken because the queue was full
  uint64_t tx_queued = 0;   // bytes in the queue now
};

// Totals of a StreamLoop.
struct StreamTotals {
  uint64_t connects = 0;  // connections made by Connect()
  uint64_t connect_failures = 0;
  uint64_t accepts = 0;          // handed to OnAccept
  uint64_t accepts_refused = 0;  // over max_streams of the listener or the loop: reset
  uint64_t accept_errors = 0;    // the kernel had no descriptor or memory for one; tried again
  uint64_t broken = 0;           // streams that ended by OnClose after they had been open
  uint64_t cut_short = 0;        // Close() gave up on queued bytes: the other side stalled
  uint32_t open = 0;             // streams and listeners now, those being closed included
};

// All calls are for the loop's thread; before its first Poll() any one thread will do. Calls with
// the id of a stream that is gone do nothing.
class StreamLoop {
 public:
  virtual ~StreamLoop() = default;

  // Errors are those of the configuration and of this host (address not here, no descriptors). What
  // happens on the network comes to `handler`, which must outlive the stream: OnConnect or OnClose.
  virtual absl::StatusOr<StreamId> Connect(const ConnectConfig& config, StreamHandler* handler) = 0;
  // Errors name the address, the reason and the cure.
  virtual absl::StatusOr<StreamId> Listen(const ListenConfig& config, ListenHandler* handler) = 0;

  // Takes what has room in the queue and returns how much that is; if that is not all, OnWritable
  // follows. Before OnConnect it is kept until then. 0 after Shutdown().
  virtual size_t Send(StreamId stream, std::span<const std::byte> bytes) = 0;
  // To write where Send() would copy to: `wanted` contiguous bytes, or what there is room for, or
  // kMaxSendSpace. They stay until the next call for this stream, at the longest until the handler
  // returns. CommitSend() sends the first `bytes` of them; what is not committed is as if it had
  // never been asked for.
  virtual std::span<std::byte> SendSpace(StreamId stream, size_t wanted) = 0;
  virtual void CommitSend(StreamId stream, size_t bytes) = 0;
  // Bytes that Send() would take now.
  virtual size_t SendRoom(StreamId stream) const = 0;
  // OnWritable follows as after a Send() that took less, for one who looks at SendRoom() first.
  virtual void NotifyWritable(StreamId stream) = 0;
  // Bytes that the other side has acknowledged since the stream began (with its SYN and FIN): as
  // long as this grows, writing makes progress. A system call on real loops.
  virtual uint64_t AckedBytes(StreamId stream) const = 0;
  // Off: no OnReceive and OnEnd until it is on again; the other side is held back by TCP. A reset
  // and a timeout are told all the same, and then what has not been received is lost.
  virtual void SetReceiving(StreamId stream, bool on) = 0;
  // Ends our direction once the queue has been sent (half close). Receiving goes on.
  virtual void Shutdown(StreamId stream) = 0;
  // The handler is not called again. What is queued is still sent, and what still comes is thrown
  // away, until both sides have ended or StreamOptions::linger is over. A listener, and a stream
  // that is still being connected, is closed at once.
  virtual void Close(StreamId stream) = 0;
  // As Close(), but at once and with a reset: what is queued is lost.
  virtual void Abort(StreamId stream) = 0;

  virtual bool IsOpen(StreamId stream) const = 0;  // false from Close(), Abort() and OnClose on
  virtual Endpoint LocalEndpoint(StreamId stream) const = 0;
  virtual Endpoint RemoteEndpoint(StreamId stream) const = 0;
  virtual StreamStats Stats(StreamId stream) const = 0;
  virtual const StreamTotals& totals() const = 0;
};

}  // namespace ringsock::io

#endif  // RINGSOCK_IO_STREAM_H_
