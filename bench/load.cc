// The load: one thread that plays many peers.
#include "bench/load.h"

#include <netinet/udp.h>
#include <poll.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "bench/sockets.h"
#include "bench/wire.h"

namespace ringsock::bench {
namespace {

// Enough ports for a receiver to see many, few enough to ask all of them in a microsecond or two.
constexpr uint32_t kSockets = 8;
constexpr uint32_t kSendSlots = 32;
constexpr uint32_t kReceiveSlots = 32;
// Peers of one socket that take turns with each other.
constexpr uint32_t kGroup = 4;
// Of a train that is not read whole: the first header.
constexpr size_t kHeadBytes = sizeof(WireHeader);
constexpr size_t kWholeBytes = 1 << 16;
// Flat out: packets not back after this are lost and no longer waited for.
constexpr auto kGiveUp = std::chrono::milliseconds(100);
// The end: nothing came for this long, so nothing will. Longer than a busy host keeps the measured
// side from running.
constexpr auto kQuiet = std::chrono::milliseconds(200);

void Pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

int64_t Nanoseconds(Instant at) { return at.time_since_epoch().count(); }

}  // namespace

struct LoadGenerator::Slots {
  struct Tx {
    iovec vector;
    alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(in_pktinfo)) + CMSG_SPACE(2)> control;
    in_pktinfo* source;      // into control
    unsigned char* segment;  // likewise
    uint32_t size = 0;       // of each packet
    uint32_t packets = 0;
  };
  struct Rx {
    iovec vector;
    alignas(cmsghdr) std::array<char, 128> control;
    std::array<std::byte, kHeadBytes> head;
  };
  sockaddr_in target = {};
  std::vector<std::byte> payload;  // kSendSlots trains
  std::vector<std::byte> whole;    // of the first receive slot
  std::array<Tx, kSendSlots> tx;
  std::array<mmsghdr, kSendSlots> tx_messages;
  std::array<Rx, kReceiveSlots> rx;
  std::array<mmsghdr, kReceiveSlots> rx_messages;
  uint32_t until_whole = 0;  // receive calls until the next whole train
};

LoadTotals& LoadTotals::operator+=(const LoadTotals& other) {
  sent += other.sent;
  not_sent += other.not_sent;
  received += other.received;
  distinct += other.distinct;
  duplicates += other.duplicates;
  reordered += other.reordered;
  misdelivered += other.misdelivered;
  invalid += other.invalid;
  latest_ns = std::max(latest_ns, other.latest_ns);
  return *this;
}

LoadGenerator::LoadGenerator(const LoadConfig& config)
    : config_(config),
      slots_(std::make_unique<Slots>()),
      next_counter_(config.peers, 0),
      trackers_(config.peers) {}

LoadGenerator::~LoadGenerator() {
  for (const Socket& socket : sockets_) close(socket.fd);
}

absl::StatusOr<std::unique_ptr<LoadGenerator>> LoadGenerator::Create(const LoadConfig& config) {
  auto load = std::unique_ptr<LoadGenerator>(new LoadGenerator(config));
  const absl::Status status = load->Open();
  if (!status.ok()) return status;
  return load;
}

absl::Status LoadGenerator::Open() {
  const uint32_t count = std::clamp(config_.peers, 1u, kSockets);
  for (uint32_t i = 0; i < count; ++i) {
    absl::StatusOr<int> fd = OpenUdpSocket({.ip = IpAddress::AnyV4()}, config_.socket_buffer);
    if (!fd.ok()) return fd.status();
    sockets_.push_back({.fd = *fd, .port = LocalPort(*fd), .turn = {.group = i}});
    const int on = 1;
    if (setsockopt(*fd, SOL_UDP, UDP_GRO, &on, sizeof(on)) != 0 ||
        setsockopt(*fd, IPPROTO_IP, IP_PKTINFO, &on, sizeof(on)) != 0) {
      return absl::InternalError(absl::StrCat("UDP_GRO or IP_PKTINFO: ", std::strerror(errno)));
    }
  }
  const Traffic& t = config_.traffic;
  window_ = static_cast<uint64_t>(t.window > 0 ? t.window : AutoWindow()) * t.train;
  if (t.flood) window_ = UINT64_MAX;
  return absl::OkStatus();
}

// Half of what the smaller of the sockets' buffers takes, with what the kernel charges for a train:
// its bytes, rounded up, and its bookkeeping. More than 2 MiB under way only adds cache misses.
uint32_t LoadGenerator::AutoWindow() const {
  const Traffic& t = config_.traffic;
  const uint64_t charge = static_cast<uint64_t>(t.size) * t.train * 5 / 4 + 1280;
  const uint64_t space = std::min<uint64_t>(SocketBuffer(sockets_[0].fd, SO_RCVBUF) / 2, 2 << 20);
  return std::clamp<uint64_t>(space / charge, 2, 512);
}

