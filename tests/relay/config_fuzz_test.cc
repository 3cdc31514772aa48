// Any bytes as a configuration file: one line of error that begins with the file, or options whose
// text has no line break and reads back the same.
#include <cstdint>
#include <cstdlib>
#include <string>

#include "relay/config.h"
#include "relay/config_table.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace ringsock::relay;
  const auto config = ParseConfigFile("f", {reinterpret_cast<const char*>(data), size});
  if (!config.ok()) {
    const std::string error(config.status().message());
    if (error.substr(0, 3) != "f: " || error.find('\n') != std::string::npos) std::abort();
    return 0;
  }
  if (config->ToString().find('\n') != std::string::npos) std::abort();
  for (const ConfigOption& option : ConfigTable()) {
    if (option.flag_only || option.repeated) continue;
    const std::string value = option.get(*config);
    Config again;
    if (value.empty() || value == "0" || !option.set(value, &again).ok()) continue;
    if (option.get(again) != value) std::abort();
  }
  return 0;
}
