// Building, submitting and judging SENDMSG and SENDMSG_ZC requests.
#include "io/uring_sender.h"

#include <netinet/in.h>
#include <netinet/udp.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <optional>
#include <utility>

#include "base/log.h"
#include "io/buffer_ring.h"

namespace ringsock::io {
namespace {

// Linux 6.2; liburing 2.3 has no name for it yet. Linux 6.1 answers EINVAL: without verdicts there
// is no zero copy.
#ifndef IORING_SEND_ZC_REPORT_USAGE
constexpr uint16_t kReportUsage = 1u << 3;
constexpr uint32_t kWasCopied = 1u << 31;
#else
constexpr uint16_t kReportUsage = IORING_SEND_ZC_REPORT_USAGE;
constexpr uint32_t kWasCopied = IORING_NOTIF_USAGE_ZC_COPIED;
#endif

// Loops forever only if the kernel loses a request; sends that do not wait complete at once.
constexpr Duration kCompletionWait = std::chrono::seconds(1);

}  // namespace

size_t UringSender::MemoryNeeded(const LoopOptions& options) {
  return options.tx_slabs * SlabPool::kSlabSize + size_t{options.rx_buffers} * kRxBufferSize;
}

UringSender::UringSender(const LoopOptions& options, Uring* ring, PinnedMemory* memory,
                         std::function<void()> reap)
    : ring_(ring),
      reap_(std::move(reap)),
      capacity_(std::max(1u, options.tx_queue)),
      memory_(*memory),
      slab_count_(options.tx_slabs),
      most_buffers_read_(options.rx_buffers / 2),
      slabs_(options.tx_slabs, memory->bytes()),
      blocks_(options.tx_slabs + options.rx_buffers),
      readers_(blocks_.size()),
      zero_copy_(options.zero_copy),
      slots_(capacity_ + kMaxTrainPackets) {
  if (memory->bytes().size() >= MemoryNeeded(options)) {
    buffers_ = memory->bytes().subspan(slab_count_ * SlabPool::kSlabSize,
                                       size_t{options.rx_buffers} * kRxBufferSize);
  }
  for (uint32_t i = 0; i < readers_.size(); ++i) free_readers_.push_back(i);
}

// A request that nothing can come of: the kernel first looks whether it knows such requests, then
// at the descriptor.
void UringSender::Start(Instant now) {
  now_ = now;
  io_uring_sqe* sqe = ring_->NextSqe({CompletionTag::kSend, 0, 0});
  PrepareSingle(sqe, /*fd=*/-1, slots_[0]);
  SubmitAll(1);
  knows_singles_ = slots_[0].result == -EBADF;
}

// Without a message header: the kernel has less to copy and to check.
void UringSender::PrepareSingle(io_uring_sqe* sqe, int fd, const Slot& slot) {
  io_uring_prep_send(sqe, fd, slot.train.data, slot.train.size, MSG_DONTWAIT);
  io_uring_prep_send_set_addr(sqe, reinterpret_cast<const sockaddr*>(&slot.to), slot.to_length);
}

void UringSender::Queue(UringSocket& socket, const TxTrain& train) {
  const uint32_t packets = train.packets();
  if (packets == 1 || (packets <= kMaxTrainPackets && train.size <= kMaxDatagram &&
                       socket.gso.Allows(train.to.ip, train.segment_size, now_))) {
    return Append(socket, train, packets);
  }
  TxTrain rest = train;
  do {
    const bool whole = socket.gso.Allows(rest.to.ip, rest.segment_size, now_);
    const TxTrain part = CutTrain(&rest, whole ? kMaxTrainPackets : 1);
    Append(socket, part, part.packets());
  } while (rest.size > 0);
}

void UringSender::Append(UringSocket& socket, const TxTrain& part, uint32_t packets) {
  // A datagram that has to be fragmented is always copied, which says nothing about trains.
  const bool zero_copy =
      packets > 1 && part.size >= ZeroCopyMemory::kMinBytes && MayGoWithoutCopy(part);
  if (count_ == capacity_ || (has_leaders_ && Overtakes(socket, part, packets, zero_copy))) Flush();
  if (packets > 1) {
    if (!zero_copy && socket.segment.Wants(part.segment_size)) [[unlikely]]
      SetSegment(socket, part.segment_size);
    leaders_[LeaderOf(socket, part)] = {submission_, count_};
    has_leaders_ = true;
  }
  Prepare(count_++, socket, part, packets, zero_copy ? How::kZeroCopy : How::kShortest);
}

// Between two submissions: what is queued was prepared for the size that the socket has.
void UringSender::SetSegment(UringSocket& socket, uint32_t size) {
  Flush();
  const auto set = [&socket](uint32_t value) {
    return setsockopt(socket.fd(), SOL_UDP, UDP_SEGMENT, &value, sizeof value) == 0;
  };
  if (size > 0 && socket.segment.off()) return;  // the flush found out
  if (size > 0 && set(size)) return socket.segment.Set(size);
  socket.segment.TurnOff(/*cleared=*/socket.segment.size() == 0 || set(0));
}

size_t UringSender::LeaderOf(const UringSocket& socket, const TxTrain& part) {
  return HashEndpoint(part.to, socket.id) % kLeaders;
}

// Whether it might leave before a train of this submission that the kernel refuses.
bool UringSender::Overtakes(const UringSocket& socket, const TxTrain& part, uint32_t packets,
                            bool zero_copy) const {
  const Leader& leader = leaders_[LeaderOf(socket, part)];
  return leader.submission == submission_ &&
         !SharesFate(slots_[leader.slot], part, packets, zero_copy);
}

// If
//   1. it lies in memory of the loop,
//   2. the notification will find room,
//   3. there are receive buffers left to receive with, and
//   4. it pays.
bool UringSender::MayGoWithoutCopy(const TxTrain& part) {
  const uint32_t block = BlockOf(part.data);
  if (block == blocks_.size()) return false;  // 1
  if (free_readers_.empty()) return false;    // 2
  if (block >= slab_count_ && blocks_[block].readers == 0 && buffers_read_ >= most_buffers_read_) {
    return false;  // 3
  }
  return zero_copy_.Use(part.to.ip, now_);  // 4
}

// blocks_.size() if it is foreign memory.
uint32_t UringSender::BlockOf(const std::byte* data) const {
  const auto offset = static_cast<size_t>(data - memory_.bytes().data());
  const size_t slab_bytes = slab_count_ * SlabPool::kSlabSize;
  if (offset < slab_bytes) return static_cast<uint32_t>(offset / SlabPool::kSlabSize);
  if (offset - slab_bytes < buffers_.size()) {
    return slab_count_ + static_cast<uint32_t>((offset - slab_bytes) / kRxBufferSize);
  }
  return static_cast<uint32_t>(blocks_.size());
}

// True if the kernel cannot refuse the leader and then take `part`.
bool UringSender::SharesFate(const Slot& leader, const TxTrain& part, uint32_t packets,
                             bool zero_copy) {
  return packets > 1 && part.segment_size >= leader.train.segment_size &&
         part.to == leader.train.to && part.from == leader.train.from &&
         zero_copy == leader.zero_copy;
}

void UringSender::Prepare(uint32_t index, UringSocket& socket, const TxTrain& part,
                          uint32_t packets, How how) {
  const bool zero_copy = how == How::kZeroCopy;
  Slot& slot = slots_[index];
  slot.train = part;
  slot.socket = &socket;
  slot.packets = packets;
  slot.zero_copy = zero_copy;
  slot.registered = zero_copy && registration_ == Registration::kDone;
  slot.by_segment = false;
  slot.to_length = static_cast<uint8_t>(part.to.ToSockaddr(&slot.to));

  CompletionTag tag{CompletionTag::kSend, 0, index};
  if (zero_copy) {
    tag = {CompletionTag::kZeroCopy, AddReader(BlockOf(part.data), socket.id, part.to.ip), index};
  }
  io_uring_sqe* sqe = ring_->NextSqe(tag);
  if (how == How::kShortest && GoesWithoutHeader(slot)) {
    slot.by_segment = socket.segment.size() != 0;
    return PrepareSingle(sqe, socket.fd(), slot);
  }
  PrepareMessage(&slot);
  // MSG_DONTWAIT: a full socket buffer is an error at once. Without it the kernel would retry in
  // the background, after what comes behind it.
  if (!zero_copy) return io_uring_prep_sendmsg(sqe, socket.fd(), &slot.header, MSG_DONTWAIT);
  io_uring_prep_sendmsg_zc(sqe, socket.fd(), &slot.header, MSG_DONTWAIT);
  sqe->ioprio |= kReportUsage;
  if (slot.registered) {
    sqe->ioprio |= IORING_RECVSEND_FIXED_BUF;
    sqe->buf_index = 0;
  }
}

bool UringSender::GoesWithoutHeader(const Slot& slot) const {
  return knows_singles_ && slot.train.from.IsUnspecified() &&
         slot.socket->segment.Fits(slot.train.size, slot.train.segment_size, slot.packets);
}

void UringSender::PrepareMessage(Slot* slot) {
  const TxTrain& train = slot->train;
  slot->vector = {const_cast<std::byte*>(train.data), train.size};
  msghdr& header = slot->header;
  header.msg_name = &slot->to;
  header.msg_namelen = slot->to_length;
  header.msg_iov = &slot->vector;
  header.msg_iovlen = 1;
  std::optional<uint32_t> segment;
  if (slot->packets > 1) {
    segment = train.segment_size;
  } else if (slot->socket->segment.size() != 0) {
    segment = 0;
  }
  header.msg_controllen =
      BuildSendControl(segment, train.from, slot->socket->is_v4(), &slot->control);
  header.msg_control = header.msg_controllen > 0 ? &slot->control : nullptr;
}

void UringSender::SubmitAll(uint32_t requests) {
  outstanding_ += requests;
  ring_->Submit();
  reap_();
  while (outstanding_ > 0) {
    ring_->SubmitAndWait(kCompletionWait);
    reap_();
  }
}

void UringSender::Flush() {
  if (count_ == 0) return;
  if (registration_ == Registration::kWanted) [[unlikely]]
    Register();
  SubmitAll(count_);
  for (uint32_t i = 0; i < count_; ++i) Finish(i);
  count_ = 0;
  has_leaders_ = false;
  ++submission_;
  if (UringSocket* socket = std::exchange(segment_harms_, nullptr)) SetSegment(*socket, 0);
}

void UringSender::OnSent(CompletionTag tag, int result, bool more) {
  slots_[tag.id()].result = result;
  --outstanding_;
  if (tag.kind() != CompletionTag::kZeroCopy) return;
  if (more) {
    readers_[tag.slab()].failed = result < 0;
  } else {
    RemoveReader(tag.slab());
  }
}

UringSender::Notification UringSender::OnNotification(CompletionTag tag, int result) {
  const Reader reader = readers_[tag.slab()];
  Notification notification;
  if (RemoveReader(tag.slab()) && reader.block >= slab_count_) {
    notification.buffer = static_cast<uint16_t>(reader.block - slab_count_);
  }
  notification.socket = reader.socket;
  notification.failed = reader.failed;
  notification.copied = (static_cast<uint32_t>(result) & kWasCopied) != 0;
  if (notification.failed) return notification;
  zero_copy_.Learn(reader.to, notification.copied, now_);
  if (!notification.copied && registration_ == Registration::kNotNeeded) {
    registration_ = Registration::kWanted;
  }
  return notification;
}

// ---- Blocks ----

void UringSender::ReleaseSlab(TxSlab* slab) {
  GiveBack(static_cast<uint32_t>(slabs_.IndexOf(slab)));
}

// True if the block is free now.
bool UringSender::GiveBack(uint32_t block) {
  if (blocks_[block].readers > 0) {
    blocks_[block].given_back = true;
    return false;
  }
  if (block < slab_count_) slabs_.Release(slabs_.At(block));
  return true;
}

uint32_t UringSender::AddReader(uint32_t block, SocketId socket, const IpAddress& to) {
  const uint32_t reader = free_readers_.back();
  free_readers_.pop_back();
  readers_[reader] = {block, socket, to, false};
  if (blocks_[block].readers++ == 0 && block >= slab_count_) ++buffers_read_;
  return reader;
}

// True if its block has become free.
bool UringSender::RemoveReader(uint32_t reader) {
  const uint32_t block = readers_[reader].block;
  free_readers_.push_back(reader);
  if (--blocks_[block].readers > 0) return false;
  if (block >= slab_count_) --buffers_read_;
  return std::exchange(blocks_[block].given_back, false) && GiveBack(block);
}

// Touches and pins all of it, which takes about a millisecond, once.
void UringSender::Register() {
  const int error = memory_.Register(ring_->get());
  registration_ = error == 0 ? Registration::kDone : Registration::kImpossible;
  constexpr const char* kPages[] = {"small pages", "huge pages where the kernel has some",
                                    "reserved huge pages"};
  const char* pages = kPages[static_cast<size_t>(memory_.pages())];
  const size_t kilobytes = memory_.bytes().size() >> 10;
  if (error == 0) {
    Log().info("zero-copy send: {} KiB registered, in {}", kilobytes, pages);
  } else {
    Log().warn("zero-copy send pins memory at each send: {} KiB in {} cannot be registered: {}{}",
               kilobytes, pages, strerror(error),
               error == ENOMEM ? "; raise RLIMIT_MEMLOCK (ulimit -l)" : "");
  }
}

// ---- Judging ----

// Whether a later train of this submission to the same destination has left.
bool UringSender::WasOvertaken(uint32_t index) const {
  const Slot& slot = slots_[index];
  for (uint32_t i = index + 1; i < count_; ++i) {
    const Slot& later = slots_[i];
    if (later.result >= 0 && later.socket == slot.socket && later.train.to == slot.train.to) {
      return true;
    }
  }
  return false;
}

// A zero-copy send failed: out of pinnable memory (RLIMIT_MEMLOCK), or a way or a kernel that knows
// none. If it leaves as a copy, that was the reason.
void UringSender::CopyInstead(uint32_t index) {
  Slot& slot = slots_[index];
  const int error = -slot.result;
  Prepare(capacity_, *slot.socket, slot.train, slot.packets, How::kExplicit);
  SubmitAll(1);
  slot.result = slots_[capacity_].result;
  if (slot.result < 0) return;
  const bool unknown = error == EINVAL || error == EOPNOTSUPP;
  if (unknown && slot.registered) {
    // Linux 6.15 is the first to take registered memory here.
    registration_ = Registration::kImpossible;
    return;
  }
  zero_copy_.Learn(slot.train.to.ip, /*copied=*/true, now_);
  if (unknown) zero_copy_.Disable();
}

void UringSender::Finish(uint32_t index) {
  Slot& slot = slots_[index];
  UringSocket& socket = *slot.socket;
  const TxTrain& part = slot.train;
  // A full buffer, and what refuses a train for being one, is not about zero copy. EINVAL may be.
  const bool zero_copy_failed = slot.zero_copy && slot.result < 0 && slot.result != -EAGAIN &&
                                slot.result != -EMSGSIZE && slot.result != -EIO;
  const bool overtaken = zero_copy_failed && WasOvertaken(index);
  if (overtaken) zero_copy_.Learn(part.to.ip, /*copied=*/true, now_);
  if (zero_copy_failed && !overtaken) CopyInstead(index);
  const int error = -slot.result;
  if (error <= 0) {
    Sent(slot);
  } else if (slot.by_segment && slot.packets == 1 && ReplayCanHelp(error)) {
    SendExplicitly(index);
  } else if (!overtaken && slot.packets > 1 && ReplayCanHelp(error)) {
    ++socket.stats.tx_replayed;
    if (Replay(socket, part)) socket.gso.Learn(error, part.to.ip, part.segment_size, now_);
  } else {
    Failed(socket, {&part, 0, slot.packets, error});
  }
  if (part.slab != nullptr) ReleaseSlab(part.slab);
}

// A single packet was refused by a socket that is set to a segment size, as for a way that takes no
// trains. If it leaves without, that was the reason, and the socket is better without. (What the
// kernel took of this submission behind it has overtaken it: once in a socket's life.)
void UringSender::SendExplicitly(uint32_t index) {
  Slot& slot = slots_[index];
  UringSocket& socket = *slot.socket;
  Prepare(capacity_, socket, slot.train, 1, How::kExplicit);
  SubmitAll(1);
  slot.result = slots_[capacity_].result;
  if (slot.result < 0) return Failed(socket, {&slot.train, 0, 1, -slot.result});
  Sent(slot);
  segment_harms_ = &socket;
}

void UringSender::Sent(const Slot& slot) {
  UdpStats& stats = slot.socket->stats;
  stats.tx_packets += slot.packets;
  stats.tx_bytes += slot.train.size;
  ++stats.tx_trains;
}

void UringSender::Failed(UringSocket& socket, const SendFailure& failure) {
  socket.stats.tx_failed += failure.packets;
  socket.handler->OnSendFailure(socket.id, failure);
}

// The packets are independent of each other, so all go in one submission, in order. True if one
// left: it was the train that was refused, not the way.
bool UringSender::Replay(UringSocket& socket, const TxTrain& part) {
  TxTrain rest = part;
  uint32_t packets = 0;
  do {
    TxTrain packet = CutTrain(&rest, 1);
    packet.slab = nullptr;
    Prepare(capacity_ + packets++, socket, packet, 1, How::kExplicit);
  } while (rest.size > 0);
  SubmitAll(packets);

  const auto report = [&](const SendFailure& failure) { Failed(socket, failure); };
  TrainReplay replay(&part);
  while (!replay.done()) {
    const Slot& slot = slots_[capacity_ + replay.index()];
    if (slot.result >= 0) Sent(slot);
    replay.Result(std::max(0, -slot.result), report);
  }
  return replay.any_sent();
}

}  // namespace ringsock::io