void LoadGenerator::SetTarget(const Endpoint& subject) {
  Slots& s = *slots_;
  const Traffic& t = config_.traffic;
  sockaddr_storage target = {};
  subject.ToSockaddr(&target);
  std::memcpy(&s.target, &target, sizeof(s.target));

  const size_t train_bytes = static_cast<size_t>(t.size) * t.train;
  s.payload.assign(train_bytes * kSendSlots, std::byte{0x5a});
  for (uint32_t i = 0; i < kSendSlots; ++i) {
    Slots::Tx& tx = s.tx[i];
    tx.vector.iov_base = &s.payload[train_bytes * i];
    tx.control = {};
    msghdr& message = s.tx_messages[i].msg_hdr;
    message = {.msg_name = &s.target,
               .msg_namelen = sizeof(s.target),
               .msg_iov = &tx.vector,
               .msg_iovlen = 1,
               .msg_control = tx.control.data(),
               .msg_controllen = tx.control.size(),
               .msg_flags = 0};
    cmsghdr* control = CMSG_FIRSTHDR(&message);
    control->cmsg_level = IPPROTO_IP;
    control->cmsg_type = IP_PKTINFO;
    control->cmsg_len = CMSG_LEN(sizeof(in_pktinfo));
    tx.source = reinterpret_cast<in_pktinfo*>(CMSG_DATA(control));
    control = CMSG_NXTHDR(&message, control);
    control->cmsg_level = SOL_UDP;
    control->cmsg_type = UDP_SEGMENT;
    control->cmsg_len = CMSG_LEN(sizeof(uint16_t));
    tx.segment = CMSG_DATA(control);
    SetShape(i, asks() ? kMinSize : t.size, asks() ? 1 : t.train);
  }
  PrepareReceive();
}

void LoadGenerator::PrepareReceive() {
  Slots& s = *slots_;
  s.whole.resize(kWholeBytes);
  for (uint32_t i = 0; i < kReceiveSlots; ++i) {
    s.rx[i].vector = {s.rx[i].head.data(), s.rx[i].head.size()};
    s.rx_messages[i].msg_hdr = {.msg_name = nullptr,
                                .msg_namelen = 0,
                                .msg_iov = &s.rx[i].vector,
                                .msg_iovlen = 1,
                                .msg_control = s.rx[i].control.data(),
                                .msg_controllen = s.rx[i].control.size(),
                                .msg_flags = 0};
  }
}

// The train that a slot sends next.
void LoadGenerator::SetShape(uint32_t slot, uint32_t size, uint32_t packets) {
  Slots::Tx& tx = slots_->tx[slot];
  tx.size = size;
  tx.packets = packets;
  tx.vector.iov_len = static_cast<size_t>(size) * packets;
  const auto segment = static_cast<uint16_t>(size);
  std::memcpy(tx.segment, &segment, sizeof(segment));
  slots_->tx_messages[slot].msg_hdr.msg_controllen =
      packets == 1 ? CMSG_SPACE(sizeof(in_pktinfo)) : tx.control.size();
}

// 1, 2, 4, ... packets up to the longest train; the same sequence in every run.
void LoadGenerator::Mix(uint32_t slot) {
  random_ = random_ * 6364136223846793005u + 1442695040888963407u;
  const Traffic& t = config_.traffic;
  const auto lengths = static_cast<uint32_t>(std::bit_width(t.train));
  SetShape(slot, t.mixed_sizes()[(random_ >> 40) % 3], 1u << ((random_ >> 48) % lengths));
}

void LoadGenerator::Run() {
  if (config_.core >= 0) PinThisThread({config_.core});
  const Traffic& t = config_.traffic;
  Instant now = SystemClock().Now();
  last_progress_ = now;
  if (t.rate > 0) pacer_ = std::make_unique<Pacer>(now, t.rate, t.train);
  while (sending_.load(std::memory_order_relaxed) && status_.ok()) {
    now = SystemClock().Now();
    // Single packets leave in batches: fewer calls. Long trains one by one: their bytes stay in L1.
    const uint64_t most = t.train >= 8 ? 2 : kSendSlots;
    const uint64_t trains = std::min(Budget(now), most);
    if (trains > 0) SendTrains(static_cast<uint32_t>(trains), now);
    const uint32_t received = ReceiveTrains();
    // A thread that polls an empty queue without a break slows down whoever fills it.
    if (trains == 0 && received == 0) {
      for (int i = 0; i < 20; ++i) Pause();
    }
  }
  Drain();
}

