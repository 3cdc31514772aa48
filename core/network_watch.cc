#include "core/network_watch.h"

#include <algorithm>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "base/log.h"

namespace ringsock {
namespace {

bool Has(const NetworkState& state, const IpAddress& wanted) {
  const auto in = [&](const std::vector<IpAddress>& list) {
    return std::find(list.begin(), list.end(), wanted) != list.end();
  };
  return in(state.loopback) || std::any_of(state.addresses.begin(), state.addresses.end(),
                                           [&](const auto& each) { return in(each.second); });
}

// The one that is used: the first of its family.
const DefaultRoute* RouteOf(const NetworkState& state, bool v4) {
  const auto found = std::find_if(state.default_routes.begin(), state.default_routes.end(),
                                  [v4](const DefaultRoute& route) { return route.v4 == v4; });
  return found == state.default_routes.end() ? nullptr : &*found;
}

}  // namespace

bool NetworkChange::LostSomething() const {
  if (told || !before.has_value() || !now.has_value()) return true;
  for (const auto& [interface, addresses] : before->addresses) {
    for (const IpAddress& address : addresses) {
      if (!Has(*now, address)) return true;
    }
  }
  for (const bool v4 : {true, false}) {
    const DefaultRoute* const old = RouteOf(*before, v4);
    const DefaultRoute* const fresh = RouteOf(*now, v4);
    if (old != nullptr && (fresh == nullptr || *old != *fresh)) return true;
  }
  return false;
}

bool NetworkChange::Got(const IpAddress& address) const {
  return before.has_value() && now.has_value() && !Has(*before, address) && Has(*now, address);
}

NetworkWatch::NetworkWatch(Options options, Environment environment)
    : options_(std::move(options)), env_(std::move(environment)), port_(options_.port) {}

NetworkWatch::~NetworkWatch() { Stop(); }

void NetworkWatch::Start() {
  std::lock_guard lock(threads_mutex_);
  if (options_.watch_links) {
    LinkMonitorOptions options;
    options.ignored = options_.ignored_interfaces;
    auto monitor =
        LinkMonitor::Start(options, [this](const NetworkState& state, const std::string& change) {
          Post([&](Posted* posted) {
            posted->changed = true;
            posted->reason = change;
            posted->state = state;
          });
        });
    if (monitor.ok()) {
      monitor_ = *std::move(monitor);
      state_ = monitor_->state();
      watching_ = true;
    } else {
      Log().warn("changes of the network are not seen: {}; tell them with Engine::LinkChanged()",
                 monitor.status().ToString());
    }
  }
  if (options_.port_mapping) StartMapper();
}

void NetworkWatch::StartMapper() {
  const auto mapped = [this](const Endpoint& external) {
    Post([&](Posted* posted) { posted->mapped = external; });
  };
  if (env_.make_mapper) {
    mapper_ = env_.make_mapper(mapped);
  } else {
    std::vector<std::unique_ptr<PortMappingProtocol>> protocols;
    protocols.push_back(NewNatPmp());
    protocols.push_back(NewUpnp());
    PortMapperOptions options;
    options.port = port_;
    auto mapper = PortMapper::Start(options, std::move(protocols), mapped);
    if (!mapper.ok()) {
      Log().warn("no port mapping: {}", mapper.status().ToString());
      return;
    }
    mapper_ = *std::move(mapper);
  }
  // Without a monitor the network is read now, and at each change that is told.
  if (!state_.has_value()) {
    absl::StatusOr<NetworkState> read = ReadNetworkState(options_.ignored_interfaces);
    if (read.ok()) state_ = *std::move(read);
  }
  TellMapper();
}

void NetworkWatch::Stop() {
  {
    std::lock_guard lock(mutex_);
    stopped_ = true;
    posted_ = {};
  }
  std::unique_ptr<LinkMonitor> monitor;
  std::unique_ptr<PortMapper> mapper;
  {
    std::lock_guard lock(threads_mutex_);
    monitor = std::move(monitor_);
    mapper = std::move(mapper_);
  }
}

void NetworkWatch::Post(const std::function<void(Posted*)>& write) {
  {
    std::lock_guard lock(mutex_);
    if (stopped_) return;
    write(&posted_);
    any_posted_.store(true, std::memory_order_release);
  }
  env_.loop->Wake();
}

void NetworkWatch::LinkChanged(absl::string_view reason) {
  Post([reason](Posted* posted) {
    posted->changed = posted->told = true;
    posted->reason = std::string(reason);
  });
}

void NetworkWatch::SetPort(uint16_t port) {
  port_ = port;
  std::lock_guard lock(threads_mutex_);
  TellMapper();
}

std::string NetworkWatch::MappingStatus() const {
  std::lock_guard lock(threads_mutex_);
  if (mapper_ == nullptr) return "";
  const PortMapperStatus status = mapper_->status();
  if (status.external.IsNone()) return status.last_error;
  return absl::StrCat(status.external.ToString(), " (", status.protocol, ")");
}

bool NetworkWatch::Run() {
  if (!any_posted_.load(std::memory_order_acquire)) return false;
  Posted posted;
  {
    std::lock_guard lock(mutex_);
    any_posted_.store(false, std::memory_order_relaxed);
    posted = std::exchange(posted_, {});
  }
  if (posted.mapped.has_value() && env_.mapped) env_.mapped(*posted.mapped);
  if (posted.changed) Changed(std::move(posted));
  return false;
}

void NetworkWatch::Changed(Posted posted) {
  NetworkChange change;
  change.reason = std::move(posted.reason);
  change.told = posted.told;
  change.before = state_;
  if (!posted.state.has_value() && state_.has_value()) {
    // What the embedder tells may be ahead of what the monitor has seen.
    absl::StatusOr<NetworkState> read = ReadNetworkState(options_.ignored_interfaces);
    if (read.ok()) posted.state = *std::move(read);
  }
  // Seen already, when the embedder told.
  if (!posted.told && posted.state == state_) return;
  if (posted.state.has_value()) state_ = posted.state;
  change.now = posted.state;
  ++changes_;
  {
    std::lock_guard lock(threads_mutex_);
    // The router maps to the address that we had. Another one, or the router of another network
    // with the same address, knows nothing of us.
    if (mapper_ != nullptr && change.LostSomething()) {
      mapper_->SetGateway(IpAddress::AnyV4(), port_);
    }
    TellMapper();
  }
  env_.changed(change);
}

// The gateway of the best default route over IPv4: NAT-PMP and UPnP know no other family.
void NetworkWatch::TellMapper() {
  if (mapper_ == nullptr) return;
  const DefaultRoute* const route = state_.has_value() ? RouteOf(*state_, /*v4=*/true) : nullptr;
  mapper_->SetGateway(route == nullptr ? IpAddress::AnyV4() : route->gateway, port_);
}

}  // namespace ringsock
