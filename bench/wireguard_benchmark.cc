// What it costs to look at the first bytes of packets: one, and trains as large as the kernel
// gives.
#include "core/wireguard.h"

#include <vector>

#include "benchmark/benchmark.h"

namespace ringsock {
namespace {

std::vector<std::byte> Train(size_t packets, size_t segment) {
  std::vector<std::byte> train(packets * segment);
  for (size_t at = 0; at < train.size(); at += segment) train[at] = std::byte{4};
  return train;
}

void BM_ClassifyOne(benchmark::State& state) {
  const auto packet = Train(1, 1400);
  for (auto _ : state) {
    const std::byte* data = packet.data();
    benchmark::DoNotOptimize(static_cast<const void*>(data));
    benchmark::DoNotOptimize(bool{IsStun(data, packet.size())});
    benchmark::DoNotOptimize(bool{IsHandshake(data, packet.size())});
  }
}
BENCHMARK(BM_ClassifyOne);

// Over eight trains in turn, as many as one batch holds.
template <uint32_t (*kScan)(const std::byte*, size_t, size_t, uint32_t)>
void BM_Train(benchmark::State& state) {
  const auto packets = static_cast<size_t>(state.range(0));
  const auto segment = static_cast<size_t>(state.range(1));
  const std::vector<std::vector<std::byte>> trains(8, Train(packets, segment));
  size_t next = 0;
  for (auto _ : state) {
    const auto& train = trains[next++ % trains.size()];
    benchmark::DoNotOptimize(uint32_t{kScan(train.data(), train.size(), segment, 0)});
  }
  state.SetItemsProcessed(state.iterations() * static_cast<int64_t>(packets));
}
BENCHMARK_TEMPLATE(BM_Train, FindStun)->Args({1, 1400})->Args({46, 1400})->Args({64, 64});
BENCHMARK_TEMPLATE(BM_Train, FindHandshake)->Args({1, 1400})->Args({46, 1400})->Args({64, 64});

}  // namespace
}  // namespace ringsock
