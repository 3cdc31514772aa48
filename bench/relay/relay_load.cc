// The load of a relay.
#include "bench/relay/relay_load.h"

#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cmath>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "bench/baseline/tls_forwarder.h"

namespace ringsock::bench {
namespace {

// Four full records in one call; more leave L2.
constexpr size_t kWriteSize = 64 << 10;
constexpr size_t kReadSize = 256 << 10;
// How long a packet that is due waits for TCP at most.
constexpr auto kPatience = std::chrono::milliseconds(50);
// The end: nothing came for this long, so nothing will. Longer than a busy host keeps the relay
// from running; only rounds that lose something wait for it.
constexpr auto kQuiet = std::chrono::seconds(3);
// One in flight: the packet is lost.
constexpr auto kGiveUp = std::chrono::milliseconds(100);
constexpr int kStalledReceiveBuffer = 64 << 10;

int64_t Nanoseconds(Instant at) { return at.time_since_epoch().count(); }

void Pause() {
  for (int i = 0; i < 20; ++i) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
  }
}

}  // namespace

struct RelayLoad::Client {
  PrivateKey key;
  PublicKey public_key;
  std::unique_ptr<Link> link;
  std::unique_ptr<FrameBurst> burst;       // of a sender
  std::unique_ptr<StreamCounter> counter;  // of a receiver
  bool reads = true;
  bool open = true;
  bool watches_writable = false;
  bool was_blocked = false;        // since it last had nothing pending, TCP took no more
  std::vector<std::byte> pending;  // sealed and not yet taken
  size_t pending_at = 0;
  // Paced: numbers of packets on the schedule, before which none is left to do.
  uint64_t next_due = 0;
  // One in flight.
  Instant sent_at{};
};

RelayLoad::RelayLoad(const RelayLoadConfig& config)
    : config_(config),
      fan_out_(config.traffic.receivers / config.traffic.senders +
               (config.traffic.extra == RelayTraffic::Extra::kNone ? 0 : 1)),
      most_packets_(static_cast<uint32_t>(
          std::max<size_t>(1, kWriteSize / (derp::kPacketHeaderSize + config.traffic.size)))),
      buffer_(kReadSize) {}

RelayLoad::~RelayLoad() {
  if (epoll_ >= 0) close(epoll_);
}

absl::StatusOr<std::unique_ptr<RelayLoad>> RelayLoad::Create(const RelayLoadConfig& config) {
  auto load = std::unique_ptr<RelayLoad>(new RelayLoad(config));
  const absl::Status status = load->Open();
  if (!status.ok()) return status;
  return load;
}

absl::Status RelayLoad::Open() {
  epoll_ = epoll_create1(EPOLL_CLOEXEC);
  if (epoll_ < 0) return absl::ResourceExhaustedError("epoll_create1");
  absl::Status status = OpenReceivers();
  for (uint32_t i = 0; status.ok() && i < config_.traffic.senders; ++i) status = OpenSender(i);
  return status;
}

absl::StatusOr<std::unique_ptr<RelayLoad::Client>> RelayLoad::OpenClient(uint32_t index,
                                                                         int receive_buffer) {
  auto client = std::make_unique<Client>();
  client->key = PrivateKey::Generate();
  client->public_key = client->key.Public();
  auto link = Link::Open(config_.target, receive_buffer);
  if (!link.ok()) return link.status();
  client->link = *std::move(link);
  if (config_.derp) {
    const absl::Status status = client->link->Login(config_.target, client->key);
    if (!status.ok()) {
      return absl::Status(status.code(), absl::StrCat("client ", index, ": ", status.message()));
    }
  }
  return client;
}

// Without frames: says where its bytes go, and waits until that is known.
absl::Status RelayLoad::Greet(Client& client, uint32_t first, uint32_t destinations) {
  if (config_.derp) return absl::OkStatus();
  const bool is_sender = destinations > 0;
  const auto index =
      static_cast<uint32_t>(is_sender ? receivers_.size() + senders_.size() : receivers_.size());
  const ForwarderHello hello = {
      .index = index,
      .first = first,
      .destinations = destinations,
      .chunk = static_cast<uint32_t>(derp::kPacketHeaderSize + config_.traffic.size)};
  absl::Status status = client.link->Send(std::as_bytes(std::span(&hello, 1)));
  size_t answered = 0;
  while (status.ok() && answered < sizeof(hello)) {
    auto answer = client.link->Receive();
    if (answer.ok()) answered += answer->size();
    status = answer.status();
  }
  return status;
}

