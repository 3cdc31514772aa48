#include "io/sim_streams.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "io/sim_network.h"

namespace ringsock::io {
namespace {

// The longest piece of a stream that is received as one, like a buffer of the real loops: whoever
// stops receiving within one call gets no more.
constexpr size_t kPiece = 16 << 10;

constexpr size_t kKernelBuffer = 256 << 10;
constexpr size_t kSegment = 1400;
constexpr Duration kFirstRetransmit = std::chrono::milliseconds(200);
constexpr Duration kLastRetransmit = std::chrono::seconds(10);
// What Linux comes to with its defaults, roughly.
constexpr Duration kConnectLimit = std::chrono::seconds(130);
constexpr Duration kSendLimit = std::chrono::minutes(15);

bool Unconnectable(const IpAddress& ip) {
  if (!ip.IsV4()) return ip.bytes[0] == 0xff;
  return ip.V4HostOrder() >= 0xe0000000u;
}

}  // namespace

SimStreams::SimStreams(SimNetwork* network, HostId host, const LoopOptions& options)
    : StreamCore(&network->clock(), options.max_streams), network_(network), host_(host) {
  network_->AttachStreams(host_, this);
}

SimStreams::~SimStreams() {
  network_->DetachStreams(host_, this);
  DropAll();  // while the members that streams take themselves out of are still there
}

// ---- Opening ----

uint16_t SimStreams::ChoosePort() {
  const uint16_t port = next_port_;
  next_port_ = next_port_ == 60999 ? 32768 : next_port_ + 1;
  return port;
}

absl::StatusOr<std::unique_ptr<Stream>> SimStreams::OpenConnector(const ConnectConfig& config) {
  const bool bound = !config.bind.IsNone();
  if (config.to.port == 0 || config.to.ip.IsUnspecified() ||
      (bound && config.bind.IsV4() != config.to.IsV4())) {
    return absl::InvalidArgumentError(
        absl::StrCat("TCP ", config.to.ToString(), ": nothing can be connected to there"));
  }
  auto stream = std::make_unique<SimStream>(this);
  stream->local = config.bind;
  if (!bound || config.bind.ip.IsUnspecified()) {
    stream->local.ip = network_->StreamSource(host_, config.to.ip);
  } else if (!network_->HasAddress(host_, config.bind.ip)) {
    return absl::FailedPreconditionError(
        absl::StrCat("TCP ", config.bind.ToString(), ": bind: the address is not on this host"));
  }
  while (stream->local.port == 0) {
    stream->local.port = ChoosePort();
    if (connections_.contains(KeyOf(stream->local, config.to))) stream->local.port = 0;
  }
  return std::unique_ptr<Stream>(std::move(stream));
}

absl::StatusOr<std::unique_ptr<Stream>> SimStreams::OpenListener(const ListenConfig& config) {
  if (!config.bind.ip.IsUnspecified() && !network_->HasAddress(host_, config.bind.ip)) {
    return absl::FailedPreconditionError(
        absl::StrCat("TCP ", config.bind.ToString(), ": bind: the address is not on this host"));
  }
  auto stream = std::make_unique<SimStream>(this);
  stream->local = config.bind;
  stream->reuse_port = config.reuse_port;
  while (stream->local.port == 0) {
    stream->local.port = ChoosePort();
    if (network_->StreamPortTaken(host_, stream->local)) stream->local.port = 0;
  }
  if (!config.reuse_port && network_->StreamPortTaken(host_, stream->local)) {
    return absl::AlreadyExistsError(
        absl::StrCat("TCP ", config.bind.ToString(), ": bind: another socket holds this port"));
  }
  return std::unique_ptr<Stream>(std::move(stream));
}

size_t SimStreams::SimStream::room() const {
  const size_t free = kKernelBuffer - std::min(kKernelBuffer, out.size());
  if (options.not_sent_low_water == 0) return free;
  const uint64_t unsent = end() - std::min(next, end());
  return std::min<uint64_t>(
      free, options.not_sent_low_water - std::min<uint64_t>(unsent, options.not_sent_low_water));
}

void SimStreams::StartConnect(Stream& stream) {
  SimStream& s = Get(stream);
  if (Unconnectable(stream.remote.ip) || stream.local.ip.IsUnspecified()) {
    return FailLater(stream, "connect", ENETUNREACH);
  }
  Register(s);
  s.interval = 5 * kFirstRetransmit;
  s.waiting_since = clock_.Now();
  Transmit(s, SimSegment::kSyn);
  SetRetransmit(s, clock_.Now() + s.interval);
}

void SimStreams::StartAccepting(Stream& listener) { listeners_.push_back(&Get(listener)); }

void SimStreams::Register(SimStream& stream) {
  connections_[KeyOf(stream.local, stream.remote)] = &stream;
  stream.registered = true;
}

void SimStreams::Forget(SimStream& stream) {
  if (std::exchange(stream.registered, false)) {
    connections_.erase(KeyOf(stream.local, stream.remote));
  }
  std::erase(listeners_, &stream);
  if (std::exchange(stream.ready, false)) std::replace(ready_.begin(), ready_.end(), &stream, {});
  SetRetransmit(stream, Instant::max());
}

// ---- Segments out ----

void SimStreams::Transmit(const SimStream& stream, uint8_t flags, uint64_t from, uint64_t size) {
  Datagram datagram;
  datagram.from = stream.local;
  datagram.to = stream.remote;
  datagram.origin = host_;
  const uint64_t room = kKernelBuffer - std::min(kKernelBuffer, stream.in.size());
  datagram.segment = SimSegment{flags, from, stream.received + (stream.fin_received ? 1u : 0u),
                                stream.received + room};
  if (size > 0) {
    const auto bytes = stream.out.At(from - stream.acked, size);
    datagram.payload.assign(bytes.begin(), bytes.end());
  }
  network_->SendSegment(std::move(datagram));
}

// Sends what the other side has room for.
void SimStreams::Push(SimStream& stream) {
  if (!stream.established) return;
  while (stream.next < std::min(stream.end(), stream.window)) {
    const uint64_t size =
        std::min<uint64_t>(kSegment, std::min(stream.end(), stream.window) - stream.next);
    Transmit(stream, SimSegment::kAck, stream.next, size);
    stream.next += size;
  }
  if (stream.fin && stream.next == stream.end()) {
    Transmit(stream, SimSegment::kAck | SimSegment::kFin, stream.end());
    ++stream.next;
  }
  if (stream.all_acked()) {
    stream.waiting_since = Instant::max();
    SetRetransmit(stream, Instant::max());
  } else if (stream.retransmit == Instant::max()) {
    stream.interval = kFirstRetransmit;
    stream.waiting_since = clock_.Now();
    SetRetransmit(stream, clock_.Now() + stream.interval);
  }
}

void SimStreams::SetRetransmit(SimStream& stream, Instant when) {
  if (stream.retransmit != Instant::max()) retransmits_.erase({stream.retransmit, &stream});
  stream.retransmit = when;
  if (when == Instant::max()) return;
  retransmits_.insert({when, &stream});
  WakeAt(when);
}

void SimStreams::OnRetransmit(SimStream& stream) {
  const Instant now = clock_.Now();
  const Duration own = stream.options.user_timeout;
  const Duration limit = !stream.established      ? kConnectLimit
                         : own > Duration::zero() ? own
                                                  : kSendLimit;
  if (now - stream.waiting_since >= limit) {
    SetRetransmit(stream, Instant::max());
    if (stream.orphan) return FinishOrphan(stream);
    return FailLater(stream, stream.established ? "send" : "connect", ETIMEDOUT);
  }
  stream.interval = std::min(2 * stream.interval, kLastRetransmit);
  SetRetransmit(stream, now + stream.interval);
  if (!stream.established) return Transmit(stream, SimSegment::kSyn);
  stream.next = stream.acked;
  if (stream.window > stream.acked || stream.out.empty()) return Push(stream);
  // A closed window: one byte asks whether it still is.
  Transmit(stream, SimSegment::kAck, stream.acked, 1);
}

// ---- Segments in ----

const SimStreams::SimStream* SimStreams::FindListener(const Endpoint& to) const {
  for (const SimStream* listener : listeners_) {
    const Endpoint& at = listener->local;
    const bool address = at.ip == to.ip || (at.ip.IsUnspecified() && at.IsV4() == to.IsV4());
    if (at.port == to.port && address) return listener;
  }
  return nullptr;
}

bool SimStreams::Listens(const Endpoint& local) const {
  return std::any_of(listeners_.begin(), listeners_.end(), [&](const SimStream* listener) {
    const Endpoint& at = listener->local;
    return at.port == local.port && at.IsV4() == local.IsV4() &&
           (at.ip == local.ip || at.ip.IsUnspecified() || local.ip.IsUnspecified());
  });
}

bool SimStreams::Owns(const Datagram& datagram) const {
  if (connections_.contains(KeyOf(datagram.to, datagram.from))) return true;
  return datagram.segment->flags == SimSegment::kSyn && FindListener(datagram.to) != nullptr;
}

void SimStreams::OnSegment(Datagram datagram) {
  const SimSegment& segment = *datagram.segment;
  const auto found = connections_.find(KeyOf(datagram.to, datagram.from));
  if (found == connections_.end()) return OnSyn(datagram);
  SimStream& stream = *found->second;
  if ((segment.flags & SimSegment::kRst) != 0) return OnReset(stream);
  if ((segment.flags & SimSegment::kSyn) != 0) {
    stream.window = std::max(stream.window, segment.window);
    if ((segment.flags & SimSegment::kAck) == 0) {
      return Transmit(stream, SimSegment::kSyn | SimSegment::kAck);  // ours was lost
    }
    if (stream.established) return;
    stream.established = stream.connected = true;
    SetRetransmit(stream, Instant::max());
    return MarkReady(stream);
  }
  const bool bare = datagram.payload.empty() && (segment.flags & SimSegment::kFin) == 0;
  OnAck(stream, segment, bare);
  if (!bare && stream.registered) OnData(stream, datagram);
}

void SimStreams::OnSyn(const Datagram& datagram) {
  const SimStream* listener = FindListener(datagram.to);
  if (listener == nullptr) return;
  const bool known = std::any_of(incoming_.begin(), incoming_.end(), [&](const Incoming& waiting) {
    return waiting.local == datagram.to && waiting.remote == datagram.from;
  });
  if (known) return;
  incoming_.push_back({listener->id, datagram.to, datagram.from, datagram.segment->window});
}

void SimStreams::OnAck(SimStream& stream, const SimSegment& segment, bool bare) {
  const bool opened = segment.window > stream.window;
  stream.window = std::max(stream.window, segment.window);
  const uint64_t ack = std::min(segment.ack, stream.end() + (stream.fin ? 1 : 0));
  if (ack > stream.acked) {
    const uint64_t bytes = std::min(ack, stream.end()) - stream.acked;
    stream.out.RemoveFront(bytes);
    stream.acked += bytes;
    stream.next = std::max(stream.next, ack);
    stream.duplicates = 0;
    if (stream.fin && ack == stream.end() + 1) stream.fin_acked = true;
    SetRetransmit(stream, Instant::max());
  } else if (bare && !opened && !stream.all_acked() && ++stream.duplicates == 3) {
    stream.next = stream.acked;  // something was lost: again from there
  }
  Push(stream);
  if (stream.writing && !stream.queue.empty() && stream.room() > 0) {
    stream.writing = false;
    MarkDirty(stream);
  }
  if (stream.orphan && stream.all_acked()) FinishOrphan(stream);
}

void SimStreams::OnData(SimStream& stream, const Datagram& datagram) {
  const SimSegment& segment = *datagram.segment;
  const uint64_t size = datagram.payload.size();
  const uint64_t end = segment.seq + size;
  if (segment.seq <= stream.received && end > stream.received && !stream.orphan) {
    const uint64_t known = stream.received - segment.seq;
    const uint64_t room = kKernelBuffer - std::min(kKernelBuffer, stream.in.size());
    const uint64_t fresh = std::min(size - known, room);
    const auto begin = datagram.payload.begin() + static_cast<ptrdiff_t>(known);
    stream.in.insert(stream.in.end(), begin, begin + static_cast<ptrdiff_t>(fresh));
    stream.received += fresh;
  }
  if ((segment.flags & SimSegment::kFin) != 0 && end == stream.received) stream.fin_received = true;
  // Bytes for somebody who has gone.
  if (stream.orphan && size > 0) {
    Transmit(stream, SimSegment::kRst);
    return FinishOrphan(stream);
  }
  Transmit(stream, SimSegment::kAck, stream.next);
  MarkReady(stream);
}

void SimStreams::OnReset(SimStream& stream) {
  if (stream.orphan) return FinishOrphan(stream);
  if (stream.state == Stream::State::kConnecting && !stream.established) {
    return FailLater(stream, "connect", ECONNREFUSED);
  }
  // The other side was done and has forgotten us.
  if (stream.fin && stream.out.empty() && stream.fin_received) {
    stream.fin_acked = true;
    return SetRetransmit(stream, Instant::max());
  }
  stream.reset = true;
  MarkReady(stream);
}

// ---- The core's calls ----

void SimStreams::UpdateReceiving(Stream& stream) {
  if (stream.receiving) MarkReady(Get(stream));
}

void SimStreams::Write(Stream& stream) {
  SimStream& s = Get(stream);
  iovec piece{};
  while (s.room() > 0 && stream.queue.Front({&piece, 1}) == 1) {
    const size_t size = std::min(piece.iov_len, s.room());
    s.out.Append({static_cast<const std::byte*>(piece.iov_base), size});
    Wrote(stream, size);
    Push(s);
  }
  stream.writing = !stream.queue.empty();
}

void SimStreams::SendFin(Stream& stream) {
  Get(stream).fin = true;
  Push(Get(stream));
}

void SimStreams::Release(Stream& stream, bool reset) {
  SimStream& s = Get(stream);
  if (s.established && reset) Transmit(s, SimSegment::kRst);
  if (s.established && !reset) {
    s.fin = s.orphan = true;
    Push(s);
    if (!s.all_acked()) return;
  }
  Forget(s);
  Free(stream);
}

void SimStreams::FinishOrphan(SimStream& stream) {
  Forget(stream);
  Free(stream);
}

void SimStreams::Refuse(Stream& unborn) { Transmit(Get(unborn), SimSegment::kRst); }

// ---- The loop's calls ----

void SimStreams::WakeAt(Instant when) {
  if (when >= next_wake_) return;
  next_wake_ = when;
  network_->At(when, [] {});
}

bool SimStreams::HasSimWork() const {
  return HasWork() || !ready_.empty() || !incoming_.empty() || next_wake_ <= clock_.Now();
}

void SimStreams::MarkReady(SimStream& stream) {
  if (stream.orphan || std::exchange(stream.ready, true)) return;
  ready_.push_back(&stream);
}

size_t SimStreams::Deliver() {
  size_t events = 0;
  if (next_wake_ <= clock_.Now()) {
    while (!retransmits_.empty() && retransmits_.begin()->first <= clock_.Now()) {
      OnRetransmit(*retransmits_.begin()->second);
    }
  }
  for (const Incoming& incoming : std::exchange(incoming_, {})) {
    AcceptOne(incoming);
    ++events;
  }
  const std::vector<SimStream*> ready = std::exchange(ready_, {});
  for (SimStream* stream : ready) {
    if (stream == nullptr) continue;  // gone
    // Memory of what dies meanwhile stays until the turn.
    stream->ready = false;
    if (!stream->live()) continue;
    DeliverOne(*stream);
    ++events;
  }
  events += Turn();
  if (next_wake_ <= clock_.Now()) {
    next_wake_ = Instant::max();
    if (!retransmits_.empty()) WakeAt(retransmits_.begin()->first);
    if (NextTimer() != Instant::max()) WakeAt(NextTimer());
  }
  return events;
}

void SimStreams::AcceptOne(const Incoming& incoming) {
  Stream* listener = Find(incoming.listener);
  if (listener == nullptr) return;
  auto stream = std::make_unique<SimStream>(this);
  stream->local = incoming.local;
  stream->remote = incoming.remote;
  stream->window = incoming.window;
  stream->established = true;
  Register(*stream);
  Transmit(*stream, SimSegment::kSyn | SimSegment::kAck);
  Accepted(*listener, std::move(stream));
}

void SimStreams::DeliverOne(SimStream& stream) {
  if (std::exchange(stream.connected, false)) {
    Connected(stream);
    Push(stream);
  }
  if (stream.live() && stream.receiving && !stream.in.empty()) {
    std::vector<std::byte> bytes = std::exchange(stream.in, {});
    const bool was_closed = bytes.size() > kKernelBuffer / 2;
    size_t given = 0;
    while (given < bytes.size() && stream.live() && stream.receiving) {
      const size_t piece = std::min(bytes.size() - given, kPiece);
      Received(stream, std::span(bytes).subspan(given, piece));
      given += piece;
    }
    if (given < bytes.size() && stream.live()) stream.in.assign(bytes.begin() + given, bytes.end());
    const bool is_open = stream.in.size() <= kKernelBuffer / 2;
    if (was_closed && is_open && stream.live()) Transmit(stream, SimSegment::kAck, stream.next);
  }
  if (stream.live() && stream.receiving && stream.fin_received && stream.in.empty()) {
    PeerEnded(stream);
  }
  if (stream.live() && stream.reset) FailLater(stream, "receive", ECONNRESET);
}

}  // namespace ringsock::io
