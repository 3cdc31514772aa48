// recvmmsg/sendmmsg behind the Loop interface. A turn (Round) gives every socket that may have
// something one recvmmsg, then flushes what the handler sent. A socket that had nothing is left
// alone until ppoll says so: an idle IPv6 socket costs a busy IPv4 one next to nothing.
#include "io/mmsg_loop.h"

#include <poll.h>
#include <sys/socket.h>
#include <time.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/cache_line.h"
#include "io/control_message.h"
#include "io/epoll_streams.h"
#include "io/receive_errors.h"
#include "io/receive_window.h"
#include "io/received_name.h"
#include "io/slab_pool.h"
#include "io/train.h"
#include "io/udp_reopen.h"
#include "io/udp_socket.h"
#include "io/waker.h"

namespace ringsock::io {
namespace {

// The longest that GRO builds is 65,535 bytes.
constexpr size_t kRxBuffer = 64 << 10;
// Messages of one sendmmsg. Trains carry up to 64 packets, so more would save nothing.
constexpr size_t kTxBatch = 32;
// Slots for sockets open at one time; a SocketId is a slot and, above it, a generation.
constexpr uint32_t kSlotBits = 8;
constexpr uint32_t kMaxSockets = 1 << kSlotBits;
// In the list for ppoll: the waker, the streams' epoll, then the sockets by slot.
constexpr uint32_t kFirstSocket = 2;
// Turns that busy sockets may take before idle ones are looked at again.
constexpr uint32_t kIdleCheckTurns = 8;

struct alignas(kCacheLine) Socket {
  Socket(SocketId id, UdpSocket opened, UdpHandler* handler, uint32_t tx_queue)
      : id(id), udp(std::move(opened)), handler(handler), gso(udp.gso) {
    queue.reserve(tx_queue);
  }

  const SocketId id;
  UdpSocket udp;
  UdpHandler* const handler;
  GsoMemory gso;
  UdpStats stats;
  mutable KernelDrops drops;
  CacheLineVector<TxTrain> queue;
  bool readable = true;  // may have something: ask it without asking ppoll first
  ReceiveErrors errors;
  Instant resume_at{};  // receives fail: not to be asked before
};

// The arrays recvmmsg fills. Everything but the lengths is set once.
struct RxBatch {
  explicit RxBatch(uint32_t count)
      : memory(NewCacheLineBytes(count * kRxBuffer)),
        headers(count),
        vectors(count),
        from(count),
        control(count) {
    trains.reserve(count);
    for (uint32_t i = 0; i < count; ++i) {
      vectors[i] = {memory.get() + i * kRxBuffer, kRxBuffer};
      headers[i].msg_hdr.msg_iov = &vectors[i];
      headers[i].msg_hdr.msg_iovlen = 1;
      headers[i].msg_hdr.msg_name = &from[i];
      headers[i].msg_hdr.msg_control = &control[i];
    }
  }
  // The kernel overwrites the lengths of the first `count` headers.
  void Reset(size_t count) {
    for (size_t i = 0; i < count; ++i) {
      headers[i].msg_hdr.msg_namelen = sizeof from[i];
      headers[i].msg_hdr.msg_controllen = sizeof control[i];
    }
  }

  CacheLineBytes memory;  // not cleared: what is never used takes no memory
  CacheLineVector<mmsghdr> headers;
  CacheLineVector<iovec> vectors;
  CacheLineVector<sockaddr_storage> from;
  CacheLineVector<ControlBuffer> control;
  CacheLineVector<RxTrain> trains;
};

// The arrays sendmmsg reads, and the part of a train behind each message.
struct TxBatch {
  std::array<mmsghdr, kTxBatch> headers{};
  std::array<iovec, kTxBatch> vectors{};
  std::array<sockaddr_storage, kTxBatch> to{};
  std::array<ControlBuffer, kTxBatch> control{};
  std::array<TxTrain, kTxBatch> parts{};
  size_t count = 0;

