// The seam between the engine and the outside: datagrams in batches, time, and wake-ups. One Loop
// belongs to one thread. Behind it stand io_uring (io/uring_loop.h), recvmmsg/sendmmsg
// (io/mmsg_loop.h) and a simulated network (io/sim_network.h); one test suite
// (tests/io/loop_test.cc) runs on all three.
//
// The unit on both sides is the *train*: consecutive equal-sized datagrams of one remote address in
// one contiguous piece of memory, only the last of which may be shorter. The kernel moves a train
// as one buffer (UDP_GRO, UDP_SEGMENT), which is where the speed comes from.
//
// Life of a received byte: the kernel fills a buffer of the loop; UdpHandler::OnReceive gets views
// of up to LoopOptions::rx_batch trains; the loop flushes whatever the handler sent; only then are
// the buffers used again. So a handler may Send() the very bytes it was shown, without a copy.
#ifndef RINGSOCK_IO_LOOP_H_
#define RINGSOCK_IO_LOOP_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/clock.h"
#include "base/endpoint.h"
#include "io/steering.h"

namespace ringsock::io {

class StreamLoop;

// The largest UDP payload over IPv4: 65,535 less 20 (IP) less 8 (UDP). Also the longest train.
inline constexpr size_t kMaxDatagram = 65507;
// The most datagrams the kernel takes in one train (UDP_MAX_SEGMENTS; 64 before Linux 6.9, so 64).
inline constexpr size_t kMaxTrainPackets = 64;
// Sized for bursts: 7 MiB is what the field has settled on for a flow of several Gb/s.
inline constexpr int kDefaultSocketBuffer = 7 << 20;

enum class Backend { kAuto, kUring, kMmsg };

struct LoopOptions {
  Backend backend = Backend::kAuto;  // kAuto: io_uring where it works, else recvmmsg/sendmmsg
  bool gso = true;                   // UDP_SEGMENT; off: every datagram is sent by itself
  bool gro = true;                   // UDP_GRO; off: every received train is one datagram
  // io_uring: long trains out of slabs and receive buffers are sent without a copy to destinations
  // where the kernel's notifications show that it pays. Both are then in huge pages.
  bool zero_copy = true;
  // Super-packet buffers of 64 KiB plus header room. So many are in use as stay in the cache
  // (io/receive_window.h): long trains take 16 of them, single packets all.
  uint32_t rx_buffers = 64;
  // The most trains handed to one OnReceive; a flush follows each.
  uint32_t rx_batch = 32;
  // Trains that may be queued between two flushes. Send() flushes by itself when it is full.
  uint32_t tx_queue = 256;
  // Slabs for senders that have to copy (AcquireSlab), 64 KiB each.
  uint32_t tx_slabs = 64;
  // For a loop with streams (io/stream.h): how many at one time, and their receive buffers, which
  // all share and which are made with the first stream. A stream that finds none left is armed anew
  // when they are back. Larger ones split fewer TLS records, more leave the L2 cache. The recvmmsg
  // loop has one, of 64 KiB.
  uint32_t max_streams = 1 << 16;
  uint32_t stream_buffers = 32;
  uint32_t stream_buffer_size = 64 << 10;  // bytes
  // How long Poll() looks for events before it sleeps. Waking a sleeping core costs 24-31 us.
  Duration spin = std::chrono::microseconds(0);
};

// A socket of one Loop. Never reused within the Loop's life.
using SocketId = uint32_t;

struct UdpConfig {
  Endpoint bind;            // the address family follows from it; port 0 lets the kernel choose
  bool reuse_port = false;  // several loops share one port
  // How datagrams are dealt to the sockets that share it, and how many of them there will be. Where
  // the kernel cannot (before Linux 4.5), its hash does it, and the log says so.
  Steering steering = Steering::kNone;
  uint32_t steering_sockets = 0;
  std::string device = {};     // hold the socket to this network device (SO_BINDTODEVICE); "" = any
  bool local_address = false;  // fill RxTrain::to (IP_PKTINFO / IPV6_RECVPKTINFO)
  int receive_buffer = kDefaultSocketBuffer;  // bytes; SO_RCVBUFFORCE first, then SO_RCVBUF
  int send_buffer = kDefaultSocketBuffer;
};

// Received datagrams. Every packet is `segment_size` bytes but the last, which may be shorter.
struct RxTrain {
  std::byte* data = nullptr;
  uint32_t size = 0;          // bytes of the whole train; 0 is an empty datagram
  uint32_t segment_size = 0;  // 0 only if size is 0
  Endpoint from;
  IpAddress to;  // the local address it was sent to, if UdpConfig::local_address; else AnyV6()

