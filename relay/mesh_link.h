// The mesh as a server that dials: for each server of its region one standing connection, on which
// it watches who is connected there and forwards packets to them. What comes back the other way
// comes on the connection that the other server has made (relay/client.h).
#ifndef RINGSOCK_RELAY_MESH_LINK_H_
#define RINGSOCK_RELAY_MESH_LINK_H_

#include "absl/container/flat_hash_set.h"
#include "base/timer_queue.h"
#include "derp/client_session.h"
#include "derp/reconnect.h"
#include "relay/connection.h"
#include "relay/options.h"

namespace ringsock::relay {

class MeshLink;

// Dials one server again and again. For the thread of its worker.
class MeshDialer {
 public:
  // `peer` and `key`, with which links log in, outlive it.
  MeshDialer(Worker* worker, const MeshPeer* peer, const PrivateKey* key);

  void Dial();
  // No more of it; closes the link there is.
  void Stop();

  Worker* worker() const { return worker_; }
  const MeshPeer& peer() const { return *peer_; }
  const PrivateKey* key() const { return key_; }
  derp::Reconnect* reconnect() { return &reconnect_; }
  // The link has been closed. `forever`: it led to this very server.
  void OnLinkClosed(bool forever);

 private:
  Worker* const worker_;
  const MeshPeer* const peer_;
  const PrivateKey* const key_;
  derp::Reconnect reconnect_;
  Timer timer_;
  MeshLink* link_ = nullptr;
  bool stopped_ = false;
};

// One connection to it.
class MeshLink final : public Connection, private derp::ClientEvents {
 public:
  MeshLink(MeshDialer* dialer, const ConnectionRef& ref);
  // An error if no stream could be opened.
  absl::Status Connect();

 private:
  // ---- Connection ----
  void OnConnect(io::StreamId) override;
  absl::Status OnBytes(derp::MutableBytes bytes, Instant now) override;
  void OnSecure() override;
  derp::Bytes Control() const override { return session_.output(); }
  void ConsumeControl(size_t count) override { session_.ConsumeOutput(count); }
  void OnLost(const absl::Status& why, bool broken) override;
  void OnEnd() override;
  void OnClosed() override;
  void OnTimer(Instant now) override;
  Instant OwnDeadline() const override;
  void CountOut(uint32_t frames, size_t bytes) override;

  // ---- ClientEvents ----
  void OnReady(const derp::ServerInfo& info) override;
  void OnPacket(const PublicKey&, derp::Bytes) override {}
  void OnPeerGone(const PublicKey& peer, derp::PeerGoneReason reason) override;
  void OnHealth(absl::string_view) override {}
  void OnRestarting(const derp::RestartingFrame& frame) override;
  void OnPong(const derp::PingData&) override {}
  void OnPeerPresent(const derp::PeerPresentFrame& frame) override;

  MeshDialer* const dialer_;
  derp::ClientSession session_;
  Instant deadline_;  // until the session has begun
  bool begun_ = false;
  bool ourselves_ = false;
  absl::flat_hash_set<PublicKey> keys_;  // connected there
};

}  // namespace ringsock::relay

#endif  // RINGSOCK_RELAY_MESH_LINK_H_
