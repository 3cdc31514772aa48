// What an element costs in the ring between two threads: by one thread alone, where it is in the
// cache, and handed from one core to another, in streams and there and back again.
#include "base/spsc_ring.h"

#include <atomic>
#include <cstdint>
#include <thread>

#include "benchmark/benchmark.h"

namespace ringsock {
namespace {

constexpr size_t kCapacity = 1024;

void BM_OneThread(benchmark::State& state) {
  SpscRing<uint64_t> ring(kCapacity);
  uint64_t sum = 0;
  for (auto _ : state) {
    ring.TryPush(uint64_t{1});
    sum += *ring.Front();
    ring.Pop();
  }
  benchmark::DoNotOptimize(sum);
}
BENCHMARK(BM_OneThread);

// The other thread takes what comes as fast as it can. Time is the producer's.
void BM_Stream(benchmark::State& state) {
  SpscRing<uint64_t> ring(kCapacity);
  std::atomic<bool> stop{false};
  std::thread consumer([&] {
    while (!stop.load(std::memory_order_relaxed)) {
      while (ring.Front() != nullptr) ring.Pop();
    }
  });
  uint64_t waits = 0;
  for (auto _ : state) {
    while (!ring.TryPush(uint64_t{1})) ++waits;
  }
  stop = true;
  consumer.join();
  state.counters["waits"] =
      benchmark::Counter(static_cast<double>(waits), benchmark::Counter::kAvgIterations);
}
BENCHMARK(BM_Stream)->UseRealTime();

// One element to another thread that polls, and its answer.
void BM_RoundTrip(benchmark::State& state) {
  SpscRing<uint64_t> there(kCapacity);
  SpscRing<uint64_t> back(kCapacity);
  std::atomic<bool> stop{false};
  std::thread other([&] {
    while (!stop.load(std::memory_order_relaxed)) {
      const uint64_t* element = there.Front();
      if (element == nullptr) continue;
      back.TryPush(uint64_t{*element});
      there.Pop();
    }
  });
  for (auto _ : state) {
    there.TryPush(uint64_t{1});
    while (back.Front() == nullptr) {
    }
    back.Pop();
  }
  stop = true;
  other.join();
}
BENCHMARK(BM_RoundTrip)->UseRealTime();

}  // namespace
}  // namespace ringsock