  uint32_t packets() const {
    return size <= segment_size || segment_size == 0 ? 1 : (size + segment_size - 1) / segment_size;
  }
};

// A block of memory owned by the loop, for a sender that builds a train. Handed back by Send() (or
// ReleaseSlab()); reused when the kernel no longer reads it.
struct TxSlab {
  std::byte* data = nullptr;
  uint32_t capacity = 0;  // kMaxDatagram or more
};

// Datagrams to send. One to kMaxTrainPackets packets and up to kMaxDatagram bytes travel as one;
// the loop cuts a longer train into such parts, in order.
struct TxTrain {
  const std::byte* data = nullptr;
  uint32_t size = 0;
  uint32_t segment_size = 0;  // 0 or >= size: one datagram
  Endpoint to;
  IpAddress from = IpAddress::AnyV6();  // source address (IP_PKTINFO); unspecified: the kernel's
  // Set when the bytes are in a slab of this loop, which then takes it back. Else the bytes must
  // stay as they are until Flush() has returned, or, in a slab that the caller keeps, until
  // ReleaseSlab().
  TxSlab* slab = nullptr;

  uint32_t packets() const {
    return segment_size == 0 || segment_size >= size ? 1 : (size + segment_size - 1) / segment_size;
  }
};

// Datagrams that did not leave. A train that the kernel refused because it is one (EMSGSIZE,
// EINVAL, EIO) has by then been sent packet by packet, in order; only what failed alone is
// reported. Other reasons (buffer full, no route, forbidden) hold for all its packets.
struct SendFailure {
  const TxTrain* train;  // the train they belonged to, or the part it was cut to; valid in the call
  uint32_t first;        // index of the first lost packet in it
  uint32_t packets;      // how many
  int error;             // errno, positive: EMSGSIZE, ENOBUFS, EAGAIN (socket buffer full), ...
};

// Gets the events of one socket, on the loop's thread: received trains only from inside Poll() and
// ReopenUdp(); failures also from Flush(), CloseUdp(), and a Send() that finds the queue full.
class UdpHandler {
 public:
  virtual ~UdpHandler() = default;
  // Trains in order of arrival. May call Send() and Flush(); must not call Poll() or close a
  // socket.
  virtual void OnReceive(SocketId socket, std::span<const RxTrain> trains) = 0;
  // Must not call Send().
  virtual void OnSendFailure(SocketId socket, const SendFailure& failure) = 0;
};

// Totals since the socket was opened. Written by the loop's thread; Loop::Stats copies them.
struct UdpStats {
  uint64_t rx_packets = 0;
  uint64_t rx_bytes = 0;
  uint64_t rx_trains = 0;
  uint64_t rx_truncated = 0;  // larger than the buffer: dropped (spec: RECV-6)
  uint64_t rx_starved = 0;    // times the kernel found no buffer (ENOBUFS) and receiving re-armed
  uint64_t rx_errors = 0;     // receives that failed for any other reason
  uint64_t rx_kernel_drops = 0;  // dropped by the kernel because the socket buffer was full
  uint64_t tx_packets = 0;       // taken by the kernel
  uint64_t tx_bytes = 0;
  uint64_t tx_trains = 0;
  uint64_t tx_failed = 0;            // packets reported through OnSendFailure
  uint64_t tx_replayed = 0;          // trains refused as a whole and sent packet by packet
  uint64_t tx_zero_copy = 0;         // trains sent without a copy
  uint64_t tx_zero_copy_copied = 0;  // zero-copy sends that the kernel copied after all
};

// What became of Loop::ReopenUdp().
struct Reopened {
  Endpoint local;     // of the new socket
  uint64_t lost = 0;  // packets that were in the old one and could not be delivered
  // The old socket took nothing more while it was emptied. False (it could not be told not to): a
  // packet that came at the very end may be lost beside those of `lost`.
  bool exact = true;
};

// All calls but Wake() are for the loop's thread only. The thread that first calls Poll() is that
// thread; opening sockets before it starts is fine.
class Loop {
 public:
  virtual ~Loop() = default;

