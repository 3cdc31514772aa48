// One client of the relay: its session, the peers it sends to, its limits.
#ifndef RINGSOCK_RELAY_CLIENT_H_
#define RINGSOCK_RELAY_CLIENT_H_

#include <cstdint>
#include <deque>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "derp/server_session.h"
#include "relay/client_status.h"
#include "relay/connection.h"

namespace ringsock::relay {

class Client final : public Connection, private derp::ServerEvents {
 public:
  // With `tls`, a server's session is made of it.
  Client(Worker* worker, const ConnectionRef& ref, const Endpoint& remote);
  absl::Status StartTls(derp::TlsServerContext* context);
  ~Client() override;

  bool logged_in() const { return logged_in_; }
  bool is_mesh() const { return session_.is_mesh(); }
  const PublicKey& key() const { return session_.client(); }
  derp::ServerSession& session() { return session_; }
  ClientStatus Status() const;

  // Asks a logged-in client to reconnect, and closes once that has been sent.
  void Stop(Instant now);
  // Its key has other connections, or no longer.
  void SetDuplicate(bool duplicate);
  // A peer that had sent to it is gone.
  void TellGone(const PublicKey& peer);
  // Another connection of its key has gone, which had sent to `peers`.
  void Inherit(const std::vector<PublicKey>& peers);
  // As a meshed server that watches: `key` has come or gone.
  void Watch(const PublicKey& key, bool present);

 private:
  // A peer it sent to: the way there as of a version of the worker's routes.
  struct Peer {
    uint64_t version = 0;
    Route route;
  };

  // ---- Connection ----
  absl::Status OnBytes(derp::MutableBytes bytes, Instant now) override;
  derp::Bytes Control() const override { return session_.output(); }
  void ConsumeControl(size_t count) override { session_.ConsumeOutput(count); }
  void OnFlushed(Instant now) override;
  void OnLost(const absl::Status& why, bool broken) override;
  void OnEnd() override;
  void OnClosed() override;
  void OnTimer(Instant now) override;
  Instant OwnDeadline() const override;
  void CountOut(uint32_t frames, size_t bytes) override;

  // ---- ServerEvents ----
  absl::Status OnLogin(derp::ServerSession& session) override;
  void OnReady(derp::ServerSession& session) override;
  void OnSendPacket(derp::ServerSession& session, const PublicKey& destination, derp::Bytes packet,
                    const derp::Frame& frame) override;
  void OnNotePreferred(derp::ServerSession&, bool preferred) override { preferred_ = preferred; }
  void OnPong(derp::ServerSession&, const derp::PingData&) override {}
  void OnForwardPacket(derp::ServerSession& session,
                       const derp::ForwardPacketFrame& frame) override;
  void OnWatchConns(derp::ServerSession& session) override;
  void OnClosePeer(derp::ServerSession& session, const PublicKey& peer) override;

  const Route& RouteTo(const PublicKey& destination);
  void Remember(const PublicKey& destination, const Route& route);
  void NoRoute(const PublicKey& destination, derp::Bytes packet);
  void SpendBytes(size_t count, Instant now);
  void SendPresence();
  void TellPeersGone();
  void BequeathPeers(const ConnectionRef& heir);

  derp::ServerSession session_;
  bool logged_in_ = false;
  bool denied_ = false;
  bool duplicate_ = false;
  bool preferred_ = false;
  bool stopping_ = false;
  bool watching_ = false;
  bool late_ = false;         // did not log in in time
  uint32_t login_bytes_ = 0;  // received before the login
  Instant receive_now_{};
  // The last destination, since packets come in runs.
  PublicKey last_key_;
  Peer last_;
  // Of a meshed server: the pair that was noted last, while the routes are as they were.
  PublicKey noted_source_;
  ConnectionRef noted_to_;
  uint64_t noted_version_ = 0;
  absl::flat_hash_map<PublicKey, Peer> peers_;
  // Of client_bytes_per_second: what may still be read; below 0 reading pauses.
  double allowance_ = 0;
  Instant allowance_at_{};
  Instant resume_at_ = Instant::max();
  std::deque<std::pair<PublicKey, bool>> presence_;  // to tell a watcher
  uint64_t pings_counted_ = 0;
};

}  // namespace ringsock::relay

#endif  // RINGSOCK_RELAY_CLIENT_H_
