#include "io/sim_nat.h"

#include <algorithm>

namespace ringsock::io {
namespace {

constexpr uint32_t kFirstPort = 1024;  // below: never given out (RFC 4787 REQ-3 keeps the ranges)
constexpr uint32_t kPorts = 65536 - kFirstPort;

}  // namespace

bool SimNat::Owns(const IpAddress& address) const {
  return std::find(outside_.begin(), outside_.end(), address) != outside_.end();
}

const IpAddress* SimNat::OutsideFor(bool v4) const {
  const auto found = std::find_if(outside_.begin(), outside_.end(),
                                  [v4](const IpAddress& ip) { return ip.IsV4() == v4; });
  return found == outside_.end() ? nullptr : &*found;
}

SimNat::Words SimNat::PermissionOf(const Endpoint& remote) const {
  Endpoint kept = remote;
  if (options.kind == NatKind::kAddressRestricted) kept.port = 0;
  return kept.Words();
}

void SimNat::DropExpired(Instant now) {
  for (auto it = mappings_.begin(); it != mappings_.end();) {
    if (it->second.expires > now) {
      ++it;
      continue;
    }
    by_port_.erase(it->second.port);
    it = mappings_.erase(it);
  }
}

std::optional<SimNat::Port> SimNat::FreePort(const Endpoint& inside, Instant now) {
  if (mappings_.size() >= options.max_mappings) DropExpired(now);
  if (mappings_.size() >= options.max_mappings) return std::nullopt;
  const bool v4 = inside.IsV4();
  const bool preserve = options.preserve_port && options.kind != NatKind::kSymmetric;
  if (preserve && !by_port_.contains({v4, inside.port})) return Port{v4, inside.port};
  const uint64_t start = random_->Below(kPorts);
  for (uint32_t i = 0; i < kPorts; ++i) {
    const Port port{v4, static_cast<uint16_t>(kFirstPort + (start + i) % kPorts)};
    if (!by_port_.contains(port)) return port;
  }
  return std::nullopt;
}

std::optional<Endpoint> SimNat::Outbound(const Endpoint& inside, const Endpoint& remote,
                                         Instant now) {
  const IpAddress* outside = OutsideFor(remote.IsV4());
  if (outside == nullptr) return std::nullopt;
  Key key{inside.Words(), {}};
  if (options.kind == NatKind::kSymmetric) key.second = remote.Words();
  auto found = mappings_.find(key);
  if (found != mappings_.end() && found->second.expires <= now) {
    by_port_.erase(found->second.port);
    mappings_.erase(found);
    found = mappings_.end();
  }
  if (found == mappings_.end()) {
    const std::optional<Port> port = FreePort(inside, now);
    if (!port.has_value()) return std::nullopt;
    found = mappings_.emplace(key, Mapping{*port, now, {}}).first;
    by_port_[*port] = key;
  }
  Mapping& mapping = found->second;
  mapping.expires = now + options.timeout;
  mapping.permitted[PermissionOf(remote)] = mapping.expires;
  return Endpoint{*outside, mapping.port.second, 0};
}

std::optional<Endpoint> SimNat::Inbound(const Endpoint& outside, const Endpoint& remote,
                                        Instant now) {
  const auto port = by_port_.find({outside.IsV4(), outside.port});
  if (port == by_port_.end()) return std::nullopt;
  Mapping& mapping = mappings_.at(port->second);
  if (mapping.expires <= now) return std::nullopt;
  if (options.kind != NatKind::kFullCone) {
    const auto permitted = mapping.permitted.find(PermissionOf(remote));
    if (permitted == mapping.permitted.end() || permitted->second <= now) return std::nullopt;
    if (options.inbound_refresh) permitted->second = now + options.timeout;
  }
  if (options.inbound_refresh) mapping.expires = now + options.timeout;
  return Endpoint::FromWords(port->second.first);
}

}  // namespace ringsock::io
