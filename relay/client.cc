#include "relay/client.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "relay/registry.h"
#include "relay/worker.h"

namespace ringsock::relay {
namespace {

// HTTP head, ClientInfo and frames that are skipped, together.
constexpr uint32_t kMaxLoginBytes = 32 << 10;
constexpr absl::string_view kDuplicateText =
    "another connection with the same key is open: the newer one receives its packets";

}  // namespace

Client::Client(Worker* worker, const ConnectionRef& ref, const Endpoint& remote)
    : Connection(worker, ref, remote),
      session_(&worker->session_config(), this, worker->now()),
      allowance_(static_cast<double>(worker->limits().client_bytes_burst)),
      allowance_at_(worker->now()) {
  if (worker->limits().client_bytes_burst == 0) {
    allowance_ = static_cast<double>(worker->limits().client_bytes_per_second);
  }
  Reschedule();
}

Client::~Client() = default;

absl::Status Client::StartTls(derp::TlsServerContext* context) {
  auto session = derp::TlsSession::NewServer(context, sink(), tls_events());
  if (!session.ok()) return session.status();
  SetTls(std::move(session).value());
  return tls()->Start();
}

ClientStatus Client::Status() const {
  ClientStatus status;
  status.key = key();
  status.remote = remote();
  status.worker = static_cast<int>(ref().worker);
  status.mesh = is_mesh();
  status.active = worker_->FindRoute(key()).ref == ref();
  status.preferred = preferred_;
  status.app_name = session_.client_info().app_name;
  if (tls() != nullptr) status.tls = tls()->Description();
  status.since = since_;
  status.packets_in = session_.counters().packets_in;
  status.bytes_in = session_.counters().bytes_in;
  status.packets_out = frames_out_;
  status.dropped = frames_dropped_;
  status.queued_bytes = queue_.bytes();
  return status;
}

// ---- Receiving ----

absl::Status Client::OnBytes(derp::MutableBytes bytes, Instant now) {
  receive_now_ = now;
  if (!logged_in_) {
    login_bytes_ += static_cast<uint32_t>(bytes.size());
  } else if (worker_->limits().client_bytes_per_second != 0 && !is_mesh()) {
    SpendBytes(bytes.size(), now);
  }
  auto status = session_.Receive(bytes, now);
  // Not before: packets may have come behind the login in one piece.
  if (status.ok() && !logged_in_ && login_bytes_ > kMaxLoginBytes) {
    status = absl::ResourceExhaustedError("too many bytes before the login");
  }
  const uint64_t pings = session_.counters().pings;
  worker_->counters().pings.Add(pings - std::exchange(pings_counted_, pings));
  return status;
}

// Over its rate a client is not read from until it is within it again.
void Client::SpendBytes(size_t count, Instant now) {
  const Limits& limits = worker_->limits();
  const auto rate = static_cast<double>(limits.client_bytes_per_second);
  const auto burst =
      limits.client_bytes_burst == 0 ? rate : static_cast<double>(limits.client_bytes_burst);
  const double seconds = std::chrono::duration<double>(now - allowance_at_).count();
  allowance_ = std::min(burst, allowance_ + seconds * rate) - static_cast<double>(count);
  allowance_at_ = now;
  if (allowance_ >= 0 || resume_at_ != Instant::max()) return;
  ++worker_->counters().rate_pauses;
  resume_at_ =
      now + std::chrono::duration_cast<Duration>(std::chrono::duration<double>(-allowance_ / rate));
  worker_->streams()->SetReceiving(stream(), false);
  Reschedule();
}

void Client::OnSendPacket(derp::ServerSession&, const PublicKey& destination, derp::Bytes packet,
                          const derp::Frame& frame) {
  Counters& counters = worker_->counters();
  ++counters.packets_in;
  counters.bytes_in.Add(packet.size());
  const Route& route = RouteTo(destination);
  switch (route.kind) {
    case Route::Kind::kClient:
      derp::TurnIntoRecv(frame, key());
      if (!worker_->Deliver(route.ref, frame.bytes, {}, receive_now_)) ++counters.dropped_unknown;
      return;
    case Route::Kind::kMesh:
      if (!worker_->Forward(route.ref, key(), destination, packet, receive_now_)) {
        ++counters.dropped_unknown;
      }
      return;
    case Route::Kind::kNone:
      NoRoute(destination, packet);
  }
}

const Route& Client::RouteTo(const PublicKey& destination) {
  const uint64_t version = worker_->routes_version();
  if (last_.version == version && last_key_ == destination) return last_.route;
  last_key_ = destination;
  last_.version = version;
  const auto known = peers_.find(destination);
  if (known != peers_.end() && known->second.version == version) {
    last_.route = known->second.route;
    return last_.route;
  }
  last_.route = worker_->FindRoute(destination);
  if (known != peers_.end()) {
    known->second = last_;
  } else if (last_.route.kind != Route::Kind::kNone) {
    Remember(destination, last_.route);
  }
  return last_.route;
}

void Client::Remember(const PublicKey& destination, const Route& route) {
  if (peers_.size() >= worker_->limits().max_peers_remembered || !worker_->TakePeer()) {
    ++worker_->counters().peers_forgotten;
    if (peers_.empty()) return;
    // For the new one. The table's order is as good as chance.
    peers_.erase(peers_.begin());
  }
  peers_[destination] = {worker_->routes_version(), route};
}

void Client::NoRoute(const PublicKey& destination, derp::Bytes packet) {
  Counters& counters = worker_->counters();
  ++counters.dropped_unknown;
  if (!derp::LooksLikeDisco(packet)) return;
  const bool told = session_.SendNotHere(destination, receive_now_);
  ++(told ? counters.not_here_sent : counters.not_here_limited);
}

// ---- Coming and going ----

absl::Status Client::OnLogin(derp::ServerSession& session) {
  if (!worker_->registry().Login(key(), ref(), session.is_mesh(), &duplicate_)) {
    denied_ = true;
    return absl::PermissionDeniedError("its key is not on the allow-list");
  }
  logged_in_ = true;
  since_ = receive_now_;
  ++worker_->counters().logins;
  return absl::OkStatus();
}

void Client::OnReady(derp::ServerSession&) {
  if (duplicate_) {
    ++worker_->counters().duplicates;
    session_.SendHealth(kDuplicateText);
  }
  if (worker_->stopping()) Stop(receive_now_);
  Reschedule();
}

void Client::SetDuplicate(bool duplicate) {
  if (duplicate_ == duplicate) return;
  duplicate_ = duplicate;
  if (!session_.SendHealth(duplicate ? kDuplicateText : "")) ++worker_->counters().control_dropped;
  MarkDirty();
}

void Client::TellGone(const PublicKey& peer) {
  const bool told = session_.SendPeerGone(peer, derp::PeerGoneReason::kDisconnected);
  ++(told ? worker_->counters().peer_gone_sent : worker_->counters().control_dropped);
  MarkDirty();
}

void Client::Stop(Instant now) {
  if (stopping_) return;
  stopping_ = true;
  if (!logged_in_) return Close(&Counters::closed_stopping, /*gracefully=*/false);
  const auto milliseconds = [](Duration duration) {
    return std::chrono::duration_cast<std::chrono::milliseconds>(duration);
  };
  const Options& options = worker_->options();
  const Duration in = worker_->random()->Between(Duration(0), options.restart_reconnect_in);
  session_.SendRestarting({milliseconds(in), milliseconds(options.restart_try_for)});
  receive_now_ = now;
  MarkDirty();
}

void Client::OnLost(const absl::Status&, bool broken) {
  const bool handshake = tls() != nullptr && !tls()->handshake_done();
  Counter Counters::*reason = &Counters::closed_protocol;
  if (broken) reason = &Counters::closed_broken;
  if (!logged_in_) {
    reason = denied_ ? &Counters::login_denied
                     : (late_ ? &Counters::login_timeout : &Counters::login_failed);
  }
  // What TLS has to say about a failed handshake is sent; the rest need not know.
  Close(reason, /*gracefully=*/handshake && !broken && !late_);
}

void Client::OnEnd() {
  if (session_.close_after_output()) return;  // once it has had its answer
  Close(logged_in_ ? &Counters::closed_by_client : &Counters::login_failed, /*gracefully=*/true);
}

void Client::OnFlushed(Instant) {
  if (!presence_.empty() && session_.output().empty()) SendPresence();
  if (session_.close_after_output() && session_.output().empty()) {
    Close(&Counters::http_requests, /*gracefully=*/true);
  } else if (stopping_ && drained()) {
    Close(&Counters::closed_stopping, /*gracefully=*/true);
  }
}

void Client::OnClosed() {
  Registry& registry = worker_->registry();
  if (logged_in_) {
    const Registry::Remainder left = registry.Logout(key(), ref());
    if (left.nobody) TellPeersGone();
    if (left.heir.has_value()) BequeathPeers(*left.heir);
  }
  registry.Leave(logged_in_);
  worker_->RemoveWatcher(this);
  worker_->ReleasePeers(peers_.size());
  peers_ = {};
}

// Those it has sent to.
void Client::TellPeersGone() {
  for (const auto& [peer, unused] : peers_) {
    const Route& route = worker_->FindRoute(peer);
    if (route.kind != Route::Kind::kClient || route.ref == ref()) continue;
    worker_->registry().Post(route.ref.worker, {Notice::Kind::kPeerGone, key(), route});
  }
}

// They are told when the key's last connection goes, whichever of them sent.
void Client::BequeathPeers(const ConnectionRef& heir) {
  std::vector<PublicKey> keys;
  for (const auto& [peer, unused] : peers_) keys.push_back(peer);
  if (keys.empty()) return;
  worker_->registry().Post(heir.worker, [heir, keys = std::move(keys)](Worker& worker) {
    if (Client* client = worker.FindClient(heir)) client->Inherit(keys);
  });
}

void Client::Inherit(const std::vector<PublicKey>& peers) {
  for (const PublicKey& peer : peers) {
    if (!peers_.contains(peer)) Remember(peer, worker_->FindRoute(peer));
  }
}

void Client::CountOut(uint32_t frames, size_t bytes) {
  worker_->counters().packets_out.Add(frames);
  worker_->counters().bytes_out.Add(bytes - frames * derp::kPacketHeaderSize);
}

// ---- Time ----

Instant Client::OwnDeadline() const { return std::min(session_.deadline(), resume_at_); }

void Client::OnTimer(Instant now) {
  if (now >= resume_at_) {
    resume_at_ = Instant::max();
    worker_->streams()->SetReceiving(stream(), true);
  }
  if (now < session_.deadline()) return;
  late_ = !logged_in_;
  if (const auto status = session_.OnDeadline(now); !status.ok()) return OnLost(status, false);
  ++worker_->counters().keep_alives;
  session_.Trim();
}

// ---- Mesh ----

void Client::OnForwardPacket(derp::ServerSession&, const derp::ForwardPacketFrame& frame) {
  Counters& counters = worker_->counters();
  ++counters.forwarded_in;
  const Route& route = worker_->FindRoute(frame.destination);
  // What was forwarded once is never forwarded again.
  if (route.kind != Route::Kind::kClient) return ++counters.dropped_mesh_loop, void();
  std::array<std::byte, derp::kPacketHeaderSize> header;
  derp::EncodeRecvPacketHeader(frame.source, frame.packet.size(), header);
  if (!worker_->Deliver(route.ref, header, frame.packet, receive_now_)) {
    ++counters.dropped_unknown;
    return;
  }
  const uint64_t version = worker_->routes_version();
  if (noted_version_ == version && noted_source_ == frame.source && noted_to_ == route.ref) return;
  noted_version_ = version;
  noted_source_ = frame.source;
  noted_to_ = route.ref;
  worker_->NoteForwarded(frame.source, route.ref);
}

void Client::OnWatchConns(derp::ServerSession&) {
  if (std::exchange(watching_, true)) return;
  worker_->AddWatcher(this);
}

void Client::OnClosePeer(derp::ServerSession&, const PublicKey& peer) {
  worker_->registry().ClosePeer(peer);
}

void Client::Watch(const PublicKey& key, bool present) {
  presence_.emplace_back(key, present);
  MarkDirty();
}

// As many as the output takes; the others when it has been sent.
void Client::SendPresence() {
  while (!presence_.empty()) {
    const auto& [key, present] = presence_.front();
    const bool taken = present ? session_.SendPeerPresent({key, {}, {}})
                               : session_.SendPeerGone(key, derp::PeerGoneReason::kDisconnected);
    if (!taken) break;
    presence_.pop_front();
  }
  MarkDirty();
}

}  // namespace ringsock::relay
