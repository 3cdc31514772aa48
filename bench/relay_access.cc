// How an engine of a benchmark comes to use the relay beside the load.
#include "bench/relay_access.h"

#include <string>
#include <thread>

#include "absl/strings/str_cat.h"
#include "base/clock.h"
#include "derp/relay_map.h"

namespace ringsock::bench {
namespace {

constexpr uint32_t kRingPackets = 16384;
constexpr auto kConnectTime = std::chrono::seconds(60);

derp::RelayMap MapTo(const RelayPart& part) {
  derp::RelayNode node;
  node.name = "1a";
  node.region_id = 1;
  node.host_name = node.ipv4 = "127.0.0.1";
  node.ipv6 = "none";
  node.cert_name = part.pin;
  node.derp_port = part.port;
  node.stun_port = -1;
  derp::RelayMap map;
  map.regions[1] = {.region_id = 1, .region_code = "far", .region_name = "", .nodes = {node}};
  return map;
}

}  // namespace

bool IsRelayedPair(uint32_t pair, uint32_t percent) {
  const auto before = [=](uint64_t pairs) { return pairs * percent / 100; };
  return before(uint64_t{pair} + 1) > before(pair);
}

void PrepareForRelay(EngineOptions* options) {
  options->relay.home = 1;
  options->relay.queue_bytes = kRelayQueueBytes;
  options->relay.ring_packets = kRingPackets;
  options->network.netcheck = false;
  options->network.watch_links = false;
}

absl::Status ConnectToRelay(const RelayPart& part, Engine* engine) {
  absl::Status status = engine->SetPrivateKey(part.key);
  if (status.ok()) status = engine->SetRelayMap(MapTo(part));
  if (!status.ok()) return status;
  const Instant end = SystemClock().Now() + kConnectTime;
  std::string error = "no connection";
  while (SystemClock().Now() < end) {
    for (const RelayStatus& relay : engine->Status().relays) {
      if (relay.up) return absl::OkStatus();
      if (!relay.last_error.empty()) error = relay.last_error;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  return absl::UnavailableError(absl::StrCat("the relay of the benchmark: ", error));
}

}  // namespace ringsock::bench
