// What the choice of a path costs: per packet sent (Choose) and per packet received (IsCurrent), in
// each state, and beside threads that learn paths.
#include "core/address_set.h"

#include <atomic>
#include <thread>
#include <vector>

#include "benchmark/benchmark.h"

namespace ringsock {
namespace {

std::vector<Endpoint> List() {
  return {RelayEndpoint(1), *Endpoint::Parse("123.45.67.89:123"), *Endpoint::Parse("10.0.0.1:123")};
}
const Endpoint kRoam = *Endpoint::Parse("5.6.7.8:123");
const Instant kNow = Instant(std::chrono::hours(1));

void Choose(benchmark::State& state, AddressSet* set, bool handshake, Instant now) {
  Destinations out;
  for (auto _ : state) {
    set->Choose(handshake, now, &out);
    benchmark::DoNotOptimize(static_cast<const void*>(&out));
    benchmark::ClobberMemory();
  }
}

void BM_ChooseCurrent(benchmark::State& state) {
  const auto set = AddressSet::New(List());
  set->Confirm(List()[1]);
  Choose(state, set.get(), false, kNow);
}
BENCHMARK(BM_ChooseCurrent);

void BM_ChooseRoam(benchmark::State& state) {
  const auto set = AddressSet::New(List());
  set->Confirm(kRoam);
  Choose(state, set.get(), false, kNow);
}
BENCHMARK(BM_ChooseRoam);

void BM_ChooseHandshake(benchmark::State& state) {
  const auto set = AddressSet::New(List());
  Choose(state, set.get(), true, kNow);
}
BENCHMARK(BM_ChooseHandshake);

// Inside the spray window, no spray due.
void BM_ChooseInWindow(benchmark::State& state) {
  const auto set = AddressSet::New(List());
  Destinations out;
  set->Choose(true, kNow, &out);
  Choose(state, set.get(), false, kNow);
}
BENCHMARK(BM_ChooseInWindow);

void IsCurrent(benchmark::State& state, const AddressSet& set, const Endpoint& from) {
  for (auto _ : state) {
    benchmark::DoNotOptimize(bool{set.IsCurrent(from)});
    benchmark::ClobberMemory();
  }
}

void BM_IsCurrent(benchmark::State& state) {
  const auto set = AddressSet::New(List());
  set->Confirm(List()[1]);
  IsCurrent(state, *set, List()[1]);
}
BENCHMARK(BM_IsCurrent);

void BM_IsCurrentRoam(benchmark::State& state) {
  const auto set = AddressSet::New(List());
  set->Confirm(kRoam);
  IsCurrent(state, *set, kRoam);
}
BENCHMARK(BM_IsCurrentRoam);

// Two roaming addresses learned in turn, as fast as can be.
void BM_ConfirmRoamChange(benchmark::State& state) {
  const auto set = AddressSet::New(List());
  Endpoint other = kRoam;
  ++other.port;
  bool odd = false;
  for (auto _ : state) {
    benchmark::DoNotOptimize(PathChange{set->Confirm((odd = !odd) ? kRoam : other)});
  }
}
BENCHMARK(BM_ConfirmRoamChange);

void BM_ChooseBesideALearnerFlatOut(benchmark::State& state) {
  const auto set = AddressSet::New(List());
  std::atomic<bool> stop{false};
  std::thread learner([&] {
    Endpoint from = kRoam;
    while (!stop.load(std::memory_order_relaxed)) {
      ++from.port;
      set->Confirm(from);
    }
  });
  Choose(state, set.get(), false, kNow);
  stop = true;
  learner.join();
}
BENCHMARK(BM_ChooseBesideALearnerFlatOut);

}  // namespace
}  // namespace ringsock
