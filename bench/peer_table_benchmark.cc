// What finding a peer costs, over the number of peers: by address (also in batches, and beside a
// writer), by key and by id, against absl::flat_hash_map without any lock; what an update
// costs; what a peer weighs. Keys are looked up in random order.
#include "core/peer_table.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <map>
#include <memory>
#include <random>
#include <thread>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "benchmark/benchmark.h"
#include "core/path_learner.h"

namespace ringsock {
namespace {

PublicKey Key(uint32_t number) {
  std::mt19937 random(number);
  PublicKey key;
  for (uint8_t& byte : key.bytes) byte = static_cast<uint8_t>(random());
  return key;
}

Endpoint Address(uint32_t number, bool v6 = false) {
  Endpoint endpoint;
  endpoint.ip = IpAddress::V4(0x0a000000u + number / 50);
  if (v6) endpoint.ip.bytes[0] = 0x20;
  endpoint.port = static_cast<uint16_t>(1000 + number % 50);
  return endpoint;
}

// A table with `count` peers of two addresses each, made once per count, with a random order.
struct World {
  explicit World(uint32_t count, bool v6)
      : table({.max_peers = count + 1000, .seed = 7}, &quiescence) {
    for (uint32_t i = 0; i < count; ++i) {
      const std::vector<Endpoint> list = {Address(2 * i, v6), Address(2 * i + 1, v6)};
      ids.push_back(*table.Create(Key(i), list));
      map[list[0]] = table.FindById(ids.back());
      map[list[1]] = table.FindById(ids.back());
      if (i % 1024 == 0) quiescence.Reclaim();
    }
    std::mt19937 random(1);
    order.resize(std::max<size_t>(1u << 16, count));
    for (uint32_t& n : order) n = random() % (2 * count);
    for (uint32_t n : order) from.push_back(Address(n, v6));
    reader = *quiescence.Register();
  }

  static World& Of(int64_t count, bool v6 = false) {
    static std::map<std::pair<int64_t, bool>, std::unique_ptr<World>> worlds;
    auto& world = worlds[{count, v6}];
    if (world == nullptr) world = std::make_unique<World>(static_cast<uint32_t>(count), v6);
    return *world;
  }

  Quiescence quiescence;
  PeerTable table;
  Quiescence::Reader reader;
  std::vector<PeerId> ids;
  absl::flat_hash_map<Endpoint, Peer*> map;
  std::vector<uint32_t> order;
  std::vector<Endpoint> from;
};

// Adds and removes peers on a thread of its own, at a rate or flat out.
class Writer {
 public:
  Writer(World* world, bool flat_out)
      : thread_([this, world, flat_out] { Run(world, flat_out); }) {}
  ~Writer() {
    stop_ = true;
    thread_.join();
  }
  uint64_t updates() const { return updates_.load(std::memory_order_relaxed); }

 private:
  void Run(World* world, bool flat_out) {
    const auto count = static_cast<uint32_t>(world->ids.size());
    auto next = std::chrono::steady_clock::now();
    for (uint32_t i = 0; !stop_; i = (i + 1) % 500) {
      const std::vector<Endpoint> list = {Address(2 * (count + i)), Address(2 * (count + i) + 1)};
      const auto id = world->table.Create(Key(count + i), list);
      world->table.Remove(*id);
      world->quiescence.Reclaim();
      updates_.fetch_add(2, std::memory_order_relaxed);
      // 10,000 updates a second, also if some come late.
      if (!flat_out) std::this_thread::sleep_until(next += std::chrono::microseconds(200));
    }
  }

