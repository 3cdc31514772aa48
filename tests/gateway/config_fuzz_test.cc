// Fuzzes the configuration reader: any bytes give a configuration or one line of error.
#include <cstddef>
#include <cstdint>
#include <cstdlib>

#include "gateway/config.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const absl::string_view text(reinterpret_cast<const char*>(data), size);
  const auto config = ringsock::gateway::ParseConfig("fuzz", text);
  if (config.ok()) {
    if (config->wireguard_port == 0 || config->local_port == 0) std::abort();
    for (const auto& peer : config->peers) {
      if (peer.key.IsZero()) std::abort();
    }
  } else if (config.status().message().find('\n') != absl::string_view::npos) {
    std::abort();
  }
  return 0;
}