absl::Status RelayLoad::OpenReceivers() {
  const RelayTraffic& t = config_.traffic;
  const uint32_t extra = t.extra == RelayTraffic::Extra::kNone ? 0 : 1;
  for (uint32_t i = 0; i < t.receivers + extra; ++i) {
    const bool stalls = i == t.receivers && t.extra == RelayTraffic::Extra::kStalls;
    auto client = OpenClient(i, stalls ? kStalledReceiveBuffer : 0);
    if (!client.ok()) return client.status();
    Client& c = **client;
    c.reads = !stalls;
    const StreamCounterConfig counter = {
        .size = t.size,
        .frame = config_.derp ? derp::FrameType::kRecvPacket : derp::FrameType::kSendPacket,
        .sender = i < t.receivers ? i / (t.receivers / t.senders) : StreamCounterConfig::kAnySender,
        .run = config_.run,
        .check = config_.check};
    c.counter = std::make_unique<StreamCounter>(counter, c.link->opener(),
                                                i < t.receivers ? &latency_ : nullptr);
    absl::Status status = Greet(c, 0, 0);
    if (status.ok() && c.reads) status = Watch(c);
    if (!status.ok()) return status;
    receivers_.push_back(*std::move(client));
  }
  return absl::OkStatus();
}

absl::Status RelayLoad::OpenSender(uint32_t index) {
  const RelayTraffic& t = config_.traffic;
  auto client = OpenClient(t.receivers + index, 0);
  if (!client.ok()) return client.status();
  const uint32_t own = t.receivers / t.senders;
  std::vector<PublicKey> destinations;
  for (uint32_t i = 0; i < own; ++i) {
    destinations.push_back(receivers_[index * own + i]->public_key);
  }
  if (t.extra != RelayTraffic::Extra::kNone) {
    destinations.push_back(receivers_.back()->public_key);
    if (!config_.derp && t.senders > 1) {
      return absl::UnimplementedError("the forwarder has no extra receiver for several senders");
    }
  }
  (*client)->burst = std::make_unique<FrameBurst>(t.size, index, config_.run, destinations);
  absl::Status status = Greet(**client, index * own, fan_out_);
  if (status.ok()) status = Watch(**client);
  if (!status.ok()) return status;
  senders_.push_back(*std::move(client));
  return absl::OkStatus();
}

absl::Status RelayLoad::Watch(Client& client) {
  const absl::Status status = client.link->MakeNonBlocking();
  if (!status.ok()) return status;
  epoll_event event = {.events = EPOLLIN, .data = {.ptr = &client}};
  if (epoll_ctl(epoll_, EPOLL_CTL_ADD, client.link->fd(), &event) == 0) return absl::OkStatus();
  return absl::ResourceExhaustedError(absl::StrCat("epoll_ctl: ", std::strerror(errno)));
}

void RelayLoad::WantWritable(Client& client, bool on) {
  if (!client.open || client.watches_writable == on) return;
  client.watches_writable = on;
  epoll_event event = {.events = on ? EPOLLIN | EPOLLOUT : EPOLLIN, .data = {.ptr = &client}};
  epoll_ctl(epoll_, EPOLL_CTL_MOD, client.link->fd(), &event);
}

void RelayLoad::RunFor(Duration duration, bool record) {
  const Clock& clock = SystemClock();
  Instant now = clock.Now();
  if (!started_) {
    started_ = true;
    start_ = now;
  }
  recording_ = record;
  const Instant end = now + duration;
  while (now < end) {
    const bool worked = Turn(now, true);
    const Instant then = now;
    now = clock.Now();
    if (worked) {
      totals_.busy_ns += static_cast<uint64_t>((now - then).count());
    } else {
      Pause();
    }
  }
  recording_ = false;
}

// What has come goes first, so that no receiver looks slow because this thread is busy sending.
bool RelayLoad::Turn(Instant now, bool sending) {
  const bool received = ReceiveSome();
  const bool sent = sending && SendSome(now);
  return received || sent;
}

bool RelayLoad::SendSome(Instant now) {
  bool sent = false;
  if (config_.traffic.rate > 0 && !config_.traffic.one_in_flight) {
    for (auto& sender : senders_) sent |= sender->open && Pace(*sender, now);
    return sent;
  }
  for (size_t i = 0; i < senders_.size() && !sent; ++i) {
    Client& sender = *senders_[next_sender_];
    if (++next_sender_ == senders_.size()) next_sender_ = 0;
    sent = sender.open && FlatOut(sender, now);
  }
  return sent;
}

// Sends what is due by the last tick. Senders are due one after the other within the time between
// two packets, so that few packets do not all leave in one tick.
bool RelayLoad::Pace(Client& sender, Instant now) {
  const double rate = config_.traffic.rate / static_cast<double>(senders_.size());
  const Duration tick = config_.traffic.tick;
  const Instant at = start_ + (now - start_) / tick * tick;
  const double phase =
      static_cast<double>(sender.burst->sender()) / static_cast<double>(senders_.size());
  const auto due =
      static_cast<uint64_t>(std::chrono::duration<double>(at - start_).count() * rate + phase);
  if (due <= sender.next_due) return false;
  const auto patience = static_cast<uint64_t>(
      std::ceil(rate * std::chrono::duration<double>(std::max<Duration>(kPatience, tick)).count()));
  if (due - sender.next_due > patience) {
    const uint64_t late = due - sender.next_due - patience;
    sender.next_due += late;
    if (sender.was_blocked) {
      totals_.held_back += late;
      totals_.offered += late;
    } else {
      totals_.late += late;
    }
  }
  if (!sender.pending.empty()) return false;
  sender.was_blocked = false;
  const auto packets =
      static_cast<uint32_t>(std::min<uint64_t>(due - sender.next_due, most_packets_));
  // The tick in which the first of them was due.
  const double seconds = (static_cast<double>(sender.next_due) + 1 - phase) / rate;
  const auto ticks =
      static_cast<int64_t>(std::ceil(seconds / std::chrono::duration<double>(tick).count() - 1e-9));
  const Instant was_due = std::min(at, start_ + ticks * tick);
  sender.next_due += packets;
  Queue(sender, packets, Nanoseconds(was_due));
  return true;
}

