// ringsock: the one header an embedder reads.
//
// An Engine carries WireGuard packets between an embedder (a VPN gateway) and its peers over the
// best path there is. It opens one UDP port on every shard; a shard is a thread with its own I/O
// loop that runs each packet to completion. The embedder's Handler is called on the shard's thread
// with views of received packets and answers through the same Shard, without a queue in between.
//
//   embedder ──CreateEndpoint, RemovePeers──▶ Engine ──▶ control thread (one writer of the tables)
//   Handler  ◀──OnReceive(Shard&, trains)──── shard thread ◀── sockets
//   Handler  ──Shard::Send, ConfirmPath─────▶ shard thread ──▶ sockets
//   any other thread ──Sender::Send──▶ bounded ring ──▶ shard thread
//
// The engine never decrypts. Which path of a peer is good it learns from the embedder, which calls
// ConfirmPath() after WireGuard has authenticated a packet (spec: PATH-1 to PATH-6).
#ifndef RINGSOCK_CORE_ENGINE_H_
#define RINGSOCK_CORE_ENGINE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/endpoint.h"
#include "base/key.h"
#include "core/counters.h"
#include "core/own_endpoints.h"
#include "core/peer_id.h"
#include "derp/relay_map.h"
#include "io/loop.h"
#include "stun/report.h"

namespace ringsock {

// How the engine talks to DERP relays. Nothing of it matters before SetRelayMap() and
// SetPrivateKey().
struct RelayOptions {
  // Each ring between a shard and the control thread, and each direction (spec: SEND-7): trains of
  // 2 KiB on average, at most 65536. They exist once a map and a key were set: 8.3 MiB each, of
  // which what was never filled is not resident.
  uint32_t ring_packets = 4096;
  // What waits for one relay whose stream stalls; what is over is dropped from the head, as the
  // oldest packet is worth least. 128 KiB to 1 GiB.
  uint32_t queue_bytes = 1 << 20;
  Duration queue_age = std::chrono::seconds(3);
  // A connection that has sent nothing for this long is closed, unless it is home (spec: DERP-6).
  Duration idle_timeout = std::chrono::seconds(60);
  // Send to a peer over the relay it was heard on rather than opening one more (spec: DERP-2).
  bool reverse_routes = true;
  // Our home region, as peers know it; 0: chosen (spec: EP-6).
  RegionId home = 0;
  // PEM file of trusted roots; empty: the system's. Verification is never off but by the test
  // switches of a node in the relay map.
  std::string roots_file;

  std::string ToString() const;
};

// How the engine finds out what network it is in.
struct NetworkOptions {
  // Ask the STUN servers of the relay map what they see of us, out of the data sockets, and take
  // the nearest region for home. Off: our endpoints are local addresses only.
  bool netcheck = true;
  // Interfaces whose addresses are none of ours to peers, and whose changes do not matter: the
  // tunnel's own.
  std::vector<std::string> ignored_interfaces;
  // See by itself when addresses, default routes and links change (rtnetlink). Off: the embedder
  // tells, with LinkChanged().
  bool watch_links = true;
  // Ask the router in front of us to forward our port (NAT-PMP, else UPnP).
  bool port_mapping = false;
  // Between two rebinds that send errors cause; it doubles, up to 64 times as long, while sockets
  // keep dying. 1 ms to 1 hour.
  Duration min_rebind_interval = std::chrono::seconds(5);

  std::string ToString() const;
};

struct EngineOptions {
  // UDP port of every shard and both families; 0 lets the kernel choose one.
  uint16_t port = 0;
  // Local addresses to bind. An empty family is off; without IPv6, IPv6 destinations are skipped
  // (spec: SEND-6).
  bool ipv4 = true;
  bool ipv6 = true;
  IpAddress bind_v4 = IpAddress::AnyV4();
  IpAddress bind_v6 = IpAddress::AnyV6();
  // Threads that move packets; 0 is one per core this process may run on. With max_senders at most
  // 504.
  uint32_t shards = 0;
  // Pin shard i to the i-th allowed core.
  bool pin_threads = true;
  // Which shard a received packet comes to, where there are several:
  //   kNone           the kernel's hash of both addresses and ports;
  //   kSource         a hash of the peer's address and port alone: a peer stays on its shard when
  //                   ours change, through rebinds and restarts;
  //   kReceiverIndex  the index that the packet carries, modulo `shards`: a peer stays on its
  //                   shard wherever it roams, if the embedder gives it indices that say so.
  // io::SteeredSocket() (io/steering.h) says which shard it is. What a relay brings comes to the
  // shard that serves its peer, whatever this says.
  io::Steering steering = io::Steering::kNone;
  // Bytes of kernel buffer per socket and direction.
  int socket_buffer = io::kDefaultSocketBuffer;
  // The most peers at one time. Memory grows with use, not with this bound.
  uint32_t max_peers = 1u << 20;
  // Packets that each ring from a Sender to a shard holds, at most 65536.
  uint32_t sender_ring_packets = 1024;
  // Senders that may exist at one time (each has a ring to every shard).
  uint32_t max_senders = 64;
  // Connections to relays.
  RelayOptions relay;
  // Our own endpoints, and the network.
  NetworkOptions network;
  // Backend, offloads and batch sizes.
  io::LoopOptions io;

