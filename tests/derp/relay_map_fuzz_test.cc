// Fuzzes the relay map. A map that is accepted must keep every promise of its header and must be
// the same after it was printed and read again.
#include <cstddef>
#include <cstdint>
#include <cstdlib>

#include "derp/relay_map.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace ringsock::derp;
  const absl::string_view text(reinterpret_cast<const char*>(data), size);
  const auto map = ParseRelayMap(text, nullptr);
  if (!map.ok()) {
    if (map.status().message().empty()) std::abort();
    return 0;
  }
  for (const auto& [id, region] : map->regions) {
    if (id == 0 || region.region_id != id || region.nodes.empty()) std::abort();
    for (const RelayNode& node : region.nodes) {
      if (node.region_id != id || node.port() == 0) std::abort();
      if (!node.v4().enabled && !node.v6().enabled) std::abort();
      // Pinned, or checked against a name; never both.
      if (node.certificate_pin().has_value() && !node.certificate_name().empty()) std::abort();
    }
  }
  const auto again = ParseRelayMap(ToJson(*map), nullptr);
  if (!again.ok() || !(*again == *map)) std::abort();
  return 0;
}
