#include "core/relay_hub.h"

#include <utility>

#include "absl/status/statusor.h"

namespace ringsock {

void RelayHub::SetMap(std::optional<derp::RelayMap> map) { map_ = std::move(map); }

void RelayHub::SetPrivateKey(PrivateKey key) { key_ = std::move(key); }

void RelayHub::AddStatus(EngineStatus* status) const {
  status->home = map_.has_value() && map_->Find(options_.home) != nullptr ? options_.home : 0;
}

absl::Status CheckRelayMap(const derp::RelayMap& map) {
  // One set of rules: what the reader of JSON would not take is no map.
  const absl::StatusOr<derp::RelayMap> same = derp::ParseRelayMap(derp::ToJson(map), nullptr);
  if (!same.ok()) return same.status();
  if (*same == map) return absl::OkStatus();
  return absl::InvalidArgumentError(
      "relay map: a region or node whose RegionID is not that of its place in the map");
}

}  // namespace ringsock
