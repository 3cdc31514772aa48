// What joining packets into trains costs per packet: packets of one peer that lie behind one
// another, packets of many peers in turn (which are copied together), and packets that nothing can
// be done for. The loop behind it costs nothing.
#include "core/train_builder.h"

#include <vector>

#include "bench/null_loop.h"
#include "benchmark/benchmark.h"

namespace ringsock {
namespace {

constexpr size_t kBatchPackets = 128;

Endpoint Peer(uint32_t number) {
  Endpoint endpoint;
  endpoint.ip = IpAddress::V4(0x0a000000u + number);
  endpoint.port = 41641;
  return endpoint;
}

// Arguments: size of a packet, over how many peers those of a batch go in turn.
void Build(benchmark::State& state, uint32_t copy_limit) {
  const auto size = static_cast<uint32_t>(state.range(0));
  const auto peers = static_cast<uint32_t>(state.range(1));
  const std::vector<std::byte> memory(kBatchPackets * size);
  std::vector<Endpoint> to;
  for (uint32_t i = 0; i < peers; ++i) to.push_back(Peer(i));
  bench::NullLoop loop;
  TrainBuilder builder(&loop, copy_limit);
  for (auto _ : state) {
    for (size_t i = 0; i < kBatchPackets; ++i) {
      builder.Add(0, to[i % peers], {memory.data() + i * size, size, size});
    }
    builder.Flush();
  }
  const auto packets = static_cast<double>(state.iterations()) * kBatchPackets;
  state.counters["per_packet"] =
      benchmark::Counter(packets, benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
  state.counters["train"] = packets / static_cast<double>(loop.trains());
}

void BM_Build(benchmark::State& state) { Build(state, TrainBuilder::kCopyLimit); }
BENCHMARK(BM_Build)
    ->ArgNames({"bytes", "peers"})
    ->Args({64, 1})
    ->Args({1400, 1})
    ->Args({64, 8})
    ->Args({1400, 8})
    ->Args({64, 128})
    ->Args({1400, 128});

// As without GSO, where there is nothing to gain.
void BM_BuildNeverCopy(benchmark::State& state) { Build(state, 0); }
BENCHMARK(BM_BuildNeverCopy)->ArgNames({"bytes", "peers"})->Args({1400, 8});

// Whole trains, as the kernel gave them.
void BM_BuildFromTrains(benchmark::State& state) {
  const std::vector<std::byte> train(46 * 1400);
  const Endpoint to = Peer(1);
  bench::NullLoop loop;
  TrainBuilder builder(&loop);
  for (auto _ : state) {
    builder.Add(0, to, {train.data(), static_cast<uint32_t>(train.size()), 1400});
    builder.Flush();
  }
  state.SetItemsProcessed(state.iterations() * 46);
}
BENCHMARK(BM_BuildFromTrains);

}  // namespace
}  // namespace ringsock
