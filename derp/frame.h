// DERP frames: the table of types with the bounds of each, typed views of their payloads, an
// encoder into the caller's memory, and a decoder that takes the byte stream in any chunks. No I/O.
//
// On the wire a frame is one byte of type, four bytes of big-endian payload length, the payload
// (spec: derp.md, Frames). A SendPacket frame and the RecvPacket frame a relay makes of it have the
// same length and layout, so a relay can turn one into the other where it lies: TurnIntoRecv().
#ifndef RINGSOCK_DERP_FRAME_H_
#define RINGSOCK_DERP_FRAME_H_

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "absl/strings/string_view.h"
#include "base/endpoint.h"
#include "base/key.h"

namespace ringsock::derp {

using Bytes = std::span<const std::byte>;
using MutableBytes = std::span<std::byte>;

inline constexpr int kProtocolVersion = 2;
inline constexpr size_t kFrameHeaderSize = 5;
// A longer frame of whatever type ends the connection.
inline constexpr uint32_t kMaxFramePayload = 1u << 20;
inline constexpr size_t kMaxPacket = 65536;  // the largest relayed packet
// The reference takes 256 KiB, and no client sends more than some hundred bytes.
inline constexpr uint32_t kMaxClientInfo = 32u << 10;
// What is in front of the packet in SendPacket and RecvPacket, and in ForwardPacket.
inline constexpr size_t kPacketHeaderSize = kFrameHeaderSize + kKeySize;
inline constexpr size_t kForwardHeaderSize = kFrameHeaderSize + 2 * kKeySize;

enum class FrameType : uint8_t {
  kServerKey = 0x01,
  kClientInfo = 0x02,
  kServerInfo = 0x03,
  kSendPacket = 0x04,
  kRecvPacket = 0x05,
  kKeepAlive = 0x06,
  kNotePreferred = 0x07,
  kPeerGone = 0x08,
  kPeerPresent = 0x09,
  kForwardPacket = 0x0a,
  kWatchConns = 0x10,
  kClosePeer = 0x11,
  kPing = 0x12,
  kPong = 0x13,
  kHealth = 0x14,
  kRestarting = 0x15,
};

// The name in the spec's table; "unknown" for any other value.
absl::string_view FrameName(FrameType type);

// Which way a stream of frames flows. Meshed servers are clients of one another here.
enum class Direction : uint8_t { kToClient, kToServer };

// The longest payload taken of a frame that flows this way, none for one that does not.
std::optional<uint32_t> MaxPayload(Direction direction, FrameType type);

// ---- Payloads. Views point into the bytes that were parsed. ----

struct ServerKeyFrame {
  PublicKey key;
};
struct ClientInfoFrame {
  PublicKey key;
  Bytes sealed;  // nonce and box
};
struct ServerInfoFrame {
  Bytes sealed;  // nonce and box
};
struct SendPacketFrame {
  PublicKey destination;
  Bytes packet;
};
struct RecvPacketFrame {
  PublicKey source;
  Bytes packet;
};
struct KeepAliveFrame {};
struct NotePreferredFrame {
  bool preferred = false;
};
// Values other than these are kept as they come.
enum class PeerGoneReason : uint8_t { kDisconnected = 0, kNotHere = 1 };
struct PeerGoneFrame {
  PublicKey peer;
  PeerGoneReason reason = PeerGoneReason::kDisconnected;
};
struct PeerPresentFrame {
  PublicKey peer;
  std::optional<Endpoint> endpoint;  // where the peer's TCP connection comes from
  std::optional<uint8_t> flags;      // written only with an endpoint
};
struct ForwardPacketFrame {
  PublicKey source;
  PublicKey destination;
  Bytes packet;
};
struct WatchConnsFrame {};
struct ClosePeerFrame {
  PublicKey peer;
};
using PingData = std::array<std::byte, 8>;
struct PingFrame {
  PingData data{};
};
struct PongFrame {
  PingData data{};
};
struct HealthFrame {
  absl::string_view problem;  // empty: healthy again. Untrusted text.
};
struct RestartingFrame {
  std::chrono::milliseconds reconnect_in{0};
  std::chrono::milliseconds try_for{0};
};

// Each reads one payload. False, and `out` unspecified, if it is too short, holds a packet over
// kMaxPacket, or (ServerKey) has the wrong magic. Bytes beyond what is known are ignored.
bool Parse(Bytes payload, ServerKeyFrame* out);
bool Parse(Bytes payload, ClientInfoFrame* out);
bool Parse(Bytes payload, ServerInfoFrame* out);
bool Parse(Bytes payload, SendPacketFrame* out);
bool Parse(Bytes payload, RecvPacketFrame* out);
bool Parse(Bytes payload, KeepAliveFrame* out);
bool Parse(Bytes payload, NotePreferredFrame* out);
bool Parse(Bytes payload, PeerGoneFrame* out);
bool Parse(Bytes payload, PeerPresentFrame* out);
bool Parse(Bytes payload, ForwardPacketFrame* out);
bool Parse(Bytes payload, WatchConnsFrame* out);
bool Parse(Bytes payload, ClosePeerFrame* out);
bool Parse(Bytes payload, PingFrame* out);
bool Parse(Bytes payload, PongFrame* out);
bool Parse(Bytes payload, HealthFrame* out);
bool Parse(Bytes payload, RestartingFrame* out);

// Each writes a whole frame to the front of `out` and returns its size; 0, and nothing written, if
// it does not fit or its payload is longer than MaxPayload().
size_t Encode(const ServerKeyFrame& frame, MutableBytes out);
size_t Encode(const ClientInfoFrame& frame, MutableBytes out);
size_t Encode(const ServerInfoFrame& frame, MutableBytes out);
size_t Encode(const SendPacketFrame& frame, MutableBytes out);
size_t Encode(const RecvPacketFrame& frame, MutableBytes out);
size_t Encode(const KeepAliveFrame& frame, MutableBytes out);
size_t Encode(const NotePreferredFrame& frame, MutableBytes out);
size_t Encode(const PeerGoneFrame& frame, MutableBytes out);
size_t Encode(const PeerPresentFrame& frame, MutableBytes out);
size_t Encode(const ForwardPacketFrame& frame, MutableBytes out);
size_t Encode(const WatchConnsFrame& frame, MutableBytes out);
size_t Encode(const ClosePeerFrame& frame, MutableBytes out);
size_t Encode(const PingFrame& frame, MutableBytes out);
size_t Encode(const PongFrame& frame, MutableBytes out);
size_t Encode(const HealthFrame& frame, MutableBytes out);
size_t Encode(const RestartingFrame& frame, MutableBytes out);

// Only what goes in front of the packet, for one who has the packet in place behind it or sends it
// from elsewhere. `packet_size` is at most kMaxPacket.
void EncodeSendPacketHeader(const PublicKey& destination, size_t packet_size,
                            std::span<std::byte, kPacketHeaderSize> out);
void EncodeRecvPacketHeader(const PublicKey& source, size_t packet_size,
                            std::span<std::byte, kPacketHeaderSize> out);
void EncodeForwardPacketHeader(const PublicKey& source, const PublicKey& destination,
                               size_t packet_size, std::span<std::byte, kForwardHeaderSize> out);

// ---- The stream ----

// A whole frame, header and all. The view is valid until the decoder's next call, and as long as
// the bytes it was decoded from.
struct Frame {
  FrameType type{};
  MutableBytes bytes;