bool RelayLoad::FlatOut(Client& sender, Instant now) {
  if (!sender.pending.empty()) return false;
  if (!config_.traffic.one_in_flight) {
    Queue(sender, most_packets_, Nanoseconds(now));
    return true;
  }
  if (totals_.sent > Delivered() && now - sender.sent_at < kGiveUp) return false;
  const double rate = config_.traffic.rate;
  if (rate > 0 && now - sender.sent_at < Duration(static_cast<int64_t>(1e9 / rate))) return false;
  sender.sent_at = now;
  Queue(sender, 1, Nanoseconds(now));
  return true;
}

void RelayLoad::Queue(Client& sender, uint32_t packets, int64_t due) {
  sender.pending.resize(sender.burst->SealedSize(packets));
  sender.pending.resize(
      sender.burst->Append(packets, due, sender.link->sealer(), sender.pending.data()));
  sender.pending_at = 0;
  totals_.offered += packets;
  totals_.sent += packets;
  Write(sender);
}

void RelayLoad::Write(Client& sender) {
  while (sender.pending_at < sender.pending.size()) {
    const ssize_t n = send(sender.link->fd(), sender.pending.data() + sender.pending_at,
                           sender.pending.size() - sender.pending_at, MSG_NOSIGNAL);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
      sender.was_blocked = true;
      return WantWritable(sender, true);
    }
    if (n < 0) return OnClosed(sender);
    sender.pending_at += static_cast<size_t>(n);
  }
  sender.pending.clear();
  WantWritable(sender, false);
}

bool RelayLoad::ReceiveSome() {
  std::array<epoll_event, 64> events;
  const int n = epoll_wait(epoll_, events.data(), events.size(), 0);
  for (int i = 0; i < n; ++i) {
    auto& client = *static_cast<Client*>(events[i].data.ptr);
    if ((events[i].events & EPOLLOUT) != 0) Write(client);
    if ((events[i].events & ~uint32_t{EPOLLOUT}) != 0) ReceiveFrom(client);
  }
  return n > 0;
}

void RelayLoad::ReceiveFrom(Client& client) {
  // Senders are told things that are of no interest: session tickets, peers that left.
  StreamCounter* const counter = client.counter.get();
  for (size_t left = buffer_.size(); client.open && left > 0;) {
    const auto next =
        counter == nullptr ? StreamCounter::Read{SIZE_MAX, false} : counter->NextRead();
    const size_t wanted = std::min(next.size, left);
    const ssize_t n = recv(client.link->fd(), next.discard ? nullptr : buffer_.data(), wanted,
                           next.discard ? MSG_TRUNC : 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (n <= 0) return OnClosed(client);
    const auto count = static_cast<size_t>(n);
    if (counter != nullptr && next.discard) {
      counter->Discarded(count);
    } else if (counter != nullptr) {
      counter->OnBytes(std::span(buffer_).first(count), Nanoseconds(SystemClock().Now()),
                       recording_);
    }
    if (count < wanted) return;
    left -= count;
  }
}

void RelayLoad::OnClosed(Client& client) {
  if (!client.open) return;
  client.open = false;
  client.pending.clear();
  epoll_ctl(epoll_, EPOLL_CTL_DEL, client.link->fd(), nullptr);
  ++totals_.closed;
}

uint64_t RelayLoad::Delivered() const {
  uint64_t packets = 0;
  for (const auto& receiver : receivers_) packets += receiver->counter->packets();
  return packets;
}

void RelayLoad::Drain() {
  const Clock& clock = SystemClock();
  uint64_t last = Delivered();
  for (Instant since = clock.Now(), now = since; now - since < kQuiet; now = clock.Now()) {
    Turn(now, false);
    const uint64_t delivered = Delivered();
    if (delivered >= totals_.sent) return;
    if (delivered != last) since = now;
    last = delivered;
  }
}

RelayLoadTotals RelayLoad::Totals() const {
  RelayLoadTotals totals = totals_;
  const bool extra = config_.traffic.extra != RelayTraffic::Extra::kNone;
  for (size_t i = 0; i < receivers_.size(); ++i) {
    const StreamTotals received = receivers_[i]->counter->Totals();
    if (i < config_.traffic.receivers) {
      totals.received += received;
    } else {
      totals.received_extra = received.packets;
    }
  }
  for (const auto& sender : senders_) {
    if (extra) totals.sent_extra += sender->burst->by_destination().back();
  }
  return totals;
}

}  // namespace ringsock::bench