  void Add(const TxTrain& part, bool v4) {
    const size_t i = count++;
    parts[i] = part;
    vectors[i] = {const_cast<std::byte*>(part.data), part.size};
    msghdr& header = headers[i].msg_hdr;
    header.msg_name = &to[i];
    header.msg_namelen = part.to.ToSockaddr(&to[i]);
    header.msg_iov = &vectors[i];
    header.msg_iovlen = 1;
    const auto segment = part.packets() > 1 ? std::optional(part.segment_size) : std::nullopt;
    header.msg_controllen = BuildSendControl(segment, part.from, v4, &control[i]);
    header.msg_control = header.msg_controllen > 0 ? &control[i] : nullptr;
  }
};

class MmsgLoop final : public Loop {
 public:
  explicit MmsgLoop(const LoopOptions& options)
      : options_(options),
        slabs_(options.tx_slabs),
        rx_(std::max(1u, std::min(options.rx_batch, options.rx_buffers))),
        window_(static_cast<uint32_t>(rx_.headers.size())),
        streams_(&SystemClock(), options.max_streams) {
    poll_.reserve(kMaxSockets + kFirstSocket);
  }
  ~MmsgLoop() override {
    for (const auto& socket : sockets_) {
      if (socket != nullptr) CloseUdp(socket->id);
    }
  }
  absl::Status Init() { return waker_.Open(); }

  const char* name() const override { return "mmsg"; }
  const Clock& clock() const override { return SystemClock(); }

  absl::StatusOr<SocketId> OpenUdp(const UdpConfig& config, UdpHandler* handler) override;
  void CloseUdp(SocketId id) override;
  absl::StatusOr<Reopened> ReopenUdp(SocketId id, uint16_t port) override;
  Endpoint LocalEndpoint(SocketId id) const override {
    const Socket* socket = Find(id);
    return socket == nullptr ? Endpoint{} : socket->udp.local;
  }
  UdpStats Stats(SocketId id) const override;

  void Send(SocketId id, const TxTrain& train) override;
  void Flush() override;
  TxSlab* AcquireSlab() override { return slabs_.Acquire(); }
  void ReleaseSlab(TxSlab* slab) override { slabs_.Release(slab); }

  StreamLoop* streams() override { return &streams_; }
  size_t Poll(Instant deadline) override;
  void Wake() override { waker_.Wake(); }

 private:
  Socket* Find(SocketId id) const {
    Socket* socket = sockets_[id % kMaxSockets].get();
    return socket != nullptr && socket->id == id ? socket : nullptr;
  }

  size_t Round();
  size_t Receive(Socket& socket);
  void ParseTrain(Socket& socket, size_t i, uint32_t size);
  size_t Spin(Instant deadline, bool* woken);
  void WaitReadable(Duration timeout);
  Duration ResumePaused();

  void FlushSocket(Socket& socket);
  void SendBatch(Socket& socket);
  void Refused(Socket& socket, const TxTrain& part, int error);
  bool Replay(Socket& socket, const TxTrain& part);
  static int SendOne(const Socket& socket, const TxTrain& part, TrainReplay::Packet packet);