  MutableBytes payload() const { return bytes.subspan(kFrameHeaderSize); }
};

// Turns a whole SendPacket frame into the RecvPacket frame its destination gets, in place.
void TurnIntoRecv(const Frame& send_packet, const PublicKey& source);

// Cuts a byte stream into frames. A frame that lies whole in the caller's bytes is a view of them;
// one that does not is put together in a buffer that grows with the bytes that came (never with the
// length that was promised) and never over the bound of its type. Frames of other types are skipped
// without being kept. Not thread safe.
class FrameDecoder {
 public:
  enum class Result : uint8_t {
    kNeedMore,   // *input is used up
    kFrame,      // *frame is whole
    kOversized,  // a known type, longer than its bound: will be skipped; frame->type says which
    kRefused,    // a type that Refuse() named: will be skipped; frame->type says which
    kTooLong,    // over kMaxFramePayload: the stream is lost, every further call says so too
  };
  struct Counters {
    uint64_t frames = 0;             // handed out
    uint64_t skipped_unknown = 0;    // frames of a type that does not flow this way
    uint64_t skipped_oversized = 0;  // frames longer than the bound of their type
    uint64_t copied_bytes = 0;       // that went through the buffer
  };

  explicit FrameDecoder(Direction direction) : direction_(direction) {}

  // Frames of this (known) type are told of at their header from now on, and not gathered: for
  // those that end the connection, so that a header alone cannot make us keep bytes.
  void Refuse(FrameType type) { refused_ |= RefusedBit(static_cast<uint8_t>(type)); }
  // Takes bytes from the front of *input until a frame is whole or nothing is left.
  Result Next(MutableBytes* input, Frame* frame);

  // Bytes of an unfinished frame.
  size_t buffered() const { return delivered_ ? 0 : buffer_.size(); }
  // Gives back memory that holds nothing. A connection that goes idle calls it.
  void Trim();
  const Counters& counters() const { return counters_; }

 private:
  enum class Verdict : uint8_t { kKeep, kSkip, kOversized, kRefused, kTooLong };

  static constexpr uint32_t RefusedBit(uint8_t type) { return type < 32 ? 1u << type : 0; }
  Verdict Judge(const std::byte* header, Frame* frame);
  void DropDelivered();
  bool Fill(size_t size, MutableBytes* input);

  const Direction direction_;
  bool failed_ = false;
  bool delivered_ = false;  // buffer_ holds the frame that was handed out last
  uint32_t skip_ = 0;       // bytes of payload still to be thrown away
  uint32_t refused_ = 0;    // types, one bit each
  std::vector<std::byte> buffer_;
  Counters counters_;
};

}  // namespace ringsock::derp

#endif  // RINGSOCK_DERP_FRAME_H_
