// How a relay is set up: who it is, where it listens, and a bound on everything.
#ifndef RINGSOCK_RELAY_OPTIONS_H_
#define RINGSOCK_RELAY_OPTIONS_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/status/statusor.h"
#include "base/clock.h"
#include "base/endpoint.h"
#include "base/key.h"
#include "base/random.h"
#include "derp/frame.h"
#include "derp/login.h"
#include "derp/tls.h"
#include "io/loop.h"

namespace ringsock::relay {

struct ListenAddress {
  Endpoint endpoint;  // port 0: the kernel chooses, see Server::LocalEndpoints()
  bool tls = true;    // false: plain TCP, which anyone on the way can read, block and forge
};

struct Limits {
  uint32_t max_clients = 50000;       // connections, logged in or not
  uint32_t max_logins = 4096;         // connections that are not logged in yet, of these
  uint32_t accepts_per_second = 500;  // 0: no limit
  uint32_t accept_burst = 2000;
  // Of packets from one client; over it the client is not read from for a while, so that TCP holds
  // it back. Clients are told, and keep to it by dropping. 0: no limit; burst 0: one second's.
  uint64_t client_bytes_per_second = 0;
  uint64_t client_bytes_burst = 0;
  // Connections with one key; one more closes the oldest.
  uint32_t max_connections_per_key = 8;
  // Those a client sent to, who are told when it goes: of one client, and of all clients of a
  // worker together. Others are forgotten, counted. Up to 130 bytes each.
  uint32_t max_peers_remembered = 1024;
  uint32_t max_peers_of_worker = 1 << 20;
};

// Packets that wait for a client whose stream is full. What is over goes from the head, since the
// oldest packet is worth least. Never does one client's queue hold up another.
struct QueueLimits {
  // The largest packet fits.
  static constexpr size_t kMinBytes = derp::kMaxPacket + derp::kForwardHeaderSize;

  size_t max_bytes = 1 << 20;
  Duration max_age = std::chrono::seconds(2);
  // Of all clients of a worker together, at least two full queues. As it fills, the bound of each
  // queue shrinks to what is left, so that a few that read nothing cannot take it all.
  size_t worker_bytes = size_t{256} << 20;
  // Bytes sealed and handed to the stream, which can no longer be dropped. What a turn may read
  // (LoopOptions::stream_buffers) should fit, so that one flow alone is not cut short; 64 KiB or
  // more.
  uint32_t stream_bytes = 512 << 10;
  // A client whose stream takes nothing for so long is closed (spec: derp.md).
  Duration write_timeout = std::chrono::seconds(2);
  // Packets on their way to one worker from all the others: each of these has its share, of 256 KiB
  // or more.
  size_t between_workers_bytes = 4 << 20;
};

// A server of the same region to forward to. Both must share the mesh key.
struct MeshPeer {
  Endpoint address;
  bool tls = true;
  derp::TlsTarget target;  // host name, certificate name or pin, as of a node of a relay map
};

// Keys that may log in. Null: everyone.
using AllowList = absl::flat_hash_set<PublicKey>;

// What a turn may read, 12 buffers of two TLS records, fits QueueLimits::stream_bytes. With 1 MiB
// to read and 256 KiB to write a turn, a flat-out sender lost 70 % of its packets to the queue of
// its one receiver; with these it loses none. A record that a buffer's end cuts is copied once: 16
// buffers of one record, where that is each of them, cost 13 % (1 to 1) and 21 % (20 to 20) more.
inline io::LoopOptions RelayLoopOptions() {
  io::LoopOptions options;
  options.zero_copy = false;  // of datagrams, which here are single answers of STUN
  options.stream_buffers = 12;
  options.stream_buffer_size = 32 << 10;
  return options;
}

struct Options {
  static constexpr int kMaxWorkers = 256;

  const derp::ServerIdentity* identity = nullptr;  // outlives the server
  derp::TlsServerContext* tls = nullptr;           // outlives the server; needed by TLS listeners
  derp::TlsClientContext* mesh_tls = nullptr;      // as tls; used by one thread; for TLS mesh peers
  std::vector<ListenAddress> listen;
  int workers = 1;  // threads, 1 to kMaxWorkers
  // Worker i is pinned to cpus[i % cpus.size()]; empty: not pinned.
  std::vector<int> cpus;
  io::LoopOptions loop = RelayLoopOptions();
  Limits limits;
  QueueLimits queues;
  std::shared_ptr<const AllowList> allow;
  derp::MeshKey mesh_key;  // zero: no mesh
  std::vector<MeshPeer> mesh;
  // What a stop tells clients: reconnect after this (each a random part of it, so that they do not
  // come all at once), and try for so long.
  Duration restart_reconnect_in = std::chrono::seconds(2);
  Duration restart_try_for = std::chrono::seconds(10);
  // For tests: where loops and chance come from. Unset: CreateLoop() and SystemRandom().
  std::function<absl::StatusOr<std::unique_ptr<io::Loop>>(int worker)> make_loop;
  Random* random = nullptr;
};

}  // namespace ringsock::relay

#endif  // RINGSOCK_RELAY_OPTIONS_H_
