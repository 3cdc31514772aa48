#include "bench/lockstep/flood.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/random.h"

namespace ringsock::bench {
namespace {

constexpr FloodKind kKinds[] = {FloodKind::kUnknown, FloodKind::kStun, FloodKind::kHandshake,
                                FloodKind::kGarbage};
constexpr size_t kStunSize = 32;
constexpr size_t kInitiationSize = 148;

std::string MakePacket(FloodKind kind, uint32_t size, SeededRandom* random) {
  const auto head = [](uint8_t type) { return std::string{static_cast<char>(type), 0, 0, 0}; };
  const auto filled = [random](std::string start, size_t bytes) {
    while (start.size() < bytes) start.push_back(static_cast<char>(random->Next()));
    return start;
  };
  switch (kind) {
    case FloodKind::kStun:
      return filled(std::string("\x01\x01\x00\x0c\x21\x12\xa4\x42", 8), kStunSize);
    case FloodKind::kHandshake:
      return filled(head(1), kInitiationSize);
    case FloodKind::kGarbage:
      return filled("", random->Next() % (size + 1));
    default:
      return filled(head(4), std::max(size, 32u));
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

absl::StatusOr<FloodKind> ParseFlood(absl::string_view name) {
  for (const FloodKind kind : kKinds) {
    if (name == FloodName(kind)) return kind;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("\"", name, "\" is no flood: unknown, stun, handshake or garbage"));
}

std::vector<std::string> FloodPackets(FloodKind kind, uint32_t size, size_t count) {
  SeededRandom random(1);
  std::vector<std::string> packets;
  for (size_t i = 0; i < count; ++i) packets.push_back(MakePacket(kind, size, &random));
  return packets;
}

}  // namespace ringsock::bench
