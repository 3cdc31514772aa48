// The flood: a thread that sends packets nobody asked for, at a fixed rate, from addresses that the
// measured side does not know.
#ifndef RINGSOCK_BENCH_FLOOD_FLOODER_H_
#define RINGSOCK_BENCH_FLOOD_FLOODER_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/endpoint.h"

namespace ringsock::bench {

enum class FloodKind : uint8_t {
  kNone,
  kUnknown,    // WireGuard data of unknown sessions
  kStun,       // binding responses
  kHandshake,  // initiations
  kGarbage,    // any bytes, of any length up to that of the good packets
};
const char* FloodName(FloodKind kind);
// A comma-separated list, or "all".
absl::StatusOr<std::vector<FloodKind>> ParseFloods(absl::string_view text);

struct FloodConfig {
  FloodKind kind = FloodKind::kUnknown;
  double rate = 0;             // packets a second
  uint32_t size = 1400;        // of kUnknown, and the most of kGarbage
  uint32_t first_address = 0;  // the sources are at this address and those behind it, host order
  uint32_t sources = 64;       // that take turns
  Endpoint target;
  int core = 0;
};

class Flooder {
 public:
  // Starts it; kNone sends nothing.
  static absl::StatusOr<std::unique_ptr<Flooder>> Start(const FloodConfig& config);
  ~Flooder();
  // Packets that the kernel took.
  uint64_t sent() const { return sent_.load(std::memory_order_relaxed); }

 private:
  explicit Flooder(const FloodConfig& config) : config_(config) {}
  absl::Status Open();
  void Main();

  const FloodConfig config_;
  std::vector<int> sockets_;
  std::vector<std::string> packets_;
  std::atomic<bool> stop_{false};
  alignas(64) std::atomic<uint64_t> sent_{0};
  std::thread thread_;
};

}  // namespace ringsock::bench

#endif  // RINGSOCK_BENCH_FLOOD_FLOODER_H_
