// What an engine does when the network changes: new sockets, other paths, another port mapping.
#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/log.h"
#include "core/engine_internal.h"

namespace ringsock::internal {
namespace {

// With Threads::kCaller: turns of the engine that a rebind may take. It takes three.
constexpr int kMaxTurns = 100;

// The end of a rebind, for the thread that waits for it.
struct RebindEnd {
  std::mutex mutex;
  std::condition_variable reached;
  std::optional<absl::Status> status;  // guarded by mutex
};

}  // namespace

void EngineImpl::StartNetwork(const EngineParts& parts) {
  std::vector<ShardLink*> links;
  for (const auto& link : links_) links.push_back(link.get());
  rebinder_ = std::make_unique<Rebinder>(
      Rebinder::Environment{.control = control_.get(),
                            .links = std::move(links),
                            .port = port(),
                            .fixed_port = options_.port != 0,
                            .one_by_one = options_.steering != io::Steering::kNone,
                            .min_interval = options_.network.min_rebind_interval,
                            .rebound = [this](const RebindResult& result) { OnRebound(result); }});
  control_->AddPart(rebinder_.get());
  watch_ = std::make_unique<NetworkWatch>(
      NetworkWatch::Options{.watch_links = options_.network.watch_links,
                            .ignored_interfaces = options_.network.ignored_interfaces,
                            .port_mapping = options_.network.port_mapping,
                            .port = port()},
      NetworkWatch::Environment{
          .loop = loops_.control.get(),
          .changed = [this](const NetworkChange& change) { OnNetworkChange(change); },
          .mapped = [this](const Endpoint& mapped) { net_checker_->SetPortMapping(mapped); },
          .make_mapper = parts.make_mapper});
  control_->AddPart(watch_.get());
  // Simulated hosts are not in the kernel's network.
  if (threads_ == Threads::kOwn) watch_->Start();
  if (watch_->watching() && watch_->state().has_value()) {
    net_checker_->SetNetworkState(*watch_->state());
  }
}

// Spec: PATH-6. What is only new (an address of one more interface) costs no relay connection.
void EngineImpl::OnNetworkChange(const NetworkChange& change) {
  Log().info("network change: {}", change.reason);
  if (watch_->watching() && change.now.has_value()) net_checker_->SetNetworkState(*change.now);
  state_->peers.ResetPaths(control_->now());
  if (change.LostSomething()) {
    relay_hub_->OnLinkChange(change.reason);
    net_checker_->OnNetworkChange();
  }
  rebinder_->OnLinkChange();
  // A socket bound to an address keeps the routes that it had there before.
  const bool back = (options_.ipv4 && change.Got(options_.bind_v4)) ||
                    (options_.ipv6 && change.Got(options_.bind_v6));
  if (back) rebinder_->Request("its address is back");
  net_checker_->Request("link change");
}

// Spec: EP-8, PATH-6.
void EngineImpl::OnRebound(const RebindResult& result) {
  if (!result.replaced) return;
  if (result.port != port()) {
    Log().info("engine: on port {} now, was {}", result.port, port());
    port_.store(result.port, std::memory_order_relaxed);
    watch_->SetPort(result.port);
  }
  net_checker_->SetBound(shards_[0]->BoundTo(/*v6=*/false), shards_[0]->BoundTo(/*v6=*/true));
  state_->peers.ResetPaths(control_->now());
  net_checker_->Request("rebind");
}

void EngineImpl::CloseNetwork() {
  if (watch_ == nullptr) return;
  watch_->Stop();
  control_->Execute([this] { rebinder_->Close(); });
}

void EngineImpl::LinkChanged(absl::string_view reason) {
  if (!Closed()) watch_->LinkChanged(reason);
}

absl::Status EngineImpl::Rebind(absl::string_view reason) {
  if (absl::Status status = CheckMayWait(); !status.ok()) return status;
  if (control_->OnThread()) {
    return absl::FailedPreconditionError("not from an observer: control has to do it");
  }
  const auto end = std::make_shared<RebindEnd>();
  const bool ran = control_->Execute([&] {
    rebinder_->Request(reason, [end](const absl::Status& status) {
      std::lock_guard lock(end->mutex);
      end->status = status;
      end->reached.notify_all();
    });
  });
  if (!ran) return absl::FailedPreconditionError("the engine is closed");
  if (threads_ == Threads::kCaller) {
    for (int turn = 0; turn < kMaxTurns && !end->status.has_value(); ++turn) Step();
  }
  std::unique_lock lock(end->mutex);
  end->reached.wait(lock, [&] { return end->status.has_value(); });
  return *end->status;
}

}  // namespace ringsock::internal