  virtual const char* name() const = 0;  // "io_uring", "mmsg", "simulated"
  virtual const Clock& clock() const = 0;

  // The handler must outlive the socket. Errors name the address, the reason and the cure.
  virtual absl::StatusOr<SocketId> OpenUdp(const UdpConfig& config, UdpHandler* handler) = 0;
  // When it returns, the port is free, the handler will not be called again, and queued trains of
  // the socket have been sent. Not from inside a handler.
  virtual void CloseUdp(SocketId socket) = 0;
  // Puts a new socket of the kernel behind `socket`, on the same address and on `port` (0: the
  // kernel chooses), which on its own port is opened beside the old one: no datagram finds the port
  // closed. What the old one had received is delivered first, from inside this call; trains that
  // are sent from then on leave through the new one. The numbers of Stats() go on. Not from inside
  // a handler. An error changes nothing.
  virtual absl::StatusOr<Reopened> ReopenUdp(SocketId socket, uint16_t port) = 0;
  virtual Endpoint LocalEndpoint(SocketId socket) const = 0;
  virtual UdpStats Stats(SocketId socket) const = 0;

  // Queues a train. A train to a closed socket is dropped. Trains of one socket leave in order.
  virtual void Send(SocketId socket, const TxTrain& train) = 0;
  // Hands every queued train to the kernel, replaying what it refuses; failures have been reported
  // when it returns. Poll() flushes after each OnReceive and before it waits.
  virtual void Flush() = 0;
  // A free slab, or null when the kernel still holds all of them (the caller then drops or copies).
  virtual TxSlab* AcquireSlab() = 0;
  // Gives back a slab that was not sent, or whose bytes were sent as if they were the caller's own,
  // after the Flush() that sent them.
  virtual void ReleaseSlab(TxSlab* slab) = 0;

  // TCP on this loop (io/stream.h); null if the loop has none. Lives as long as the loop.
  virtual StreamLoop* streams() { return nullptr; }

  // Delivers what is there; if that is nothing, waits for an event, Wake() or the deadline.
  // Returns the number of trains and stream events delivered. The simulated loop never waits.
  virtual size_t Poll(Instant deadline) = 0;
  // Any thread: makes a Poll() that waits, or the next one, return. Costs a system call only if the
  // loop sleeps. Everything written before Wake() is visible after that Poll().
  virtual void Wake() = 0;
};

// What kAuto resolves to on this host, and why, in words fit for a log line.
struct BackendChoice {
  Backend backend = Backend::kAuto;
  std::string reason;
};
BackendChoice ChooseBackend(const LoopOptions& options);

// A loop on the real network. A forced backend that does not work here is an error that says what
// forbids it (sysctl kernel.io_uring_disabled, seccomp, RLIMIT_MEMLOCK, kernel age).
// Whoever makes several loops passes `choice`, gets what was chosen, and says so once; without it
// this says so in the log.
absl::StatusOr<std::unique_ptr<Loop>> CreateLoop(const LoopOptions& options,
                                                 BackendChoice* choice = nullptr);
// The log line that says which backend runs and why.
void LogBackend(const BackendChoice& choice);

}  // namespace ringsock::io

#endif  // RINGSOCK_IO_LOOP_H_
