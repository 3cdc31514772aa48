// io_uring behind the Loop interface.
//
// Completions come in one queue, whatever they belong to. Reap() sorts them: a filled buffer goes
// to its socket, the end of a send to the sender. So Flush() may be called while received trains
// wait, and handlers are called from Deliver() alone.
//
#include "io/uring_loop.h"

#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/cache_line.h"
#include "base/log.h"
#include "io/buffer_ring.h"
#include "io/control_message.h"
#include "io/pinned_memory.h"
#include "io/receive_window.h"
#include "io/received_name.h"
#include "io/udp_reopen.h"
#include "io/udp_socket.h"
#include "io/uring.h"
#include "io/uring_receiver.h"
#include "io/uring_sender.h"
#include "io/uring_socket.h"
#include "io/uring_streams.h"
#include "io/waker.h"

namespace ringsock::io {
namespace {

constexpr uint16_t kBufferGroup = 0;
// Sleeping longer than this is sleeping for ever; it keeps seconds in range.
constexpr Duration kLongestSleep = std::chrono::hours(24);
// A cancelled receive ends at once. More means that the kernel lost it: give up, say so.
constexpr int kCancelTurns = 50;
constexpr Duration kCancelTurn = std::chrono::milliseconds(100);

class UringLoop final : public Loop {
 public:
  explicit UringLoop(const LoopOptions& options)
      : options_(options),
        rx_batch_(std::clamp(options.rx_batch, 1u, std::max(1u, options.rx_buffers))),
        memory_(UringSender::MemoryNeeded(options), options.zero_copy),
        window_(std::max(1u, options.rx_buffers)),
        sender_(options, &ring_, &memory_, [this] { Reap(); }),
        receiver_(&ring_, &buffers_, [this](SocketId id) { return Find(id); }),
        streams_(options, &ring_) {
    batch_.reserve(rx_batch_);
    held_.reserve(rx_batch_);
  }
  ~UringLoop() override;
  absl::Status Init();

  const char* name() const override { return "io_uring"; }
  const Clock& clock() const override { return SystemClock(); }

  absl::StatusOr<SocketId> OpenUdp(const UdpConfig& config, UdpHandler* handler) override;
  void CloseUdp(SocketId id) override;
  absl::StatusOr<Reopened> ReopenUdp(SocketId id, uint16_t port) override;
  Endpoint LocalEndpoint(SocketId id) const override {
    const UringSocket* socket = Find(id);
    return socket == nullptr ? Endpoint{} : socket->udp.local;
  }
  UdpStats Stats(SocketId id) const override;

  void Send(SocketId id, const TxTrain& train) override;
  void Flush() override;
  TxSlab* AcquireSlab() override { return sender_.AcquireSlab(); }
  void ReleaseSlab(TxSlab* slab) override { sender_.ReleaseSlab(slab); }

  StreamLoop* streams() override { return &streams_; }
  size_t Poll(Instant deadline) override;
  void Wake() override { waker_.Wake(); }

 private:
  UringSocket* Find(SocketId id) const {
    UringSocket* socket = sockets_[id % kMaxSockets].get();
    return socket != nullptr && socket->id == id ? socket : nullptr;
  }

  void Start();
  void Arm();
  void ArmWaker();
  size_t TurnStreams();
  bool Wait(Instant deadline);
  bool Spin(Instant deadline);

  void Reap();
  void OnReceived(UringSocket* socket, const io_uring_cqe& cqe);
  void OnNotification(CompletionTag tag, int result);
  void MarkReady(UringSocket& socket);
  size_t Deliver();
  size_t DeliverBatch(UringSocket& socket);
  void AddTrain(UringSocket& socket, UringSocket::Filled filled);
  void CancelReceive(UringSocket& socket);
  void StopStreams();

  const LoopOptions options_;
  const uint32_t rx_batch_;
  Waker waker_;
  PinnedMemory memory_;  // outlives the ring, which may be writing to it
  BufferRing buffers_;   // likewise
  Uring ring_;
  ReceiveWindow window_;
  UringSender sender_;
  UringReceiver receiver_;
  RetiredSockets retired_{[this] { Flush(); }};
  UringStreams streams_;

  pid_t owner_ = 0;  // the thread that polls; none before its first call
  bool waker_armed_ = false;

