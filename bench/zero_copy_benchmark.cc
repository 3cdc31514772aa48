// What a train of 1400-byte packets costs with and without a copy, through the io_uring loop, out
// of a slab and out of a receive buffer that is forwarded: CPU time of this thread per packet.
// Needs root for a device of its own, an ifb whose packets end in it (what a network card's driver
// costs is not in the figure, which makes the copy look larger than it is beside a card, and no
// smaller).
//
// Arguments: packets of a train, LoopOptions::zero_copy. On loopback the kernel copies in any case,
// so after one trial both are the same.
#include <benchmark/benchmark.h>
#include <sched.h>

#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>

#include "io/loop.h"
#include "io/uring_loop.h"

namespace ringsock::io {
namespace {

constexpr uint32_t kSize = 1400;
constexpr int kTrainsPerFlush = 8;

class Nothing final : public UdpHandler {
 public:
  void OnReceive(SocketId, std::span<const RxTrain>) override {}
  void OnSendFailure(SocketId, const SendFailure& failure) override { failed += failure.packets; }
  uint64_t failed = 0;
};

// In this process, for good: the device goes with it.
bool EnterNamespaceWithDevice() {
  static const bool entered =
      unshare(CLONE_NEWNET) == 0 &&
      system(
          "ip link set lo up && ip link add z type ifb 2>/dev/null && ip link set z up && "
          "ip address add 198.18.0.1/24 dev z && "
          "ip neigh add 198.18.0.2 lladdr 02:00:00:00:00:02 dev z nud permanent") == 0;
  return entered;
}

void Report(benchmark::State& state, const UdpStats& stats, uint64_t failed) {
  state.counters["per_packet"] =
      benchmark::Counter(static_cast<double>(stats.tx_packets),
                         benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
  const auto trains = static_cast<double>(stats.tx_trains);
  state.counters["zero_copy"] = static_cast<double>(stats.tx_zero_copy) / trains;
  state.counters["copied"] = static_cast<double>(stats.tx_zero_copy_copied) / trains;
  if (failed > 0) state.SkipWithError("sends failed");
}

// Builds nothing: the slabs hold what they held.
void BM_SendSlabs(benchmark::State& state, const char* device) {
  if (!EnterNamespaceWithDevice()) return state.SkipWithError("needs root, iproute2 and an ifb");
  LoopOptions options;
  options.zero_copy = state.range(1) != 0;
  auto loop = MakeUringLoop(options);
  if (!loop.ok()) return state.SkipWithError(std::string(loop.status().message()).c_str());
  Nothing handler;
  const bool loopback = strcmp(device, "lo") == 0;
  UdpConfig config;
  config.bind = {loopback ? IpAddress::V4(127, 0, 0, 1) : IpAddress::V4(198, 18, 0, 1), 0, 0};
  const SocketId socket = (*loop)->OpenUdp(config, &handler).value();
  Endpoint to{IpAddress::V4(198, 18, 0, 2), 9, 0};
  SocketId sink = 0;
  if (loopback) {
    sink = (*loop)->OpenUdp(config, &handler).value();
    to = (*loop)->LocalEndpoint(sink);
  }
  const auto bytes = static_cast<uint32_t>(state.range(0)) * kSize;
  for (auto _ : state) {
    for (int i = 0; i < kTrainsPerFlush; ++i) {
      TxSlab* slab = (*loop)->AcquireSlab();
      if (slab == nullptr) break;
      (*loop)->Send(socket, {slab->data, bytes, kSize, to, {}, slab});
    }
    (*loop)->Poll(Instant::min());  // flushes, and takes notifications and what loopback brought
  }
  Report(state, (*loop)->Stats(socket), handler.failed);
}

BENCHMARK_CAPTURE(BM_SendSlabs, device, "z")->ArgsProduct({{1, 4, 8, 12, 16, 24, 32, 46}, {0, 1}});
BENCHMARK_CAPTURE(BM_SendSlabs, loopback, "lo")->ArgsProduct({{16, 46}, {0, 1}});

// What arrives over loopback leaves by the device, so the way in is in the figure too.
class Forward final : public UdpHandler {
 public:
  void OnReceive(SocketId, std::span<const RxTrain> trains) override {
    for (const RxTrain& train : trains) {
      loop->Send(out, {train.data, train.size, train.segment_size, to, {}, nullptr});
    }
  }
  void OnSendFailure(SocketId, const SendFailure& failure) override { failed += failure.packets; }
  Loop* loop = nullptr;
  SocketId out = 0;
  Endpoint to{IpAddress::V4(198, 18, 0, 2), 9, 0};
  uint64_t failed = 0;
};

void BM_ForwardReceived(benchmark::State& state) {
  if (!EnterNamespaceWithDevice()) return state.SkipWithError("needs root, iproute2 and an ifb");
  LoopOptions options;
  options.zero_copy = state.range(1) != 0;
  auto loop = MakeUringLoop(options);
  if (!loop.ok()) return state.SkipWithError(std::string(loop.status().message()).c_str());
  Forward handler;
  handler.loop = loop->get();
  UdpConfig config;
  config.bind = {IpAddress::V4(198, 18, 0, 1), 0, 0};
  handler.out = (*loop)->OpenUdp(config, &handler).value();
  config.bind.ip = IpAddress::V4(127, 0, 0, 1);
  const SocketId in = (*loop)->OpenUdp(config, &handler).value();
  const SocketId source = (*loop)->OpenUdp(config, &handler).value();
  const Endpoint to = (*loop)->LocalEndpoint(in);
  const auto bytes = static_cast<uint32_t>(state.range(0)) * kSize;
  const auto memory = std::make_unique<std::byte[]>(bytes);
  for (auto _ : state) {
    for (int i = 0; i < kTrainsPerFlush; ++i) {
      (*loop)->Send(source, {memory.get(), bytes, kSize, to, {}, nullptr});
    }
    (*loop)->Poll(Instant::min());
  }
  Report(state, (*loop)->Stats(handler.out), handler.failed);
}
BENCHMARK(BM_ForwardReceived)->ArgsProduct({{1, 8, 16, 32, 46}, {0, 1}});

}  // namespace
}  // namespace ringsock::io
