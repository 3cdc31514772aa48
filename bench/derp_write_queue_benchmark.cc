// What a packet costs in the queue in front of a relay's stream: pushed, handed on in pieces of a
// TLS record, taken off; and pushed into a full queue, where one goes at the head.
#include <benchmark/benchmark.h>

#include <cstring>

#include "derp/write_queue.h"

namespace ringsock::derp {
namespace {

void PushFrame(WriteQueue* queue, size_t size, Instant now) {
  const MutableBytes memory = queue->Push(size, now);
  std::memset(memory.data(), 0x5a, kPacketHeaderSize);
}

// Bursts of 64 packets, as a turn of the control thread brings them.
void PushAndConsume(benchmark::State& state) {
  const auto size = static_cast<size_t>(state.range(0)) + kPacketHeaderSize;
  WriteQueue queue({});
  Instant now{};
  for (auto _ : state) {
    now += std::chrono::microseconds(10);
    for (int i = 0; i < 64; ++i) PushFrame(&queue, size, now);
    while (!queue.empty()) {
      const Bytes piece = queue.Front(16384);
      const size_t bytes = piece.size();
      benchmark::DoNotOptimize(piece.data());
      queue.Consume(bytes);
    }
  }
  state.SetItemsProcessed(state.iterations() * 64);
}
BENCHMARK(PushAndConsume)->Arg(64)->Arg(1400);

void PushWhenFull(benchmark::State& state) {
  const auto size = static_cast<size_t>(state.range(0)) + kPacketHeaderSize;
  WriteQueue queue({});
  for (int i = 0; i < 100'000; ++i) PushFrame(&queue, size, Instant{});
  for (auto _ : state) PushFrame(&queue, size, Instant{});
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(PushWhenFull)->Arg(64)->Arg(1400);

}  // namespace
}  // namespace ringsock::derp