  // `shards`, or what 0 means on this host.
  uint32_t ShardCount() const;
  // Every option with its value, in one line fit for a log.
  std::string ToString() const;
};

// Packets of one peer, as a view: consecutive in memory, each `segment_size` bytes but the last,
// which may be shorter. One packet: segment_size == size.
struct PacketTrain {
  const std::byte* data = nullptr;
  uint32_t size = 0;
  uint32_t segment_size = 0;
};

// A received train: the packets, whose they are, and the way they came.
struct ReceivedTrain {
  // The peer that owns the source address, or, of a relayed packet, the source key (spec: RECV-2,
  // RECV-3); kNone for an unknown source (spec: RECV-4). Answer an unknown source with
  // Shard::SendTo(from), and call ConfirmPath once WireGuard says whose it is. There is no answer
  // to an unknown key over a relay.
  PeerId peer = PeerId::kNone;
  Endpoint from;
  PathKind path = PathKind::kDirectV4;
  PacketTrain packets;
};

// What became of a send. Anything but kOk was also counted, by reason.
enum class SendResult : uint8_t {
  kOk,               // at least one destination took it into its queue
  kUnknownPeer,      // no such peer (any more)
  kNoDestination,    // the peer has no endpoint and has not roamed (spec: SEND-4), or SendTo()
                     // with port 0 or an unspecified address
  kNoSocket,         // every destination is of a family that is off (spec: SEND-6)
  kQueueFull,        // the ring to the shard, or to the relay, is full (spec: SEND-7)
  kNoRelay,          // the destination is a relay, and there is no relay connection
  kTooLarge,         // larger than a datagram can be
  kRelayNotAllowed,  // SendTo() with a relay address (spec: SEND-8)
  kClosed,
};

// A shard as its own thread sees it. Only for use inside the Handler's calls on that thread.
class Shard {
 public:
  virtual uint32_t index() const = 0;
  // Time when the loop last looked, not a system call.
  virtual Instant now() const = 0;
  // The shard's I/O loop, for an embedder that has sockets of its own to serve on this thread. It
  // opens them here, in OnShardStart(); their handlers may use this Shard, as the engine's may.
  virtual io::Loop& loop() = 0;

  // Sends to the destinations the peer's address set chooses (spec: SEND-1 to SEND-7). The bytes
  // must stay as they are until the shard next calls the embedder, which is after they have left
  // (those of a received train do); nothing is copied while one train of a peer follows another in
  // memory. A train may have any length; each packet is one datagram.
  virtual SendResult Send(PeerId peer, const PacketTrain& packets) = 0;
  // Sends to one address, past every address set: the answer to an unknown source (spec: SEND-8).
  virtual SendResult SendTo(const Endpoint& to, const PacketTrain& packets) = 0;
  // WireGuard authenticated a packet of `peer` that came from `from` (spec: PATH-1 to PATH-5).
  virtual void ConfirmPath(PeerId peer, const Endpoint& from) = 0;

