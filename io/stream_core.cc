#include "io/stream_core.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"

namespace ringsock::io {

absl::Status StreamError(const Endpoint& remote, const char* what, int error) {
  using Code = absl::StatusCode;
  const auto make = [&](Code code, const char* why) {
    return absl::Status(code, absl::StrCat("TCP ", remote.ToString(), ": ", what, ": ",
                                           strerror(error), ": ", why));
  };
  switch (error) {
    case ECONNREFUSED:
      return make(Code::kUnavailable, "nothing listens there, or a firewall rejects it");
    case ECONNRESET:
    case EPIPE:
      return make(Code::kUnavailable, "the other side, or a box on the way, closed the connection");
    case ETIMEDOUT:
      return make(Code::kDeadlineExceeded, "no answer in time");
    case ENETUNREACH:
    case EHOSTUNREACH:
    case EADDRNOTAVAIL:
    case EAFNOSUPPORT:
      return make(Code::kUnavailable, "no route there from this host: see ip route get");
    case ENETDOWN:
    case EHOSTDOWN:
      return make(Code::kUnavailable, "the network is down");
    case EACCES:
    case EPERM:
      return make(Code::kPermissionDenied, "a rule of this host's firewall or policy forbids it");
    case ENOBUFS:
    case ENOMEM:
      return make(Code::kResourceExhausted, "the kernel is out of socket memory");
    default:
      return make(Code::kInternal, "unexpected");
  }
}

StreamCore::StreamCore(const Clock* clock, uint32_t max_streams, size_t most_writes)
    : clock_(*clock),
      max_streams_(std::min<uint32_t>(max_streams, kMaxSlots)),
      most_writes_(most_writes) {}

// ---- Slots ----

Stream* StreamCore::Find(StreamId id) const {
  if (id == kNoStream || Slot(id) >= slots_.size()) return nullptr;
  Stream* stream = slots_[Slot(id)].stream.get();
  return stream != nullptr && stream->id == id && stream->live() ? stream : nullptr;
}

Stream* StreamCore::Insert(std::unique_ptr<Stream> stream) {
  uint32_t slot = 0;
  if (!free_slots_.empty()) {
    slot = free_slots_.back();
    free_slots_.pop_back();
  } else {
    slot = static_cast<uint32_t>(slots_.size());
    slots_.emplace_back();
  }
  stream->id = slots_[slot].serial++ << kSlotBits | slot;
  slots_[slot].stream = std::move(stream);
  ++totals_.open;
  return slots_[slot].stream.get();
}

absl::Status StreamCore::NoSlot() const {
  return absl::ResourceExhaustedError(
      absl::StrCat("a loop holds at most ", max_streams_, " streams: raise max_streams"));
}

void StreamCore::Collect() {
  for (const uint32_t slot : freed_) {
    slots_[slot].stream->queue.Clear(&pool_);
    slots_[slot].stream.reset();
    free_slots_.push_back(slot);
    --totals_.open;
  }
  freed_.clear();
}

void StreamCore::Kill(Stream& stream, bool reset) {
  if (Stream* listener = Find(stream.listener); listener != nullptr) --listener->accepted;
  if (!stream.queue.empty() && stream.state == Stream::State::kLingering) ++totals_.cut_short;
  stream.state = Stream::State::kDead;
  stream.handler = nullptr;
  Release(stream, reset);
}

void StreamCore::KillAll() {
  for (const SlotState& slot : slots_) {
    if (slot.stream != nullptr && slot.stream->live()) Kill(*slot.stream, /*reset=*/true);
  }
}

// ---- Commands ----

absl::StatusOr<StreamId> StreamCore::Connect(const ConnectConfig& config, StreamHandler* handler) {
  if (!HasSlot()) return NoSlot();
  auto opened = OpenConnector(config);
  if (!opened.ok()) return opened.status();
  Stream* stream = Insert(std::move(opened).value());
  stream->state = Stream::State::kConnecting;
  stream->handler = handler;
  stream->remote = config.to;
  stream->options = config.options;
  if (config.deadline != Instant::max()) SetTimer(*stream, config.deadline);
  StartConnect(*stream);
  return stream->id;
}

absl::StatusOr<StreamId> StreamCore::Listen(const ListenConfig& config, ListenHandler* handler) {
  if (!HasSlot()) return NoSlot();
  auto opened = OpenListener(config);
  if (!opened.ok()) return opened.status();
  Stream* listener = Insert(std::move(opened).value());
  listener->state = Stream::State::kListening;
  listener->listen_handler = handler;
  listener->max_accepted = config.max_streams;
  listener->options = config.options;
  StartAccepting(*listener);
  return listener->id;
}

// How much of `size` bytes there is room for. If that is not all, the handler hears of more.
size_t StreamCore::TakeRoom(Stream& stream, size_t size) {
  if (!stream.stream() || stream.finish || stream.error != 0) return 0;
  const size_t room = std::min(size, Room(stream));
  if (room < size) {
    stream.want_writable = true;
    stream.stats.tx_refused += size - room;
  }
  return room;
}

size_t StreamCore::Send(StreamId id, std::span<const std::byte> bytes) {
  Stream* stream = Find(id);
  const size_t size = stream == nullptr ? 0 : TakeRoom(*stream, bytes.size());
  if (size == 0) return 0;
  stream->queue.Append(bytes.first(size), &pool_);
  if (stream->state == Stream::State::kOpen) MarkDirty(*stream);
  return size;
}

std::span<std::byte> StreamCore::SendSpace(StreamId id, size_t wanted) {
  Stream* stream = Find(id);
  if (stream == nullptr) return {};
  const size_t size = TakeRoom(*stream, std::min(wanted, kMaxSendSpace));
  if (size == 0) return {};
  MarkDirty(*stream);  // the flush ends the reservation
  return stream->queue.Reserve(size, &pool_);
}

void StreamCore::CommitSend(StreamId id, size_t bytes) {
  if (Stream* stream = Find(id); stream != nullptr) stream->queue.Commit(bytes, &pool_);
}

size_t StreamCore::SendRoom(StreamId id) const {
  const Stream* stream = Find(id);
  // As Send(): a stream that broke takes nothing, also before its handler has been told.
  if (stream == nullptr || !stream->stream() || stream->finish || stream->error != 0) return 0;
  return Room(*stream);
}

void StreamCore::NotifyWritable(StreamId id) {
  Stream* stream = Find(id);
  if (stream == nullptr || !stream->stream() || stream->finish) return;
  stream->want_writable = true;
  if (stream->queue.size() <= stream->options.send_queue / 2) Notice(*stream);
}

uint64_t StreamCore::AckedBytes(StreamId id) const {
  const Stream* stream = Find(id);
  return stream == nullptr || !stream->stream() ? 0 : Acked(*stream);
}

void StreamCore::SetReceiving(StreamId id, bool on) {
  Stream* stream = Find(id);
  if (stream == nullptr || !stream->stream() || stream->receiving == on) return;
  if (stream->state == Stream::State::kLingering) return;
  stream->receiving = on;
  if (stream->state == Stream::State::kConnecting) return;
  // What was put aside comes first, and not from inside this call.
  if (on) Notice(*stream);
  UpdateReceiving(*stream);
}

void StreamCore::Shutdown(StreamId id) {
  Stream* stream = Find(id);
  if (stream == nullptr || !stream->stream() || stream->finish) return;
  stream->queue.EndReservation(&pool_);
  stream->finish = true;
  stream->want_writable = false;
  if (stream->state == Stream::State::kOpen) MarkDirty(*stream);
}

void StreamCore::Close(StreamId id) {
  Stream* stream = Find(id);
  if (stream == nullptr || stream->state == Stream::State::kLingering) return;
  if (stream->state != Stream::State::kOpen || stream->error != 0) return Kill(*stream, false);
  if (stream->options.linger <= Duration::zero()) return Kill(*stream, false);
  stream->state = Stream::State::kLingering;
  stream->handler = nullptr;
  stream->queue.EndReservation(&pool_);
  stream->finish = true;
  stream->want_writable = false;
  stream->stash = {};
  SetTimer(*stream, clock_.Now() + stream->options.linger);
  stream->receiving = true;  // for the end; bytes are thrown away
  UpdateReceiving(*stream);
  MarkDirty(*stream);
}

void StreamCore::Abort(StreamId id) {
  Stream* stream = Find(id);
  if (stream != nullptr) Kill(*stream, stream->state != Stream::State::kListening);
}

bool StreamCore::IsOpen(StreamId id) const {
  const Stream* stream = Find(id);
  return stream != nullptr && stream->state != Stream::State::kLingering;
}

Endpoint StreamCore::LocalEndpoint(StreamId id) const {
  const Stream* stream = Find(id);
  return stream == nullptr ? Endpoint{} : stream->local;
}

Endpoint StreamCore::RemoteEndpoint(StreamId id) const {
  const Stream* stream = Find(id);
  return stream == nullptr ? Endpoint{} : stream->remote;
}

StreamStats StreamCore::Stats(StreamId id) const {
  const Stream* stream = Find(id);
  if (stream == nullptr) return {};
  StreamStats stats = stream->stats;
  stats.tx_queued = stream->queue.size();
  return stats;
}

// ---- Reports of the backend ----

void StreamCore::Connected(Stream& stream) {
  if (stream.state != Stream::State::kConnecting || stream.error != 0) return;
  stream.state = Stream::State::kOpen;
  stream.timer = Instant::max();
  ++totals_.connects;
  if (!stream.queue.empty() || stream.finish) MarkDirty(stream);
  // Also if it was told not to receive meanwhile: a reset is told all the same.
  UpdateReceiving(stream);
  stream.handler->OnConnect(stream.id);
}

void StreamCore::Accepted(Stream& listener, std::unique_ptr<Stream> accepted) {
  if (!listener.live()) return Refuse(*accepted);
  if (listener.accepted >= listener.max_accepted || !HasSlot()) {
    ++totals_.accepts_refused;
    return Refuse(*accepted);
  }
  Stream* stream = Insert(std::move(accepted));
  ++totals_.accepts;
  ++listener.accepted;
  stream->listener = listener.id;
  stream->options = listener.options;
  const StreamId id = stream->id;
  StreamHandler* handler = listener.listen_handler->OnAccept(listener.id, id, stream->remote);
  if (!stream->live()) return;  // aborted by the handler
  if (handler == nullptr) return Kill(*stream, true);
  if (stream->state == Stream::State::kOpen) stream->handler = handler;
  if (stream->receiving) UpdateReceiving(*stream);
}

void StreamCore::Received(Stream& stream, std::span<std::byte> bytes) {
  // One that broke gives what came before that, until its handler is told.
  if (!stream.stream() || stream.state == Stream::State::kConnecting) return;
  stream.stats.rx_bytes += bytes.size();
  if (stream.state == Stream::State::kLingering) return;
  if (!stream.receiving || !stream.stash.empty()) {
    stream.stash.insert(stream.stash.end(), bytes.begin(), bytes.end());
    return;
  }
  ++stream.stats.rx_pieces;
  stream.handler->OnReceive(stream.id, bytes);
}

void StreamCore::PeerEnded(Stream& stream) {
  if (!stream.stream() || stream.peer_ended) return;
  stream.peer_ended = true;
  if (stream.state == Stream::State::kLingering) return MarkDirty(stream);
  if (stream.error != 0 || !stream.receiving || !stream.stash.empty()) return;  // told by Tell()
  stream.end_told = true;
  stream.handler->OnEnd(stream.id);
}

void StreamCore::Wrote(Stream& stream, size_t bytes) {
  stream.writing = false;
  stream.queue.Consume(bytes, &pool_);
  stream.stats.tx_bytes += bytes;
  ++stream.stats.tx_requests;
  if (!stream.live()) return;
  if (!stream.queue.empty() || stream.finish) MarkDirty(stream);
  if (stream.want_writable && stream.queue.size() <= stream.options.send_queue / 2) Notice(stream);
}

void StreamCore::FailLater(Stream& stream, const char* what, int error) {
  stream.writing = false;
  if (!stream.live() || stream.error != 0) return;
  stream.error = error;
  stream.failed = what;
  Notice(stream);
}

// ---- The turn ----

void StreamCore::Notice(Stream& stream) {
  if (std::exchange(stream.noticed, true)) return;
  notices_.push_back(stream.id);
}

void StreamCore::MarkDirty(Stream& stream) {
  if (std::exchange(stream.dirty, true)) return;
  dirty_.push_back(stream.id);
}

void StreamCore::SetTimer(Stream& stream, Instant when) {
  stream.timer = when;
  timers_.push({when, stream.id});
  WakeAt(when);
}

Instant StreamCore::NextTimer() {
  while (!timers_.empty()) {
    const Stream* stream = Find(timers_.top().second);
    if (stream != nullptr && stream->timer == timers_.top().first) return stream->timer;
    timers_.pop();  // gone, or set anew
  }
  return Instant::max();
}

size_t StreamCore::Turn() {
  Collect();
  size_t calls = timers_.empty() ? 0 : RunTimers();
  // What these callbacks cause is told in the next turn, so that a turn always ends.
  telling_.swap(notices_);
  for (const StreamId id : telling_) {
    if (Stream* stream = Find(id); stream != nullptr) calls += Tell(*stream);
  }
  telling_.clear();
  MoveFront(dirty_, flushing_, most_writes_);
  for (const StreamId id : flushing_) {
    if (Stream* stream = Find(id); stream != nullptr) FlushOne(*stream);
  }
  flushing_.clear();
  return calls;
}

size_t StreamCore::RunTimers() {
  size_t calls = 0;
  const Instant now = clock_.Now();
  while (NextTimer() <= now) {
    Stream& stream = *Find(timers_.top().second);
    timers_.pop();
    stream.timer = Instant::max();
    if (stream.state == Stream::State::kConnecting) {
      FailLater(stream, "connect", ETIMEDOUT);
    } else if (stream.state == Stream::State::kLingering) {
      Kill(stream, /*reset=*/!stream.finished);
    } else {
      OnTimer(stream);
    }
    ++calls;
  }
  return calls;
}

size_t StreamCore::Tell(Stream& stream) {
  stream.noticed = false;
  size_t calls = 0;
  if (stream.state == Stream::State::kOpen && stream.receiving && !stream.stash.empty()) {
    std::vector<std::byte> bytes = std::exchange(stream.stash, {});
    ++stream.stats.rx_pieces;
    ++calls;
    stream.handler->OnReceive(stream.id, bytes);
  }
  if (stream.live() && stream.error != 0) {
    Break(stream);
    return calls + 1;
  }
  if (stream.state != Stream::State::kOpen) return calls;
  if (stream.receiving && stream.peer_ended && !stream.end_told) {
    stream.end_told = true;
    ++calls;
    stream.handler->OnEnd(stream.id);
  }
  if (stream.state != Stream::State::kOpen || !stream.want_writable) return calls;
  if (stream.queue.size() > stream.options.send_queue / 2) return calls;
  stream.want_writable = false;
  stream.handler->OnWritable(stream.id);
  return calls + 1;
}

void StreamCore::Break(Stream& stream) {
  StreamHandler* handler = stream.handler;
  const absl::Status why = StreamError(stream.remote, stream.failed, stream.error);
  if (stream.state == Stream::State::kConnecting) {
    ++totals_.connect_failures;
  } else if (stream.state == Stream::State::kOpen) {
    ++totals_.broken;
  }
  const StreamId id = stream.id;
  Kill(stream, /*reset=*/true);
  if (handler != nullptr) handler->OnClose(id, why);
}

void StreamCore::FlushOne(Stream& stream) {
  stream.dirty = false;
  stream.queue.EndReservation(&pool_);
  if (stream.state == Stream::State::kConnecting || stream.error != 0) return;
  if (!stream.writing && !stream.queue.empty()) Write(stream);
  if (!stream.live() || !stream.finish || !stream.queue.empty() || stream.error != 0) return;
  if (!std::exchange(stream.finished, true)) SendFin(stream);
  if (stream.state == Stream::State::kLingering && stream.peer_ended) Kill(stream, false);
}

}  // namespace ringsock::io
