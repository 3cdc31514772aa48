// Frames against the recorded ones, streams in any chunks, and every bound.
#include "derp/frame.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include "tests/derp/vectors.h"

namespace ringsock::derp {
namespace {

using Result = FrameDecoder::Result;

// The payload of a recorded frame, parsed.
template <typename Payload>
Payload Parsed(const std::string& name) {
  static std::vector<ByteVector> keep;  // the views point into it
  keep.push_back(FrameVector(name));
  Payload payload;
  EXPECT_TRUE(Parse(Bytes(keep.back()).subspan(kFrameHeaderSize), &payload)) << name;
  return payload;
}

template <typename Payload>
std::string EncodedHex(const Payload& payload) {
  ByteVector out(kFrameHeaderSize + kMaxFramePayload);
  const size_t size = Encode(payload, out);
  return ToHex(Bytes(out).first(size));
}

std::string RecordedHex(const std::string& name) { return Vector("/frames/" + name); }

// Parsing a recorded frame and encoding what was understood gives its bytes again.
template <typename Payload>
void ExpectRoundTrip(const std::string& name) {
  EXPECT_EQ(EncodedHex(Parsed<Payload>(name)), RecordedHex(name)) << name;
}

ByteVector RawFrame(int type, size_t length, size_t present) {
  ByteVector bytes = {std::byte(type), std::byte(length >> 24), std::byte(length >> 16),
                      std::byte(length >> 8), std::byte(length)};
  bytes.resize(kFrameHeaderSize + present, std::byte{0xaa});
  return bytes;
}

// spec: derp.md, Frames: every row of the table.
TEST(FrameTest, EveryRecordedFrameRoundTrips) {
  ExpectRoundTrip<ServerKeyFrame>("server_key");
  ExpectRoundTrip<ClientInfoFrame>("client_info");
  ExpectRoundTrip<ServerInfoFrame>("server_info");
  ExpectRoundTrip<ServerInfoFrame>("server_info_token_bucket");
  ExpectRoundTrip<SendPacketFrame>("send_packet_to_peer");
  ExpectRoundTrip<RecvPacketFrame>("recv_packet_from_peer");
  ExpectRoundTrip<KeepAliveFrame>("keep_alive");
  ExpectRoundTrip<NotePreferredFrame>("note_preferred_true");
  ExpectRoundTrip<NotePreferredFrame>("note_preferred_false");
  ExpectRoundTrip<PeerGoneFrame>("peer_gone_disconnected");
  ExpectRoundTrip<PeerGoneFrame>("peer_gone_not_here");
  ExpectRoundTrip<PeerPresentFrame>("peer_present_key_only");
  ExpectRoundTrip<PeerPresentFrame>("peer_present_addr_v4");
  ExpectRoundTrip<PeerPresentFrame>("peer_present_addr_v6_flags_mesh");
  ExpectRoundTrip<ForwardPacketFrame>("forward_packet_client_to_peer");
  ExpectRoundTrip<WatchConnsFrame>("watch_conns");
  ExpectRoundTrip<ClosePeerFrame>("close_peer");
  ExpectRoundTrip<PingFrame>("ping");
  ExpectRoundTrip<PongFrame>("pong");
  ExpectRoundTrip<HealthFrame>("health_problem");
  ExpectRoundTrip<HealthFrame>("health_ok");
  ExpectRoundTrip<RestartingFrame>("restarting_500ms_5000ms");
}

TEST(FrameTest, FieldsMeanWhatTheSpecSays) {
  EXPECT_EQ(Parsed<ServerKeyFrame>("server_key").key, PublicVector("server"));
  // "more bytes ignored"
  EXPECT_EQ(Parsed<ServerKeyFrame>("server_key_with_future_bytes").key, PublicVector("server"));
  EXPECT_EQ(Parsed<ClientInfoFrame>("client_info").key, PublicVector("client"));
  const auto send = Parsed<SendPacketFrame>("send_packet_to_peer");
  EXPECT_EQ(send.destination, PublicVector("peer"));
  EXPECT_EQ(ToHex(send.packet), Vector("/packet"));
  EXPECT_EQ(Parsed<RecvPacketFrame>("recv_packet_from_peer").source, PublicVector("peer"));
  EXPECT_TRUE(Parsed<NotePreferredFrame>("note_preferred_true").preferred);
  EXPECT_FALSE(Parsed<NotePreferredFrame>("note_preferred_false").preferred);
  EXPECT_EQ(Parsed<PeerGoneFrame>("peer_gone_not_here").reason, PeerGoneReason::kNotHere);
  // "the byte may be missing: 0"
  EXPECT_EQ(Parsed<PeerGoneFrame>("peer_gone_old_no_reason").reason, PeerGoneReason::kDisconnected);
  EXPECT_EQ(Parsed<PeerPresentFrame>("peer_present_key_only").endpoint, std::nullopt);
  const auto present_v4 = Parsed<PeerPresentFrame>("peer_present_addr_v4");
  EXPECT_EQ(present_v4.endpoint, *Endpoint::Parse("192.0.2.7:4321"));
  EXPECT_EQ(present_v4.flags, std::nullopt);
  const auto present_v6 = Parsed<PeerPresentFrame>("peer_present_addr_v6_flags_mesh");
  EXPECT_EQ(present_v6.endpoint, *Endpoint::Parse("[2001:db8::7]:4321"));
  EXPECT_EQ(present_v6.flags, 2);
  const auto forward = Parsed<ForwardPacketFrame>("forward_packet_client_to_peer");
  EXPECT_EQ(forward.source, PublicVector("client"));
  EXPECT_EQ(forward.destination, PublicVector("peer"));
  EXPECT_EQ(Parsed<ClosePeerFrame>("close_peer").peer, PublicVector("peer"));
  EXPECT_EQ(Parsed<HealthFrame>("health_problem").problem, "duplicate connection");
  EXPECT_EQ(Parsed<HealthFrame>("health_ok").problem, "");
  const auto restarting = Parsed<RestartingFrame>("restarting_500ms_5000ms");
  EXPECT_EQ(restarting.reconnect_in, std::chrono::milliseconds(500));
  EXPECT_EQ(restarting.try_for, std::chrono::milliseconds(5000));
}

template <typename Payload>
void ExpectShortest(size_t shortest) {
  const ByteVector bytes(shortest, std::byte{1});
  Payload payload;
  EXPECT_TRUE(Parse(Bytes(bytes), &payload));
  if (shortest > 0) {
    EXPECT_FALSE(Parse(Bytes(bytes).first(shortest - 1), &payload));
  }
}

TEST(FrameTest, ShortPayloadsDoNotParse) {
  ExpectShortest<ClientInfoFrame>(32);
  ExpectShortest<SendPacketFrame>(32);
  ExpectShortest<RecvPacketFrame>(32);
  ExpectShortest<NotePreferredFrame>(1);
  ExpectShortest<PeerGoneFrame>(32);
  ExpectShortest<PeerPresentFrame>(32);
  ExpectShortest<ForwardPacketFrame>(64);
  ExpectShortest<ClosePeerFrame>(32);
  ExpectShortest<PingFrame>(8);
  ExpectShortest<PongFrame>(8);
  ExpectShortest<RestartingFrame>(8);
  const ByteVector key = FrameVector("server_key");
  ServerKeyFrame frame;
  EXPECT_FALSE(Parse(Bytes(key).subspan(kFrameHeaderSize, 39), &frame));
}

TEST(FrameTest, WrongMagicDoesNotParse) {
  for (size_t i = 0; i < 8; ++i) {
    ByteVector bytes = FrameVector("server_key");
    bytes[kFrameHeaderSize + i] ^= std::byte{1};
    ServerKeyFrame frame;
    EXPECT_FALSE(Parse(Bytes(bytes).subspan(kFrameHeaderSize), &frame)) << i;
  }
}

// spec: derp.md, Frames: "A packet is at most 65,536 bytes."
TEST(FrameTest, PacketBound) {
  ByteVector packet(kMaxPacket + 1);
  ByteVector out(2 * kMaxPacket);
  EXPECT_EQ(Encode(SendPacketFrame{PublicVector("peer"), Bytes(packet).first(kMaxPacket)}, out),
            kPacketHeaderSize + kMaxPacket);
  EXPECT_EQ(Encode(SendPacketFrame{PublicVector("peer"), packet}, out), 0u);
  EXPECT_EQ(Encode(ForwardPacketFrame{PublicVector("peer"), PublicVector("peer"), packet}, out),
            0u);
  SendPacketFrame frame;
  EXPECT_TRUE(Parse(Bytes(out).first(kKeySize + kMaxPacket), &frame));
  EXPECT_FALSE(Parse(Bytes(out).first(kKeySize + kMaxPacket + 1), &frame));
}

TEST(FrameTest, EncodeWritesNothingWithoutRoom) {
  const ByteVector packet(100, std::byte{7});
  const SendPacketFrame frame{PublicVector("peer"), packet};
  ByteVector out(kPacketHeaderSize + 100, std::byte{0xee});
  EXPECT_EQ(Encode(frame, MutableBytes(out).first(out.size() - 1)), 0u);
  EXPECT_THAT(out, ::testing::Each(std::byte{0xee}));
  EXPECT_EQ(Encode(frame, out), out.size());
  EXPECT_EQ(Encode(KeepAliveFrame{}, {}), 0u);
}

TEST(FrameTest, HeadersAloneAreTheFrontOfTheFrame) {
  const ByteVector whole = FrameVector("send_packet_to_peer");
  std::array<std::byte, kPacketHeaderSize> header;
  EncodeSendPacketHeader(PublicVector("peer"), whole.size() - kPacketHeaderSize, header);
  EXPECT_EQ(ToHex(header), ToHex(Bytes(whole).first(kPacketHeaderSize)));
  const ByteVector recv = FrameVector("recv_packet_from_peer");
  EncodeRecvPacketHeader(PublicVector("peer"), recv.size() - kPacketHeaderSize, header);
  EXPECT_EQ(ToHex(header), ToHex(Bytes(recv).first(kPacketHeaderSize)));
}

TEST(FrameTest, SendPacketTurnsIntoRecvPacketInPlace) {
  ByteVector bytes = FrameVector("send_packet_to_peer");
  TurnIntoRecv(Frame{FrameType::kSendPacket, bytes}, PublicVector("peer"));
  EXPECT_EQ(ToHex(bytes), RecordedHex("recv_packet_from_peer"));
}

TEST(FrameTest, TypesFlowOneWayOrBoth) {
  EXPECT_EQ(MaxPayload(Direction::kToServer, FrameType::kClientInfo), 32u << 10);
  EXPECT_EQ(MaxPayload(Direction::kToClient, FrameType::kClientInfo), std::nullopt);
  EXPECT_EQ(MaxPayload(Direction::kToClient, FrameType::kRecvPacket), 32u + 65536u);
  EXPECT_EQ(MaxPayload(Direction::kToServer, FrameType::kRecvPacket), std::nullopt);
  EXPECT_NE(MaxPayload(Direction::kToClient, FrameType::kPing), std::nullopt);
  EXPECT_NE(MaxPayload(Direction::kToServer, FrameType::kPing), std::nullopt);
  EXPECT_EQ(FrameName(FrameType::kRestarting), "Restarting");
  EXPECT_EQ(FrameName(static_cast<FrameType>(0x7f)), "unknown");
}

// ---- The decoder ----

// Every frame of a stream that flows to the client, as hex, whatever the chunks.
std::vector<std::string> Decode(FrameDecoder* decoder, Bytes stream, size_t max_chunk,
                                Random& random) {
  std::vector<std::string> frames;
  InChunks(stream, max_chunk, random, [&](MutableBytes chunk) {
    Frame frame;
    Result result;
    while ((result = decoder->Next(&chunk, &frame)) == Result::kFrame) {
      EXPECT_EQ(std::to_integer<uint8_t>(frame.bytes[0]), static_cast<uint8_t>(frame.type));
      frames.push_back(ToHex(frame.bytes));
    }
    EXPECT_EQ(result, Result::kNeedMore);
    EXPECT_TRUE(chunk.empty());
  });
  return frames;
}

TEST(FrameDecoderTest, AnyChunkingGivesTheSameFrames) {
  const char* const names[] = {"server_key",     "server_info",  "recv_packet_from_peer",
                               "keep_alive",     "unknown_0x7f", "peer_gone_disconnected",
                               "health_problem", "ping",         "restarting_500ms_5000ms",
                               "watch_conns",    "health_ok",    "peer_present_addr_v4"};
  ByteVector stream;
  std::vector<std::string> wanted;
  SeededRandom random(7);
  for (int round = 0; round < 20; ++round) {
    for (const char* name : names) {
      Append(&stream, FrameVector(name));
      const std::string text = name;
      // Not known, and not for a client.
      if (text != "unknown_0x7f" && text != "watch_conns") wanted.push_back(RecordedHex(text));
    }
    const ByteVector packet(random.Below(3000), std::byte(round));
    ByteVector frame(kPacketHeaderSize + packet.size());
    Encode(RecvPacketFrame{PublicVector("peer"), packet}, frame);
    Append(&stream, frame);
    wanted.push_back(ToHex(frame));
  }
  for (size_t max_chunk : {1u, 2u, 3u, 5u, 7u, 40u, 100u, 1500u, 16384u, 1000000u}) {
    FrameDecoder decoder(Direction::kToClient);
    EXPECT_EQ(Decode(&decoder, stream, max_chunk, random), wanted) << max_chunk;
    EXPECT_EQ(decoder.counters().frames, wanted.size());
    EXPECT_EQ(decoder.counters().skipped_unknown, 40u);
    EXPECT_EQ(decoder.buffered(), 0u);
  }
}

TEST(FrameDecoderTest, WholeFramesAreViewsAndNotCopied) {
  ByteVector bytes = FrameVector("recv_packet_from_peer");
  Append(&bytes, FrameVector("ping"));
  FrameDecoder decoder(Direction::kToClient);
  MutableBytes input = bytes;
  Frame frame;
  ASSERT_EQ(decoder.Next(&input, &frame), Result::kFrame);
  EXPECT_EQ(frame.bytes.data(), bytes.data());
  ASSERT_EQ(decoder.Next(&input, &frame), Result::kFrame);
  EXPECT_EQ(frame.bytes.data() + frame.bytes.size(), bytes.data() + bytes.size());
  EXPECT_EQ(decoder.Next(&input, &frame), Result::kNeedMore);
  EXPECT_EQ(decoder.counters().copied_bytes, 0u);
}

TEST(FrameDecoderTest, OnlyTheFrameThatStraddlesIsCopied) {
  ByteVector bytes = FrameVector("ping");
  const size_t straddling = bytes.size();
  for (int i = 0; i < 10; ++i) Append(&bytes, FrameVector("ping"));
  FrameDecoder decoder(Direction::kToClient);
  Frame frame;
  MutableBytes first = MutableBytes(bytes).first(4);
  EXPECT_EQ(decoder.Next(&first, &frame), Result::kNeedMore);
  MutableBytes second = MutableBytes(bytes).subspan(4);
  for (int i = 0; i < 11; ++i) EXPECT_EQ(decoder.Next(&second, &frame), Result::kFrame);
  EXPECT_EQ(decoder.counters().copied_bytes, straddling);
}

// spec: derp.md, Frames: "Unknown types are skipped. A frame over 1 MiB ends the connection."
TEST(FrameDecoderTest, HugeUnknownFramesAreSkippedWithoutBuffering) {
  ByteVector stream = RawFrame(0x7f, kMaxFramePayload, kMaxFramePayload);
  Append(&stream, FrameVector("ping"));
  SeededRandom random(3);
  FrameDecoder decoder(Direction::kToClient);
  std::vector<std::string> frames;
  InChunks(stream, 1000, random, [&](MutableBytes chunk) {
    Frame frame;
    while (decoder.Next(&chunk, &frame) == Result::kFrame) frames.push_back(ToHex(frame.bytes));
    EXPECT_LE(decoder.buffered(), 13u);
  });
  EXPECT_THAT(frames, ::testing::ElementsAre(RecordedHex("ping")));
  EXPECT_EQ(decoder.counters().skipped_unknown, 1u);
}

TEST(FrameDecoderTest, OverOneMebibyteIsTheEnd) {
  for (int type : {0x05, 0x7f}) {
    ByteVector stream = RawFrame(type, kMaxFramePayload + 1, 10);
    FrameDecoder decoder(Direction::kToClient);
    MutableBytes input = stream;
    Frame frame;
    EXPECT_EQ(decoder.Next(&input, &frame), Result::kTooLong);
    // And stays so.
    ByteVector good = FrameVector("ping");
    input = good;
    EXPECT_EQ(decoder.Next(&input, &frame), Result::kTooLong);
  }
}

TEST(FrameDecoderTest, BoundsHoldPerType) {
  for (int type = 0; type < 256; ++type) {
    for (Direction direction : {Direction::kToClient, Direction::kToServer}) {
      const auto bound = MaxPayload(direction, static_cast<FrameType>(type));
      if (!bound.has_value()) continue;
      ByteVector stream = RawFrame(type, *bound, *bound);
      Append(&stream, RawFrame(type, *bound + 1, *bound + 1));
      Append(&stream, FrameVector("ping"));
      FrameDecoder decoder(direction);
      MutableBytes input = stream;
      Frame frame;
      EXPECT_EQ(decoder.Next(&input, &frame), Result::kFrame) << type;
      EXPECT_EQ(decoder.Next(&input, &frame), Result::kOversized) << type;
      EXPECT_EQ(static_cast<int>(frame.type), type);
      EXPECT_EQ(decoder.Next(&input, &frame), Result::kFrame) << type;
      EXPECT_EQ(frame.type, FrameType::kPing);
      EXPECT_EQ(decoder.counters().skipped_oversized, 1u);
    }
  }
}

TEST(FrameDecoderTest, RefusedTypesAreToldOfAtTheirHeader) {
  FrameDecoder decoder(Direction::kToServer);
  decoder.Refuse(FrameType::kForwardPacket);
  ByteVector stream = RawFrame(0x0a, 20000, 100);
  Frame frame;
  // In one piece, and byte by byte.
  for (const size_t piece : {stream.size(), size_t{1}}) {
    MutableBytes all = stream;
    Result result = Result::kNeedMore;
    size_t used = 0;
    while (result == Result::kNeedMore && used < all.size()) {
      MutableBytes input = all.subspan(used, std::min(piece, all.size() - used));
      const size_t before = input.size();
      result = decoder.Next(&input, &frame);
      used += before - input.size();
    }
    EXPECT_EQ(result, Result::kRefused);
    EXPECT_EQ(frame.type, FrameType::kForwardPacket);
    EXPECT_EQ(used, kFrameHeaderSize);
    EXPECT_EQ(decoder.buffered(), 0u);
    // Who goes on skips it.
    ByteVector rest(20000);
    Append(&rest, FrameVector("ping"));
    MutableBytes input = rest;
    EXPECT_EQ(decoder.Next(&input, &frame), Result::kFrame);
    EXPECT_EQ(frame.type, FrameType::kPing);
  }
}

// Memory follows what came, not what a header promised.
TEST(FrameDecoderTest, PromisesDoNotTakeMemory) {
  FrameDecoder decoder(Direction::kToServer);
  ByteVector stream = RawFrame(0x02, kMaxClientInfo, 100);
  MutableBytes input = stream;
  Frame frame;
  EXPECT_EQ(decoder.Next(&input, &frame), Result::kNeedMore);
  EXPECT_EQ(decoder.buffered(), 105u);
}

}  // namespace
}  // namespace ringsock::derp
