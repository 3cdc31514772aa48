#include "gateway/gateway_shard.h"

#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "gateway/peer_finder.h"

namespace ringsock::gateway {
namespace {

uint32_t Packets(const PacketTrain& train) {
  return train.segment_size == 0 ? 1 : (train.size + train.segment_size - 1) / train.segment_size;
}

// Sizes that only handshake messages and cookie replies have, or hardly any other.
bool MayBeHandshake(size_t size) {
  return size == kInitiationSize || size == kResponseSize || size == kCookieReplySize;
}

}  // namespace

GatewayShard::GatewayShard(GatewayTables* tables, uint32_t index, uint32_t shards)
    : tables_(*tables),
      addresses_(*tables->addresses),
      index_(index),
      assigner_(tables->addresses.get(), index, shards, AssignerLimits{}) {}

absl::Status GatewayShard::Start(Shard& shard) {
  absl::StatusOr<Quiescence::Reader> reader = tables_.NewReader();
  if (!reader.ok()) return reader.status();
  reader_ = *std::move(reader);
  const Config& config = tables_.config;
  io::UdpConfig udp;
  udp.bind.ip = IpAddress::AnyV4();
  udp.bind.port = config.local_port;
  udp.reuse_port = true;  // one socket per shard; that nobody else has the port is checked before
  udp.device = "lo";
  udp.local_address = true;
  udp.receive_buffer = udp.send_buffer = config.socket_buffer;
  const absl::StatusOr<io::SocketId> socket = shard.loop().OpenUdp(udp, this);
  if (!socket.ok()) {
    return absl::Status(socket.status().code(),
                        absl::StrCat("the socket towards WireGuard: ", socket.status().message()));
  }
  shard_ = &shard;
  socket_ = *socket;
  open_ = true;
  return absl::OkStatus();
}

void GatewayShard::Stop() {
  if (!open_) return;
  CountSocket();
  shard_->loop().CloseUdp(socket_);
  open_ = false;
}

void GatewayShard::CountSocket() {
  const io::UdpStats stats = shard_->loop().Stats(socket_);
  counters_.Set(Count::kKernel, stats.rx_kernel_drops);
  counters_.Set(Count::kTruncated, stats.rx_truncated);
  counters_.Set(Count::kPendingAddresses, assigner_.pending());
  counters_.Set(Count::kLiveAddresses, assigner_.live());
  counted_ = shard_->now();
}

void GatewayShard::FromPeers(std::span<const ReceivedTrain> trains) {
  const Quiescence::Section section(&reader_);
  view_ = tables_.view();
  for (const ReceivedTrain& train : trains) {
    if (view_ != nullptr) {
      FromPeer(train);
    } else {
      Drop(Count::kStarting, Packets(train.packets));
    }
  }
  if (shard_->now() - counted_ >= std::chrono::seconds(1)) CountSocket();
}

void GatewayShard::FromPeer(const ReceivedTrain& train) {
  PeerIndex owner = view_->IndexOf(train.peer);
  const bool known = owner != kNoPeer;
  const Instant now = shard_->now();
  AddressOffset offset = assigner_.Lookup(PathKey::Of(train.from, owner), now);
  if (offset == kNoAddress) {
    PathClass kind = PathClass::kLive;
    if (!known && !AdmitUnknown(train, &owner, &kind)) return;
    offset = assigner_.Assign(PathKey::Of(train.from, owner), owner, kind, now);
    if (offset == kNoAddress) return Drop(Count::kNoAddress, Packets(train.packets));
  } else if (!known) {
    LearnFromIndex(offset, train.packets);
  }
  addresses_.MarkHeard(offset);
  io::TxTrain out;
  out.data = train.packets.data;
  out.size = train.packets.size;
  out.segment_size = train.packets.segment_size;
  out.to = tables_.wireguard;
  out.from = addresses_.Address(offset);
  // Taken back in OnSendFailure() if the kernel refuses it, which may be before Send() returns.
  counters_.Add(Count::kToWireGuard, out.packets());
  counters_.Add(Count::kToWireGuardBytes, out.size);
  shard_->loop().Send(socket_, out);
}

bool GatewayShard::AdmitUnknown(const ReceivedTrain& train, PeerIndex* owner, PathClass* kind) {
  const PacketTrain& packets = train.packets;
  const auto refuse = [this, &packets](Count reason) {
    Drop(reason, Packets(packets));
    return false;
  };
  if (IsRelay(train.from)) return refuse(Count::kUnknownRelayed);
  const std::span<const std::byte> first(packets.data,
                                         std::min(packets.size, packets.segment_size));
  const MessageType type = WholeTypeOf(first);
  if (type == MessageType::kNone) return refuse(Count::kMalformed);
  if (type == MessageType::kInitiation) {
    *kind = PathClass::kUnknown;
    if (!view_->own_mac1_key.has_value()) return true;
    *kind = PathClass::kHandshake;
    return view_->own_mac1_key->Matches(first) || refuse(Count::kNotForUs);
  }
  *owner = view_->IfThere(tables_.sessions.Find(*ReceiverIndex(first.data(), first.size())));
  *kind = *owner == kNoPeer ? PathClass::kUnknown : PathClass::kRecognised;
  if (*owner != kNoPeer) counters_.Add(Count::kRecognisedIndex, 1);
  return true;
}

void GatewayShard::LearnFromIndex(AddressOffset offset, const PacketTrain& packets) {
  const std::span<const std::byte> message(packets.data,
                                           std::min(packets.size, packets.segment_size));
  const MessageType type = WholeTypeOf(message);
  if (type != MessageType::kResponse && type != MessageType::kTransport) return;
  PathAddress address = addresses_.Read(offset);
  if (address.kind != AddressKind::kPath || view_->Has(address.owner)) return;
  const PeerIndex owner =
      view_->IfThere(tables_.sessions.Find(*ReceiverIndex(message.data(), message.size())));
  if (owner == kNoPeer || !addresses_.SetOwner(&address, owner)) return;
  counters_.Add(Count::kRecognisedIndex, 1);
}

void GatewayShard::OnReceive(io::SocketId, std::span<const io::RxTrain> trains) {
  const Quiescence::Section section(&reader_);
  view_ = tables_.view();
  for (const io::RxTrain& train : trains) FromWireGuard(train);
  if (shard_->now() - counted_ >= std::chrono::seconds(1)) CountSocket();
}

void GatewayShard::FromWireGuard(const io::RxTrain& train) {
  if (train.from.port != tables_.wireguard.port || !train.from.ip.IsLoopback()) {
    return Drop(Count::kNotWireGuard, train.packets());
  }
  if (train.size == 0) return Drop(Count::kEmpty, 1);
  const AddressOffset offset = addresses_.OffsetOf(train.to);
  if (offset == kNoAddress) return Drop(Count::kOutsideRange, train.packets());
  if (view_ == nullptr) return Drop(Count::kStarting, train.packets());
  counters_.Add(Count::kFromWireGuard, train.packets());
  counters_.Add(Count::kFromWireGuardBytes, train.size);

  // Cuts the train so that what may be a handshake message stands alone: all packets if they have
  // such a size, else perhaps the last, shorter one.
  const uint32_t segment = train.segment_size;
  uint32_t bulk = 0;
  if (!MayBeHandshake(segment)) {
    const uint32_t tail = train.size % segment;
    bulk = MayBeHandshake(tail) ? train.size - tail : train.size;
    if (bulk > 0) Forward(offset, {train.data, bulk, segment}, MessageType::kTransport);
  }
  for (uint32_t at = bulk; at < train.size; at += segment) {
    const uint32_t size = std::min(segment, train.size - at);
    const MessageType type = WholeTypeOf({train.data + at, size});
    Forward(offset, {train.data + at, size, size},
            type == MessageType::kNone ? MessageType::kTransport : type);
  }
}

void GatewayShard::Forward(AddressOffset offset, const PacketTrain& packets, MessageType type) {
  PathAddress address = addresses_.Read(offset);
  address.owner = view_->IfThere(address.owner);
  PeerIndex owner = address.owner;
  if (OpensSession(type)) {
    const std::span<const std::byte> message(packets.data, packets.size);
    if (view_->finder != nullptr && address.kind != AddressKind::kBusy &&
        !view_->mac1_keys.Matches(owner, message)) {
      return ForwardToBeFound(address, packets, type);
    }
    owner = Recognise(&address, message);
  }
  switch (address.kind) {
    case AddressKind::kPath:
      if (owner != address.owner && owner != kNoPeer) {
        return ForwardUnproven(address, owner, packets);
      }
      return ForwardPath(address, owner, packets, type);
    case AddressKind::kHome:
    case AddressKind::kAdopted:
      if (owner == kNoPeer) return Drop(Count::kUnknownPeer, Packets(packets));
      addresses_.SetCurrent(owner, offset);
      shard_->Send(view_->ids[owner], packets);
      return;
    case AddressKind::kFree:
      // WireGuard uses it, since a former life of ours: no new source may get it.
      addresses_.MarkHeard(offset);
      [[fallthrough]];
    case AddressKind::kBusy:
      return Drop(Count::kUnknownAddress, Packets(packets));
  }
}

void GatewayShard::ForwardPath(const PathAddress& address, PeerIndex owner,
                               const PacketTrain& packets, MessageType type) {
  addresses_.Touch(address.offset, shard_->now());
  if (type == MessageType::kCookieReply) {
    // Says nothing about who is there, so it goes to nobody but the source.
    if (owner == kNoPeer || !address.answered) return SendTo(address.path, packets);
    shard_->Send(view_->ids[owner], packets);
    return;
  }
  if (!address.answered) addresses_.MarkAnswered(address);
  if (owner == kNoPeer) return SendTo(address.path, packets);
  addresses_.SetCurrent(owner, address.offset);
  if (addresses_.TakeHeard(address.offset)) {
    counters_.Add(Count::kConfirmed, 1);
    shard_->ConfirmPath(view_->ids[owner], address.path);
  }
  shard_->Send(view_->ids[owner], packets);
}

void GatewayShard::ForwardUnproven(const PathAddress& address, PeerIndex owner,
                                   const PacketTrain& packets) {
  addresses_.Touch(address.offset, shard_->now());
  addresses_.SetCurrent(owner, address.offset);
  shard_->Send(view_->ids[owner], packets);
  SendTo(address.path, packets);
}

PeerIndex GatewayShard::Recognise(PathAddress* address, std::span<const std::byte> message) {
  PeerIndex owner = address->owner;
  if (!view_->mac1_keys.Matches(owner, message)) {
    owner = view_->mac1_keys.Find(message);
    if (owner == kNoPeer) return kNoPeer;
    counters_.Add(Count::kRecognisedMac1, 1);
  }
  LearnOwner(&tables_, address, owner, message);
  return owner;
}

void GatewayShard::ForwardToBeFound(const PathAddress& address, const PacketTrain& packets,
                                    MessageType type) {
  const bool path = address.kind == AddressKind::kPath;
  const bool deliver = !path || type == MessageType::kInitiation;
  const std::span<const std::byte> message(packets.data, packets.size);
  if (!view_->finder->Find(index_, address, message, deliver) && !path) {
    return Drop(Count::kSearchesFull, 1);
  }
  if (!path) return;
  addresses_.Touch(address.offset, shard_->now());
  if (type == MessageType::kResponse) addresses_.MarkAnswered(address);
  SendTo(address.path, packets);
}

void GatewayShard::SendTo(const Endpoint& to, const PacketTrain& packets) {
  counters_.Add(Count::kAnsweredUnknown, Packets(packets));
  shard_->SendTo(to, packets);
}

void GatewayShard::OnSendFailure(io::SocketId, const io::SendFailure& failure) {
  const bool full = failure.error == EAGAIN || failure.error == ENOBUFS || failure.error == ENOMEM;
  const io::TxTrain& train = *failure.train;
  const uint64_t segment = train.segment_size == 0 ? train.size : train.segment_size;
  const uint64_t begin = std::min<uint64_t>(train.size, failure.first * segment);
  const uint64_t end = std::min<uint64_t>(train.size, begin + failure.packets * segment);
  counters_.TakeBack(Count::kToWireGuard, failure.packets);
  counters_.TakeBack(Count::kToWireGuardBytes, end - begin);
  Drop(full ? Count::kBufferFull : Count::kSendError, failure.packets);
}

}  // namespace ringsock::gateway
