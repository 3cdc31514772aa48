// One connection of a client to our relay, as the relay sees it, without I/O: bytes of the
// (decrypted) stream in, events out; commands in, bytes out; and the instant by which it wants to
// be looked at again. HTTP, login within 10 s, keep-alives, pings, the mesh's frames (spec:
// derp.md, Frames).
//
// Routing is the owner's. A packet arrives as a whole SendPacket frame that TurnIntoRecv() makes
// the frame for its destination in place; queues, write timeouts and limits on bytes are the
// owner's too.
#ifndef RINGSOCK_DERP_SERVER_SESSION_H_
#define RINGSOCK_DERP_SERVER_SESSION_H_

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

// From the accepted connection to the login: TLS, HTTP and ClientInfo together.
inline constexpr Duration kLoginTimeout = std::chrono::seconds(10);
// Keep-alives are sent this often plus up to the jitter, so that clients do not answer in step.
inline constexpr Duration kKeepAliveInterval = std::chrono::seconds(60);
inline constexpr Duration kKeepAliveJitter = std::chrono::seconds(5);
// PeerGone(not here) frames to one client, per second.
inline constexpr uint64_t kNotHerePerSecond = 3;

// Whether a packet belongs to the path discovery of later clients ("disco"), whose senders want to
// know when a peer is not here: its magic, a 32-byte key and a 24-byte nonce in front.
bool LooksLikeDisco(Bytes packet);

class ServerSession;

// What a session tells its owner, in the order of the stream, from inside Receive(). Views end with
// the call. May call the session's commands; must not destroy it.
class ServerEvents {
 public:
  virtual ~ServerEvents() = default;
  // The client has proved its key: session.client(), client_info() and is_mesh() are set. An error
  // refuses it (allow-list, limits) and ends the session with that error.
  virtual absl::Status OnLogin(ServerSession& session) = 0;
  // It is let in, and commands work from now on: health of a duplicate key, say.
  virtual void OnReady(ServerSession& session) = 0;
  // `frame` is the whole frame; its packet is `packet`. The owner may turn it into a RecvPacket.
  virtual void OnSendPacket(ServerSession& session, const PublicKey& destination, Bytes packet,
                            const Frame& frame) = 0;
  virtual void OnNotePreferred(ServerSession& session, bool preferred) = 0;
  virtual void OnPong(ServerSession& session, const PingData& data) = 0;
  // Only from meshed servers.
  virtual void OnForwardPacket(ServerSession& session, const ForwardPacketFrame& frame) = 0;
  virtual void OnWatchConns(ServerSession& session) = 0;
  virtual void OnClosePeer(ServerSession& session, const PublicKey& peer) = 0;
};

// What all sessions of a relay have in common; outlives them.
struct ServerSessionConfig {
  const ServerIdentity* identity = nullptr;
  const MeshKey* mesh_key = nullptr;  // null: no mesh
  ServerInfo info;
  Random* random = nullptr;
  // Bytes of control frames that may wait. A PeerPresent frame for a mesh takes 56.
  size_t max_output = 16384;
};

struct ServerSessionCounters {
  uint64_t packets_in = 0;
  uint64_t bytes_in = 0;  // of packets
  uint64_t pings = 0;
  uint64_t dropped_pongs = 0;        // pings not answered: the output was full
  uint64_t dropped_not_here = 0;     // PeerGone(not here) over the limit
  uint64_t delayed_keep_alives = 0;  // the output was full: bytes are on their way anyhow
};

// Not thread safe. `config` and `events` outlive it.
class ServerSession {
 public:
  ServerSession(const ServerSessionConfig* config, ServerEvents* events, Instant now);

  // Takes bytes of the stream and uses them up; they may be written to. An error ends the session
  // and says why; so does each later call.
  absl::Status Receive(MutableBytes bytes, Instant now);
  // When OnDeadline() wants to be called at the latest.
  Instant deadline() const;
  // Sends a keep-alive that is due. An error if the login took too long.
  absl::Status OnDeadline(Instant now);

  // What has to be sent next.
  Bytes output() const { return output_.bytes(); }
  void ConsumeOutput(size_t count) { output_.Consume(count); }
  // It was plain HTTP: the connection ends once the output is sent. Nothing more is read.
  bool close_after_output() const { return state_ == State::kClosing; }
  // Of the HTTP answer, 101 for an upgrade, 0 before it.
  int http_status() const { return http_status_; }
  // The node that the client would rather talk to; empty if none.
  const std::string& ideal_node() const { return ideal_node_; }

  bool ready() const { return status_.ok() && state_ == State::kReady; }
  const PublicKey& client() const { return login_.client(); }
  const ClientInfo& client_info() const { return login_.client_info(); }
  bool is_mesh() const { return login_.is_mesh(); }

  // Control frames. False if the client is not logged in, or the output is full.
  bool SendPeerGone(const PublicKey& peer, PeerGoneReason reason) {
    return SendControl(PeerGoneFrame{peer, reason});
  }
  // As SendPeerGone(not here), at most kNotHerePerSecond.
  bool SendNotHere(const PublicKey& peer, Instant now);
  bool SendPeerPresent(const PeerPresentFrame& frame) { return SendControl(frame); }
  // `problem` is cut to 1 KiB; empty: healthy again.
  bool SendHealth(absl::string_view problem);
  bool SendRestarting(const RestartingFrame& frame) { return SendControl(frame); }
  bool SendPing(const PingData& data) { return SendControl(PingFrame{data}); }

  const ServerSessionCounters& counters() const { return counters_; }
  const FrameDecoder::Counters& frame_counters() const { return decoder_.counters(); }
  // Gives back memory that holds nothing.
  void Trim() { decoder_.Trim(); }

 private:
  enum class State : uint8_t { kHttp, kLogin, kReady, kClosing };

  absl::Status Fail(absl::Status status);
  absl::Status ReadHttp(MutableBytes* bytes);
  absl::Status ReadFrames(MutableBytes bytes, Instant now);
  absl::Status OnLoginFrame(const Frame& frame, Instant now);
  absl::Status OnFrame(const Frame& frame);
  absl::Status OnMeshFrame(const Frame& frame);
  void ScheduleKeepAlive(Instant now);
  template <typename Payload>
  bool SendControl(const Payload& frame) {
    return ready() && output_.AppendFrame(frame);
  }

  const ServerSessionConfig* const config_;
  ServerEvents* const events_;
  State state_ = State::kHttp;
  int http_status_ = 0;
  absl::Status status_;
  OutputBuffer output_;
  HttpHeadReader http_;
  std::string ideal_node_;
  FrameDecoder decoder_{Direction::kToServer};
  ServerLogin login_;
  TokenBucket not_here_;
  Instant deadline_;  // of the login, then of the next keep-alive
  ServerSessionCounters counters_;
};

}  // namespace ringsock::derp

#endif  // RINGSOCK_DERP_SERVER_SESSION_H_