  const LoopOptions options_;
  Waker waker_;
  SlabPool slabs_;
  RxBatch rx_;
  ReceiveWindow window_;
  TxBatch tx_;
  RetiredSockets retired_{[this] { Flush(); }};
  std::array<std::unique_ptr<Socket>, kMaxSockets> sockets_;
  std::array<uint32_t, kMaxSockets> generations_{};
  uint32_t slots_used_ = 0;  // slots above this one have never been used
  size_t queued_ = 0;        // trains in all the sockets' queues
  uint32_t turns_ = 0;
  bool any_paused_ = false;
  CacheLineVector<pollfd> poll_;
  EpollStreams streams_;
  bool streams_ready_ = true;  // may have something: ask epoll
};

absl::StatusOr<SocketId> MmsgLoop::OpenUdp(const UdpConfig& config, UdpHandler* handler) {
  uint32_t slot = 0;
  while (slot < kMaxSockets && sockets_[slot] != nullptr) ++slot;
  if (slot == kMaxSockets) {
    return absl::ResourceExhaustedError(
        absl::StrCat("a loop holds at most ", kMaxSockets, " sockets"));
  }
  auto opened = OpenUdpSocket(config, options_.gso, options_.gro);
  if (!opened.ok()) return opened.status();
  const SocketId id = (generations_[slot]++ << kSlotBits) | slot;
  sockets_[slot] =
      std::make_unique<Socket>(id, std::move(opened).value(), handler, options_.tx_queue);
  slots_used_ = std::max(slots_used_, slot + 1);
  return id;
}

void MmsgLoop::CloseUdp(SocketId id) {
  Socket* socket = Find(id);
  if (socket == nullptr) return;
  FlushSocket(*socket);
  retired_.Close(id);
  sockets_[id % kMaxSockets].reset();
}

absl::StatusOr<Reopened> MmsgLoop::ReopenUdp(SocketId id, uint16_t port) {
  Socket* socket = Find(id);
  if (socket == nullptr) return absl::NotFoundError("no such socket");
  retired_.MakeRoom(id, socket->udp.config.reuse_port);
  auto made = ReplaceUdp(socket->udp, port, options_.gso, options_.gro);
  if (!made.ok()) return made.status();
  Reopened result{.local = made->fresh.local, .exact = made->exact};
  UdpSocket old = std::exchange(socket->udp, std::move(made->fresh));
  socket->drops.Replace(old.fd.get());
  result.lost = retired_.Retire(std::move(old), made->keep, id, &socket->stats, socket->handler,
                                clock().Now());
  socket->errors.Received();
  socket->resume_at = Instant{};
  socket->readable = true;
  return result;
}

UdpStats MmsgLoop::Stats(SocketId id) const {
  const Socket* socket = Find(id);
  if (socket == nullptr) return {};
  UdpStats stats = socket->stats;
  stats.rx_kernel_drops = socket->drops.Read(socket->udp.fd.get());
  return stats;
}

// ---- Receiving ----

size_t MmsgLoop::Poll(Instant deadline) {
  bool woken = waker_.TakePending();
  if (++turns_ % kIdleCheckTurns == 0) WaitReadable(Duration::zero());
  if (const size_t trains = Round(); trains > 0) return trains;
  Flush();
  if (woken) return 0;
  if (options_.spin > Duration::zero()) {
    const size_t trains = Spin(deadline, &woken);
    if (trains > 0 || woken) return trains;
  }
  const Instant now = clock().Now();
  const Instant end = std::min({deadline, streams_.NextTimer(), retired_.NextLook()});
  if (now >= end || streams_.HasWork()) {
    WaitReadable(Duration::zero());
    return Round();
  }
  if (!waker_.PrepareSleep()) return 0;
  WaitReadable(end == Instant::max() ? Duration::max() : end - now);
  waker_.FinishSleep();
  return Round();
}

size_t MmsgLoop::Spin(Instant deadline, bool* woken) {
  const Instant start = clock().Now();
  const Instant end = std::min(deadline, start + options_.spin);
  while (clock().Now() < end) {
    if (waker_.TakePending()) {
      *woken = true;
      return 0;
    }
    WaitReadable(Duration::zero());
    if (const size_t trains = Round(); trains > 0) return trains;
  }
  return 0;
}

// Looks at sockets whose pause is over, and returns how long the others' pauses last at least.
Duration MmsgLoop::ResumePaused() {
  const Instant now = clock().Now();
  Duration rest = Duration::max();
  any_paused_ = false;
  for (uint32_t i = 0; i < slots_used_; ++i) {
    Socket* socket = sockets_[i].get();
    if (socket == nullptr || socket->resume_at == Instant{}) continue;
    any_paused_ = true;
    if (now >= socket->resume_at) {
      socket->resume_at = Instant{};
      socket->readable = true;
      rest = Duration::zero();
    } else {
      rest = std::min(rest, socket->resume_at - now);
    }
  }
  return rest;
}

void MmsgLoop::WaitReadable(Duration timeout) {
  if (any_paused_) timeout = std::min(timeout, ResumePaused());
  poll_.clear();
  poll_.push_back({waker_.fd(), POLLIN, 0});
  poll_.push_back({streams_.fd(), POLLIN, 0});
  for (uint32_t i = 0; i < slots_used_; ++i) {
    // A negative descriptor is skipped by the kernel; it keeps slot and position in step.
    const Socket* socket = sockets_[i].get();
    const bool ask = socket != nullptr && socket->resume_at == Instant{};
    poll_.push_back({ask ? socket->udp.fd.get() : -1, POLLIN, 0});
  }
  timespec spec{};
  spec.tv_sec = timeout.count() / 1'000'000'000;
  spec.tv_nsec = timeout.count() % 1'000'000'000;
  const bool forever = timeout == Duration::max();
  if (ppoll(poll_.data(), poll_.size(), forever ? nullptr : &spec, nullptr) <= 0) return;
  if (poll_[1].revents != 0) streams_ready_ = true;
  for (uint32_t i = 0; i < slots_used_; ++i) {
    if (poll_[i + kFirstSocket].revents != 0 && sockets_[i] != nullptr)
      sockets_[i]->readable = true;
  }
}

size_t MmsgLoop::Round() {
  size_t trains = 0;
  for (uint32_t i = 0; i < slots_used_; ++i) {
    if (sockets_[i] != nullptr && sockets_[i]->readable) trains += Receive(*sockets_[i]);
  }
  if (streams_ready_) {
    const size_t events = streams_.Deliver();
    streams_ready_ = events > 0;
    trains += events;
  }
  trains += streams_.Turn() + retired_.Look(clock());
  // What stream handlers sent on datagram sockets.
  Flush();
  return trains;
}

size_t MmsgLoop::Receive(Socket& socket) {
  const uint32_t most = window_.size();
  rx_.Reset(most);
  const int count = recvmmsg(socket.udp.fd.get(), rx_.headers.data(), most, MSG_DONTWAIT, nullptr);
  if (count <= 0) {
    socket.readable = false;
    if (count < 0 && errno != EAGAIN && errno != EINTR) {
      ++socket.stats.rx_errors;
      socket.resume_at = socket.errors.Failed(errno, socket.udp.local, clock().Now());
      any_paused_ = true;
    }
    return 0;
  }
  socket.errors.Received();
  rx_.trains.clear();
  for (size_t i = 0; i < static_cast<size_t>(count); ++i) {
    ParseTrain(socket, i, rx_.headers[i].msg_len);
  }
  window_.EndBatch();
  if (!rx_.trains.empty()) socket.handler->OnReceive(socket.id, rx_.trains);
  Flush();
  return rx_.trains.size();
}

void MmsgLoop::ParseTrain(Socket& socket, size_t i, uint32_t size) {
  const msghdr& header = rx_.headers[i].msg_hdr;
  // Without its control data a train has no boundaries.
  if ((header.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0) {
    ++socket.stats.rx_truncated;
    return;
  }
  window_.Add(size);
  const ReceiveControl control = ParseReceiveControl({rx_.control[i].data, header.msg_controllen});
  RxTrain& train = rx_.trains.emplace_back();
  train.data = rx_.memory.get() + i * kRxBuffer;
  train.size = size;
  train.segment_size = control.segment_size == 0 ? size : std::min(control.segment_size, size);
  const size_t name = std::min<size_t>(header.msg_namelen, sizeof rx_.from[i]);
  ReadReceivedName(std::as_bytes(std::span(&rx_.from[i], 1)).first(name), &train.from);
  train.to = control.to;
  socket.stats.rx_packets += train.packets();
  socket.stats.rx_bytes += size;
  ++socket.stats.rx_trains;
}

// ---- Sending ----

void MmsgLoop::Send(SocketId id, const TxTrain& train) {
  Socket* socket = Find(id);
  if (socket == nullptr) {
    if (train.slab != nullptr) slabs_.Release(train.slab);
    return;
  }
  if (queued_ >= options_.tx_queue) Flush();
  socket->queue.push_back(train);
  ++queued_;
}

void MmsgLoop::Flush() {
  if (queued_ == 0) return;
  for (uint32_t i = 0; i < slots_used_; ++i) {
    if (sockets_[i] != nullptr) FlushSocket(*sockets_[i]);
  }
}

void MmsgLoop::FlushSocket(Socket& socket) {
  if (socket.queue.empty()) return;
  const Instant now = clock().Now();
  for (TxTrain rest : socket.queue) {
    do {
      const bool whole = socket.gso.Allows(rest.to.ip, rest.segment_size, now);
      tx_.Add(CutTrain(&rest, whole ? kMaxTrainPackets : 1), socket.udp.local.IsV4());
      if (tx_.count == kTxBatch) SendBatch(socket);
    } while (rest.size > 0);
  }
  SendBatch(socket);
  for (const TxTrain& train : socket.queue) {
    if (train.slab != nullptr) slabs_.Release(train.slab);
  }
  queued_ -= socket.queue.size();
  socket.queue.clear();
}

// sendmmsg stops at the first message that fails, and says why only if that is the very first: the
// call that starts there gets the error. What it counted as sent is not sent again.
void MmsgLoop::SendBatch(Socket& socket) {
  for (size_t at = 0; at < tx_.count;) {
    const int sent = sendmmsg(socket.udp.fd.get(), &tx_.headers[at],
                              static_cast<unsigned>(tx_.count - at), MSG_DONTWAIT);
    if (sent < 0) {
      if (errno != EINTR) Refused(socket, tx_.parts[at++], errno);
      continue;
    }
    for (const size_t end = at + static_cast<size_t>(sent); at < end; ++at) {
      socket.stats.tx_packets += tx_.parts[at].packets();
      socket.stats.tx_bytes += tx_.parts[at].size;
      ++socket.stats.tx_trains;
    }
  }
  tx_.count = 0;
}

void MmsgLoop::Refused(Socket& socket, const TxTrain& part, int error) {
  const uint32_t packets = part.packets();
  if (packets > 1 && ReplayCanHelp(error)) {
    ++socket.stats.tx_replayed;
    if (Replay(socket, part)) {
      socket.gso.Learn(error, part.to.ip, part.segment_size, clock().Now());
    }
    return;
  }
  socket.stats.tx_failed += packets;
  socket.handler->OnSendFailure(socket.id, {&part, 0, packets, error});
}

// True if a packet left: it was the train that was refused, not the way.
bool MmsgLoop::Replay(Socket& socket, const TxTrain& part) {
  TrainReplay replay(&part);
  while (!replay.done()) {
    const TrainReplay::Packet packet = replay.packet();
    const int error = SendOne(socket, part, packet);
    if (error == 0) {
      ++socket.stats.tx_packets;
      socket.stats.tx_bytes += packet.size;
      ++socket.stats.tx_trains;
    }
    replay.Result(error, [&](const SendFailure& failure) {
      socket.stats.tx_failed += failure.packets;
      socket.handler->OnSendFailure(socket.id, failure);
    });
  }
  return replay.any_sent();
}

// Returns 0 or errno.
int MmsgLoop::SendOne(const Socket& socket, const TxTrain& part, TrainReplay::Packet packet) {
  sockaddr_storage to;
  ControlBuffer control;
  iovec vector{const_cast<std::byte*>(packet.data), packet.size};
  msghdr header{};
  header.msg_name = &to;
  header.msg_namelen = part.to.ToSockaddr(&to);
  header.msg_iov = &vector;
  header.msg_iovlen = 1;
  header.msg_controllen = BuildSendControl({}, part.from, socket.udp.local.IsV4(), &control);
  header.msg_control = header.msg_controllen > 0 ? &control : nullptr;
  for (;;) {
    if (sendmsg(socket.udp.fd.get(), &header, MSG_DONTWAIT) >= 0) return 0;
    if (errno != EINTR) return errno;
  }
}

}  // namespace

absl::StatusOr<std::unique_ptr<Loop>> MakeMmsgLoop(const LoopOptions& options) {
  auto loop = std::make_unique<MmsgLoop>(options);
  if (absl::Status status = loop->Init(); !status.ok()) return status;
  return std::unique_ptr<Loop>(std::move(loop));
}

}  // namespace ringsock::io