 protected:
  ~Shard() = default;
};

// The embedder's side of the packet path. One object serves all shards, so calls for different
// shards run at the same time.
class Handler {
 public:
  virtual ~Handler() = default;
  // On the shard's thread before its first packet, and after its last.
  virtual absl::Status OnShardStart(Shard& shard);
  virtual void OnShardStop(Shard& shard);
  // Trains in order of arrival per peer. Views: the bytes are the kernel's and are gone when the
  // call returns (what was sent by then is safe).
  virtual void OnReceive(Shard& shard, std::span<const ReceivedTrain> trains) = 0;
};

// Told what the engine finds out about us, for whoever carries it to the peers. Calls come on the
// control thread, never two at a time, and hold up relays while they last: hand things on, do not
// wait. They may call the engine, but not close or destroy it; while a call of theirs waits for the
// shards, what other threads ask for is carried out.
class NetworkObserver {
 public:
  virtual ~NetworkObserver() = default;
  // The addresses we can be reached at, the best first, when the list has changed (spec: EP-3,
  // EP-4). A view that ends with the call.
  virtual void OnEndpoints(std::span<const OwnEndpoint> /*endpoints*/) {}
  // The kind of network we are in, when it is another one: latencies alone are no news (spec:
  // EP-5).
  virtual void OnNetInfo(const NetInfo& /*info*/) {}
};

// Sends from a thread that is not a shard's. One Sender belongs to one thread at a time. Packets of
// one peer leave in the order they were sent. Bytes are copied into a bounded ring; a shard that
// sleeps is woken, a running one is not.
class Sender {
 public:
  virtual ~Sender() = default;
  virtual SendResult Send(PeerId peer, const PacketTrain& packets) = 0;
  virtual SendResult SendTo(const Endpoint& to, const PacketTrain& packets) = 0;
  // WireGuard authenticated a packet of `peer` that came from `from` (spec: PATH-1 to PATH-5).
  // Takes no lock unless it has a change to report: this is for every packet.
  virtual void ConfirmPath(PeerId peer, const Endpoint& from) = 0;
  // Makes the packets sent since the last call known to their shards. Send() does so by itself when
  // a ring is half full.
  virtual void Flush() = 0;
};

// A peer and where it is, for CreateEndpoints(). Views.
struct PeerEndpoints {
  PublicKey key;
  absl::string_view endpoints;  // as CreateEndpoint() takes them
};

struct PeerStatus {
  PeerId id = PeerId::kNone;
  PublicKey key;
  std::vector<Endpoint> addresses;  // in order, the most reliable first
  // The roaming address if there is one, else the address at `cur`; none before a path is
  // confirmed.
  Endpoint current;
  bool roaming = false;
};

// A connection to a relay, or the attempt at one (spec: PEER-4).
struct RelayStatus {
  RegionId region = 0;
  bool home = false;
  bool up = false;
  std::string node;  // by its name in the relay map
  Endpoint remote;
  Duration age{};           // since it is up, or since it is being tried
  Duration idle{};          // since the last packet was queued for it
  std::string description;  // TLS version and cipher
  std::string last_error;   // why it is not up
  std::string health;       // a problem the relay reported; empty: none
  uint64_t tx_packets = 0;
  uint64_t rx_packets = 0;
  uint64_t rx_ignored = 0;  // frames that were no good, or of types unknown here
  uint64_t tx_dropped = 0;  // full queue, age, rate limit, broken connection
  uint64_t queued_bytes = 0;
};

struct EngineStatus {
  std::string backend;  // "io_uring", "mmsg", "simulated"
  uint16_t port = 0;
  uint32_t shards = 0;
  std::vector<PeerStatus> peers;
  RegionId home = 0;  // 0: none
  std::vector<RelayStatus> relays;
  std::vector<OwnEndpoint> endpoints;       // ours, the best first (spec: EP-3)
  std::optional<NetInfo> net_info;          // none before the first netcheck has ended
  std::optional<stun::Report> last_report;  // of the netcheck
  stun::NetcheckStats netcheck;             // totals of all netchecks
  uint64_t link_changes = 0;
  uint64_t rebinds = 0;
  std::string last_rebind;   // its reason, and how many packets it lost
  std::string port_mapping;  // "198.51.100.9:41641 (NAT-PMP)", or why there is none; "": not wanted
};

// All calls are safe from every thread. Those that change peers are carried out by the control
// thread and have taken effect when they return. From a Handler, so on a shard's thread, they are
// FailedPrecondition, since they may have to wait for that very shard; nor can a Handler close or
// destroy its engine.
class Engine {
 public:
  // Opens the sockets and starts the threads. `handler`, and `observer` if there is one, outlive
  // the engine. Errors name the cure.
  static absl::StatusOr<std::unique_ptr<Engine>> Start(const EngineOptions& options,
                                                       Handler* handler,
                                                       NetworkObserver* observer = nullptr);
  virtual ~Engine() = default;

  // Stops the threads and closes the sockets: no call to the handler or observer is running or will
  // come when it returns. The first call does the work; later ones return at once. From a Handler
  // or an observer: a logged error, and nothing else.
  virtual void Close() = 0;

