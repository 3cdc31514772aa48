#include "derp/region_connection.h"

#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/log.h"
#include "derp/client_session.h"
#include "derp/reconnect.h"
#include "derp/region_dialer.h"
#include "derp/relay_transport.h"

namespace ringsock::derp {
namespace {

// A queue that has been empty for so long gives its memory back.
constexpr Duration kTrimAfter = std::chrono::seconds(1);
ClientInfo Clone(const ClientInfo& info) {
  return {.version = info.version,
          .can_ack_pings = info.can_ack_pings,
          .is_prober = info.is_prober,
          .mesh_key = info.mesh_key.Clone(),
          .app_name = info.app_name};
}

std::string HostHeader(const RelayNode& node) {
  if (node.port() == kDefaultDerpPort) return node.host_name;
  return absl::StrCat(node.host_name, ":", node.port());
}

// One life: kDialing ─▶ kLogin ─▶ kUp; a break leads to kWaiting, and from there to kDialing.
class Connection final : public RegionConnection,
                         public DialerEvents,
                         public TransportEvents,
                         public ClientEvents {
 public:
  Connection(const RegionConnectionDeps& deps, const RelayRegion& region, const PrivateKey& key,
             RegionConnectionOptions options, RegionEvents* events);
  ~Connection() override;

  RegionId region() const override { return region_.region_id; }
  bool up() const override { return state_ == State::kUp && !break_.has_value(); }
  bool Send(const PublicKey& peer, std::span<const std::byte> packet) override;
  void Flush() override;
  void SetPreferred(bool preferred) override;
  void Reconnect(absl::string_view reason) override;
  RegionConnectionStatus Status() const override;
  const RegionCounters& counters() const override { return counters_; }

 private:
  enum class State : uint8_t { kDialing, kLogin, kUp, kWaiting };

  // DialerEvents
  void OnDialed(std::unique_ptr<RelayTransport> transport) override;
  void OnDialFailed(const absl::Status& why) override { OnFailed(why); }
  // TransportEvents
  void OnTransportConnected() override {}
  void OnTransportReady() override;
  absl::Status OnTransportBytes(std::span<std::byte> bytes) override;
  void OnTransportBytesEnd() override;
  void OnTransportWritable() override { Pump(); }
  void OnTransportClosed(const absl::Status& why) override;
  // ClientEvents
  void OnReady(const ServerInfo& info) override;
  void OnPacket(const PublicKey& source, Bytes packet) override;
  void OnPeerGone(const PublicKey& peer, PeerGoneReason reason) override;
  void OnHealth(absl::string_view problem) override;
  void OnRestarting(const RestartingFrame& frame) override;
  void OnPong(const PingData&) override {}
  void OnPeerPresent(const PeerPresentFrame&) override {}

  Instant now() const { return deps_.loop->clock().Now(); }
  void Enter(State state);
  void Dial();
  void BreakLater(absl::Status why);
  void OnBreakTimer();
  void OnDeadlineTimer();
  void OnBroken(const absl::Status& why);
  void OnLoginFailed(const absl::Status& why);
  void OnFailed(const absl::Status& why);
  void DropTransport();
  void Pump();
  bool PumpControl();
  void OnQueueChanged();
  void CountIgnored();
  void OnAgeTimer();
  void OnTrimTimer();

  const RegionConnectionDeps deps_;
  const RelayRegion region_;
  const PrivateKey key_;
  const RegionConnectionOptions options_;
  RegionEvents* const events_;
  const DialContext dial_;
  RegionDialer dialer_;
  derp::Reconnect reconnect_;
  WriteQueue queue_;
  std::unique_ptr<RelayTransport> transport_;  // from kLogin to the end of kUp
  std::unique_ptr<ClientSession> session_;     // likewise

  State state_ = State::kDialing;
  Instant since_{};
  Instant login_deadline_{};
  bool preferred_ = false;
  bool told_preferred_ = false;
  bool fast_start_ = false;        // this login
  bool avoid_fast_start_ = false;  // it has failed; until the link changes
  bool in_receive_ = false;        // a session call is on the stack: it must live, and TLS as well
  bool got_packets_ = false;
  RateLimit restart_log_{std::chrono::seconds(10)};
  RateLimit ignored_log_{std::chrono::minutes(10)};
  uint64_t session_ignored_ = 0;       // frames of this session that were counted
  std::optional<absl::Status> break_;  // to be carried out by break_timer_
  bool redial_ = false;                // and then to dial at once
  std::string last_error_;
  std::string node_;
  uint64_t rate_dropped_ = 0;  // packets that were not queued
  uint64_t rate_dropped_bytes_ = 0;
  RegionCounters counters_;
  Timer break_timer_;
  Timer retry_timer_;
  Timer deadline_timer_;
  Timer age_timer_;
  Timer trim_timer_;
};

Connection::Connection(const RegionConnectionDeps& deps, const RelayRegion& region,
                       const PrivateKey& key, RegionConnectionOptions options, RegionEvents* events)
    : deps_(deps),
      region_(region),
      key_(key.Clone()),
      options_(std::move(options)),
      events_(events),
      dial_{.streams = deps.loop->streams(),
            .clock = &deps.loop->clock(),
            .timers = deps.timers,
            .resolver = deps.resolver,
            .prefer_ipv6 = options_.prefer_ipv6,
            .device = options_.device},
      dialer_(&dial_, &region_, this),
      reconnect_(deps.random),
      queue_(options_.queue),
      break_timer_(deps.timers, [this] { OnBreakTimer(); }),
      retry_timer_(deps.timers, [this] { Dial(); }),
      deadline_timer_(deps.timers, [this] { OnDeadlineTimer(); }),
      age_timer_(deps.timers, [this] { OnAgeTimer(); }),
      trim_timer_(deps.timers, [this] { OnTrimTimer(); }) {
  Dial();
}

Connection::~Connection() {
  if (transport_ == nullptr) return;
  Pump();
  transport_->Close();
}

// ---- Dialing and login ----

void Connection::Enter(State state) {
  state_ = state;
  since_ = now();
}

void Connection::Dial() {
  Enter(State::kDialing);
  dialer_.Start();
}

void Connection::OnDialed(std::unique_ptr<RelayTransport> transport) {
  const RelayNode& node = *dialer_.node();
  retry_timer_.Cancel();
  transport_ = std::move(transport);
  transport_->set_events(this);
  ClientSessionOptions options{.http = {.host = HostHeader(node),
                                        .user_agent = options_.user_agent,
                                        .ideal_node = dialer_.ideal_node()},
                               .info = Clone(options_.info)};
  session_ = std::make_unique<ClientSession>(std::move(options), &key_, deps_.random, this);
  session_ignored_ = 0;
  told_preferred_ = false;
  fast_start_ = false;
  Enter(State::kLogin);
  login_deadline_ = dialer_.login_deadline();
  deadline_timer_.Schedule(login_deadline_);
  if (options_.plain_http_for_tests) {
    transport_->StartPlain();
    return OnTransportReady();
  }
  if (const auto status = transport_->StartTls(deps_.tls, TlsTarget::Of(node)); !status.ok()) {
    BreakLater(status);
  }
}

void Connection::OnTransportReady() {
  std::optional<PublicKey> key;
  if (transport_->tls() != nullptr && !avoid_fast_start_) key = transport_->tls()->fast_start_key();
  fast_start_ = key.has_value();
  if (const auto status = session_->Start(now(), login_deadline_, key ? &*key : nullptr);
      !status.ok()) {
    return BreakLater(status);
  }
  Pump();
}

void Connection::OnReady(const ServerInfo&) {
  Enter(State::kUp);
  ++counters_.connects;
  reconnect_.OnConnected(since_);
  deadline_timer_.Schedule(session_->deadline());
  last_error_.clear();
  node_ = dialer_.node()->name;
  dialer_.Stop();
  // What waited for the login is limited by the relay as well; the newest is worth most.
  while (!queue_.empty() && !session_->TakeTokens(queue_.bytes(), since_)) queue_.DropHead();
  events_->OnUp(*this);
}

void Connection::OnDeadlineTimer() {
  const Instant time = now();
  if (state_ == State::kLogin && time >= login_deadline_) {
    absl::Status why = session_->OnDeadline(time);
    if (why.ok()) why = absl::DeadlineExceededError("TLS handshake not done in time");
    return OnBroken(why);
  }
  if (state_ != State::kUp) return;
  if (const auto status = session_->OnDeadline(time); !status.ok()) return OnBroken(status);
  deadline_timer_.Schedule(session_->deadline());
}

// ---- The end of a connection, or of an attempt ----

// From where the transport and the session have to live on: the owner's calls, and their own.
void Connection::BreakLater(absl::Status why) {
  if (!break_.has_value()) break_ = std::move(why);
  break_timer_.Schedule(now());
}

void Connection::OnBreakTimer() {
  const absl::Status why = *std::exchange(break_, std::nullopt);
  if (!std::exchange(redial_, false)) return OnBroken(why);
  const bool was_up = state_ == State::kUp;
  DropTransport();
  dialer_.Stop();
  retry_timer_.Cancel();
  reconnect_.Reset();
  avoid_fast_start_ = false;
  last_error_ = std::string(why.message());
  Dial();
  if (!was_up) return;
  ++counters_.failures;
  events_->OnDown(*this, why);
}

void Connection::OnTransportClosed(const absl::Status& why) {
  if (break_.has_value()) return;  // the timer will do it
  OnBroken(why.ok() ? session_->OnStreamEnd() : why);
}

void Connection::OnBroken(const absl::Status& why) {
  const State state = state_;
  DropTransport();
  if (state == State::kLogin) return OnLoginFailed(why);
  OnFailed(absl::Status(why.code(), absl::StrCat("region ", region_.region_id, ", node ", node_,
                                                 ": ", why.message())));
}

void Connection::OnLoginFailed(const absl::Status& why) {
  Enter(State::kDialing);
  const char* how = fast_start_ ? " (fast start): " : ": ";
  const absl::Status error(why.code(),
                           absl::StrCat("node ", dialer_.node()->name, how, why.message()));
  if (!fast_start_) return dialer_.Next(error);
  // The key in the certificate may be out of date, or the relay may not know fast start after all.
  // The long way round tells.
  avoid_fast_start_ = true;
  dialer_.Again(error);
}

void Connection::OnFailed(const absl::Status& why) {
  ++counters_.failures;
  last_error_ = std::string(why.message());
  const Instant retry = reconnect_.OnFailure(now());
  Enter(State::kWaiting);
  retry_timer_.Schedule(retry);
  events_->OnDown(*this, why);
}

void Connection::DropTransport() {
  if (std::exchange(got_packets_, false)) events_->OnPacketsEnd(*this);
  transport_.reset();
  session_.reset();
  deadline_timer_.Cancel();
  // What broke is gone. A redial that has been asked for is still wanted.
  if (!redial_) {
    break_.reset();
    break_timer_.Cancel();
  }
  queue_.CutHead();
  OnQueueChanged();
}

void Connection::Reconnect(absl::string_view reason) {
  redial_ = true;
  BreakLater(absl::UnavailableError(absl::StrCat("connecting anew: ", reason)));
}

// ---- Receiving ----

absl::Status Connection::OnTransportBytes(std::span<std::byte> bytes) {
  if (break_.has_value()) return *break_;
  in_receive_ = true;
  const absl::Status status = session_->Receive(bytes, now());
  in_receive_ = false;
  return status;
}

void Connection::OnTransportBytesEnd() {
  CountIgnored();
  if (std::exchange(got_packets_, false)) events_->OnPacketsEnd(*this);
  if (!trim_timer_.scheduled()) trim_timer_.Schedule(now() + kTrimAfter);
  Pump();
}

void Connection::CountIgnored() {
  const ClientSessionCounters& session = session_->counters();
  const FrameDecoder::Counters& frames = session_->frame_counters();
  const uint64_t ignored = session.dropped_short + session.dropped_out_of_order +
                           frames.skipped_unknown + frames.skipped_oversized;
  if (ignored == session_ignored_) return;
  counters_.rx_ignored += ignored - std::exchange(session_ignored_, ignored);
  if (!ignored_log_.Allow(now())) return;
  Log().warn(
      "relay region {}: node {} sent frames that were ignored: {} of unknown types, {} too "
      "short, {} too long, {} out of turn",
      region_.region_id, node_, frames.skipped_unknown, session.dropped_short,
      frames.skipped_oversized, session.dropped_out_of_order);
}

void Connection::OnPacket(const PublicKey& source, Bytes packet) {
  if (break_.has_value()) return;
  ++counters_.rx_packets;
  counters_.rx_bytes += packet.size();
  got_packets_ = true;
  events_->OnPacket(*this, source, packet);
}

void Connection::OnPeerGone(const PublicKey& peer, PeerGoneReason) {
  if (!break_.has_value()) events_->OnPeerGone(*this, peer);
}

void Connection::OnHealth(absl::string_view problem) {
  if (!break_.has_value()) events_->OnHealth(*this, problem);
}

void Connection::OnRestarting(const RestartingFrame& frame) {
  reconnect_.OnRestarting(frame, now());
  if (!restart_log_.Allow(now())) return;
  Log().info("relay region {}: node {} restarts, back in {} ms", region_.region_id, node_,
             frame.reconnect_in.count());
}

// ---- Sending ----

bool Connection::Send(const PublicKey& peer, std::span<const std::byte> packet) {
  if (packet.size() > kMaxPacket) return false;
  const Instant time = now();
  const size_t size = kPacketHeaderSize + packet.size();
  ++counters_.tx_packets;
  counters_.tx_bytes += packet.size();
  if (up() && !session_->TakeTokens(size, time)) {
    ++rate_dropped_;
    rate_dropped_bytes_ += packet.size();
  } else if (const MutableBytes memory = queue_.Push(size, time); !memory.empty()) {
    Encode(SendPacketFrame{peer, packet}, memory);
  }
  OnQueueChanged();
  if (queue_.bytes() >= kMaxTlsPlaintext) Pump();
  return true;
}

void Connection::Flush() { Pump(); }

void Connection::SetPreferred(bool preferred) {
  preferred_ = preferred;
  Pump();
}

void Connection::Pump() {
  // Not below a Receive(): what it is about to answer comes out afterwards.
  if (transport_ == nullptr || !transport_->ready() || in_receive_ || break_.has_value()) return;
  if (!PumpControl()) return;
  if (state_ != State::kUp || queue_.empty()) return;
  queue_.DropAged(now());
  while (true) {
    const Bytes piece = queue_.Front(kMaxTlsPlaintext);
    if (piece.empty()) break;
    const size_t taken = transport_->Send(piece);
    const size_t size = piece.size();
    queue_.Consume(taken);
    if (taken < size) break;
    // A long frame has ended: what has come up meanwhile may go in between.
    const bool news = !session_->output().empty() || told_preferred_ != preferred_;
    if (news && !PumpControl()) break;
  }
  OnQueueChanged();
}

// Sends the session's own frames. False if some are left, or cannot be sent now.
bool Connection::PumpControl() {
  // In the middle of a frame: its rest is first.
  if (queue_.mid_frame()) return true;
  if (session_->ready() && told_preferred_ != preferred_ && session_->NotePreferred(preferred_)) {
    told_preferred_ = preferred_;
  }
  while (!session_->output().empty()) {
    const size_t size = session_->output().size();
    const size_t taken = transport_->Send(session_->output());
    session_->ConsumeOutput(taken);
    if (taken < size) return false;
  }
  return true;
}

void Connection::OnQueueChanged() {
  const WriteQueueDrops& drops = queue_.drops();
  counters_.tx_dropped_full = drops.full;
  counters_.tx_dropped_aged = drops.aged;
  counters_.tx_dropped_rate = drops.heads + rate_dropped_;
  counters_.tx_dropped_broken = drops.cut;
  const uint64_t frames = drops.full + drops.aged + drops.heads + drops.cut;
  counters_.tx_dropped_bytes = drops.bytes - frames * kPacketHeaderSize + rate_dropped_bytes_;
  if (queue_.empty()) {
    if (queue_.memory() > 0 && !trim_timer_.scheduled()) trim_timer_.Schedule(now() + kTrimAfter);
  } else if (!age_timer_.scheduled()) {
    age_timer_.Schedule(queue_.next_age());
  }
}

void Connection::OnAgeTimer() {
  queue_.DropAged(now());
  OnQueueChanged();
}

void Connection::OnTrimTimer() {
  queue_.Trim();
  if (session_ != nullptr) session_->Trim();
}

RegionConnectionStatus Connection::Status() const {
  RegionConnectionStatus status;
  status.up = up();
  status.node = dialer_.node() != nullptr ? dialer_.node()->name : node_;
  if (transport_ != nullptr) {
    status.remote = transport_->remote();
    if (transport_->ready()) status.description = transport_->Description();
  }
  status.since = since_;
  status.last_error = last_error_;
  status.queued_bytes = queue_.bytes();
  status.queued_packets = queue_.frames();
  status.counters = counters_;
  return status;
}

}  // namespace

std::unique_ptr<RegionConnection> NewRegionConnection(const RegionConnectionDeps& deps,
                                                      const RelayRegion& region,
                                                      const PrivateKey& key,
                                                      RegionConnectionOptions options,
                                                      RegionEvents* events) {
  return std::make_unique<Connection>(deps, region, key, std::move(options), events);
}

}  // namespace ringsock::derp