// Packets sent and neither back nor given up.
uint64_t LoadGenerator::UnderWay() const {
  const uint64_t back =
      (feedback_ != nullptr ? feedback_->load(std::memory_order_relaxed) : totals_.received) +
      given_up_;
  return totals_.sent > back ? totals_.sent - back : 0;
}

// Of the longest train, or of what a request asks for.
uint64_t LoadGenerator::PacketsPerSend() const {
  const Traffic& t = config_.traffic;
  return asks() ? uint64_t{t.trains_per_request()} * t.train : t.train;
}

// Trains that may leave now.
uint64_t LoadGenerator::Budget(Instant now) {
  if (pacer_ != nullptr) return pacer_->Due(now);
  const uint64_t under_way = UnderWay();
  const uint64_t back = totals_.sent - under_way;
  if (back != last_back_ || under_way < window_) {
    last_back_ = back;
    if (under_way < window_) {
      last_progress_ = now;
      const uint64_t unit = PacketsPerSend();
      return (window_ - under_way + unit - 1) / unit;
    }
    last_progress_ = now;
    return 0;
  }
  if (now - last_progress_ > kGiveUp) given_up_ += under_way;
  return 0;
}

void LoadGenerator::FillTrain(uint32_t slot, uint32_t peer, Instant due) {
  if (config_.traffic.mix) Mix(slot);
  Slots::Tx& tx = slots_->tx[slot];
  tx.source->ipi_spec_dst.s_addr = htonl(config_.first_address + config_.first_peer + peer);
  WireHeader header{.receiver = config_.first_peer + peer,
                    .counter = next_counter_[peer],
                    .stamp = Nanoseconds(due),
                    .run = config_.run};
  auto* packet = static_cast<std::byte*>(tx.vector.iov_base);
  for (uint32_t i = 0; i < tx.packets; ++i, packet += tx.size, ++header.counter) {
    std::memcpy(packet, &header, sizeof(header));
  }
  next_counter_[peer] = header.counter;
}

uint64_t LoadGenerator::PacketsFor(uint32_t slot) const {
  return asks() ? PacketsPerSend() : slots_->tx[slot].packets;
}

// The peers of a socket are every n-th one, n being the number of sockets.
uint32_t LoadGenerator::PeerOf(const Turn& turn) const {
  const auto stride = static_cast<uint32_t>(sockets_.size());
  const uint32_t own = (config_.peers - turn.group % stride + stride - 1) / stride;
  const uint32_t index = turn.group / stride + turn.step % kGroup;
  return turn.group % stride + stride * (index % own);
}

LoadGenerator::Turn LoadGenerator::After(Turn turn) const {
  if (++turn.step < kGroup * config_.traffic.interleave) return turn;
  const auto stride = static_cast<uint32_t>(sockets_.size());
  const uint32_t next = turn.group + kGroup * stride;
  return {.group = next < config_.peers ? next : turn.group % stride, .step = 0};
}

// Of one socket, so that it is one call; the next ones leave from the next socket.
void LoadGenerator::SendTrains(uint32_t trains, Instant now) {
  Socket& socket = sockets_[next_to_send_];
  next_to_send_ = (next_to_send_ + 1) % sockets_.size();
  std::array<Turn, kSendSlots> turns;
  for (uint32_t i = 0; i < trains; ++i) {
    const Instant due = pacer_ == nullptr ? now : pacer_->Next();
    if (pacer_ != nullptr) {
      totals_.latest_ns = std::max<int64_t>(totals_.latest_ns, (now - due).count());
      pacer_->Issue(1);
    }
    turns[i] = socket.turn;
    FillTrain(i, PeerOf(socket.turn), due);
    socket.turn = After(socket.turn);
  }
  int sent = sendmmsg(socket.fd, slots_->tx_messages.data(), trains, MSG_DONTWAIT);
  if (sent < 0) {
    if (errno != EAGAIN && errno != ENOBUFS && errno != EINTR) {
      status_ = absl::InternalError(absl::StrCat("the load cannot send: ", std::strerror(errno)));
    }
    sent = 0;
  }
  for (int i = 0; i < sent; ++i) totals_.sent += PacketsFor(i);
  if (static_cast<uint32_t>(sent) == trains) return;
  // Numbers of trains that did not leave are used again, so that they do not look lost on the way.
  for (uint32_t i = sent; i < trains; ++i) {
    next_counter_[PeerOf(turns[i])] -= slots_->tx[i].packets;
    if (pacer_ != nullptr) totals_.not_sent += slots_->tx[i].packets;
  }
  socket.turn = turns[sent];
}

