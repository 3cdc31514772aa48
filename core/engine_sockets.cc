// How an engine gets its port: the same number for all shards and both families.
#include "absl/strings/str_cat.h"
#include "base/log.h"
#include "core/engine_internal.h"

namespace ringsock::internal {
namespace {

// With port 0 the kernel picks a number that is free in one family; how often another one is tried
// when it is taken in the other.
constexpr int kPortTries = 16;

bool IsTaken(const absl::Status& status) { return absl::IsAlreadyExists(status); }

}  // namespace

absl::Status EngineImpl::OpenSockets() {
  const int tries = options_.port == 0 ? kPortTries : 1;
  absl::Status status;
  for (int i = 0; i < tries; ++i) {
    status = OpenAllSockets(options_.port);
    if (status.ok()) return status;
    for (auto& shard : shards_) shard->CloseSockets();
    if (!IsTaken(status)) break;
  }
  return status;
}

absl::Status EngineImpl::OpenAllSockets(uint16_t port) {
  const bool shared = shards_.size() > 1;
  for (const bool v6 : {false, true}) {
    if (v6 ? !options_.ipv6 : !options_.ipv4) continue;
    io::UdpConfig config;
    config.bind.ip = v6 ? options_.bind_v6 : options_.bind_v4;
    config.receive_buffer = options_.socket_buffer;
    config.send_buffer = options_.socket_buffer;
    for (size_t i = 0; i < shards_.size(); ++i) {
      config.bind.port = port;
      if (shared && i == 0) {
        // Shared ports are shared with whoever asks, and the kernel, too, may choose one that other
        // sockets of this user share: first make sure that nobody else has it.
        config.reuse_port = false;
        absl::StatusOr<Endpoint> probe = shards_[0]->OpenSocket(config);
        if (IsTaken(probe.status())) return probe.status();
        if (probe.ok()) {
          shards_[0]->CloseSocket(v6);
          config.bind.port = probe->port;
        }
      }
      config.reuse_port = shared;
      config.steering = options_.steering;
      config.steering_sockets = static_cast<uint32_t>(shards_.size());
      absl::StatusOr<Endpoint> local = shards_[i]->OpenSocket(config);
      if (!local.ok()) {
        // A host without IPv6 is no reason to refuse IPv4 (spec: SEND-6).
        if (v6 && options_.ipv4 && absl::IsFailedPrecondition(local.status()) &&
            options_.bind_v6.IsUnspecified()) {
          Log().warn("going on without IPv6: {}", Fmt(local.status().message()));
          break;
        }
        return local.status();
      }
      port = local->port;
    }
  }
  port_ = port;
  return absl::OkStatus();
}

}  // namespace ringsock::internal
