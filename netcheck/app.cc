#include "netcheck/app.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/log.h"
#include "core/network_state.h"
#include "netcheck/report_text.h"

namespace ringsock::netcheck {
namespace {

// How long a signal, or a router that has answered, may wait to be seen.
constexpr Duration kLook = std::chrono::milliseconds(100);
// For the router, beside the report. NAT-PMP and UPnP both give up within it where nobody answers.
constexpr Duration kRouterPatience = std::chrono::seconds(6);
// Should this program be killed, the router forgets soon.
constexpr Duration kMappingLifetime = std::chrono::minutes(2);

IpAddress RouterOf(const NetworkState& state) {
  for (const DefaultRoute& route : state.default_routes) {
    if (route.v4 && !route.gateway.IsUnspecified()) return route.gateway;
  }
  return IpAddress::AnyV4();
}

stun::HostFamilies FamiliesOf(const NetworkState& state) {
  const std::vector<IpAddress> addresses = state.Local().regular;
  return {.v4 = std::any_of(addresses.begin(), addresses.end(),
                            [](const IpAddress& ip) { return ip.IsV4(); }),
          .v6 = state.HasGlobalV6()};
}

}  // namespace

absl::Status App::Open() {
  io::LoopOptions few;  // datagrams and streams: single ones
  few.rx_buffers = 4;
  few.tx_slabs = 4;
  few.stream_buffers = 8;
  io::BackendChoice choice;
  absl::StatusOr<std::unique_ptr<io::Loop>> loop = io::CreateLoop(few, &choice);
  if (!loop.ok()) return loop.status();
  loop_ = *std::move(loop);
  derp::TlsClientContext::Options trust;
  trust.roots_file = options_.roots_file;
  auto tls = derp::TlsClientContext::Create(trust);
  if (!tls.ok()) return tls.status();
  tls_ = *std::move(tls);
  auto resolver = derp::NewResolver(loop_.get(), &timers_, {});
  if (!resolver.ok()) return resolver.status();
  resolver_ = *std::move(resolver);
  checker_ = std::make_unique<Checker>(
      CheckerDeps{.loop = loop_.get(),
                  .timers = &timers_,
                  .resolver = resolver_.get(),
                  .tls = tls_.get(),
                  .random = &SystemRandom()},
      CheckerOptions{.port = options_.port, .timeout = options_.timeout}, options_.map);
  if (absl::Status opened = checker_->Open(); !opened.ok()) return opened;
  if (!options_.port_mapping) return absl::OkStatus();
  std::vector<std::unique_ptr<PortMappingProtocol>> protocols;
  protocols.push_back(NewNatPmp());
  protocols.push_back(NewUpnp());
  auto mapper = PortMapper::Start({.port = checker_->port(), .lifetime = kMappingLifetime},
                                  std::move(protocols), [](const Endpoint&) {});
  if (!mapper.ok()) return mapper.status();
  mapper_ = *std::move(mapper);
  return absl::OkStatus();
}

bool App::WaitUntil(Instant until) {
  while (!stop_.load() && loop_->clock().Now() < until) {
    checker_->Turn(std::min(until, loop_->clock().Now() + kLook));
  }
  return !stop_.load();
}

bool App::Check(RegionId home, Findings* findings) {
  const Instant begin = loop_->clock().Now();
  // A host whose addresses cannot be read is asked over IPv4.
  const absl::StatusOr<NetworkState> read = ReadNetworkState({});
  if (!read.ok()) Log().warn("The addresses of this host: {}", Fmt(read.status().message()));
  const NetworkState state = read.ok() ? *read : NetworkState{};
  stun::HostFamilies host{.v4 = true, .v6 = false};
  if (read.ok()) host = FamiliesOf(state);
  const IpAddress router = RouterOf(state);
  if (mapper_ != nullptr) mapper_->SetGateway(router, checker_->port());
  checker_->Start(host, state.Local().regular, options_.full, home);
  while (!stop_.load() && checker_->running()) checker_->Turn(loop_->clock().Now() + kLook);
  if (stop_.load()) return false;
  *findings = checker_->findings();
  if (mapper_ == nullptr) return true;
  if (router.IsUnspecified()) {
    findings->port_mapping.why_not = "there is no router over IPv4 to ask";
    findings->port_mapping.asked = true;
    return true;
  }
  while (mapper_->status().requests == 0 && loop_->clock().Now() < begin + kRouterPatience) {
    if (!WaitUntil(loop_->clock().Now() + kLook)) return false;
  }
  FinishPortMapping(findings);
  return true;
}

void App::FinishPortMapping(Findings* findings) {
  const PortMapperStatus status = mapper_->status();
  PortMappingFinding& mapping = findings->port_mapping;
  mapping.asked = true;
  mapping.external = status.external;
  mapping.protocol = status.protocol;
  if (!status.external.IsNone()) return;
  mapping.why_not = status.last_error.empty() ? "no answer from the router" : status.last_error;
}

Outcome App::Run(std::FILE* out) {
  Outcome outcome = Outcome::kFailed;
  RegionId home = 0;
  for (;;) {
    const Instant begin = loop_->clock().Now();
    Findings findings;
    if (!Check(home, &findings)) return outcome;
    home = findings.report.preferred;
    const std::vector<Advice> advice = Advise(findings, options_.map);
    outcome = IsTrouble(advice) ? Outcome::kTrouble : Outcome::kWell;
    std::string text = options_.json ? ToJson(findings, advice, options_.map) + "\n"
                                     : ToText(findings, advice, options_.map);
    if (options_.watch.has_value() && !options_.json) {
      const std::string at =
          absl::FormatTime("%Y-%m-%d %H:%M:%S UTC", absl::Now(), absl::UTCTimeZone());
      text = "== " + at + "\n" + text + "\n";
    }
    if (std::fputs(text.c_str(), out) < 0 || std::fflush(out) != 0) return Outcome::kFailed;
    if (!options_.watch.has_value() || !WaitUntil(begin + *options_.watch)) return outcome;
  }
}

}  // namespace ringsock::netcheck
