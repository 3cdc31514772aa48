// One connection of a client to a relay, without I/O: bytes of the (decrypted) stream in, events
// out; commands in, bytes out; and the instant by which it wants to be looked at again. HTTP
// upgrade, login, answering pings, silence, the relay's rate limit (spec: derp.md, Frames).
//
// What it has to send comes out in two ways. Handshake and control frames gather in output(),
// bounded and never dropped in silence. Packets are encoded straight into the memory of the caller,
// who queues them as it likes; every piece is a whole frame, so the two may be interleaved at will
// once can_send().
#ifndef RINGSOCK_DERP_CLIENT_SESSION_H_
#define RINGSOCK_DERP_CLIENT_SESSION_H_

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "base/clock.h"
#include "base/key.h"
#include "base/random.h"
#include "derp/frame.h"
#include "derp/http_upgrade.h"
#include "derp/login.h"
#include "derp/output_buffer.h"
#include "derp/token_bucket.h"

namespace ringsock::derp {

// From the first byte to the end of the login; the dialer passes what is left of its own limit.
inline constexpr Duration kConnectTimeout = std::chrono::seconds(10);
// A relay sends a keep-alive at least every 65 s. One that is silent for this long is dead.
inline constexpr Duration kSilenceTimeout = std::chrono::seconds(120);

// What a session tells its owner, in the order of the stream, from inside Receive(). Views end with
// the call. May call the session's commands; must not destroy it.
class ClientEvents {
 public:
  virtual ~ClientEvents() = default;
  // The login is over. Once.
  virtual void OnReady(const ServerInfo& info) = 0;
  virtual void OnPacket(const PublicKey& source, Bytes packet) = 0;
  // The route to this peer over this connection is gone (spec: DERP-3).
  virtual void OnPeerGone(const PublicKey& peer, PeerGoneReason reason) = 0;
  // Printable text; empty when all is well again.
  virtual void OnHealth(absl::string_view problem) = 0;
  // Pass it on to Reconnect.
  virtual void OnRestarting(const RestartingFrame& frame) = 0;
  virtual void OnPong(const PingData& data) = 0;
  // Only to one that watches, with the mesh key.
  virtual void OnPeerPresent(const PeerPresentFrame& frame) = 0;
};

struct ClientSessionOptions {
  UpgradeOptions http;  // fast_start is set by the session
  ClientInfo info;
};

struct ClientSessionCounters {
  uint64_t packets_in = 0;
  uint64_t bytes_in = 0;  // of packets
  uint64_t packets_out = 0;
  uint64_t bytes_out = 0;
  uint64_t dropped_short = 0;         // frames too short to be what they say
  uint64_t dropped_out_of_order = 0;  // login frames after the login
  uint64_t dropped_rate_limit = 0;    // packets over what the relay allows us
  uint64_t dropped_pongs = 0;         // pings not answered: the output was full
  uint64_t keep_alives = 0;
};

// Not thread safe. `key`, `random` and `events` outlive it.
class ClientSession {
 public:
  enum class SendResult : uint8_t {
    kOk,
    kNotReady,     // not logged in yet, or over
    kRateLimited,  // over the relay's token bucket: dropped
    kTooLarge,     // over kMaxPacket
    kNoRoom,       // `out` is too small
  };

  ClientSession(ClientSessionOptions options, const PrivateKey* key, Random* random,
                ClientEvents* events);

  // The transport is up. With `meta_cert_key`, the key in the server's meta certificate, fast
  // start. `deadline` is when login must be over.
  absl::Status Start(Instant now, Instant deadline, const PublicKey* meta_cert_key);
  // Takes bytes of the stream and uses them up; they may be written to. An error ends the session
  // and says why; so does each later call.
  absl::Status Receive(MutableBytes bytes, Instant now);
  // The transport's stream ended. Always an error, which says as much as is known.
  absl::Status OnStreamEnd();

  // When OnDeadline() wants to be called at the latest. Moves later as bytes come in.
  Instant deadline() const;
  // An error if the session is dead by now: login took too long, or the relay is silent.
  absl::Status OnDeadline(Instant now);

  // What has to be sent next.
  Bytes output() const { return output_.bytes(); }
  void ConsumeOutput(size_t count) { output_.Consume(count); }

  // Packets may be sent: their frames go behind what is in output() at that time.
  bool can_send() const { return status_.ok() && login_.can_send(); }
  bool ready() const { return status_.ok() && login_.done(); }
  // Writes the frame for one packet to the front of `out` and its size to `written`; takes its
  // bytes from the relay's token bucket.
  SendResult SendPacket(const PublicKey& destination, Bytes packet, Instant now, MutableBytes out,
                        size_t* written);
  // For an owner that encodes by itself: takes the bytes of one or more frames from the relay's
  // token bucket, or none; false, and counted, if they are over what the relay allows now.
  bool TakeTokens(size_t bytes, Instant now) {
    if (bucket_.TryTake(bytes, now)) return true;
    ++counters_.dropped_rate_limit;
    return false;
  }
  // As a meshed server: hands on a packet of a client of ours. Not limited.
  SendResult ForwardPacket(const PublicKey& source, const PublicKey& destination, Bytes packet,
                           MutableBytes out, size_t* written);

  // Control frames. False if the session cannot send, or the output is full.
  bool NotePreferred(bool preferred) { return SendControl(NotePreferredFrame{preferred}); }
  bool Ping(const PingData& data) { return SendControl(PingFrame{data}); }
  bool WatchConns() { return SendControl(WatchConnsFrame{}); }
  bool ClosePeer(const PublicKey& peer) { return SendControl(ClosePeerFrame{peer}); }

  const PublicKey& server_key() const { return login_.server_key(); }
  const ClientSessionCounters& counters() const { return counters_; }
  const FrameDecoder::Counters& frame_counters() const { return decoder_.counters(); }
  // Gives back memory that holds nothing.
  void Trim() { decoder_.Trim(); }

 private:
  absl::Status Fail(absl::Status status);
  absl::Status ReadHttp(MutableBytes* bytes);
  absl::Status ReadFrames(MutableBytes bytes, Instant now);
  absl::Status OnFrame(const Frame& frame, Instant now);
  void OnControlFrame(const Frame& frame);
  template <typename Payload>
  bool ParseOrCount(const Frame& frame, Payload* out) {
    if (Parse(frame.payload(), out)) return true;
    ++counters_.dropped_short;
    return false;
  }
  template <typename Payload>
  bool SendControl(const Payload& frame) {
    return can_send() && output_.AppendFrame(frame);
  }

  const UpgradeOptions http_options_;
  ClientEvents* const events_;
  absl::Status status_;
  OutputBuffer output_;
  std::optional<UpgradeReplyReader> http_;  // until the reply has come
  FrameDecoder decoder_{Direction::kToClient};
  ClientLogin login_;
  TokenBucket bucket_;
  Instant login_deadline_ = Instant::max();
  Instant last_heard_{};
  bool started_ = false;
  ClientSessionCounters counters_;
};

}  // namespace ringsock::derp

#endif  // RINGSOCK_DERP_CLIENT_SESSION_H_
