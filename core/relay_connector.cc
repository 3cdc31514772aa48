#include "core/relay_connector.h"

#include <utility>

#include "absl/status/statusor.h"
#include "base/random.h"
#include "derp/latency_check.h"
#include "derp/node_dialer.h"
#include "derp/region_connection.h"
#include "derp/resolver.h"
#include "derp/tls.h"

namespace ringsock {
namespace {

class Connector final : public RelayConnector {
 public:
  Connector(io::Loop* loop, TimerQueue* timers, const RelayOptions& options) : options_(options) {
    deps_.loop = loop;
    deps_.timers = timers;
    deps_.random = &SystemRandom();
  }

  absl::Status Prepare() override {
    if (deps_.loop->streams() == nullptr) {
      return absl::FailedPreconditionError("relays need streams, which this loop does not have");
    }
    if (tls_ == nullptr) {
      derp::TlsClientContext::Options trust;
      trust.roots_file = options_.roots_file;
      auto tls = derp::TlsClientContext::Create(trust);
      if (!tls.ok()) return tls.status();
      tls_ = *std::move(tls);
      deps_.tls = tls_.get();
    }
    if (resolver_ == nullptr) {
      auto resolver = derp::NewResolver(deps_.loop, deps_.timers, {});
      if (!resolver.ok()) return resolver.status();
      resolver_ = *std::move(resolver);
      deps_.resolver = resolver_.get();
    }
    return absl::OkStatus();
  }

  std::unique_ptr<derp::RegionConnection> Connect(const derp::RelayRegion& region,
                                                  const PrivateKey& key,
                                                  derp::RegionEvents* events) override {
    derp::RegionConnectionOptions options;
    options.queue = {.max_bytes = options_.queue_bytes, .max_age = options_.queue_age};
    options.user_agent = "ringsock";
    return derp::NewRegionConnection(deps_, region, key, std::move(options), events);
  }

  derp::Resolver* resolver() override { return resolver_.get(); }

  void MeasureLatency(const derp::RelayNode& node, LatencyDone done) override {
    if (latency_ == nullptr) {
      const derp::DialContext context{.streams = deps_.loop->streams(),
                                      .clock = &deps_.loop->clock(),
                                      .timers = deps_.timers,
                                      .resolver = deps_.resolver,
                                      .device = {}};
      latency_ =
          std::make_unique<derp::LatencyChecks>(context, tls_.get(), derp::LatencyCheckOptions{});
    }
    const absl::Status status = latency_->Start(node, done);
    if (!status.ok()) done(status);
  }

  void CancelLatency() override {
    if (latency_ != nullptr) latency_->CancelAll();
  }

  void OnLinkChange() override {
    if (resolver_ != nullptr) resolver_->OnLinkChange();
  }
  // Its sockets are of the control thread's loop.
  void Close() override {
    latency_.reset();
    deps_.resolver = nullptr;
    deps_.tls = nullptr;
    resolver_.reset();
    tls_.reset();
  }

 private:
  const RelayOptions options_;
  derp::RegionConnectionDeps deps_;
  std::unique_ptr<derp::TlsClientContext> tls_;
  std::unique_ptr<derp::Resolver> resolver_;
  std::unique_ptr<derp::LatencyChecks> latency_;
};

}  // namespace

std::unique_ptr<RelayConnector> NewRelayConnector(io::Loop* loop, TimerQueue* timers,
                                                  const RelayOptions& options) {
  return std::make_unique<Connector>(loop, timers, options);
}

}  // namespace ringsock
