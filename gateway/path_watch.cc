#include "gateway/path_watch.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace ringsock::gateway {
namespace {

// Since the last packet of a path that is in use; a second of it is how exactly that is known.
constexpr uint32_t kIdleSeconds = 1;

int64_t Seconds(Duration time) {
  return std::chrono::duration_cast<std::chrono::seconds>(time).count();
}

}  // namespace

PathWatch::PathWatch(const Config& config, const PeerRoster& roster, const PathAddresses& addresses)
    : config_(config), roster_(roster), addresses_(addresses) {}

PeerIndex PathWatch::IndexOf(const PeerStatus& peer) const {
  const auto it = roster_.indices.find(peer.key);
  return it == roster_.indices.end() ? kNoPeer : it->second;
}

PeerPath PathWatch::PathOf(PeerIndex peer, const PeerStatus* status) const {
  PeerPath path;
  const AddressOffset current = addresses_.Current(peer);
  if (current != kNoAddress) {
    const PathAddress address = addresses_.Read(current);
    if (address.kind == AddressKind::kPath) path.heard = RelayRegion(address.path);
  }
  if (status == nullptr) return path;
  path.to = status->current;
  path.roaming = status->roaming;
  if (!path.to.IsNone()) {
    path.reach = Reach::kDirect;
    return path;
  }
  if (status->addresses.empty()) return path;
  // Without a confirmed path it is the first one (spec: SEND-4).
  path.to = status->addresses.front();
  if (path.heard != 0 && IsRelay(path.to)) path.reach = Reach::kRelayed;
  return path;
}

std::string PathWatch::RegionName(RegionId region) const {
  std::string name = absl::StrCat("region ", region);
  const derp::RelayRegion* known =
      config_.derp_map.has_value() ? config_.derp_map->Find(region) : nullptr;
  if (known != nullptr && !known->region_code.empty()) {
    absl::StrAppend(&name, " (", known->region_code, ")");
  }
  return name;
}

std::string PathWatch::Describe(const PeerPath& path) const {
  switch (path.reach) {
    case Reach::kDirect: {
      std::string text = absl::StrCat("direct ", path.to.ToString());
      if (path.roaming) absl::StrAppend(&text, " (roaming)");
      if (path.heard != 0) {
        absl::StrAppend(&text, ", but last heard over the relay of ", RegionName(path.heard));
      }
      return text;
    }
    case Reach::kRelayed:
      return absl::StrCat("relay of ", RegionName(RelayRegion(path.to)));
    case Reach::kUnknown:
      break;
  }
  return "none confirmed";
}

std::string PathWatch::Totals(const EngineStatus& status) const {
  size_t counts[3] = {};
  size_t known = 0;
  for (const PeerStatus& peer : status.peers) {
    const PeerIndex index = IndexOf(peer);
    if (index == kNoPeer) continue;
    ++counts[static_cast<size_t>(PathOf(index, &peer).reach)];
    ++known;
  }
  counts[0] += roster_.count - known;
  return absl::StrCat(counts[static_cast<size_t>(Reach::kDirect)], " direct, ",
                      counts[static_cast<size_t>(Reach::kRelayed)], " relayed, ",
                      counts[static_cast<size_t>(Reach::kUnknown)], " without a confirmed path");
}

PathWatch::Changes PathWatch::Look(const EngineStatus& status, Instant now) {
  Changes changes;
  size_t more = 0;
  seen_.resize(roster_.peers.size());
  for (const PeerStatus& state : status.peers) {
    const PeerIndex peer = IndexOf(state);
    if (peer == kNoPeer) continue;
    const PeerPath path = PathOf(peer, &state);
    if (RoamIsSilent(peer, path, now)) changes.silent.push_back(peer);
    Seen& seen = seen_[peer];
    const bool stays = path.reach == seen.last;
    seen.last = path.reach;
    if (!stays || path.reach == seen.told || path.reach == Reach::kUnknown) continue;
    seen.told = path.reach;
    if (changes.lines.size() + 1 >= kMaxLines) {
      ++more;
      continue;
    }
    changes.lines.push_back(
        absl::StrCat("peer ", roster_.peers[peer].Label(), ": now ", Describe(path)));
  }
  if (more != 0) changes.lines.push_back(absl::StrCat("... and ", more, " peers more"));
  return changes;
}

bool PathWatch::RoamIsSilent(PeerIndex peer, const PeerPath& path, Instant now) {
  Instant& since = seen_[peer].relayed_since;
  if (path.heard == 0) {
    since = Instant::max();
    return false;
  }
  if (since == Instant::max()) since = now;
  if (!path.roaming || now - since < kRoamSilence) return false;
  // While nothing comes, nothing is known; without a relay among its addresses there is nothing
  // better.
  if (addresses_.SecondsSinceUse(addresses_.Current(peer), now) > kIdleSeconds) return false;
  const std::vector<Endpoint>& endpoints = roster_.peers[peer].endpoints;
  return std::any_of(endpoints.begin(), endpoints.end(), IsRelay);
}

std::string RelayLine(const RelayStatus& relay, const std::string& region_name) {
  std::string line = absl::StrCat("relay of ", region_name, relay.home ? ", home" : "", ": ",
                                  relay.up ? "up" : "down", " for ", Seconds(relay.age), " s");
  if (!relay.node.empty()) absl::StrAppend(&line, ", node ", relay.node);
  if (!relay.remote.IsNone()) absl::StrAppend(&line, " at ", relay.remote.ToString());
  if (relay.up && !relay.description.empty()) absl::StrAppend(&line, ", ", relay.description);
  absl::StrAppend(&line, ", idle for ", Seconds(relay.idle), " s, sent ", relay.tx_packets,
                  ", received ", relay.rx_packets, ", dropped ", relay.tx_dropped);
  if (relay.queued_bytes != 0) absl::StrAppend(&line, ", ", relay.queued_bytes, " bytes wait");
  if (!relay.health.empty()) absl::StrAppend(&line, ", the relay says: ", relay.health);
  if (!relay.up && !relay.last_error.empty()) absl::StrAppend(&line, ": ", relay.last_error);
  return line;
}

}  // namespace ringsock::gateway