  // Of now: a rebind may change it if the kernel chose it.
  virtual uint16_t port() const = 0;
  virtual const EngineOptions& options() const = 0;

  // Creates the peer, or replaces its endpoints, and returns its id, the same one for the same key.
  // `endpoints` is "ip:port,ip:port,..." from the most reliable to the fastest, or empty. A
  // malformed list is an error and changes nothing (spec: PEER-1). The path in use is forgotten
  // (ConfirmPath() says it again); endpoints that a peer did not have before are tried at once: for
  // 3 s packets go to all of them now and then, as after a handshake (spec: SEND-3).
  virtual absl::StatusOr<PeerId> CreateEndpoint(const PublicKey& key,
                                                absl::string_view endpoints) = 0;
  // CreateEndpoint() for each of `peers` in turn; the ids come in the same order. Each call of that
  // one waits for the control thread to wake up; many peers at a time cost a fraction of it each.
  // An error tells the place in the list, from 0: peers before it are created, it and those behind
  // are not.
  virtual absl::StatusOr<std::vector<PeerId>> CreateEndpoints(
      std::span<const PeerEndpoints> peers) = 0;
  // The state of these peers goes (spec: PEER-2); keys that are no peer's are passed over. Costs
  // the same however many other peers there are. When it returns no shard sends to, or receives
  // for, a peer that went.
  virtual absl::Status RemovePeers(std::span<const PublicKey> keys) = 0;
  // Keeps exactly these peers of the ones there are; the state of all others goes (spec: PEER-2).
  // Costs a look at every peer. When it returns all is as after RemovePeers(). A peer that another
  // thread creates meanwhile may stay or go.
  virtual absl::Status UpdatePeers(std::span<const PublicKey> keys) = 0;
  // The same as Shard::ConfirmPath, from any thread, now and then: it takes a lock that all callers
  // share. For every packet there is Sender::ConfirmPath.
  virtual void ConfirmPath(PeerId peer, const Endpoint& from) = 0;

  // Sets or replaces the relay map, or takes it away with nullopt: every relay connection is then
  // closed. An equal map changes nothing, and connections to regions that are as they were stay
  // (spec: DERP-7). A map that no reader of JSON would take is InvalidArgument and changes nothing.
  virtual absl::Status SetRelayMap(std::optional<derp::RelayMap> map) = 0;
  // Our WireGuard key, with which we prove to relays who we are (spec: PEER-3). The engine keeps a
  // copy of its own. Another key than before closes every relay connection and opens home again.
  virtual absl::Status SetPrivateKey(const PrivateKey& key) = 0;

  // Looks at our own endpoints anew, now or after the update that runs; `reason` is for the log
  // (spec: EP-1, EP-2). Without being asked the engine does so at start, with a new map or key,
  // and every 20 to 26 s while there is a peer. Does not wait; from a Handler too.
  virtual void ReStun(absl::string_view reason) = 0;
  // The network has changed, as the embedder knows: paths are looked for anew (spec: PATH-6),
  // relays are connected to again, our endpoints looked at, and sockets that are dead replaced.
  // `reason` is for the log. Does not wait; from a Handler too. Needed only without
  // NetworkOptions::watch_links.
  virtual void LinkChanged(absl::string_view reason) = 0;
  // Puts new sockets in the place of the old ones, on the same port; if the kernel chose it and it
  // cannot be had again, on another (spec: EP-8). What the old ones had received is delivered;
  // nobody who sends sees it. Paths are looked for anew afterwards. Waits, so not
  // from an observer. An error says what could not be replaced, and is the old socket still.
  virtual absl::Status Rebind(absl::string_view reason) = 0;

  // For one thread that is not a shard's. Fails when max_senders exist. The engine outlives it.
  virtual absl::StatusOr<std::unique_ptr<Sender>> NewSender() = 0;

  // Each peer is shown as it was at one moment of the call. Others that come or go meanwhile may be
  // there or not, and one that goes and comes back may be there twice, under both ids. About 160
  // bytes and 0.35 us per peer. Waits for the control thread, so what a Handler asks holds up its
  // shard.
  virtual EngineStatus Status() const = 0;
  // Totals over all shards; may lag a running shard by a loop.
  virtual CounterSnapshot Counters() const = 0;
};

}  // namespace ringsock

#endif  // RINGSOCK_CORE_ENGINE_H_
