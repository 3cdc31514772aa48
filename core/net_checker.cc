#include "core/net_checker.h"

#include <algorithm>
#include <chrono>
#include <memory>

#include "core/probe_map.h"

namespace ringsock {
namespace {

// A probe that found no room tries again so much later.
constexpr Duration kSendAgain = std::chrono::milliseconds(1);
// How often the relays are asked for signs of life: they count for seconds.
constexpr Duration kHeardInterval = std::chrono::seconds(1);

}  // namespace

NetChecker::NetChecker(const EngineOptions& options, const Environment& environment)
    : options_(options.network),
      env_(environment),
      hairpin_(environment.loop, options.bind_v4),
      netcheck_({}, environment.random, this),
      updates_(environment.random, this) {
  env_.peers->ForEach([this](const Peer&) { ++peers_; });
}

NetChecker::~NetChecker() { Close(); }

void NetChecker::Start() {
  started_ = true;
  SyncMap();
  Remember("start");  // this thread is awake
}

void NetChecker::Close() {
  if (std::exchange(closed_, true)) return;
  SetStunWanted(false);
  CancelNames();
  hairpin_.Close();
}

// --- What is asked for ---

void NetChecker::Request(absl::string_view reason) {
  Remember(reason);
  env_.loop->Wake();
}

void NetChecker::Remember(absl::string_view reason) {
  std::lock_guard lock(request_mutex_);
  reason_ = std::string(reason);
  requested_.store(true, std::memory_order_release);
}

std::optional<std::string> NetChecker::TakeRequest() {
  if (!requested_.load(std::memory_order_acquire)) return std::nullopt;
  std::lock_guard lock(request_mutex_);
  requested_.store(false, std::memory_order_relaxed);
  return std::exchange(reason_, {});
}

void NetChecker::SetBound(std::optional<Endpoint> v4, std::optional<Endpoint> v6) {
  bound_v4_ = v4;
  bound_v6_ = v6;
}

void NetChecker::SetNetworkState(NetworkState state) {
  network_ = std::move(state);
  watched_ = true;
}

void NetChecker::SetPortMapping(const Endpoint& mapped) {
  if (mapped == port_mapping_) return;
  port_mapping_ = mapped;
  Request("port mapping");
}

// A netcheck that runs goes on with the map it began with.
void NetChecker::SyncMap() {
  if (closed_ || !options_.netcheck || map_ == env_.relays->routes().map()) return;
  map_ = env_.relays->routes().map();
  netcheck_.SetMap(map_.has_value() ? ToProbeMap(*map_) : stun::ProbeMap{});
  SetStunWanted(map_.has_value() || netcheck_.running());
}

// Else shards count it as dropped (spec: RECV-1). Not from inside OnStun().
void NetChecker::SetStunWanted(bool wanted) {
  wanted = wanted && !closed_;  // an observer may have been at work when we were closed
  if (wanted == stun_wanted_) return;
  stun_wanted_ = wanted;
  if (wanted) {
    env_.control->SetStunHandler([this](uint32_t, const StunPacket& packet) { OnStun(packet); });
  } else {
    env_.control->SetStunHandler(nullptr);
  }
}

void NetChecker::OnPeerChange(const Peer* before, const Peer* now) {
  if (before == nullptr) ++peers_;
  if (now == nullptr) --peers_;
}

void NetChecker::AddStatus(EngineStatus* status) const {
  status->endpoints = updates_.endpoints();
  status->net_info = updates_.net_info();
  status->last_report = netcheck_.last_report();
  status->netcheck = netcheck_.stats();
}

// --- Turns ---

bool NetChecker::Run() {
  if (!started_ || closed_) return false;
  const Instant now = Now();
  NoteRelayFrame(now);
  SendUnsent(now);
  netcheck_.Advance(now);
  TakeAnswers(now);
  if (had_peers_ != (peers_ > 0)) {
    had_peers_ = peers_ > 0;
    updates_.SetHavePeers(had_peers_, now);
  }
  if (const auto reason = TakeRequest(); reason.has_value()) updates_.Request(*reason, now);
  updates_.Advance(now);
  SetStunWanted(map_.has_value() || netcheck_.running());
  return !answers_.empty();
}

Instant NetChecker::NextDeadline() const {
  if (!started_ || closed_) return Instant::max();
  if (!answers_.empty() || had_peers_ != (peers_ > 0) ||
      requested_.load(std::memory_order_acquire)) {
    return Instant::min();
  }
  return std::min({updates_.NextDeadline(), netcheck_.NextDeadline(), send_again_});
}

// Those of now: what they lead to may bring more, for the next turn.
void NetChecker::TakeAnswers(Instant now) {
  std::deque<Answer> answers;
  answers.swap(answers_);
  for (const Answer& answer : answers) {
    if (const auto* const name = std::get_if<ResolvedName>(&answer)) {
      netcheck_.OnResolved(name->name, name->family, name->addresses, now);
    } else if (const auto* const https = std::get_if<HttpsLatency>(&answer)) {
      netcheck_.OnHttpsLatency(https->region, https->latency, now);
    } else {
      updates_.OnReport(std::get<stun::Report>(answer), now);
    }
  }
}

// Latency ends when the answer came, not when this thread found the time to look.
void NetChecker::OnStun(const StunPacket& packet) {
  NoteRelayFrame(Now());
  netcheck_.OnDatagram(packet.from, {packet.data.data(), packet.size}, packet.received);
}

// Spec: NC-10. Only that of our home counts.
void NetChecker::NoteRelayFrame(Instant now) {
  if (heard_ != Instant::min() && now - heard_ < kHeardInterval) return;
  heard_ = now;
  const RegionId home = env_.relays->routes().home();
  const Instant last = env_.relays->routes().LastHeard(home);
  if (last != Instant::min()) netcheck_.OnRelayFrame(home, last);
}

// --- What a netcheck wants ---

void NetChecker::SendProbe(const Endpoint& to, std::span<const std::byte> packet) {
  if (unsent_.empty() && TrySend(to, packet)) return;
  if (unsent_.size() >= kMaxUnsent) {
    counters_.AddDrop(Drop::kTxQueueFull, 1);
    return;
  }
  unsent_.push_back({to, {packet.begin(), packet.end()}});
  if (send_again_ == Instant::max()) send_again_ = Now() + kSendAgain;
}

// All shards share one port, so that it does not matter which one sends.
bool NetChecker::TrySend(const Endpoint& to, std::span<const std::byte> packet) {
  for (uint32_t shard = 0; shard < env_.shards; ++shard) {
    if (env_.control->SendTo(shard, to, packet)) return true;
  }
  return false;
}

void NetChecker::SendUnsent(Instant now) {
  if (now < send_again_) return;
  while (!unsent_.empty() && TrySend(unsent_.front().to, unsent_.front().packet)) {
    unsent_.pop_front();
  }
  send_again_ = unsent_.empty() ? Instant::max() : now + kSendAgain;
}

bool NetChecker::SendHairpin(const Endpoint& to, std::span<const std::byte> packet) {
  const absl::Status status = hairpin_.Send(to, packet);
  if (!status.ok() && hairpin_log_.Allow(Now())) {
    Log().warn("netcheck: no hairpin check: {}", Fmt(status.message()));
  }
  return status.ok();
}

void NetChecker::Resolve(const std::string& host_name, stun::Family family) {
  derp::Resolver* const resolver = env_.connector->resolver();
  if (resolver == nullptr) {
    answers_.push_back(ResolvedName{host_name, family, {}});
    return;
  }
  const bool v4 = family == stun::Family::kV4;
  auto id = std::make_shared<derp::Resolver::RequestId>();
  *id = resolver->Resolve(
      host_name, v4 ? derp::AddressFamily::kV4 : derp::AddressFamily::kV6,
      [=, this](const absl::StatusOr<derp::Resolved>& resolved) {
        names_.erase(*id);
        answers_.push_back(ResolvedName{
            host_name, family, resolved.ok() ? resolved->addresses : std::vector<IpAddress>{}});
      });
  names_.insert(*id);
}

// No more answers than questions of one report are kept waiting.
void NetChecker::CancelNames() {
  derp::Resolver* const resolver = env_.connector->resolver();
  if (resolver != nullptr) {
    for (const derp::Resolver::RequestId id : names_) resolver->Cancel(id);
  }
  names_.clear();
}

void NetChecker::MeasureHttps(RegionId region, const stun::ProbeNode& node) {
  const derp::RelayNode* const relay =
      map_.has_value() ? FindProbedRelay(*map_, region, node) : nullptr;
  if (relay == nullptr) {
    answers_.push_back(HttpsLatency{region, std::nullopt});
    return;
  }
  env_.connector->MeasureLatency(*relay, [this, region](absl::StatusOr<Duration> latency) {
    if (closed_) return;
    if (!latency.ok()) {
      Log().debug("netcheck: region {} over HTTPS: {}", region, Fmt(latency.status().message()));
    }
    answers_.push_back(
        HttpsLatency{region, latency.ok() ? std::optional<Duration>(*latency) : std::nullopt});
  });
}

// Handed on in the next turn: what follows may change even who gets STUN.
void NetChecker::OnReport(const stun::Report& report) {
  CancelNames();
  // A late one would answer for the next report.
  env_.connector->CancelLatency();
  unsent_.clear();
  answers_.push_back(report);
}

// --- What an update wants ---

bool NetChecker::StartNetcheck(Duration timeout) {
  SyncMap();
  asked_ = map_.has_value();
  if (!asked_) return false;
  UpdateNetworkState();
  const stun::HostFamilies families = Families();
  // Of no network at all nothing can be asked, and waiting for answers would only hold up the
  // update that follows when it is back.
  if (!families.v4 && !families.v6 && network_->Local().regular.empty()) {
    asked_ = false;
    return false;
  }
  heard_ = Instant::min();
  NoteRelayFrame(Now());
  // A home that nobody measured is given up for the nearest at once.
  RegionId home = env_.relays->routes().home();
  if (home != measured_home_) home = 0;
  asked_ =
      netcheck_.Start({.host = families, .full = false, .timeout = timeout, .home = home}, Now());
  return asked_;
}

// A family without an address is not asked over: its sends would only fail.
stun::HostFamilies NetChecker::Families() const {
  stun::HostFamilies families{.v4 = bound_v4_.has_value(), .v6 = bound_v6_.has_value()};
  if (!network_.has_value()) return families;
  if (families.v4 && bound_v4_->ip.IsUnspecified()) {
    const LocalAddresses local = network_->Local();
    families.v4 = std::any_of(local.regular.begin(), local.regular.end(),
                              [](const IpAddress& ip) { return ip.IsV4(); });
  }
  if (families.v6 && bound_v6_->ip.IsUnspecified()) families.v6 = network_->HasGlobalV6();
  return families;
}

void NetChecker::UpdateNetworkState() {
  if (watched_ || !env_.network) return;
  absl::StatusOr<NetworkState> state = env_.network();
  if (state.ok()) {
    network_ = *std::move(state);
  } else if (network_log_.Allow(Now())) {
    Log().warn("the addresses of this host could not be read: {}", Fmt(state.status().message()));
  }
}

// Spec: EP-6. Who was not asked prefers nothing.
RegionId NetChecker::ChooseHome(RegionId preferred) {
  if (!asked_) return env_.relays->routes().home();
  if (preferred == 0) return env_.relays->OnPreferredRegion(std::nullopt);
  const RegionId home = env_.relays->OnPreferredRegion(preferred);
  measured_home_ = home == preferred ? home : 0;
  return home;
}

EndpointInputs NetChecker::Inputs(const stun::Report& report) {
  UpdateNetworkState();
  EndpointInputs inputs;
  inputs.global_v4 = report.global_v4;
  inputs.global_v6 = report.global_v6;
  inputs.port_mapping = port_mapping_;
  inputs.bound_v4 = bound_v4_;
  inputs.bound_v6 = bound_v6_;
  if (network_.has_value()) inputs.local = network_->Local();
  return inputs;
}

void NetChecker::OnEndpoints(const std::vector<OwnEndpoint>& endpoints) {
  if (env_.observer != nullptr) env_.observer->OnEndpoints(endpoints);
}

void NetChecker::OnNetInfo(const NetInfo& info) {
  if (env_.observer != nullptr) env_.observer->OnNetInfo(info);
}

}  // namespace ringsock
