// Fuzzes the frame decoder. The first byte chooses the direction and how the rest is cut; whatever
// the cut, the frames must be those of the uncut stream, and what parses must survive being
// encoded.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <vector>

#include "derp/frame.h"

namespace ringsock::derp {
namespace {

using Decoded = std::vector<std::vector<std::byte>>;

void Check(bool good) {
  if (!good) std::abort();
}

// A payload that parses can be encoded, and then parses to the same encoding.
template <typename Payload>
void CheckRoundTrip(Bytes bytes) {
  Payload payload;
  if (!Parse(bytes, &payload)) return;
  std::vector<std::byte> once(kFrameHeaderSize + bytes.size() + 128);
  once.resize(Encode(payload, once));
  Check(!once.empty());
  Check(Parse(Bytes(once).subspan(kFrameHeaderSize), &payload));
  std::vector<std::byte> twice(once.size());
  Check(Encode(payload, twice) == once.size() && once == twice);
}

void CheckPayload(const Frame& frame) {
  const Bytes payload = frame.payload();
  CheckRoundTrip<ServerKeyFrame>(payload);
  CheckRoundTrip<NotePreferredFrame>(payload);
  CheckRoundTrip<PeerGoneFrame>(payload);
  CheckRoundTrip<PeerPresentFrame>(payload);
  CheckRoundTrip<ClosePeerFrame>(payload);
  CheckRoundTrip<PingFrame>(payload);
  CheckRoundTrip<RestartingFrame>(payload);
  if (frame.type == FrameType::kSendPacket) CheckRoundTrip<SendPacketFrame>(payload);
  if (frame.type == FrameType::kRecvPacket) CheckRoundTrip<RecvPacketFrame>(payload);
  if (frame.type == FrameType::kForwardPacket) CheckRoundTrip<ForwardPacketFrame>(payload);
  if (frame.type == FrameType::kClientInfo) CheckRoundTrip<ClientInfoFrame>(payload);
  if (frame.type == FrameType::kHealth) CheckRoundTrip<HealthFrame>(payload);
}

Decoded Decode(Direction direction, std::vector<std::byte> stream, size_t chunk_size) {
  FrameDecoder decoder(direction);
  Decoded frames;
  MutableBytes rest = stream;
  while (!rest.empty()) {
    MutableBytes chunk = rest.first(std::min(chunk_size, rest.size()));
    rest = rest.subspan(chunk.size());
    while (true) {
      Frame frame;
      const FrameDecoder::Result result = decoder.Next(&chunk, &frame);
      if (result == FrameDecoder::Result::kTooLong) return frames;
      if (result == FrameDecoder::Result::kNeedMore) break;
      if (result == FrameDecoder::Result::kOversized) continue;
      Check(frame.payload().size() <= *MaxPayload(direction, frame.type));
      CheckPayload(frame);
      frames.emplace_back(frame.bytes.begin(), frame.bytes.end());
    }
    Check(chunk.empty());
    Check(decoder.buffered() <= stream.size());
  }
  return frames;
}

}  // namespace
}  // namespace ringsock::derp

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using ringsock::derp::Decode;
  if (size == 0) return 0;
  const auto direction = data[0] % 2 == 0 ? ringsock::derp::Direction::kToClient
                                          : ringsock::derp::Direction::kToServer;
  const size_t chunk = 1 + data[0] / 2;
  const auto* bytes = reinterpret_cast<const std::byte*>(data);
  const std::vector<std::byte> stream(bytes + 1, bytes + size);
  if (Decode(direction, stream, chunk) != Decode(direction, stream, SIZE_MAX)) std::abort();
  return 0;
}
