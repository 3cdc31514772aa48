// What is different between the configuration in force and a new one, and whether it can change
// while packets flow. Pure functions.
#ifndef RINGSOCK_GATEWAY_CONFIG_CHANGES_H_
#define RINGSOCK_GATEWAY_CONFIG_CHANGES_H_

#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "base/key.h"
#include "gateway/config.h"
#include "gateway/mac1.h"

namespace ringsock::gateway {

// The peers of a running gateway: those of its first configuration in their order, then those that
// came later. One that has gone keeps its place, and gets it again if it comes back, so that an
// index never means another peer.
struct PeerRoster {
  std::vector<PeerConfig> peers;  // by PeerIndex
  std::vector<bool> there;        // by PeerIndex: is in the configuration
  absl::flat_hash_map<PublicKey, PeerIndex> indices;
  size_t count = 0;  // of those that are there

  explicit PeerRoster(const std::vector<PeerConfig>& list);
};

// Of peers, by their position in the new configuration, and by index where they have one.
struct PeerChanges {
  std::vector<size_t> added;
  std::vector<PeerIndex> removed;
  std::vector<std::pair<PeerIndex, size_t>> moved;    // other endpoints, or another order of them
  std::vector<std::pair<PeerIndex, size_t>> renamed;  // another name only

  bool any() const {
    return !added.empty() || !removed.empty() || !moved.empty() || !renamed.empty();
  }
};
PeerChanges ComparePeers(const PeerRoster& roster, const std::vector<PeerConfig>& peers);

// FailedPrecondition if something differs that takes a restart; names all of it.
absl::Status CheckReloadable(const Config& now, const Config& next);

// What a reload changed beside peers, for the log: "derp_map, log_level"; "" for nothing.
std::string DescribeChanges(const Config& now, const Config& next);

// "peers: 2 added, 1 with other endpoints".
std::string DescribeChanges(const PeerChanges& changes);

bool SameRelayMap(const Config& now, const Config& next);
bool SamePrivateKey(const Config& now, const Config& next);

}  // namespace ringsock::gateway

#endif  // RINGSOCK_GATEWAY_CONFIG_CHANGES_H_
