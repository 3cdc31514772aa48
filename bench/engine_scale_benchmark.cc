// What the number of peers costs an engine, through core/engine.h and with its threads: adding and
// removing one peer beside many others, creating many at a time, the start of a process that has
// them all, and the look at all of them. Sockets are open and silent.
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/log.h"
#include "benchmark/benchmark.h"
#include "core/engine.h"

namespace ringsock {
namespace {

class Nobody final : public Handler {
 public:
  void OnReceive(Shard&, std::span<const ReceivedTrain>) override {}
};

PublicKey Key(uint32_t number) {
  PublicKey key;
  key.bytes[0] = 1;
  for (size_t i = 0; i < 4; ++i) key.bytes[4 + i] = static_cast<uint8_t>(number >> (8 * i));
  return key;
}

// Two addresses: a relay's would weigh less.
std::string Addresses(uint32_t number) {
  const auto byte = [number](int shift) { return (number >> shift) & 0xff; };
  const std::string rest = absl::StrCat(byte(16), ".", byte(8), ".", byte(0));
  return absl::StrCat("10.", rest, ":41641,11.", rest, ":41641");
}

// Peers `first` to `first + count`, ready to be created.
struct Peers {
  Peers(uint32_t first, uint32_t count) {
    lists.reserve(count);
    for (uint32_t i = first; i < first + count; ++i) {
      lists.push_back(Addresses(i));
      keys.push_back(Key(i));
      peers.push_back({keys.back(), lists.back()});
    }
  }
  std::vector<std::string> lists;
  std::vector<PublicKey> keys;
  std::vector<PeerEndpoints> peers;
};

Nobody nobody;

std::unique_ptr<Engine> StartEngine() {
  Log().set_level(spdlog::level::warn);
  EngineOptions options;
  options.shards = 1;
  options.network.netcheck = false;
  options.network.watch_links = false;
  auto engine = Engine::Start(options, &nobody);
  if (!engine.ok()) {
    std::fprintf(stderr, "%s\n", engine.status().ToString().c_str());
    std::abort();
  }
  return *std::move(engine);
}

int64_t ResidentBytes() {
  long pages = 0;
  if (std::FILE* file = std::fopen("/proc/self/statm", "r")) {
    if (std::fscanf(file, "%*s %ld", &pages) != 1) pages = 0;
    std::fclose(file);
  }
  return int64_t{pages} * sysconf(_SC_PAGESIZE);
}

// One peer more and then one less, each by a call of its own, beside `range` others.
void BM_AddAndRemoveOne(benchmark::State& state) {
  const auto others = static_cast<uint32_t>(state.range(0));
  const auto engine = StartEngine();
  if (!engine->CreateEndpoints(Peers(0, others).peers).ok()) state.SkipWithError("no peers");
  const Peers one(others, 1);
  for (auto _ : state) {
    benchmark::DoNotOptimize(engine->CreateEndpoint(one.keys[0], one.lists[0]).ok());
    benchmark::DoNotOptimize(engine->RemovePeers(one.keys).ok());
  }
}

// As many at a time as fill a group of control's: what one costs without the way to control.
void BM_AddAndRemoveMany(benchmark::State& state) {
  constexpr uint32_t kMany = 256;
  const auto others = static_cast<uint32_t>(state.range(0));
  const auto engine = StartEngine();
  if (!engine->CreateEndpoints(Peers(0, others).peers).ok()) state.SkipWithError("no peers");
  const Peers many(others, kMany);
  for (auto _ : state) {
    benchmark::DoNotOptimize(engine->CreateEndpoints(many.peers).ok());
    benchmark::DoNotOptimize(engine->RemovePeers(many.keys).ok());
  }
  state.counters["per_peer"] =
      benchmark::Counter(static_cast<double>(state.iterations()) * kMany,
                         benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
}

// From nothing to an engine with `range` peers.
void BM_Start(benchmark::State& state) {
  const Peers all(0, static_cast<uint32_t>(state.range(0)));
  for (auto _ : state) {
    const int64_t before = ResidentBytes();
    auto engine = StartEngine();
    if (!engine->CreateEndpoints(all.peers).ok()) state.SkipWithError("no peers");
    state.PauseTiming();
    state.counters["resident/peer"] =
        static_cast<double>(ResidentBytes() - before) / static_cast<double>(state.range(0));
    engine.reset();
    state.ResumeTiming();
  }
}

// The same by one call for each peer.
void BM_StartOneByOne(benchmark::State& state) {
  const Peers all(0, static_cast<uint32_t>(state.range(0)));
  for (auto _ : state) {
    auto engine = StartEngine();
    for (size_t i = 0; i < all.keys.size(); ++i) {
      benchmark::DoNotOptimize(engine->CreateEndpoint(all.keys[i], all.lists[i]).ok());
    }
    state.PauseTiming();
    engine.reset();
    state.ResumeTiming();
  }
}

void BM_Status(benchmark::State& state) {
  const auto engine = StartEngine();
  const Peers all(0, static_cast<uint32_t>(state.range(0)));
  if (!engine->CreateEndpoints(all.peers).ok()) state.SkipWithError("no peers");
  for (auto _ : state) benchmark::DoNotOptimize(engine->Status().peers.size());
}

BENCHMARK(BM_AddAndRemoveOne)->Arg(50)->Arg(50000)->Arg(1000000)->UseRealTime();
BENCHMARK(BM_AddAndRemoveMany)->Arg(50)->Arg(50000)->Arg(1000000)->UseRealTime();
BENCHMARK(BM_Start)->Arg(1000)->Arg(100000)->Unit(benchmark::kMillisecond)->UseRealTime();
BENCHMARK(BM_Start)->Arg(1000000)->Unit(benchmark::kMillisecond)->UseRealTime()->Iterations(1);
BENCHMARK(BM_StartOneByOne)
    ->Arg(100000)
    ->Unit(benchmark::kMillisecond)
    ->UseRealTime()
    ->Iterations(1);
BENCHMARK(BM_Status)
    ->Arg(1000)
    ->Arg(100000)
    ->Arg(1000000)
    ->Unit(benchmark::kMillisecond)
    ->UseRealTime();

}  // namespace
}  // namespace ringsock
