#include "netcheck/checker.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/probe_map.h"

namespace ringsock::netcheck {
namespace {

// Beyond that of a latency check, so that each has said why it failed before the report ends.
constexpr Duration kHttpsGrace = std::chrono::milliseconds(200);
// STUN answers are short, and few.
constexpr int kSocketBuffer = 256 << 10;

stun::NetcheckOptions NetcheckOptionsOf(const CheckerOptions& options) {
  stun::NetcheckOptions netcheck;
  netcheck.timeout = options.timeout;
  netcheck.https_timeout = derp::LatencyCheckOptions{}.timeout + kHttpsGrace;
  return netcheck;
}

stun::NetcheckStats Since(const stun::NetcheckStats& now, const stun::NetcheckStats& before) {
  return {.probes_sent = now.probes_sent - before.probes_sent,
          .probes_spared = now.probes_spared - before.probes_spared,
          .answers = now.answers - before.answers,
          .malformed = now.malformed - before.malformed,
          .unknown_id = now.unknown_id - before.unknown_id,
          .late = now.late - before.late,
          .repeated = now.repeated - before.repeated,
          .wrong_source = now.wrong_source - before.wrong_source,
          .wrong_family = now.wrong_family - before.wrong_family,
          .refused = now.refused - before.refused,
          .unresolved = now.unresolved - before.unresolved};
}

}  // namespace

Checker::Checker(const CheckerDeps& deps, const CheckerOptions& options, const derp::RelayMap& map)
    : deps_(deps),
      options_(options),
      map_(map),
      hairpin_(deps.loop, IpAddress::AnyV4()),
      https_({.streams = deps.loop->streams(),
              .clock = &deps.loop->clock(),
              .timers = deps.timers,
              .resolver = deps.resolver,
              .prefer_ipv6 = false,
              .device = {}},
             deps.tls, {.plain_http_for_tests = options.plain_http_for_tests}),
      netcheck_(NetcheckOptionsOf(options), deps.random, this) {
  netcheck_.SetMap(ToProbeMap(map_));
}

Checker::~Checker() {
  for (const auto& [id, name] : names_) deps_.resolver->Cancel(id);
  for (const auto& socket : {v4_, v6_}) {
    if (socket.has_value()) deps_.loop->CloseUdp(*socket);
  }
}

absl::Status Checker::Open() {
  const auto open = [this](const IpAddress& ip, uint16_t port, std::optional<io::SocketId>* out) {
    io::UdpConfig config;
    config.bind = {ip, port, 0};
    config.receive_buffer = config.send_buffer = kSocketBuffer;
    const absl::StatusOr<io::SocketId> socket = deps_.loop->OpenUdp(config, this);
    if (socket.ok()) *out = *socket;
    return socket.status();
  };
  // A host without a family has none of its sockets; one that cannot have either is told why.
  absl::Status v4 = open(IpAddress::AnyV4(), options_.port, &v4_);
  if (v4_.has_value()) port_ = deps_.loop->LocalEndpoint(*v4_).port;
  const absl::Status v6 = open(IpAddress::AnyV6(), v4_ ? port_ : options_.port, &v6_);
  if (!v4_.has_value() && v6_.has_value()) port_ = deps_.loop->LocalEndpoint(*v6_).port;
  if (!v4.ok() && (options_.port != 0 || !v6.ok())) return v4;
  return absl::OkStatus();
}

void Checker::Start(const stun::HostFamilies& host, std::vector<IpAddress> local, bool full,
                    RegionId home) {
  findings_ = Findings{};
  findings_.host = host;
  findings_.local = std::move(local);
  findings_.port = port_;
  before_ = netcheck_.stats();
  stun::NetcheckRequest request;
  // With neither there may still be servers on this very host.
  request.host = host.v4 || host.v6 ? host : stun::HostFamilies{.v4 = true, .v6 = false};
  request.host.v4 = request.host.v4 && v4_.has_value();
  request.host.v6 = request.host.v6 && v6_.has_value();
  request.full = full;
  request.home = home;
  netcheck_.Start(request, now());
}

Instant Checker::NextDeadline() const {
  if (!events_.empty() || !received_.empty()) return Instant::min();
  return std::min(netcheck_.NextDeadline(), deps_.timers->NextDeadline());
}

void Checker::Turn(Instant deadline) {
  deps_.loop->Poll(std::min(deadline, NextDeadline()));
  deps_.timers->RunDue(now());
  while (!received_.empty()) {
    const Received received = std::move(received_.front());
    received_.pop_front();
    netcheck_.OnDatagram(received.from, received.bytes, received.at);
  }
  while (!events_.empty()) {
    const std::function<void()> event = std::move(events_.front());
    events_.pop_front();
    event();
  }
  netcheck_.Advance(now());
}

// ---- What the netcheck wants ----

void Checker::Send(std::optional<io::SocketId> socket, const Endpoint& to,
                   std::span<const std::byte> packet) {
  if (!socket.has_value()) return;
  deps_.loop->Send(*socket,
                   {.data = packet.data(), .size = static_cast<uint32_t>(packet.size()), .to = to});
  deps_.loop->Flush();  // the bytes are ours in this call only
}

void Checker::SendProbe(const Endpoint& to, std::span<const std::byte> packet) {
  Send(to.IsV4() ? v4_ : v6_, to, packet);
}

bool Checker::SendHairpin(const Endpoint& to, std::span<const std::byte> packet) {
  return hairpin_.Send(to, packet).ok();
}

void Checker::Resolve(const std::string& host_name, stun::Family family) {
  const auto id = std::make_shared<derp::Resolver::RequestId>();
  *id = deps_.resolver->Resolve(
      host_name, family == stun::Family::kV4 ? derp::AddressFamily::kV4 : derp::AddressFamily::kV6,
      [this, host_name, family, id](const absl::StatusOr<derp::Resolved>& resolved) {
        names_.erase(*id);
        std::vector<IpAddress> addresses;
        if (resolved.ok()) {
          addresses = resolved->addresses;
          resolved_.insert(host_name);
        } else {
          Unresolved(host_name, resolved.status().message());
        }
        Later([this, host_name, family, addresses = std::move(addresses)] {
          netcheck_.OnResolved(host_name, family, addresses, now());
        });
      });
  names_.emplace(*id, host_name);
}

void Checker::Unresolved(const std::string& name, absl::string_view why) {
  if (findings_.unresolved.size() < kMaxNames) findings_.unresolved.emplace(name, why);
}

void Checker::MeasureHttps(RegionId region, const stun::ProbeNode& node) {
  findings_.https = true;
  const auto done = [this, region](const absl::StatusOr<Duration>& latency) {
    if (!latency.ok()) findings_.https_errors[region] = std::string(latency.status().message());
    const auto measured = latency.ok() ? std::optional<Duration>(*latency) : std::nullopt;
    Later([this, region, measured] { netcheck_.OnHttpsLatency(region, measured, now()); });
  };
  const derp::RelayNode* relay = FindProbedRelay(map_, region, node);
  if (relay == nullptr) return done(absl::NotFoundError("not in the relay map"));
  const absl::Status started = https_.Start(*relay, done);
  if (!started.ok()) done(started);
}

void Checker::OnReport(const stun::Report& report) {
  findings_.report = report;
  findings_.took = now() - report.started;
  findings_.stats = Since(netcheck_.stats(), before_);
  https_.CancelAll();
  hairpin_.Close();
  for (const auto& [id, name] : names_) {
    deps_.resolver->Cancel(id);
    Unresolved(name, "the DNS has not answered");
  }
  names_.clear();
  // One family is enough.
  std::erase_if(findings_.unresolved,
                [this](const auto& entry) { return resolved_.contains(entry.first); });
  resolved_.clear();
  events_.clear();
}

// ---- What comes ----

void Checker::OnReceive(io::SocketId, std::span<const io::RxTrain> trains) {
  for (const io::RxTrain& train : trains) {
    const size_t step = std::max(train.segment_size, 1u);
    for (size_t at = 0; at < train.size; at += step) {
      const std::span<const std::byte> packet(train.data + at, std::min(step, train.size - at));
      if (!stun::IsStun(packet) || received_.size() >= kMaxReceived) continue;
      received_.push_back({train.from, {packet.begin(), packet.end()}, now()});
    }
  }
}

void Checker::OnSendFailure(io::SocketId socket, const io::SendFailure& failure) {
  if (socket == v4_) findings_.send_error_v4 = failure.error;
  if (socket == v6_) findings_.send_error_v6 = failure.error;
}

}  // namespace ringsock::netcheck
