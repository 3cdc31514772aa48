// What a relay counts: one list, from which come the counters of a worker (one writer, read by
// anyone), the plain sums that Server::Stats() hands out, and the table that metrics are made of.
#ifndef RINGSOCK_RELAY_COUNTERS_H_
#define RINGSOCK_RELAY_COUNTERS_H_

#include <atomic>
#include <cstdint>
#include <span>

namespace ringsock::relay {

// X(field, family, label, help). Counters of one family differ by their label, the reason or kind;
// families of packets and of bytes are in those units.
#define RINGSOCK_RELAY_COUNTERS(X)                                                                \
  X(accepts, "connections", "accepted", "Connections taken from a listener")                      \
  X(refused_rate, "connections", "refused_rate", "... reset: over accepts per second")            \
  X(refused_clients, "connections", "refused_full", "... reset: over the limit of clients")       \
  X(refused_pending, "connections", "refused_logins", "... reset: too many logins under way")     \
  X(refused_stopping, "connections", "refused_stopping", "... reset: the relay is stopping")      \
  X(logins, "logins", "ok", "Clients let in")                                                     \
  X(login_denied, "logins", "denied", "Clients refused by the allow-list")                        \
  X(login_timeout, "logins", "timeout", "Connections that did not log in in time")                \
  X(login_failed, "logins", "failed", "Connections that broke or sent nonsense before the login") \
  X(http_requests, "logins", "http", "Plain HTTP requests answered instead of a login")           \
  X(closed_by_client, "disconnects", "client", "Clients that left")                               \
  X(closed_broken, "disconnects", "broken", "Connections that broke")                             \
  X(closed_protocol, "disconnects", "protocol", "Clients that sent what is no DERP")              \
  X(closed_write_timeout, "disconnects", "write_timeout", "Clients that stopped reading")         \
  X(closed_denied, "disconnects", "denied", "Clients taken from the allow-list")                  \
  X(closed_duplicate, "disconnects", "duplicate", "Oldest of too many connections of a key")      \
  X(closed_by_mesh, "disconnects", "close_peer", "Clients that a meshed server had closed")       \
  X(closed_stopping, "disconnects", "stopping", "Clients connected when the relay stopped")       \
  X(duplicates, "duplicates", "", "Logins with a key that was connected already")                 \
  X(packets_in, "packets", "in", "Packets received from clients")                                 \
  X(packets_out, "packets", "out", "Packets handed to the stream of their client")                \
  X(forwarded_in, "packets", "forwarded_in", "Packets received from meshed servers")              \
  X(forwarded_out, "packets", "forwarded_out", "Packets handed to meshed servers")                \
  X(bytes_in, "packet_bytes", "in", "Bytes of packets received from clients")                     \
  X(bytes_out, "packet_bytes", "out", "Bytes of packets handed to the stream of their client")    \
  X(dropped_unknown, "dropped", "unknown_peer", "Packets to a key that is not connected")         \
  X(dropped_queue_full, "dropped", "queue_full", "Oldest packets of a queue over its bytes")      \
  X(dropped_queue_age, "dropped", "queue_age", "Oldest packets of a queue over its age")          \
  X(dropped_memory, "dropped", "memory", "Packets over the memory of all queues")                 \
  X(dropped_gone, "dropped", "gone", "Packets in the queue of a client that went away")           \
  X(dropped_between_workers, "dropped", "between_workers", "Packets to a worker that is behind")  \
  X(dropped_mesh_loop, "dropped", "mesh_loop", "Forwarded packets to a key not connected here")   \
  X(rate_pauses, "pauses", "rate", "Times a client was not read from: over its bytes per second") \
  X(peer_gone_sent, "control", "peer_gone", "PeerGone (disconnected) frames sent")                \
  X(not_here_sent, "control", "not_here", "PeerGone (not here) frames sent")                      \
  X(not_here_limited, "control", "not_here_limited", "... not sent: over 3 a second")             \
  X(control_dropped, "control", "dropped", "Control frames dropped: the client reads nothing")    \
  X(peers_forgotten, "control", "peers_forgotten", "Peers of a client not remembered: too many")  \
  X(pings, "control", "pings", "Pings of clients")                                                \
  X(keep_alives, "control", "keep_alives", "Keep-alives sent")                                    \
  X(mesh_connects, "mesh", "connects", "Logins at meshed servers")                                \
  X(mesh_failures, "mesh", "failures", "Connections to meshed servers lost or not made")

// One writer, its worker; relaxed, so that counting costs what counting in a plain integer does.
class Counter {
 public:
  void Add(uint64_t count) {
    value_.store(value_.load(std::memory_order_relaxed) + count, std::memory_order_relaxed);
  }
  void operator++() { Add(1); }
  uint64_t value() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<uint64_t> value_{0};
};

struct Counters {
#define RINGSOCK_X(field, family, label, help) Counter field;
  RINGSOCK_RELAY_COUNTERS(RINGSOCK_X)
#undef RINGSOCK_X
};

// Sums over all workers since Start(), and how things stand now.
struct Stats {
#define RINGSOCK_X(field, family, label, help) uint64_t field = 0;
  RINGSOCK_RELAY_COUNTERS(RINGSOCK_X)
#undef RINGSOCK_X
  uint64_t clients = 0;       // connections logged in
  uint64_t keys = 0;          // keys with at least one connection here
  uint64_t connections = 0;   // logged in or not
  uint64_t mesh_keys = 0;     // keys reached over meshed servers
  uint64_t queued_bytes = 0;  // in all queues
  uint64_t workers = 0;

  void Add(const Counters& counters);
};

struct CounterInfo {
  const char* family;
  const char* label;
  const char* help;
  uint64_t Stats::*field;
};
// All counters, those of a family together.
std::span<const CounterInfo> CounterTable();

}  // namespace ringsock::relay

#endif  // RINGSOCK_RELAY_COUNTERS_H_
