#include "relay/mesh_link.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/log.h"
#include "relay/worker.h"

namespace ringsock::relay {
namespace {

// Keys of one server that are remembered. More than this many clients no server has.
constexpr size_t kMaxKeys = 1 << 20;

derp::ClientSessionOptions SessionOptions(const MeshDialer& dialer) {
  derp::ClientSessionOptions options;
  const std::string& name = dialer.peer().target.host_name;
  options.http.host = name.empty() ? dialer.peer().address.ToString() : name;
  options.info.mesh_key = dialer.worker()->options().mesh_key.Clone();
  options.info.app_name = "ringsock-relay";
  return options;
}

}  // namespace

// ---- Dialing ----

MeshDialer::MeshDialer(Worker* worker, const MeshPeer* peer, const PrivateKey* key)
    : worker_(worker),
      peer_(peer),
      key_(key),
      reconnect_(worker->random()),
      timer_(worker->timers(), [this] { Dial(); }) {}

void MeshDialer::Dial() {
  if (stopped_ || link_ != nullptr) return;
  link_ = worker_->AddMeshLink(this);
  if (const auto status = link_->Connect(); !status.ok()) {
    link_->Close(&Counters::mesh_failures, /*gracefully=*/false);
  }
}

void MeshDialer::Stop() {
  stopped_ = true;
  timer_.Cancel();
  if (link_ != nullptr) link_->Close(&Counters::closed_stopping, /*gracefully=*/true);
}

void MeshDialer::OnLinkClosed(bool forever) {
  link_ = nullptr;
  stopped_ = stopped_ || forever;
  if (!stopped_) timer_.Schedule(reconnect_.OnFailure(worker_->now()));
}

// ---- The link ----

MeshLink::MeshLink(MeshDialer* dialer, const ConnectionRef& ref)
    : Connection(dialer->worker(), ref, dialer->peer().address),
      dialer_(dialer),
      session_(SessionOptions(*dialer), dialer->key(), dialer->worker()->random(), this),
      deadline_(dialer->worker()->now() + derp::kConnectTimeout) {
  Reschedule();
}

absl::Status MeshLink::Connect() {
  const MeshPeer& peer = dialer_->peer();
  if (peer.tls) {
    auto tls =
        derp::TlsSession::NewClient(worker_->options().mesh_tls, peer.target, sink(), tls_events());
    if (!tls.ok()) return tls.status();
    SetTls(std::move(tls).value());
  }
  io::ConnectConfig config;
  config.to = peer.address;
  config.deadline = deadline_;
  config.options.send_queue = worker_->queue_limits_all().stream_bytes + kHandshakeRoom;
  const auto id = worker_->streams()->Connect(config, this);
  if (!id.ok()) return id.status();
  SetStream(*id);
  return absl::OkStatus();
}

void MeshLink::OnConnect(io::StreamId) {
  if (closed()) return;
  if (tls() == nullptr) return OnSecure();
  if (const auto status = tls()->Start(); !status.ok()) OnLost(status, false);
}

void MeshLink::OnSecure() {
  begun_ = true;
  // An error shows in what the session says next.
  session_.Start(worker_->now(), deadline_, nullptr).IgnoreError();
  MarkDirty();
  Reschedule();
}

void MeshLink::CountOut(uint32_t frames, size_t) { worker_->counters().forwarded_out.Add(frames); }

absl::Status MeshLink::OnBytes(derp::MutableBytes bytes, Instant now) {
  return session_.Receive(bytes, now);
}

void MeshLink::OnReady(const derp::ServerInfo&) {
  if (session_.server_key() == worker_->options().identity->public_key()) {
    // A list of all servers of the region may well be the same on each of them.
    ourselves_ = true;
    return Reschedule();
  }
  dialer_->reconnect()->OnConnected(worker_->now());
  ++worker_->counters().mesh_connects;
  session_.WatchConns();
}

void MeshLink::OnPeerPresent(const derp::PeerPresentFrame& frame) {
  if (keys_.size() >= kMaxKeys || !keys_.insert(frame.peer).second) return;
  worker_->registry().AddMeshRoute(frame.peer, ref());
}

void MeshLink::OnPeerGone(const PublicKey& peer, derp::PeerGoneReason reason) {
  if (reason != derp::PeerGoneReason::kDisconnected || keys_.erase(peer) == 0) return;
  worker_->registry().RemoveMeshRoute(peer, ref());
}

void MeshLink::OnRestarting(const derp::RestartingFrame& frame) {
  dialer_->reconnect()->OnRestarting(frame, worker_->now());
}

// ---- Its end ----

void MeshLink::OnLost(const absl::Status& why, bool) {
  // Once per failure, of which there are at most four a second and then fewer.
  Log().warn("relay: mesh with {}: {}", remote().ToString(),
             std::string(why.message().data(), why.message().size()));
  Close(&Counters::mesh_failures, /*gracefully=*/false);
}

void MeshLink::OnEnd() { OnLost(session_.OnStreamEnd(), false); }

void MeshLink::OnClosed() {
  for (const PublicKey& key : keys_) worker_->registry().RemoveMeshRoute(key, ref());
  dialer_->OnLinkClosed(ourselves_);
}

Instant MeshLink::OwnDeadline() const {
  if (ourselves_) return worker_->now();
  return begun_ ? session_.deadline() : deadline_;
}

void MeshLink::OnTimer(Instant now) {
  if (ourselves_) return Close(&Counters::mesh_failures, /*gracefully=*/true);
  if (!begun_) {
    if (now >= deadline_) OnLost(absl::DeadlineExceededError("no TLS connection in time"), false);
    return;
  }
  if (now < session_.deadline()) return;
  if (const auto status = session_.OnDeadline(now); !status.ok()) OnLost(status, false);
}

}  // namespace ringsock::relay
