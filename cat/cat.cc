#include "cat/cat.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <mutex>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "cat/line_splitter.h"

namespace ringsock::cat {
namespace {

// How long to let a full ring drain before the next try.
constexpr Duration kRetry = std::chrono::milliseconds(1);
// How soon a change of a relay connection is printed.
constexpr Duration kLookInterval = std::chrono::milliseconds(50);

std::span<const std::byte> AsBytes(absl::string_view text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

PacketTrain OnePacket(std::span<const std::byte> bytes) {
  const auto size = static_cast<uint32_t>(bytes.size());
  return {bytes.data(), size, size};
}

uint64_t DroppedSends(const CounterSnapshot& counters) {
  uint64_t dropped = 0;
  for (size_t i = 0; i < kDrops; ++i) {
    const absl::string_view name = DropName(static_cast<Drop>(i));
    if (absl::StartsWith(name, "tx_") || name == DropName(Drop::kClosed)) {
      dropped += counters.drops[i];
    }
  }
  // A full ring was waited for; each try counted.
  return dropped - counters.drops[static_cast<size_t>(Drop::kTxQueueFull)];
}

}  // namespace

StopSignal::StopSignal() : fd_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {}

StopSignal::~StopSignal() { close(fd_); }

void StopSignal::Raise() {
  raised_.store(true, std::memory_order_release);
  const uint64_t one = 1;
  // Cannot block, and a full counter is raised already.
  [[maybe_unused]] const ssize_t written = write(fd_, &one, sizeof(one));
}

Cat::Cat(const Options& options, Events* events, StopSignal* stop)
    : options_(options), events_(events), stop_(stop) {}

Outcome Cat::Run(int input_fd) {
  for (const std::string& warning : options_.warnings) events_->Warning(warning);
  if (absl::Status started = Start(); !started.ok()) {
    events_->Error(absl::string_view(started.message().data(), started.message().size()));
    return Outcome::kFailed;
  }
  if (options_.timeout != Duration()) deadline_ = SystemClock().Now() + options_.timeout;
  if (options_.size != 0) {
    SendGenerated();
  } else {
    SendLines(input_fd);
  }
  if (sender_ != nullptr) sender_->Flush();
  // An echo server, or a run that waits for a number of packets, goes on after its input has ended.
  const bool waits = options_.echo || options_.receive != 0;
  const Instant until = waits ? Instant::max() : SystemClock().Now() + options_.linger;
  WaitFor(-1, until);
  return Finish();
}

absl::Status Cat::Start() {
  PrivateKey generated;
  if (options_.private_key.IsZero()) generated = PrivateKey::Generate();
  const PrivateKey& key = options_.private_key.IsZero() ? generated : options_.private_key;
  EngineOptions engine_options = options_.engine;
  engine_options.relay.roots_file = options_.derp_roots_file;
  absl::StatusOr<std::unique_ptr<Engine>> engine = Engine::Start(engine_options, this, this);
  if (!engine.ok()) return engine.status();
  engine_ = *std::move(engine);
  for (const PeerSpec& peer : options_.peers) {
    const absl::StatusOr<PeerId> id = engine_->CreateEndpoint(peer.key, peer.endpoints);
    if (!id.ok()) return id.status();
    const std::unique_lock<std::shared_mutex> lock(names_mutex_);
    names_.emplace(static_cast<uint64_t>(*id), peer.key);
    if (options_.to.IsZero() || options_.to == peer.key) targets_.push_back({peer.key, *id});
  }
  absl::StatusOr<std::unique_ptr<Sender>> sender = engine_->NewSender();
  if (!sender.ok()) return sender.status();
  sender_ = *std::move(sender);
  events_->Self(key.Public(), engine_->Status());
  return options_.derp_map.has_value() ? StartRelays(key) : absl::OkStatus();
}

absl::Status Cat::StartRelays(const PrivateKey& key) {
  if (absl::Status set = engine_->SetPrivateKey(key); !set.ok()) return set;
  if (absl::Status set = engine_->SetRelayMap(options_.derp_map); !set.ok()) return set;
  next_look_ = Instant::min();
  return absl::OkStatus();
}

void Cat::LookAtRelays(Instant now) {
  next_look_ = now + kLookInterval;
  for (const RelayStatus& relay : engine_->Status().relays) {
    Seen& seen = relays_[relay.region];
    const std::string error = relay.up ? "" : relay.last_error;
    if (relay.up == seen.up && error == seen.error) continue;
    seen = {relay.up, error};
    events_->Relay(relay);
  }
}

void Cat::OnReceive(Shard& shard, std::span<const ReceivedTrain> trains) {
  for (const ReceivedTrain& train : trains) {
    const PacketTrain& packets = train.packets;
    for (uint32_t at = 0; at < packets.size; at += packets.segment_size) {
      ReceiveOne(train, {packets.data + at, std::min(packets.segment_size, packets.size - at)});
    }
    // Without WireGuard nothing proves a packet, so only an address that was configured counts.
    if (train.peer != PeerId::kNone) shard.ConfirmPath(train.peer, train.from);
    if (!options_.echo) continue;
    if (train.peer != PeerId::kNone) {
      shard.Send(train.peer, packets);
    } else {
      shard.SendTo(train.from, packets);
    }
  }
}

void Cat::ReceiveOne(const ReceivedTrain& train, std::span<const std::byte> packet) {
  if (options_.receive != 0 && received_.load(std::memory_order_relaxed) >= options_.receive) {
    return;  // came after the count was full
  }
  PublicKey name;
  bool known = false;
  {
    const std::shared_lock<std::shared_mutex> lock(names_mutex_);
    const auto found = names_.find(static_cast<uint64_t>(train.peer));
    known = found != names_.end();
    if (known) name = found->second;
  }
  events_->Packet(known ? &name : nullptr, train.from, train.path, packet);
  received_bytes_.fetch_add(packet.size(), std::memory_order_relaxed);
  if (received_.fetch_add(1, std::memory_order_acq_rel) + 1 == options_.receive) stop_->Raise();
}

void Cat::SendLines(int input_fd) {
  LineSplitter lines(io::kMaxDatagram);
  const auto send = [this](absl::string_view line) { SendToTargets(AsBytes(line)); };
  char chunk[16384];
  while (WaitFor(input_fd, Instant::max())) {
    const ssize_t got = read(input_fd, chunk, sizeof(chunk));
    if (got < 0 && (errno == EINTR || errno == EAGAIN)) continue;
    if (got <= 0) break;
    lines.Add({chunk, static_cast<size_t>(got)}, send, [this] {
      events_->Error(absl::StrCat("a line of over ", io::kMaxDatagram, " bytes"));
      ++not_sent_;
    });
  }
  lines.Finish(send);
}

void Cat::SendGenerated() {
  std::string packet(options_.size, '.');
  Instant next = SystemClock().Now();
  for (uint64_t i = 0; (options_.count == 0 || i < options_.count) && !Stopped(); ++i) {
    if (options_.interval != Duration()) {
      WaitFor(-1, next);
      next += options_.interval;
      if (Stopped()) return;
    }
    const std::string head = absl::StrCat("ringsock ", i, " ");
    std::memcpy(packet.data(), head.data(), std::min(head.size(), packet.size()));
    SendToTargets(AsBytes(packet));
  }
}

void Cat::SendToTargets(std::span<const std::byte> packet) {
  if (targets_.empty()) {
    ++not_sent_;
    return events_->Error("nobody to send to: give a peer as KEY@ip:port");
  }
  for (const Target& target : targets_) {
    const SendResult result = SendUntilTaken(target.id, OnePacket(packet));
    ++(result == SendResult::kOk ? sent_ : not_sent_);
    events_->Sent(target.key, packet.size(), result);
  }
  sender_->Flush();
}

SendResult Cat::SendUntilTaken(PeerId peer, const PacketTrain& packet) {
  // A person's input is not dropped because it came fast: a full ring is waited for.
  while (true) {
    const SendResult result = sender_->Send(peer, packet);
    if (result != SendResult::kQueueFull || Stopped()) return result;
    sender_->Flush();
    WaitFor(-1, SystemClock().Now() + kRetry);
  }
}

bool Cat::WaitFor(int fd, Instant until) {
  while (!Stopped()) {
    const Instant now = SystemClock().Now();
    if (now >= next_look_) LookAtRelays(now);
    const Instant end = std::min({until, deadline_, next_look_});
    if (now >= std::min(until, deadline_)) return false;
    pollfd fds[2] = {{stop_->fd(), POLLIN, 0}, {fd, POLLIN, 0}};
    // At most an hour, so that "never" fits into a timespec.
    const Duration left = std::min<Duration>(end - now, std::chrono::hours(1));
    const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(left);
    const timespec timeout = {seconds.count(), (left - seconds).count()};
    const int ready = ppoll(fds, 2, &timeout, nullptr);
    if (ready < 0 && errno != EINTR) return false;
    if (ready > 0 && fds[1].revents != 0) return true;
  }
  return false;
}

Outcome Cat::Finish() {
  const bool short_of = received_.load() < options_.receive;
  const bool time_up = SystemClock().Now() >= deadline_;
  sender_.reset();
  const EngineStatus status = engine_->Status();  // relays are gone after it
  engine_->Close();
  const CounterSnapshot counters = engine_->Counters();
  events_->Status(status, counters);
  // A Sender's "ok" means queued. What became of it, only the counters say.
  const uint64_t dropped = DroppedSends(counters);
  events_->Summary({.sent = sent_,
                    .not_sent = not_sent_,
                    .dropped = dropped,
                    .received = received_.load(),
                    .received_bytes = received_bytes_.load()});
  if (short_of && time_up) return Outcome::kTimeUp;
  if (short_of || not_sent_ != 0 || dropped != 0) return Outcome::kFailed;
  return Outcome::kDone;
}

}  // namespace ringsock::cat
