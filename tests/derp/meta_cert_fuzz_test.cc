// Fuzzes the search for the server's key in a certificate. What is found must survive being written
// into a certificate of our own.
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>

#include "derp/meta_cert.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace ringsock::derp;
  const auto cert = ParseMetaCert({data, size});
  if (!cert.has_value()) return 0;
  static constexpr std::array<uint8_t, 32> kSeed = {};
  const auto der = MakeMetaCert(*cert, 0, 1, kSeed);
  if (!der.ok()) std::abort();
  const auto again = ParseMetaCert(*der);
  if (!again.has_value() || again->server_key != cert->server_key ||
      again->version != cert->version) {
    std::abort();
  }
  return 0;
}
