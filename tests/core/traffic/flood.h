// Packets that nobody asked for, of the kinds that a gateway's port meets.
#ifndef RINGSOCK_TESTS_CORE_TRAFFIC_FLOOD_H_
#define RINGSOCK_TESTS_CORE_TRAFFIC_FLOOD_H_

#include <cstdint>
#include <string>

#include "base/random.h"
#include "tests/core/engine_fixture.h"

namespace ringsock {

enum class FloodKind {
  kUnknown,      // data of sessions that we do not have, from addresses that we do not know
  kStunRequest,  // somebody takes us for a STUN server
  kStunAnswer,   // to questions that we never asked
  kHandshake,    // initiations
  kGarbage,      // any length, any bytes
};

inline const char* FloodName(FloodKind kind) {
  switch (kind) {
    case FloodKind::kUnknown:
      return "Unknown";
    case FloodKind::kStunRequest:
      return "StunRequest";
    case FloodKind::kStunAnswer:
      return "StunAnswer";
    case FloodKind::kHandshake:
      return "Handshake";
    default:
      return "Garbage";
  }
}

inline std::string FloodPacket(FloodKind kind, SeededRandom* random) {
  const auto bytes = [&](size_t size) {
    std::string text(size, '\0');
    for (char& c : text) c = static_cast<char>(random->Next());
    return text;
  };
  switch (kind) {
    case FloodKind::kUnknown:
      return Message(4, bytes(random->Next() % 1400));
    case FloodKind::kHandshake:
      return Message(1, bytes(144));
    case FloodKind::kGarbage:
      return bytes(random->Next() % 1400);
    default: {
      const char* const type = kind == FloodKind::kStunRequest ? "\x00\x01" : "\x01\x01";
      return std::string(type, 2) + std::string("\0\0\x21\x12\xa4\x42", 6) + bytes(12);
    }
  }
}

}  // namespace ringsock

#endif  // RINGSOCK_TESTS_CORE_TRAFFIC_FLOOD_H_
