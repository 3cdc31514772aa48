// What a relay pays for frames alone, without TLS and sockets: cutting a stream of SendPacket
// frames and turning each into a RecvPacket in place (one item is one packet), for sizes that
// matter and for reads of one TLS record and of several. And what a client pays to encode a
// packet, beside the bare copy of as many bytes.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "derp/frame.h"

namespace ringsock::derp {
namespace {

constexpr size_t kPacketsInStream = 1024;

std::vector<std::byte> Stream(size_t packet_size) {
  const std::vector<std::byte> packet(packet_size, std::byte{0x55});
  const size_t frame_size = kPacketHeaderSize + packet_size;
  std::vector<std::byte> stream(kPacketsInStream * frame_size);
  for (size_t i = 0; i < kPacketsInStream; ++i) {
    PublicKey key;
    key.bytes[0] = static_cast<uint8_t>(i);
    Encode(SendPacketFrame{key, packet}, MutableBytes(stream).subspan(i * frame_size));
  }
  return stream;
}

// Arguments: packet size, read size. The stream is cut where the reads end, so that a frame in each
// read straddles its end, as on a real connection.
void BM_DecodeAndTurn(benchmark::State& state) {
  const auto packet_size = static_cast<size_t>(state.range(0));
  const auto read_size = static_cast<size_t>(state.range(1));
  const std::vector<std::byte> original = Stream(packet_size);
  std::vector<std::byte> stream = original;
  FrameDecoder decoder(Direction::kToServer);
  const PublicKey source{{1, 2, 3}};
  uint64_t packets = 0;
  for (auto _ : state) {
    for (MutableBytes rest = stream; !rest.empty();) {
      MutableBytes read = rest.first(std::min(read_size, rest.size()));
      rest = rest.subspan(read.size());
      Frame frame;
      while (decoder.Next(&read, &frame) == FrameDecoder::Result::kFrame) {
        SendPacketFrame packet;
        if (!Parse(frame.payload(), &packet)) state.SkipWithError("short frame");
        benchmark::DoNotOptimize(packet.destination.bytes.data());
        TurnIntoRecv(frame, source);
        // Back, so that the next round reads the same.
        frame.bytes[0] = static_cast<std::byte>(FrameType::kSendPacket);
        ++packets;
      }
    }
  }
  if (packets != kPacketsInStream * state.iterations()) state.SkipWithError("lost packets");
  state.SetItemsProcessed(static_cast<int64_t>(packets));
  state.counters["copied_per_packet"] =
      static_cast<double>(decoder.counters().copied_bytes) / static_cast<double>(packets);
}
BENCHMARK(BM_DecodeAndTurn)
    ->ArgNames({"packet", "read"})
    ->Args({64, 16384})
    ->Args({1400, 16384})
    ->Args({64, 65536})
    ->Args({1400, 65536})
    ->Args({1400, 1437});  // every read is one frame: the fewest copies there can be

// A client's way out: one packet into the memory of its queue.
void BM_Encode(benchmark::State& state) {
  const std::vector<std::byte> packet(static_cast<size_t>(state.range(0)), std::byte{0x55});
  std::vector<std::byte> out(kPacketHeaderSize + packet.size());
  const PublicKey key{{1, 2, 3}};
  for (auto _ : state) {
    const size_t size = Encode(SendPacketFrame{key, packet}, out);
    benchmark::DoNotOptimize(size);
    benchmark::ClobberMemory();
  }
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(BM_Encode)->ArgName("packet")->Arg(64)->Arg(1400);

// The limit: moving the same bytes and nothing else.
void BM_MemcpyOnly(benchmark::State& state) {
  const std::vector<std::byte> packet(static_cast<size_t>(state.range(0)), std::byte{0x55});
  std::vector<std::byte> out(packet.size());
  for (auto _ : state) {
    std::memcpy(out.data(), packet.data(), packet.size());
    benchmark::ClobberMemory();
  }
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(BM_MemcpyOnly)->ArgName("bytes")->Arg(64 + 37)->Arg(1400 + 37);

}  // namespace
}  // namespace ringsock::derp
