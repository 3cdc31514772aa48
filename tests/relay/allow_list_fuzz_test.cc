// Any bytes as an allow-list: an error that names a line, or keys of which none is zero.
#include <cstdint>
#include <cstdlib>

#include "relay/allow_list.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto list = ringsock::relay::ParseAllowList({reinterpret_cast<const char*>(data), size});
  if (!list.ok()) {
    if (list.status().message().substr(0, 5) != "line ") std::abort();
    return 0;
  }
  for (const ringsock::PublicKey& key : *list) {
    if (key.IsZero()) std::abort();
  }
  return 0;
}
