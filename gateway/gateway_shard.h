// The packet path of the gateway on one shard: between the engine on one side and the socket on the
// loopback device, where WireGuard is, on the other.
//
//   peer ──▶ engine ──FromPeers──▶ sent to WireGuard from the loopback address of (peer, path)
//   peer ◀── engine ◀──OnReceive── sent by WireGuard to the address it has authenticated last
//
// When WireGuard sends to the address of a path over which something has come since we looked last,
// it has authenticated a packet from there: that path is confirmed to the engine. A cookie reply is
// no such sign, since WireGuard sends it before it authenticates.
#ifndef RINGSOCK_GATEWAY_GATEWAY_SHARD_H_
#define RINGSOCK_GATEWAY_GATEWAY_SHARD_H_

#include <cstdint>
#include <span>

#include "absl/status/status.h"
#include "core/engine.h"
#include "gateway/counters.h"
#include "gateway/gateway_tables.h"
#include "gateway/path_addresses.h"
#include "gateway/path_assigner.h"
#include "gateway/wireguard_message.h"
#include "io/loop.h"

namespace ringsock::gateway {

// All calls on the shard's thread but counters().
class GatewayShard final : private io::UdpHandler {
 public:
  GatewayShard(GatewayTables* tables, uint32_t index, uint32_t shards);

  // Opens the socket towards WireGuard.
  absl::Status Start(Shard& shard);
  void Stop();
  // Hands on what the engine received.
  void FromPeers(std::span<const ReceivedTrain> trains);

  const GatewayCounters& counters() const { return counters_; }

 private:
  // From WireGuard.
  void OnReceive(io::SocketId socket, std::span<const io::RxTrain> trains) override;
  void OnSendFailure(io::SocketId socket, const io::SendFailure& failure) override;

  void FromPeer(const ReceivedTrain& train);
  // Packets of a source that nobody knows and that has no address yet. False, and counted, if they
  // go no further; else `owner` is whose they may be, and `kind` how likely they are anybody's.
  bool AdmitUnknown(const ReceivedTrain& train, PeerIndex* owner, PathClass* kind);
  // What carries a session index that WireGuard has given out says whose the path may be, also if
  // the path began with an initiation that was answered over another one.
  void LearnFromIndex(AddressOffset offset, const PacketTrain& packets);
  void FromWireGuard(const io::RxTrain& train);
  // Packets of one kind to one address. `type` is exact for a single handshake message or cookie
  // reply, kTransport for anything else.
  void Forward(AddressOffset offset, const PacketTrain& packets, MessageType type);
  void ForwardPath(const PathAddress& address, PeerIndex owner, const PacketTrain& packets,
                   MessageType type);
  // An initiation for `owner` to the address of a path that is not known to be the owner's. It may
  // be, or the address was another one's before a restart and WireGuard has not been told yet: goes
  // both ways, and nothing is learnt until a response comes back.
  void ForwardUnproven(const PathAddress& address, PeerIndex owner, const PacketTrain& packets);
  // For which peer a handshake message is; teaches the tables. kNoPeer: for none that is
  // configured.
  PeerIndex Recognise(PathAddress* address, std::span<const std::byte> message);
  // The same with very many peers: another thread looks. What is for a path goes there at once.
  void ForwardToBeFound(const PathAddress& address, const PacketTrain& packets, MessageType type);
  void SendTo(const Endpoint& to, const PacketTrain& packets);
  void CountSocket();
  void Drop(Count reason, uint64_t packets) { counters_.Add(reason, packets); }

  GatewayTables& tables_;
  PathAddresses& addresses_;
  const uint32_t index_;
  PathAssigner assigner_;
  Quiescence::Reader reader_;
  const PeerView* view_ = nullptr;  // only inside a section of reader_
  GatewayCounters counters_;
  Shard* shard_ = nullptr;
  io::SocketId socket_ = 0;
  bool open_ = false;
  Instant counted_{};  // when the socket's own counters were last looked at
};

}  // namespace ringsock::gateway

#endif  // RINGSOCK_GATEWAY_GATEWAY_SHARD_H_
