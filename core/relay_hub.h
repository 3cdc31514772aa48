// What the control thread has to do with relays: the map, our key, and the connections made with
// them.
#ifndef RINGSOCK_CORE_RELAY_HUB_H_
#define RINGSOCK_CORE_RELAY_HUB_H_

#include <optional>

#include "absl/status/status.h"
#include "base/key.h"
#include "core/engine.h"
#include "derp/relay_map.h"

namespace ringsock {

// For the control thread.
class RelayHub {
 public:
  explicit RelayHub(const RelayOptions& options) : options_(options) {}

  // Spec: DERP-7, PEER-3. The map has been checked.
  void SetMap(std::optional<derp::RelayMap> map);
  void SetPrivateKey(PrivateKey key);
  // Sets `home` and `relays`.
  void AddStatus(EngineStatus* status) const;

 private:
  const RelayOptions options_;
  std::optional<derp::RelayMap> map_;
  PrivateKey key_;
};

// InvalidArgument that names the field, as ParseRelayMap() does: a map may also be made by hand.
absl::Status CheckRelayMap(const derp::RelayMap& map);

}  // namespace ringsock

#endif  // RINGSOCK_CORE_RELAY_HUB_H_