// Asks the sockets in turn until one has something.
uint32_t LoadGenerator::ReceiveTrains() {
  for (size_t i = 0; i < sockets_.size(); ++i) {
    const uint32_t received = ReceiveFrom(sockets_[next_to_receive_].fd);
    next_to_receive_ = (next_to_receive_ + 1) % sockets_.size();
    if (received > 0) return received;
  }
  return 0;
}

uint32_t LoadGenerator::ReceiveFrom(int fd) {
  Slots& s = *slots_;
  // recvmmsg fills the first slot first: with all of the train's bytes in 1 of `check` calls' worth
  // of messages.
  const bool whole = s.until_whole == 0;
  s.rx[0].vector = whole ? iovec{s.whole.data(), s.whole.size()}
                         : iovec{s.rx[0].head.data(), s.rx[0].head.size()};
  const uint32_t most = config_.check == 1 ? 1 : kReceiveSlots;
  for (uint32_t i = 0; i < most; ++i) {
    s.rx_messages[i].msg_hdr.msg_controllen = s.rx[i].control.size();
  }
  const int n = recvmmsg(fd, s.rx_messages.data(), most, MSG_DONTWAIT | MSG_TRUNC, nullptr);
  if (n <= 0) return 0;
  const int64_t now = Nanoseconds(SystemClock().Now());
  for (int i = 0; i < n; ++i) {
    const auto* data = static_cast<const std::byte*>(s.rx[i].vector.iov_base);
    OnTrain(s.rx_messages[i], data, whole && i == 0, now);
  }
  const auto count = static_cast<uint32_t>(n);
  if (whole) s.until_whole = config_.check;
  s.until_whole -= std::min(s.until_whole, count);
  received_.store(totals_.received, std::memory_order_relaxed);
  return count;
}

void LoadGenerator::OnTrain(const mmsghdr& message, const std::byte* data, bool whole,
                            int64_t now) {
  const uint32_t length = message.msg_len;
  uint32_t segment = length;
  uint32_t to = 0;
  auto* header = const_cast<msghdr*>(&message.msg_hdr);
  for (cmsghdr* c = CMSG_FIRSTHDR(header); c != nullptr; c = CMSG_NXTHDR(header, c)) {
    if (c->cmsg_level == SOL_UDP && c->cmsg_type == UDP_GRO) {
      int value;
      std::memcpy(&value, CMSG_DATA(c), sizeof(value));
      segment = static_cast<uint32_t>(value);
    } else if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_PKTINFO) {
      in_pktinfo info;
      std::memcpy(&info, CMSG_DATA(c), sizeof(info));
      to = ntohl(info.ipi_addr.s_addr) - config_.first_address;
    }
  }
  const Traffic& t = config_.traffic;
  if (!t.mix && (segment != t.size || length % t.size != 0)) {
    ++totals_.invalid;
    return;
  }
  const uint32_t size = std::max(segment, 1u);
  const uint32_t packets = (length + size - 1) / size;
  if (asks()) {
    totals_.received += packets;
    return;
  }
  const uint32_t readable = whole ? packets : 1;
  for (uint32_t i = 0; i < readable; ++i) {
    WireHeader packet;
    std::memcpy(&packet, data + static_cast<size_t>(i) * size, sizeof(packet));
    const uint32_t peer = packet.receiver - config_.first_peer;
    if (packet.type != 4 || packet.run != config_.run || peer >= config_.peers) {
      ++totals_.invalid;
      continue;
    }
    const uint32_t stands_for = whole ? 1 : packets;
    const uint32_t wanted = t.mode == Mode::kForward ? packet.receiver ^ 1 : packet.receiver;
    if (to != wanted) totals_.misdelivered += stands_for;
    totals_.received += stands_for;
    trackers_[peer].OnPackets(packet.counter, stands_for);
    if (i == 0 && recording_.load(std::memory_order_relaxed)) {
      // One clock reading stands for all packets of the train.
      latency_.Record(static_cast<uint64_t>(std::max<int64_t>(0, now - packet.stamp)), packets);
    }
  }
}

// Takes what is still under way.
void LoadGenerator::Drain() {
  Instant last = SystemClock().Now();
  while (UnderWay() > 0) {
    const uint64_t before = UnderWay();
    ReceiveTrains();
    const Instant now = SystemClock().Now();
    if (UnderWay() != before) last = now;
    if (now - last > kQuiet) return;
  }
}

LoadTotals LoadGenerator::Totals() const {
  LoadTotals totals = totals_;
  // What was asked for has no numbers.
  if (asks()) totals.distinct = totals.received;
  for (const SequenceTracker& tracker : trackers_) {
    totals.distinct += tracker.distinct();
    totals.duplicates += tracker.duplicates();
    totals.reordered += tracker.reordered();
  }
  return totals;
}

}  // namespace ringsock::bench