  std::array<std::unique_ptr<UringSocket>, kMaxSockets> sockets_;
  std::array<uint32_t, kMaxSockets> generations_{};
  SocketQueue ready_;  // have filled buffers

  CacheLineVector<RxTrain> batch_;
  CacheLineVector<uint16_t> held_;  // buffers that the handler is being shown
};

absl::Status UringLoop::Init() {
  if (options_.tx_queue > 16384) {
    return absl::InvalidArgumentError(
        absl::StrCat("tx_queue: ", options_.tx_queue, " is more than 16384"));
  }
  if (auto status = waker_.Open(); !status.ok()) return status;
  // A full queue, one replay, and what arms and cancels receives; NextSqe() submits if it is more.
  const uint32_t sends = std::max(1u, options_.tx_queue) + kMaxTrainPackets;
  const uint32_t completions =
      2 * (sends + options_.tx_slabs + options_.rx_buffers + kMaxSockets + options_.stream_buffers);
  receiver_.MayNotWait(ProbeReceiveWithoutWaiting());
  if (auto status = ring_.Open(sends, completions); !status.ok()) return status;
  buffers_.SetWindow(window_.size());
  return buffers_.Open(ring_.get(), kBufferGroup, options_.rx_buffers, kRxBufferSize,
                       sender_.buffers());
}

UringLoop::~UringLoop() {
  // Numbers of threads are used again, though not soon; the kernel knows better.
  if (owner_ != 0 && (owner_ != gettid() || !ring_.MayEnter())) {
    // Only the owner may cancel. Closing the ring does it too, in the background.
    ring_.Close();
    return;
  }
  for (const auto& socket : sockets_) {
    if (socket != nullptr) CloseUdp(socket->id);
  }
  StopStreams();
}

// What the kernel still reads or writes must stay until it is done.
void UringLoop::StopStreams() {
  for (int turn = 0; !streams_.Stop() && turn < kCancelTurns; ++turn) {
    Start();
    ring_.SubmitAndWait(turn == 0 ? Duration::zero() : kCancelTurn);
    Reap();
  }
}

// ---- Sockets ----

absl::StatusOr<SocketId> UringLoop::OpenUdp(const UdpConfig& config, UdpHandler* handler) {
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
      std::make_unique<UringSocket>(id, std::move(opened).value(), handler, buffers_.count());
  receiver_.Add(id);
  return id;
}

void UringLoop::CloseUdp(SocketId id) {
  UringSocket* socket = Find(id);
  if (socket == nullptr) return;
  Flush();
  retired_.Close(id);
  socket->closing = true;
  if (socket->armed) CancelReceive(*socket);
  while (socket->HasFilled()) buffers_.Return(socket->PopFilled().buffer);
  buffers_.Publish();
  ready_.Remove(id);
  receiver_.Remove(id);
  sockets_[id % kMaxSockets].reset();
}

// A socket that is closed while a receive is armed stays bound until the kernel has cleaned up in
// the background, 34 to 59 ms later.
void UringLoop::CancelReceive(UringSocket& socket) {
  const CompletionTag receive{CompletionTag::kReceive, 0, socket.id};
  io_uring_prep_cancel64(ring_.NextSqe({CompletionTag::kCancel, 0, 0}), receive.Pack(), 0);
  ring_.SubmitAndRun();
  Reap();
  for (int turn = 0; socket.armed && turn < kCancelTurns; ++turn) {
    ring_.SubmitAndWait(kCancelTurn);
    Reap();
  }
  if (socket.armed) Log().error("io_uring: {} still receives", socket.udp.local.ToString());
}

absl::StatusOr<Reopened> UringLoop::ReopenUdp(SocketId id, uint16_t port) {
  UringSocket* socket = Find(id);
  if (socket == nullptr) return absl::NotFoundError("no such socket");
  Flush();  // what is queued knows the old descriptor
  retired_.MakeRoom(id, socket->udp.config.reuse_port);
  auto made = ReplaceUdp(socket->udp, port, options_.gso, options_.gro);
  if (!made.ok()) return made.status();
  Reopened result{.local = made->fresh.local, .exact = made->exact};
  if (socket->armed) CancelReceive(*socket);
  UdpSocket old = std::exchange(socket->udp, std::move(made->fresh));
  socket->drops.Replace(old.fd.get());
  socket->segment = {};
  while (socket->HasFilled()) DeliverBatch(*socket);
  result.lost = retired_.Retire(std::move(old), made->keep, id, &socket->stats, socket->handler,
                                clock().Now());
  socket->errors.Received();
  socket->ready = false;
  ready_.Remove(id);
  receiver_.Remove(id);
  // One that did not end is armed again, on the new socket, when it does.
  if (!socket->armed) receiver_.Add(id);
  return result;
}

UdpStats UringLoop::Stats(SocketId id) const {
  const UringSocket* socket = Find(id);
  return socket == nullptr ? UdpStats{} : socket->Stats();
}

// ---- Sending ----

void UringLoop::Send(SocketId id, const TxTrain& train) {
  UringSocket* socket = Find(id);
  if (socket == nullptr) {
    if (train.slab != nullptr) ReleaseSlab(train.slab);
    return;
  }
  Start();
  sender_.Queue(*socket, train);
}

void UringLoop::Flush() { sender_.Flush(); }

// ---- Waiting ----

void UringLoop::Start() {
  if (owner_ != 0) return;
  owner_ = gettid();
  ring_.Enable();
  sender_.Start(clock().Now());
}

size_t UringLoop::Poll(Instant deadline) {
  Start();
  const bool woken = waker_.TakePending();
  const Instant now = clock().Now();
  sender_.SetNow(now);
  Flush();
  size_t trains = TurnStreams();
  Arm();
  if (ring_.queued() > 0 || ring_.HasWork()) {
    ring_.SubmitAndRun();
    Reap();
  }
  trains += Deliver();
  if (woken || trains > 0 || now >= deadline) return trains;
  do {
    Arm();
    if (trains = TurnStreams(); trains > 0) return trains;
    if (Wait(std::min(deadline, receiver_.next_resume()))) return Deliver();
    trains = Deliver();
    // Work that delivers nothing keeps Wait() from sleeping, which is where it looks for wake-ups.
  } while (trains == 0 && !waker_.TakePending() && clock().Now() < deadline);
  return trains;
}

// Timers of streams, what has to be told to their handlers, their queues; sockets of old.
size_t UringLoop::TurnStreams() {
  const size_t calls = streams_.Turn() + retired_.Look(clock());
  streams_.Arm();
  // What their handlers sent on datagram sockets.
  if (calls > 0) Flush();
  return calls;
}

// Waits for completions and takes them. True: woken.
bool UringLoop::Wait(Instant deadline) {
  if (options_.spin > Duration::zero() && Spin(deadline)) return true;
  // Reaping while sending may have left events of streams.
  if (ring_.HasWork() || streams_.HasWork() || streams_.HasEvents()) {
    ring_.SubmitAndRun();
    Reap();
    return false;
  }
  const Instant now = clock().Now();
  deadline = std::min({deadline, streams_.NextTimer(), retired_.NextLook()});
  if (now >= deadline) return false;
  if (!waker_.PrepareSleep()) return true;
  ring_.SubmitAndWait(
      std::min(kLongestSleep, deadline == Instant::max() ? kLongestSleep : deadline - now));
  // The eventfd is polled edge by edge and never read.
  const bool woken = waker_.FinishSleep(/*drained=*/true);
  Reap();
  return woken;
}

// Looks at shared memory only: the kernel sets a flag when there is work for us. True: woken.
bool UringLoop::Spin(Instant deadline) {
  if (ring_.queued() > 0) ring_.Submit();
  const Instant start = clock().Now();
  const Instant end = deadline - start < options_.spin ? deadline : start + options_.spin;
  do {
    if (waker_.TakePending()) return true;
  } while (!ring_.HasWork() && clock().Now() < end);
  return false;
}

void UringLoop::ArmWaker() {
  io_uring_sqe* sqe = ring_.NextSqe({CompletionTag::kWaker, 0, 0});
  io_uring_prep_poll_multishot(sqe, waker_.fd(), POLLIN);
  waker_armed_ = true;
}

void UringLoop::Arm() {
  if (!waker_armed_) ArmWaker();
  receiver_.Arm(clock());
}

// ---- Completions ----

void UringLoop::Reap() {
  ring_.Drain([this](CompletionTag tag, const io_uring_cqe& cqe) {
    switch (tag.kind()) {
      case CompletionTag::kReceive:
        return OnReceived(Find(tag.id()), cqe);
      case CompletionTag::kZeroCopy:
        if ((cqe.flags & IORING_CQE_F_NOTIF) != 0) return OnNotification(tag, cqe.res);
        [[fallthrough]];
      case CompletionTag::kSend:
        return sender_.OnSent(tag, cqe.res, (cqe.flags & IORING_CQE_F_MORE) != 0);
      case CompletionTag::kWaker:
        if ((cqe.flags & IORING_CQE_F_MORE) == 0) waker_armed_ = false;
        return;
      case CompletionTag::kCancel:
      case CompletionTag::kIgnored:
        return;
      default:
        return streams_.OnCompletion(tag, cqe);
    }
  });
}

void UringLoop::OnReceived(UringSocket* socket, const io_uring_cqe& cqe) {
  if (receiver_.OnCompletion(socket, cqe, clock())) MarkReady(*socket);
}

void UringLoop::OnNotification(CompletionTag tag, int result) {
  const auto done = sender_.OnNotification(tag, result);
  if (done.buffer.has_value()) buffers_.Return(*done.buffer);
  buffers_.Publish();
  UringSocket* socket = done.failed ? nullptr : Find(done.socket);
  if (socket != nullptr) socket->CountZeroCopy(done.copied);
}

// ---- Receiving ----

void UringLoop::MarkReady(UringSocket& socket) {
  if (socket.ready) return;
  socket.ready = true;
  ready_.Push(socket.id);
}

// Gives every socket that has something its turn, a batch at a time.
size_t UringLoop::Deliver() {
  size_t trains = 0;
  while (!ready_.empty()) {
    UringSocket& socket = *Find(ready_.Pop());
    socket.ready = false;
    trains += DeliverBatch(socket);
    if (socket.HasFilled()) MarkReady(socket);
  }
  if (const size_t events = streams_.Deliver(); events > 0) {
    trains += events;
    Flush();
  }
  return trains;
}

size_t UringLoop::DeliverBatch(UringSocket& socket) {
  batch_.clear();
  held_.clear();
  // The kernel wrote them, and much else since the first one.
  for (uint32_t i = std::min(socket.filled_count(), rx_batch_); i-- > 0;) {
    const std::byte* data = buffers_.Buffer(socket.PeekFilled(i).buffer, 0).data();
    __builtin_prefetch(data);
    __builtin_prefetch(data + kHeaderRoom);
  }
  while (socket.HasFilled() && held_.size() < rx_batch_) AddTrain(socket, socket.PopFilled());
  if (!batch_.empty()) socket.handler->OnReceive(socket.id, batch_);
  // The handler may have sent the very bytes it was shown; they must leave before new ones come.
  Flush();
  for (const uint16_t buffer : held_)
    if (sender_.GiveBackBuffer(buffer)) buffers_.Return(buffer);
  buffers_.SetWindow(window_.EndBatch());
  buffers_.Publish();
  return batch_.size();
}

void UringLoop::AddTrain(UringSocket& socket, UringSocket::Filled filled) {
  held_.push_back(filled.buffer);
  ReceivedMessage message;
  if (!ParseReceivedMessage(buffers_.Buffer(filled.buffer, filled.size), &message) ||
      message.truncated) {
    ++socket.stats.rx_truncated;
    return;
  }
  const ReceiveControl control = ParseReceiveControl(message.control);
  const auto size = static_cast<uint32_t>(message.payload.size());
  RxTrain& train = batch_.emplace_back();
  train.data = message.payload.data();
  train.size = size;
  train.segment_size = control.segment_size == 0 ? size : std::min(control.segment_size, size);
  ReadReceivedName(message.name, &train.from);
  train.to = control.to;
  socket.CountReceived(train);
  window_.Add(size);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Loop>> MakeUringLoop(const LoopOptions& options) {
  if (absl::Status status = ProbeUring(); !status.ok()) return status;
  auto loop = std::make_unique<UringLoop>(options);
  if (absl::Status status = loop->Init(); !status.ok()) return status;
  return std::unique_ptr<Loop>(std::move(loop));
}

}  // namespace ringsock::io