  std::atomic<bool> stop_{false};
  std::atomic<uint64_t> updates_{0};
  std::thread thread_;
};

void Lookups(benchmark::State& state, World& world) {
  world.reader.Online();
  size_t i = 0;
  for (auto _ : state) {
    benchmark::DoNotOptimize(world.table.OwnerOf(world.from[i]));
    if (++i == world.from.size()) i = 0;
    if (i % 64 == 0) world.reader.Announce();
  }
  world.reader.Offline();
}

void BM_FlatHashMap(benchmark::State& state) {
  World& world = World::Of(state.range(0));
  size_t i = 0;
  for (auto _ : state) {
    Peer* peer = world.map.find(world.from[i])->second;
    benchmark::DoNotOptimize(static_cast<const void*>(peer));
    if (++i == world.from.size()) i = 0;
  }
}
// The same with the peer's id read, which is what the others here find.
void BM_FlatHashMapAndPeer(benchmark::State& state) {
  World& world = World::Of(state.range(0));
  size_t i = 0;
  for (auto _ : state) {
    Peer* peer = world.map.find(world.from[i])->second;
    benchmark::DoNotOptimize(PeerId{peer->id()});
    if (++i == world.from.size()) i = 0;
  }
}
void BM_ByAddress(benchmark::State& state) { Lookups(state, World::Of(state.range(0))); }

// As many at a time as a shard looks up together.
constexpr size_t kBatch = 32;

// `confirm`: and each is asked whether a packet from there is news, as authenticated ones are.
template <bool confirm>
void Batches(benchmark::State& state, World& world) {
  const PathLearner learner(&world.table);
  world.reader.Online();
  std::array<const Endpoint*, kBatch> keys;
  std::array<PeerId, kBatch> out;
  size_t i = 0;
  for (auto _ : state) {
    for (size_t k = 0; k < keys.size(); ++k) keys[k] = &world.from[i + k];
    world.table.OwnersOf(keys, out.data());
    if (confirm) world.table.PrefetchPeers(out);
    for (size_t k = 0; k < out.size(); ++k) {
      benchmark::DoNotOptimize(out[k]);
      if (confirm) benchmark::DoNotOptimize(learner.News(out[k], *keys[k]) == nullptr);
    }
    i += keys.size();
    if (i + keys.size() > world.from.size()) i = 0;
    world.reader.Announce();
  }
  world.reader.Offline();
  state.counters["per_lookup"] =
      benchmark::Counter(static_cast<double>(state.iterations()) * kBatch,
                         benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
}
void BM_ByAddressBatch(benchmark::State& state) {
  Batches<false>(state, World::Of(state.range(0)));
}
void BM_ByAddressV6Batch(benchmark::State& state) {
  Batches<false>(state, World::Of(state.range(0), true));
}
void BM_ByAddressBatchAndConfirm(benchmark::State& state) {
  Batches<true>(state, World::Of(state.range(0)));
}

void BM_ByAddressUnknown(benchmark::State& state) {
  World& world = World::Of(state.range(0));
  world.reader.Online();
  Endpoint from = Address(0);
  from.port = 9;  // nobody's
  for (auto _ : state) {
    from.ip.bytes[15]++;
    benchmark::DoNotOptimize(world.table.OwnerOf(from));
  }
  world.reader.Offline();
}

void BesideAWriter(benchmark::State& state, bool flat_out,
                   void (*read)(benchmark::State&, World&)) {
  World& world = World::Of(state.range(0));
  world.reader.Offline();
  Writer writer(&world, flat_out);
  read(state, world);
  state.counters["updates/s"] =
      benchmark::Counter(static_cast<double>(writer.updates()), benchmark::Counter::kIsRate);
}
void BM_ByAddressBesideAWriter(benchmark::State& state) { BesideAWriter(state, false, Lookups); }
void BM_ByAddressBatchBesideAWriter(benchmark::State& state) {
  BesideAWriter(state, false, Batches<false>);
}
void BM_ByAddressBesideAWriterFlatOut(benchmark::State& state) {
  BesideAWriter(state, true, Lookups);
}

void BM_ById(benchmark::State& state) {
  World& world = World::Of(state.range(0));
  world.reader.Online();
  size_t i = 0;
  for (auto _ : state) {
    benchmark::DoNotOptimize(
        static_cast<const void*>(world.table.FindById(world.ids[world.order[i] / 2])));
    if (++i == world.order.size()) i = 0;
  }
  world.reader.Offline();
}

// A peer added and removed again.
void BM_AddAndRemove(benchmark::State& state) {
  World& world = World::Of(state.range(0));
  const auto count = static_cast<uint32_t>(world.ids.size());
  const std::vector<Endpoint> list = {Address(2 * count), Address(2 * count + 1)};
  const PublicKey key = Key(count);
  for (auto _ : state) {
    world.table.Remove(*world.table.Create(key, list));
    world.quiescence.Reclaim();
  }
  state.counters["bytes/peer"] =
      static_cast<double>(world.table.MemoryUsed()) / static_cast<double>(world.table.size());
}

// All peers made in an empty table.
void BM_Fill(benchmark::State& state) {
  const auto count = static_cast<uint32_t>(state.range(0));
  std::vector<PublicKey> keys;
  for (uint32_t i = 0; i < count; ++i) keys.push_back(Key(i));
  for (auto _ : state) {
    Quiescence quiescence;
    PeerTable table({.max_peers = count, .seed = 7}, &quiescence);
    for (uint32_t i = 0; i < count; ++i) {
      const std::array<Endpoint, 2> list = {Address(2 * i), Address(2 * i + 1)};
      benchmark::DoNotOptimize(bool{table.Create(keys[i], list).ok()});
      quiescence.Reclaim();
    }
  }
  state.SetItemsProcessed(state.iterations() * count);
}

#define RINGSOCK_OVER_PEERS(name) BENCHMARK(name)->Arg(1000)->Arg(100000)->Arg(1000000)
RINGSOCK_OVER_PEERS(BM_FlatHashMap);
RINGSOCK_OVER_PEERS(BM_FlatHashMapAndPeer);
RINGSOCK_OVER_PEERS(BM_ByAddress);
RINGSOCK_OVER_PEERS(BM_ByAddressBatch);
RINGSOCK_OVER_PEERS(BM_ByAddressV6Batch);
RINGSOCK_OVER_PEERS(BM_ByAddressBatchAndConfirm);
RINGSOCK_OVER_PEERS(BM_ByAddressUnknown);
RINGSOCK_OVER_PEERS(BM_ByAddressBesideAWriter)->UseRealTime();
RINGSOCK_OVER_PEERS(BM_ByAddressBatchBesideAWriter)->UseRealTime();
RINGSOCK_OVER_PEERS(BM_ByAddressBesideAWriterFlatOut)->UseRealTime();
RINGSOCK_OVER_PEERS(BM_ById);
BENCHMARK(BM_AddAndRemove)->Arg(50)->Arg(50000)->Arg(1000000);
BENCHMARK(BM_Fill)->Arg(100000)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace ringsock
