// What a train costs on its way out and in, through each loop and the kernel: one thread sends a
// burst of trains over loopback, receives them, sends each back out of the buffer it came in, and
// receives that. No other thread has a part and nobody sleeps, so on a quiet host, in turns, two
// loops can be told apart to a few parts in a hundred, which `ringsock-bench` on two cores cannot.
// What wake-ups cost is not in it.
//
// Arguments: bytes of a datagram, datagrams of a train, trains of a burst. Counters: CPU time of
// this thread per train sent and received once, and per datagram.
#include <benchmark/benchmark.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "io/loop.h"

namespace ringsock::io {
namespace {

class Echo final : public UdpHandler {
 public:
  explicit Echo(Loop* loop) : loop_(*loop) {}
  void OnReceive(SocketId socket, std::span<const RxTrain> trains) override {
    for (const RxTrain& train : trains) {
      loop_.Send(socket, {train.data, train.size, train.segment_size, train.from, {}, nullptr});
    }
  }
  void OnSendFailure(SocketId, const SendFailure& failure) override { failed += failure.packets; }
  uint64_t failed = 0;

 private:
  Loop& loop_;
};

class Sink final : public UdpHandler {
 public:
  void OnReceive(SocketId, std::span<const RxTrain> trains) override { received += trains.size(); }
  void OnSendFailure(SocketId, const SendFailure& failure) override { failed += failure.packets; }
  uint64_t received = 0;
  uint64_t failed = 0;
};

void BM_Echo(benchmark::State& state, Backend backend) {
  const auto size = static_cast<uint32_t>(state.range(0));
  const auto datagrams = static_cast<uint32_t>(state.range(1));
  const auto burst = static_cast<uint64_t>(state.range(2));
  LoopOptions options;
  options.backend = backend;
  auto loop = CreateLoop(options);
  if (!loop.ok()) return state.SkipWithError(std::string(loop.status().message()).c_str());
  Echo echo(loop->get());
  Sink sink;
  UdpConfig config;
  config.bind = {IpAddress::V4(127, 0, 0, 1), 0, 0};
  const Endpoint to = (*loop)->LocalEndpoint((*loop)->OpenUdp(config, &echo).value());
  const SocketId source = (*loop)->OpenUdp(config, &sink).value();
  const std::vector<std::byte> bytes(size_t{size} * datagrams);
  const TxTrain train{bytes.data(), static_cast<uint32_t>(bytes.size()), size, to, {}, nullptr};
  for (auto _ : state) {
    const uint64_t goal = sink.received + burst;
    for (uint64_t i = 0; i < burst; ++i) (*loop)->Send(source, train);
    (*loop)->Flush();
    // Nothing is lost: a burst is far smaller than the buffers of the sockets.
    while (sink.received < goal && sink.failed + echo.failed == 0) (*loop)->Poll(Instant::max());
  }
  if (sink.failed + echo.failed > 0) return state.SkipWithError("sends failed");
  const auto trains = static_cast<double>(sink.received * 2);
  const auto kPer = benchmark::Counter::kIsRate | benchmark::Counter::kInvert;
  state.counters["per_train"] = benchmark::Counter(trains, kPer);
  state.counters["per_datagram"] = benchmark::Counter(trains * datagrams, kPer);
}

BENCHMARK_CAPTURE(BM_Echo, io_uring, Backend::kUring)
    ->ArgsProduct({{64, 1400}, {1, 8, 46}, {4, 32}});
BENCHMARK_CAPTURE(BM_Echo, mmsg, Backend::kMmsg)->ArgsProduct({{64, 1400}, {1, 8, 46}, {4, 32}});

}  // namespace
}  // namespace ringsock::io
