#include "gateway/config_changes.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace ringsock::gateway {
namespace {

// The names of what differs, in the order of the reference (docs/gateway.md).
class Differences {
 public:
  template <typename T>
  void Look(absl::string_view name, const T& now, const T& next) {
    if (!(now == next)) names_.emplace_back(name);
  }
  bool any() const { return !names_.empty(); }
  std::string ToString() const { return absl::StrJoin(names_, ", "); }

 private:
  std::vector<std::string> names_;
};

}  // namespace

PeerRoster::PeerRoster(const std::vector<PeerConfig>& list)
    : peers(list), there(list.size(), true), count(list.size()) {
  indices.reserve(list.size());
  for (PeerIndex i = 0; i < list.size(); ++i) indices.emplace(list[i].key, i);
}

PeerChanges ComparePeers(const PeerRoster& roster, const std::vector<PeerConfig>& peers) {
  PeerChanges changes;
  std::vector<bool> seen(roster.peers.size());
  for (size_t i = 0; i < peers.size(); ++i) {
    const auto it = roster.indices.find(peers[i].key);
    if (it == roster.indices.end() || !roster.there[it->second]) {
      changes.added.push_back(i);
      if (it != roster.indices.end()) seen[it->second] = true;
      continue;
    }
    const PeerIndex index = it->second;
    const PeerConfig& before = roster.peers[index];
    seen[index] = true;
    if (before.endpoints != peers[i].endpoints) {
      changes.moved.emplace_back(index, i);
    } else if (before.name != peers[i].name) {
      changes.renamed.emplace_back(index, i);
    }
  }
  for (PeerIndex i = 0; i < seen.size(); ++i) {
    if (!seen[i] && roster.there[i]) changes.removed.push_back(i);
  }
  return changes;
}

absl::Status CheckReloadable(const Config& now, const Config& next) {
  Differences fixed;
  fixed.Look("wireguard.port", now.wireguard_port, next.wireguard_port);
  fixed.Look("wireguard.address", now.wireguard_address, next.wireguard_address);
  fixed.Look("wireguard.interface", now.wireguard_interface, next.wireguard_interface);
  fixed.Look("listen_port", now.listen_port, next.listen_port);
  fixed.Look("local_port", now.local_port, next.local_port);
  fixed.Look("loopback_range", now.range.ToString(), next.range.ToString());
  fixed.Look("derp_home", now.derp_home, next.derp_home);
  fixed.Look("derp_roots_file", now.derp_roots_file, next.derp_roots_file);
  fixed.Look("engine.shards", now.shards, next.shards);
  fixed.Look("engine.pin_threads", now.pin_threads, next.pin_threads);
  fixed.Look("engine.steering", now.steering, next.steering);
  fixed.Look("engine.backend", now.io.backend, next.io.backend);
  fixed.Look("engine.gso", now.io.gso, next.io.gso);
  fixed.Look("engine.gro", now.io.gro, next.io.gro);
  fixed.Look("engine.zero_copy", now.io.zero_copy, next.io.zero_copy);
  fixed.Look("engine.spin_us", now.io.spin, next.io.spin);
  fixed.Look("engine.rx_buffers", now.io.rx_buffers, next.io.rx_buffers);
  fixed.Look("engine.rx_batch", now.io.rx_batch, next.io.rx_batch);
  fixed.Look("engine.tx_queue", now.io.tx_queue, next.io.tx_queue);
  fixed.Look("engine.tx_slabs", now.io.tx_slabs, next.io.tx_slabs);
  fixed.Look("engine.socket_buffer", now.socket_buffer, next.socket_buffer);
  fixed.Look("engine.ipv4", now.ipv4, next.ipv4);
  fixed.Look("engine.ipv6", now.ipv6, next.ipv6);
  fixed.Look("engine.relay_queue_bytes", now.relay_queue.bytes, next.relay_queue.bytes);
  fixed.Look("engine.relay_queue_ms", now.relay_queue.age, next.relay_queue.age);
  fixed.Look("engine.netcheck", now.netcheck, next.netcheck);
  fixed.Look("engine.port_mapping", now.port_mapping, next.port_mapping);
  fixed.Look("engine.bind_ipv4", now.bind_v4, next.bind_v4);
  fixed.Look("engine.bind_ipv6", now.bind_v6, next.bind_v6);
  if (!fixed.any()) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat(fixed.ToString(), ": cannot change while running; a restart is needed"));
}

bool SameRelayMap(const Config& now, const Config& next) { return now.derp_map == next.derp_map; }

bool SamePrivateKey(const Config& now, const Config& next) {
  if (now.private_key == nullptr || next.private_key == nullptr) {
    return now.private_key == next.private_key;
  }
  return *now.private_key == *next.private_key;
}

std::string DescribeChanges(const Config& now, const Config& next) {
  Differences free;
  if (SamePrivateKey(now, next)) {
    free.Look("wireguard.public_key", now.wireguard_key, next.wireguard_key);
  } else {
    free.Look("the key of private_key_file", 0, 1);
  }
  if (!SameRelayMap(now, next)) free.Look("derp_map", 0, 1);
  free.Look("endpoints_file", now.endpoints_file, next.endpoints_file);
  free.Look("endpoints_command", now.endpoints_command, next.endpoints_command);
  free.Look("log_level", now.log_level, next.log_level);
  return free.ToString();
}

std::string DescribeChanges(const PeerChanges& changes) {
  std::vector<std::string> parts;
  const auto add = [&parts](size_t count, absl::string_view what) {
    if (count != 0) parts.push_back(absl::StrCat(count, " ", what));
  };
  add(changes.added.size(), "added");
  add(changes.removed.size(), "removed");
  add(changes.moved.size(), "with other endpoints");
  add(changes.renamed.size(), "renamed");
  return absl::StrCat("peers: ", absl::StrJoin(parts, ", "));
}

}  // namespace ringsock::gateway
