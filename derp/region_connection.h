// A client's standing connection to one region: dials its nodes, logs in, keeps packets in a
// bounded queue while the stream stalls, answers pings, and connects again when it breaks, until it
// is destroyed. What it is for (home, reverse routes, idleness) is its owner's: core/.
#ifndef RINGSOCK_DERP_REGION_CONNECTION_H_
#define RINGSOCK_DERP_REGION_CONNECTION_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "base/clock.h"
#include "base/endpoint.h"
#include "base/key.h"
#include "base/random.h"
#include "base/timer_queue.h"
#include "derp/frame.h"
#include "derp/login.h"
#include "derp/relay_map.h"
#include "derp/resolver.h"
#include "derp/tls.h"
#include "derp/write_queue.h"
#include "io/loop.h"

namespace ringsock::derp {

class RegionConnection;

// On the control thread, from inside the loop's turn or the connection's timers, never from inside
// a call to the connection. Must not destroy the connection; the owner does that later.
class RegionEvents {
 public:
  virtual ~RegionEvents() = default;
  // Logged in. Each time is a new generation: routes of the one before are void (spec: DERP-2,4).
  virtual void OnUp(RegionConnection& connection) = 0;
  // A relayed packet; a view that ends with the call.
  virtual void OnPacket(RegionConnection& connection, const PublicKey& source,
                        std::span<const std::byte> packet) = 0;
  // The bytes that came in one go have been delivered: time to flush what OnPacket gathered.
  virtual void OnPacketsEnd(RegionConnection& connection) = 0;
  virtual void OnPeerGone(RegionConnection& connection, const PublicKey& peer) = 0;
  // The relay reports a problem with this connection; empty: well again.
  virtual void OnHealth(RegionConnection& connection, absl::string_view problem) = 0;
  // A connection that was up broke, or one could not be made. It will try again by itself.
  virtual void OnDown(RegionConnection& connection, const absl::Status& why) = 0;
};

struct RegionCounters {
  uint64_t connects = 0;    // logins done
  uint64_t failures = 0;    // connections lost or not made
  uint64_t tx_packets = 0;  // that Send() took
  uint64_t tx_bytes = 0;
  uint64_t rx_packets = 0;
  uint64_t rx_bytes = 0;
  uint64_t rx_ignored = 0;  // frames of unknown types, too short, too long, or out of their turn
  uint64_t tx_dropped_full = 0;    // over WriteQueueLimits::max_bytes
  uint64_t tx_dropped_aged = 0;    // over WriteQueueLimits::max_age
  uint64_t tx_dropped_rate = 0;    // over the relay's token bucket
  uint64_t tx_dropped_broken = 0;  // sent in part when the connection broke
  uint64_t tx_dropped_bytes = 0;   // of all packets dropped
};

struct RegionConnectionStatus {
  bool up = false;
  std::string node;         // name of the node connected to, or being tried
  std::string description;  // TLS version and cipher, resumed or not
  Endpoint remote;
  Instant since{};         // of this state
  std::string last_error;  // why it is not up, or was not
  size_t queued_bytes = 0;
  size_t queued_packets = 0;
  RegionCounters counters;
};

// For one thread. `packets` are cut into frames and copied to the write queue.
class RegionConnection {
 public:
  virtual ~RegionConnection() = default;
  virtual RegionId region() const = 0;
  virtual bool up() const = 0;
  // Queues one packet for `peer`. It may push out older ones, which are counted; false if it is not
  // taken at all (larger than a relay carries).
  virtual bool Send(const PublicKey& peer, std::span<const std::byte> packet) = 0;
  // After a run of Send(): what is queued may go to the stream, in as few TLS records as it fits.
  virtual void Flush() = 0;
  // Whether this is our home: told to the relay at once and after each login.
  virtual void SetPreferred(bool preferred) = 0;
  // The link changed: drops the connection if there is one, and dials at once.
  virtual void Reconnect(absl::string_view reason) = 0;
  virtual RegionConnectionStatus Status() const = 0;
  // Cheap, for every turn of the loop. A packet counts as sent when it is queued, and as dropped as
  // well if it is pushed out later; what waits in the queue at the end is Status().queued_packets.
  virtual const RegionCounters& counters() const = 0;
};

// What a connection works with. All outlive it; the loop has streams, and timers->RunDue() is
// called after each Poll(). One set serves the connections to all regions.
struct RegionConnectionDeps {
  io::Loop* loop = nullptr;
  TimerQueue* timers = nullptr;
  Resolver* resolver = nullptr;
  TlsClientContext* tls = nullptr;
  Random* random = nullptr;
};

struct RegionConnectionOptions {
  ClientInfo info;
  WriteQueueLimits queue;
  std::string user_agent;
  std::string device;        // SO_BINDTODEVICE of its streams; "": any
  bool prefer_ipv6 = false;  // a head start of 200 ms in the race
  // Only for tests: speaks HTTP without TLS. Nothing in a relay map leads here.
  bool plain_http_for_tests = false;
};

// Dials at once, and keeps its copy of region and key. A packet that waits while the connection is
// not up, or breaks, waits for the next one within the bounds of the queue.
std::unique_ptr<RegionConnection> NewRegionConnection(const RegionConnectionDeps& deps,
                                                      const RelayRegion& region,
                                                      const PrivateKey& key,
                                                      RegionConnectionOptions options,
                                                      RegionEvents* events);

}  // namespace ringsock::derp

#endif  // RINGSOCK_DERP_REGION_CONNECTION_H_
