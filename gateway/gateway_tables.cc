#include "gateway/gateway_tables.h"

#include <algorithm>
#include <thread>
#include <utility>

namespace ringsock::gateway {
namespace {

// Peers may come while we run, and the index of sessions does not grow. Eight words each.
constexpr size_t kMinSessionPeers = 1024;

Endpoint WireGuardEndpoint(const Config& config) {
  Endpoint endpoint;
  endpoint.ip = config.wireguard_address;
  endpoint.port = config.wireguard_port;
  return endpoint;
}

}  // namespace

GatewayTables::GatewayTables(const Config& gateway_config,
                             std::unique_ptr<PathAddresses> path_addresses)
    : config(gateway_config),
      wireguard(WireGuardEndpoint(gateway_config)),
      addresses(std::move(path_addresses)),
      sessions(std::max(gateway_config.peers.size(), kMinSessionPeers)) {}

GatewayTables::~GatewayTables() { delete view_.load(std::memory_order_relaxed); }

void GatewayTables::Publish(std::unique_ptr<const PeerView> view) {
  const std::unique_ptr<const ConfiguredPaths> old_paths = addresses->Publish();
  const std::unique_ptr<const PeerView> old_view(
      view_.exchange(view.release(), std::memory_order_seq_cst));
  // A thread that sleeps counts as passed; one that runs passes at the end of its batch.
  const uint64_t epoch = readers_.Advance();
  while (!readers_.Passed(epoch)) std::this_thread::yield();
}

}  // namespace ringsock::gateway
