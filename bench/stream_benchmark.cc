// What TCP costs through the streams of each loop, over this host's loopback, both ends in one
// thread: CPU time per piece that was written into the send queue and came out on the other side
// (one item is one piece). Beside it the bare system calls, send() and recv() of the same pieces on
// as many sockets without ever asking which is ready: what no loop can beat with a call per piece.
//
// Arguments: bytes of a piece, pieces that a stream sends at once, streams.
#include <benchmark/benchmark.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <cstring>
#include <memory>
#include <vector>

#include "io/fd.h"
#include "io/loop.h"
#include "io/mmsg_loop.h"
#include "io/stream.h"
#include "io/uring_loop.h"

namespace ringsock::io {
namespace {

using MakeLoop = absl::StatusOr<std::unique_ptr<Loop>> (*)(const LoopOptions&);

class Counting final : public StreamHandler, public ListenHandler {
 public:
  void OnConnect(StreamId) override { ++connects; }
  void OnReceive(StreamId, std::span<std::byte> piece) override {
    bytes += piece.size();
    ++pieces;
  }
  void OnWritable(StreamId) override {}
  void OnEnd(StreamId) override {}
  void OnClose(StreamId, const absl::Status&) override { ++closed; }
  StreamHandler* OnAccept(StreamId, StreamId, const Endpoint&) override {
    ++accepts;
    return this;
  }
  size_t connects = 0;
  size_t accepts = 0;
  size_t closed = 0;
  uint64_t bytes = 0;
  uint64_t pieces = 0;
};

void Report(benchmark::State& state, uint64_t pieces, size_t piece) {
  state.SetItemsProcessed(static_cast<int64_t>(pieces));
  state.SetBytesProcessed(static_cast<int64_t>(pieces * piece));
  state.counters["per_piece"] = benchmark::Counter(
      static_cast<double>(pieces), benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
}

enum class Fill { kInPlace, kCopy };

void BM_Streams(benchmark::State& state, MakeLoop make, Fill fill, LoopOptions options = {}) {
  const auto piece = static_cast<size_t>(state.range(0));
  const auto burst = static_cast<size_t>(state.range(1));
  const auto streams = static_cast<size_t>(state.range(2));
  auto sending = make(options), receiving = make(options);
  if (!sending.ok() || !receiving.ok()) return state.SkipWithError("no such loop on this host");
  Loop& from = **sending;
  Loop& to = **receiving;
  Counting connector, acceptor;
  const auto turn = [&] {
    from.Poll(Instant::min());
    to.Poll(Instant::min());
  };
  const auto listener =
      to.streams()->Listen({.bind = {IpAddress::V4(127, 0, 0, 1), 0, 0}}, &acceptor);
  if (!listener.ok()) return state.SkipWithError("cannot listen");
  std::vector<StreamId> ids;
  while (ids.size() < streams) {
    ids.push_back(from.streams()
                      ->Connect({.to = to.streams()->LocalEndpoint(*listener)}, &connector)
                      .value());
    while (connector.connects < ids.size() || acceptor.accepts < ids.size()) turn();
  }
  const std::vector<std::byte> bytes(piece, std::byte{0x55});
  uint64_t expected = 0;
  for (auto _ : state) {
    for (const StreamId id : ids) {
      for (size_t i = 0; i < burst; ++i) {
        if (fill == Fill::kCopy) {
          expected += from.streams()->Send(id, bytes);
        } else {
          const auto space = from.streams()->SendSpace(id, piece);
          from.streams()->CommitSend(id, space.size());
          expected += space.size();
        }
      }
    }
    while (acceptor.bytes < expected && acceptor.closed == 0) turn();
  }
  if (expected != state.iterations() * piece * burst * streams || acceptor.closed > 0) {
    state.SkipWithError("not all was carried");
  }
  Report(state, state.iterations() * burst * streams, piece);
  state.counters["received_at_once"] =
      static_cast<double>(acceptor.bytes) / static_cast<double>(acceptor.pieces);
}

struct Connection {
  Fd from, to;
};

Connection ConnectBare() {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof address;
  auto* name = reinterpret_cast<sockaddr*>(&address);
  const Fd listener(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  Connection connection{Fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)), Fd()};
  const int on = 1;
  if (bind(listener.get(), name, length) != 0 || listen(listener.get(), 1) != 0 ||
      getsockname(listener.get(), name, &length) != 0 ||
      connect(connection.from.get(), name, length) != 0 ||
      setsockopt(connection.from.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) != 0) {
    return {};
  }
  connection.to = Fd(accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
  return connection;
}

void BM_BareCalls(benchmark::State& state) {
  const auto piece = static_cast<size_t>(state.range(0));
  const auto burst = static_cast<size_t>(state.range(1));
  std::vector<Connection> connections(static_cast<size_t>(state.range(2)));
  for (Connection& connection : connections) {
    connection = ConnectBare();
    if (!connection.to.valid()) return state.SkipWithError("cannot connect");
  }
  // As the loops: what is queued goes in one call, and is read in one as far as it is there.
  const std::vector<std::byte> bytes(piece * burst, std::byte{0x55});
  std::vector<std::byte> buffer(64 << 10);
  for (auto _ : state) {
    for (const Connection& connection : connections) {
      if (send(connection.from.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL) !=
          static_cast<ssize_t>(bytes.size())) {
        return state.SkipWithError("send");
      }
    }
    for (const Connection& connection : connections) {
      for (size_t left = bytes.size(); left > 0;) {
        const ssize_t size = recv(connection.to.get(), buffer.data(), buffer.size(), 0);
        if (size <= 0) return state.SkipWithError("recv");
        left -= static_cast<size_t>(size);
      }
    }
  }
  Report(state, state.iterations() * burst * connections.size(), piece);
}

void Cases(benchmark::internal::Benchmark* benchmark) {
  // A bulk stream and many; packets one by one on many, eight at once, and on more streams than
  // there are receive buffers.
  benchmark->Args({16384, 4, 1})->Args({16384, 1, 20})->Args({1400, 1, 50})->Args({1400, 8, 50});
  benchmark->Args({1400, 2, 200})->MeasureProcessCPUTime();
}

BENCHMARK(BM_BareCalls)->Apply(Cases);
BENCHMARK_CAPTURE(BM_Streams, uring, &MakeUringLoop, Fill::kInPlace)->Apply(Cases);
LoopOptions Buffers(uint32_t count, uint32_t size) {
  LoopOptions options;
  options.stream_buffers = count;
  options.stream_buffer_size = size;
  return options;
}
BENCHMARK_CAPTURE(BM_Streams, uring_64x16k, &MakeUringLoop, Fill::kInPlace, Buffers(64, 16 << 10))
    ->Apply(Cases);
BENCHMARK_CAPTURE(BM_Streams, uring_copy, &MakeUringLoop, Fill::kCopy)->Apply(Cases);
BENCHMARK_CAPTURE(BM_Streams, mmsg, &MakeMmsgLoop, Fill::kInPlace)->Apply(Cases);
BENCHMARK_CAPTURE(BM_Streams, mmsg_copy, &MakeMmsgLoop, Fill::kCopy)->Apply(Cases);

}  // namespace
}  // namespace ringsock::io
