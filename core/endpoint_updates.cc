// When our own endpoints are looked at, and who is told (core/endpoint_updates.h).
#include "core/endpoint_updates.h"

#include <utility>

#include "base/log.h"

namespace ringsock {

void EndpointUpdates::Request(absl::string_view reason, Instant now) {
  if (running_ || wanted_) {
    wanted_ = std::string(reason);
  } else {
    Begin(std::string(reason), now);
  }
}

void EndpointUpdates::SetHavePeers(bool have, Instant now) {
  if (have == have_peers_) return;
  have_peers_ = have;
  if (have) {
    Request("first peer", now);
  } else if (!wanted_) {
    due_ = Instant::max();
  }
}

void EndpointUpdates::Advance(Instant now) {
  if (running_ || now < due_) return;
  Begin(wanted_ ? std::move(*wanted_) : "periodic", now);
}

void EndpointUpdates::OnReport(const stun::Report& report, Instant now) {
  if (running_) Finish(report, now);
}

void EndpointUpdates::Begin(std::string reason, Instant now) {
  running_ = true;
  reason_ = std::move(reason);
  wanted_.reset();
  Log().debug("Endpoint update ({})", reason_);
  if (!environment_->StartNetcheck(kUpdateTimeout)) Finish(stun::Report{}, now);
}

void EndpointUpdates::Finish(const stun::Report& report, Instant now) {
  Publish(report);
  running_ = false;
  if (wanted_) {
    due_ = now;  // not here: a callback that always asks for more must not nest
  } else if (have_peers_) {
    due_ = now + random_->Between(kMinReStun, kMaxReStun);
  } else {
    due_ = Instant::max();
  }
}

void EndpointUpdates::Publish(const stun::Report& report) {
  const RegionId home = environment_->ChooseHome(report.preferred);
  // An empty report is one that asked nobody: it says nothing of the network.
  if (report.started != Instant{}) {
    NetInfo info = MakeNetInfo(report, home);
    const bool news = !net_info_ || DiffersSubstantially(info, *net_info_);
    net_info_ = std::move(info);
    if (news) {
      Log().info("Network ({}): {}", reason_, ToString(*net_info_));
      environment_->OnNetInfo(*net_info_);
    }
  }
  std::vector<OwnEndpoint> endpoints = ListOwnEndpoints(environment_->Inputs(report));
  if (endpoints == endpoints_) return;
  endpoints_ = std::move(endpoints);
  Log().info("Our endpoints ({}): {}", reason_, ToString(endpoints_));
  environment_->OnEndpoints(endpoints_);
}

}  // namespace ringsock
