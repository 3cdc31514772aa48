// Which way each peer is reached, directly or over a relay, for people and for the log; and the one
// case in which the engine has to be told that a path is dead.
//
// A peer that has roamed keeps its roaming address until another direct one is confirmed (spec:
// SEND-4, PATH-1): when that address dies, packets go on to it although the peer is well heard over
// its relay. By which path it is heard, only the gateway sees, so it is the gateway that gives such
// an address up, when WireGuard has heard the peer over nothing but a relay for kRoamSilence.
#ifndef RINGSOCK_GATEWAY_PATH_WATCH_H_
#define RINGSOCK_GATEWAY_PATH_WATCH_H_

#include <chrono>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/clock.h"
#include "core/engine.h"
#include "gateway/config.h"
#include "gateway/config_changes.h"
#include "gateway/path_addresses.h"

namespace ringsock::gateway {

// More than the spray window, in which packets come both ways (spec: SEND-2).
inline constexpr Duration kRoamSilence = std::chrono::seconds(4);

enum class Reach : uint8_t {
  kUnknown,  // no packet has been authenticated, or it came from an address that is none any more
  kDirect,
  kRelayed,
};

// How packets go to one peer, and come from it.
struct PeerPath {
  Reach reach = Reach::kUnknown;
  Endpoint to;           // where packets go; none without an address
  bool roaming = false;  // `to` is none of the configured addresses
  RegionId heard = 0;    // region of the relay over which WireGuard last heard it; 0: not so

  friend bool operator==(const PeerPath&, const PeerPath&) = default;
};

class PathWatch {
 public:
  // All outlive this. The configuration and the roster may change between two calls.
  PathWatch(const Config& config, const PeerRoster& roster, const PathAddresses& addresses);

  // Of the peer with that index; `status` is null if the engine has no such peer.
  PeerPath PathOf(PeerIndex peer, const PeerStatus* status) const;
  // "direct 192.0.2.1:41641 (roaming)", "relay of region 1 (nyc)", "none confirmed".
  std::string Describe(const PeerPath& path) const;
  // "2 direct, 1 relayed, 0 without a confirmed path".
  std::string Totals(const EngineStatus& status) const;
  // "region 1 (nyc)".
  std::string RegionName(RegionId region) const;

  struct Changes {
    // One for each peer that is reached another way than was told before, at two looks in a row (a
    // handshake tries all paths for a moment), and at most kMaxLines.
    std::vector<std::string> lines;
    // Peers whose roaming address is dead.
    std::vector<PeerIndex> silent;
  };
  static constexpr size_t kMaxLines = 20;
  Changes Look(const EngineStatus& status, Instant now);

 private:
  bool RoamIsSilent(PeerIndex peer, const PeerPath& path, Instant now);

  // kNoPeer if the engine's peer is none of the roster's.
  PeerIndex IndexOf(const PeerStatus& peer) const;

  const Config& config_;
  const PeerRoster& roster_;
  const PathAddresses& addresses_;
  struct Seen {
    Reach told = Reach::kUnknown;
    Reach last = Reach::kUnknown;            // at the last look
    Instant relayed_since = Instant::max();  // heard over a relay, at every look since then
  };
  std::vector<Seen> seen_;  // by peer, as far as was needed
};

// For people: one line a connection.
std::string RelayLine(const RelayStatus& relay, const std::string& region_name);

}  // namespace ringsock::gateway

#endif  // RINGSOCK_GATEWAY_PATH_WATCH_H_
