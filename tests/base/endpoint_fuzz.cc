// Any text: no crash; what is accepted prints to text that parses to the same value, has a usable
// port, and survives the trip through a sockaddr.
#include <cstdint>
#include <cstdlib>

#include "base/endpoint.h"

namespace {

void Require(bool condition) {
  if (!condition) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using ringsock::Endpoint;
  const absl::string_view text(reinterpret_cast<const char*>(data), size);
  const absl::StatusOr<std::vector<Endpoint>> list = Endpoint::ParseList(text);
  const absl::StatusOr<Endpoint> single = Endpoint::Parse(text);
  if (single.ok()) Require(list.ok() && list->size() == 1 && list->front() == *single);
  if (!list.ok()) {
    Require(!list.status().message().empty());
    return 0;
  }
  for (const Endpoint& endpoint : *list) {
    Require(endpoint.port != 0);
    const absl::StatusOr<Endpoint> again = Endpoint::Parse(endpoint.ToString());
    Require(again.ok() && *again == endpoint);
    sockaddr_storage raw;
    endpoint.ToSockaddr(&raw);
    Require(Endpoint::FromSockaddr(raw) == endpoint);
    Require(Endpoint::FromWords(endpoint.Words()) == endpoint);
  }
  return 0;
}
