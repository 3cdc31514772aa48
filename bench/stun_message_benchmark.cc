// What a STUN message costs: telling it from others, reading a request or a response, and writing
// them. A server does the first, the second and the last for each request.
#include "stun/message.h"

#include <array>
#include <vector>

#include "benchmark/benchmark.h"

namespace ringsock::stun {
namespace {

constexpr TransactionId kId{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};

Endpoint Mapped(bool v6) {
  return *Endpoint::Parse(v6 ? "[2001:db8::7]:41641" : "198.51.100.7:41641");
}

void BM_IsStunOfWireGuard(benchmark::State& state) {
  std::vector<std::byte> packet(1400);
  packet[0] = std::byte{4};
  for (auto _ : state) {
    benchmark::DoNotOptimize(packet.data());
    benchmark::DoNotOptimize(bool{IsStun(packet)});
  }
}
BENCHMARK(BM_IsStunOfWireGuard);

void BM_ParseRequest(benchmark::State& state) {
  const auto request = EncodeBindingRequest(kId);
  TransactionId id;
  for (auto _ : state) {
    if (ParseBindingRequest(request, Dialect::kReference, &id) != ParseResult::kOk) {
      state.SkipWithError("not a request");
    }
    benchmark::DoNotOptimize(id.data());
  }
}
BENCHMARK(BM_ParseRequest);

void BM_EncodeRequest(benchmark::State& state) {
  for (auto _ : state) {
    auto request = EncodeBindingRequest(kId);
    benchmark::DoNotOptimize(request.data());
  }
}
BENCHMARK(BM_EncodeRequest);

void BM_ParseResponse(benchmark::State& state) {
  std::array<std::byte, kResponseSizeV6> bytes;
  const size_t size = EncodeBindingResponse(kId, Mapped(state.range(0) == 6), bytes);
  BindingResponse response;
  for (auto _ : state) {
    if (ParseBindingResponse({bytes.data(), size}, &response) != ParseResult::kOk) {
      state.SkipWithError("not a response");
    }
    benchmark::DoNotOptimize(response.id.data());
  }
}
BENCHMARK(BM_ParseResponse)->ArgName("ip")->Arg(4)->Arg(6);

void BM_EncodeResponse(benchmark::State& state) {
  const Endpoint mapped = Mapped(state.range(0) == 6);
  std::array<std::byte, kResponseSizeV6> bytes;
  for (auto _ : state) {
    const size_t size = EncodeBindingResponse(kId, mapped, bytes);
    benchmark::DoNotOptimize(size);
    benchmark::ClobberMemory();
  }
}
BENCHMARK(BM_EncodeResponse)->ArgName("ip")->Arg(4)->Arg(6);

}  // namespace
}  // namespace ringsock::stun
