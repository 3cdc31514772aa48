// Packets are made beforehand and sent in groups that are due together; each leaves by itself, as a
// flood of strangers comes.
#include "bench/flood/flooder.h"

#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/clock.h"
#include "base/random.h"
#include "bench/sockets.h"

namespace ringsock::bench {
namespace {

constexpr FloodKind kKinds[] = {FloodKind::kNone, FloodKind::kUnknown, FloodKind::kStun,
                                FloodKind::kHandshake, FloodKind::kGarbage};
// Different packets of a kind, sent again and again.
constexpr size_t kPackets = 256;
constexpr size_t kStunSize = 32;
constexpr size_t kInitiationSize = 148;
// Of one group: what is due since the last look, up to so many.
constexpr uint64_t kGroup = 32;

std::string MakePacket(const FloodConfig& config, SeededRandom* random) {
  const auto head = [](uint8_t type) { return std::string{static_cast<char>(type), 0, 0, 0}; };
  const auto filled = [random](std::string start, size_t size) {
    while (start.size() < size) start.push_back(static_cast<char>(random->Next()));
    return start;
  };
  switch (config.kind) {
    case FloodKind::kStun:
      return filled(std::string("\x01\x01\x00\x0c\x21\x12\xa4\x42", 8), kStunSize);
    case FloodKind::kHandshake:
      return filled(head(1), kInitiationSize);
    case FloodKind::kGarbage:
      return filled("", random->Next() % (config.size + 1));
    default:
      return filled(head(4), std::max(config.size, 32u));
  }
}

}  // namespace

const char* FloodName(FloodKind kind) {
  switch (kind) {
    case FloodKind::kUnknown:
      return "unknown";
    case FloodKind::kStun:
      return "stun";
    case FloodKind::kHandshake:
      return "handshake";
    case FloodKind::kGarbage:
      return "garbage";
    default:
      return "none";
  }
}

absl::StatusOr<std::vector<FloodKind>> ParseFloods(absl::string_view text) {
  std::vector<FloodKind> kinds;
  for (const absl::string_view name : absl::StrSplit(text, ',')) {
    const size_t before = kinds.size();
    for (const FloodKind kind : kKinds) {
      if (kind != FloodKind::kNone && (name == "all" || name == FloodName(kind))) {
        kinds.push_back(kind);
      }
    }
    if (kinds.size() > before) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("\"", name, "\" is no flood: unknown, stun, handshake, garbage or all"));
  }
  return kinds;
}

absl::StatusOr<std::unique_ptr<Flooder>> Flooder::Start(const FloodConfig& config) {
  auto flooder = std::unique_ptr<Flooder>(new Flooder(config));
  if (config.kind == FloodKind::kNone) return flooder;
  if (absl::Status status = flooder->Open(); !status.ok()) return status;
  flooder->thread_ = std::thread(&Flooder::Main, flooder.get());
  return flooder;
}

absl::Status Flooder::Open() {
  for (uint32_t i = 0; i < config_.sources; ++i) {
    const auto fd = OpenUdpSocket({IpAddress::V4(config_.first_address + i), 0}, 1 << 20);
    if (!fd.ok()) return fd.status();
    sockets_.push_back(*fd);
    sockaddr_storage address{};
    const socklen_t length = config_.target.ToSockaddr(&address);
    if (connect(*fd, reinterpret_cast<const sockaddr*>(&address), length) != 0) {
      return absl::UnavailableError("connect");
    }
  }
  SeededRandom random(1);
  for (size_t i = 0; i < kPackets; ++i) packets_.push_back(MakePacket(config_, &random));
  return absl::OkStatus();
}

Flooder::~Flooder() {
  stop_.store(true);
  if (thread_.joinable()) thread_.join();
  for (const int fd : sockets_) close(fd);
}

void Flooder::Main() {
  PinThisThread({config_.core});
  const Clock& clock = SystemClock();
  const Instant start = clock.Now();
  for (uint64_t count = 0; !stop_.load(std::memory_order_relaxed);) {
    const double seconds = std::chrono::duration<double>(clock.Now() - start).count();
    const auto due = static_cast<uint64_t>(seconds * config_.rate);
    if (due <= count) {
      // The core belongs to the load too.
      std::this_thread::sleep_for(std::chrono::microseconds(50));
      continue;
    }
    for (const uint64_t end = std::min(due, count + kGroup); count < end; ++count) {
      const std::string& packet = packets_[count % kPackets];
      const int fd = sockets_[count % sockets_.size()];
      if (send(fd, packet.data(), packet.size(), MSG_DONTWAIT) >= 0) {
        sent_.store(sent_.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
      }
    }
  }
}

}  // namespace ringsock::bench
