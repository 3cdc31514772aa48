#include "relay/connection.h"

#include <algorithm>
#include <utility>

#include "absl/status/status.h"
#include "relay/worker.h"

namespace ringsock::relay {

Connection::Connection(Worker* worker, const ConnectionRef& ref, const Endpoint& remote)
    : worker_(worker),
      since_(worker->now()),
      ref_(ref),
      remote_(remote),
      timer_(worker->timers(), [this] { RunTimer(); }) {}

Connection::~Connection() { queue_.Clear(worker_->pool()); }

// ---- Receiving ----

void Connection::OnReceive(io::StreamId, std::span<std::byte> bytes) {
  if (closed_) return;
  now_ = worker_->BeginReceive();
  if (closed_) return;
  const absl::Status status = tls_ != nullptr ? tls_->Receive(bytes) : OnBytes(bytes, now_);
  if (closed_) return;
  if (!status.ok()) return OnLost(status, /*broken=*/false);
  if (overflow_) {
    return OnLost(absl::ResourceExhaustedError("it does not read handshake messages"), false);
  }
  if (!Control().empty()) MarkDirty();
}

void Connection::OnEnd(io::StreamId) {
  if (!closed_) OnEnd();
}

void Connection::OnClose(io::StreamId, const absl::Status& why) {
  if (!closed_) OnLost(why, /*broken=*/true);
}

// ---- Sending ----

void Connection::Queue(derp::Bytes first, derp::Bytes second, Instant now) {
  FrameDrops drops;
  queue_.Append(first, second, now, worker_->queue_limits(), worker_->pool(), &drops);
  if (drops.full + drops.memory > 0) CountDrops(drops);
  MarkDirty();
}

void Connection::CountDrops(const FrameDrops& drops) {
  Counters& counters = worker_->counters();
  counters.dropped_queue_full.Add(drops.full);
  counters.dropped_queue_age.Add(drops.aged);
  counters.dropped_memory.Add(drops.memory);
  frames_dropped_ += drops.full + drops.aged + drops.memory;
}

void Connection::MarkDirty() {
  if (dirty_ || closed_) return;
  dirty_ = true;
  worker_->AddDirty(this);
}

size_t Connection::Room() const {
  const size_t room = worker_->streams()->SendRoom(stream_);
  return room - std::min<size_t>(room, kHandshakeRoom);
}

void Connection::Write(std::span<const std::byte> ciphertext) {
  if (worker_->streams()->Send(stream_, ciphertext) < ciphertext.size()) overflow_ = true;
}

std::span<std::byte> Connection::Reserve(size_t bytes) {
  return worker_->streams()->SendSpace(stream_, bytes);
}

void Connection::Commit(size_t bytes) { worker_->streams()->CommitSend(stream_, bytes); }

// Whole records, or without TLS whole runs of frames, so that what is not taken can be dropped.
size_t Connection::Hand(derp::Bytes bytes) {
  if (tls_ != nullptr) return tls_->Send(bytes);
  const size_t room = Room();
  if (bytes.size() > room && bytes.size() <= FrameChunk::kSize) return 0;
  return worker_->streams()->Send(stream_, bytes.first(std::min(room, bytes.size())));
}

bool Connection::FlushControl() {
  for (derp::Bytes bytes = Control(); !bytes.empty(); bytes = Control()) {
    const size_t taken = Hand(bytes);
    if (taken == 0) return false;
    ConsumeControl(taken);
  }
  return true;
}

bool Connection::FlushQueue() {
  for (derp::Bytes bytes = queue_.Front(); !bytes.empty(); bytes = queue_.Front()) {
    const size_t taken = Hand(bytes);
    const uint32_t frames = queue_.Consume(taken, worker_->pool());
    begun_bytes_ += static_cast<uint32_t>(taken);
    if (frames > 0) {
      frames_out_ += frames;
      CountOut(frames, std::exchange(begun_bytes_, 0));
    }
    if (taken < bytes.size()) return false;
    if (!Control().empty() && !FlushControl()) return false;
  }
  return true;
}

void Connection::Flush(Instant now) {
  dirty_ = false;
  if (closed_) return;
  if (!queue_.empty()) {
    FrameDrops drops;
    queue_.DropAged(now, worker_->queue_limits(), worker_->pool(), &drops);
    if (drops.aged > 0) CountDrops(drops);
  }
  // A frame that has been begun is sent to its end before any other.
  const bool all = (queue_.in_frame() || FlushControl()) && FlushQueue();
  if (!all) {
    const bool has_room = Room() >= derp::kMaxTlsPlaintext + derp::kMaxTlsOverhead;
    if (tls_ != nullptr && tls_->handshake_done() && has_room) {
      return OnLost(absl::InternalError("TLS takes nothing more"), /*broken=*/true);
    }
    worker_->streams()->NotifyWritable(stream_);
  }
  WatchProgress(now);
  OnFlushed(now);
}

// ---- Time ----

// Spec: derp.md: a write that does not progress for 2 s ends the client. The stream's own queue
// tells too little of that, since the kernel takes it in large pieces.
void Connection::WatchProgress(Instant now) {
  if (progress_at_ != Instant::max()) return;
  progress_at_ = now;
  acked_ = 0;
  progress_check_ = now + worker_->queue_limits_all().write_timeout / 4;
  Reschedule();
}

bool Connection::Progresses(Instant now) {
  if (now < progress_check_) return true;
  const Duration timeout = worker_->queue_limits_all().write_timeout;
  if (queue_.empty() && worker_->streams()->Stats(stream_).tx_queued == 0) {
    progress_at_ = progress_check_ = Instant::max();
    return true;
  }
  const uint64_t acked = worker_->streams()->AckedBytes(stream_);
  if (acked != acked_) {
    acked_ = acked;
    progress_at_ = now;
  }
  progress_check_ = now + timeout / 4;
  return now - progress_at_ < timeout;
}

void Connection::Reschedule() {
  const Instant deadline = std::min(OwnDeadline(), progress_check_);
  if (!timer_.scheduled() || timer_.deadline() != deadline) timer_.Schedule(deadline);
}

void Connection::RunTimer() {
  const Instant now = worker_->now();
  if (closed_) return;
  if (!Progresses(now)) return Close(&Counters::closed_write_timeout, false);
  OnTimer(now);
  if (closed_) return;
  if (!queue_.empty() || !Control().empty()) MarkDirty();
  Reschedule();
}

void Connection::Close(Counter Counters::*reason, bool gracefully) {
  if (closed_) return;
  closed_ = true;
  timer_.Cancel();
  Counters& counters = worker_->counters();
  ++(counters.*reason);
  if (gracefully) {
    if (tls_ != nullptr) tls_->Shutdown();
    worker_->streams()->Close(stream_);
  } else {
    worker_->streams()->Abort(stream_);
  }
  counters.dropped_gone.Add(queue_.Clear(worker_->pool()));
  OnClosed();
  worker_->Bury(this);
}

}  // namespace ringsock::relay
