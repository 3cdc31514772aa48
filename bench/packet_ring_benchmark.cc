// What a packet costs in the ring in front of a shard, bytes and all: each by itself, and joined
// into trains while it waits. By one thread alone, so without the way from core to core.
#include "core/packet_ring.h"

#include <cstring>
#include <vector>

#include "benchmark/benchmark.h"

namespace ringsock {
namespace {

constexpr size_t kBurst = 64;
constexpr size_t kRecords = 1024;

PacketRecord Record(const std::vector<std::byte>& packet) {
  const auto size = static_cast<uint32_t>(packet.size());
  return {PeerId{7}, {}, {packet.data(), size, size}};
}

size_t TakeAll(PacketRing* ring) {
  size_t trains = 0;
  while (const PacketRecord* record = ring->Next()) {
    benchmark::DoNotOptimize(record->packets.data);
    ++trains;
  }
  ring->Release();
  return trains;
}

void BM_Push(benchmark::State& state) {
  const std::vector<std::byte> packet(static_cast<size_t>(state.range(0)));
  PacketRing ring(kRecords);
  for (auto _ : state) {
    for (size_t i = 0; i < kBurst; ++i) ring.Push(Record(packet));
    if (TakeAll(&ring) != kBurst) state.SkipWithError("lost packets");
  }
  state.SetItemsProcessed(state.iterations() * kBurst);
}
BENCHMARK(BM_Push)->ArgName("bytes")->Arg(64)->Arg(1400);

// As a Sender does, whose packets go as one train where they can.
void BM_Append(benchmark::State& state) {
  const std::vector<std::byte> packet(static_cast<size_t>(state.range(0)));
  PacketRing ring(kRecords);
  for (auto _ : state) {
    for (size_t i = 0; i < kBurst; ++i) ring.Append(Record(packet));
    ring.Publish();
    benchmark::DoNotOptimize(TakeAll(&ring));
  }
  state.SetItemsProcessed(state.iterations() * kBurst);
}
BENCHMARK(BM_Append)->ArgName("bytes")->Arg(64)->Arg(1400);

// The limit: the copy alone, from one place to memory as large as the ring's.
void BM_CopyOnly(benchmark::State& state) {
  const std::vector<std::byte> packet(static_cast<size_t>(state.range(0)));
  std::vector<std::byte> memory(kRecords * PacketRing::kBytesPerRecord);
  size_t at = 0;
  for (auto _ : state) {
    if (at + packet.size() > memory.size()) at = 0;
    std::memcpy(memory.data() + at, packet.data(), packet.size());
    at += packet.size();
    benchmark::ClobberMemory();
  }
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(BM_CopyOnly)->ArgName("bytes")->Arg(64)->Arg(1400);

}  // namespace
}  // namespace ringsock
