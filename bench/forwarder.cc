#include "bench/forwarder.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <string>

#include "base/key.h"
#include "bench/relay_access.h"

namespace ringsock::bench {
namespace {

constexpr size_t kLookups = 32;  // at a time

uint32_t Packets(const ReceivedTrain& train) {
  const uint32_t segment = train.packets.segment_size;
  return segment == 0 ? 1 : (train.packets.size + segment - 1) / segment;
}

// Any 32 bytes are a public key; these name peer `index`.
PublicKey KeyOf(uint64_t index) {
  PublicKey key;
  ++index;
  std::memcpy(key.bytes.data(), &index, sizeof(index));
  return key;
}

}  // namespace

Forwarder::Forwarder(const Traffic& traffic, std::atomic<uint64_t>* feedback)
    : traffic_(traffic), feedback_(feedback) {
  if (traffic.mode == Mode::kSend) bytes_.resize(size_t{traffic.size} * traffic.train);
}

void Forwarder::OnReceive(Shard& shard, std::span<const ReceivedTrain> trains) {
  if (!open_.load(std::memory_order_acquire)) return;
  if (traffic_.mode == Mode::kReceive) {
    uint64_t packets = 0;
    for (const ReceivedTrain& train : trains) packets += Packets(train);
    feedback_->fetch_add(packets, std::memory_order_relaxed);
    return;
  }
  // Looked up one behind the other, so that the waits for memory overlap.
  std::array<PeerId, kLookups> to;
  while (!trains.empty()) {
    const size_t count = std::min(trains.size(), kLookups);
    for (size_t i = 0; i < count; ++i) {
      const auto route = routes_.find(trains[i].peer);
      to[i] = route == routes_.end() ? PeerId::kNone : route->second;
    }
    for (size_t i = 0; i < count; ++i) Forward(shard, trains[i], to[i]);
    trains = trains.subspan(count);
  }
}

void Forwarder::Forward(Shard& shard, const ReceivedTrain& train, PeerId to) {
  if (to == PeerId::kNone) return;  // unknown source: the engine counted it
  shard.ConfirmPath(train.peer, train.from);
  if (traffic_.mode == Mode::kSend) {
    Answer(shard, Packets(train) * traffic_.trains_per_request());
  } else {
    shard.Send(to, train.packets);
  }
}

// Of the shard: its own place in the list, so that shards share no line.
void Forwarder::Answer(Shard& shard, uint32_t trains) {
  thread_local size_t next = 0;
  for (; trains > 0; --trains) {
    if (next >= targets_.size()) next = 0;
    shard.Send(targets_[next],
               {bytes_.data(), static_cast<uint32_t>(bytes_.size()), traffic_.size});
    ++next;
  }
}

absl::Status AddPeers(const SubjectConfig& config, Engine* engine, Forwarder* forwarder) {
  const size_t busy = config.peers.size();
  std::vector<PublicKey> keys;
  std::vector<std::string> addresses;
  for (const Endpoint& peer : config.peers) {
    keys.push_back(KeyOf(keys.size()));
    addresses.push_back(peer.ToString());
  }
  // Nothing is sent there (addresses of RFC 6598).
  for (uint32_t i = 0; i < config.idle_peers; ++i) {
    const Endpoint nowhere{.ip = IpAddress::V4(0x64400000u + i), .port = 51820};
    keys.push_back(KeyOf(keys.size()));
    addresses.push_back(nowhere.ToString());
  }
  if (config.relay != nullptr) {
    keys.push_back(config.relay->other);
    addresses.push_back("127.3.3.40:1");
  }
  std::vector<PeerEndpoints> list;
  for (size_t i = 0; i < keys.size(); ++i) list.push_back({keys[i], addresses[i]});
  const auto ids = engine->CreateEndpoints(list);
  if (!ids.ok()) return ids.status();
  for (size_t i = 0; i < busy; ++i) {
    const bool relayed = config.relay != nullptr && IsRelayedPair(i / 2, config.relay->percent);
    const PeerId partner = (*ids)[config.traffic.mode == Mode::kForward ? i ^ 1 : i];
    forwarder->AddRoute((*ids)[i], relayed ? ids->back() : partner);
  }
  return absl::OkStatus();
}

EngineOptions EngineOptionsOf(const SubjectConfig& config) {
  EngineOptions options;
  options.ipv6 = false;
  options.bind_v4 = config.address;
  options.shards = static_cast<uint32_t>(config.cores.size());
  options.socket_buffer = config.socket_buffer;
  options.io = config.engine;
  options.io.backend =
      config.spec.kind == SubjectKind::kRingsockMmsg ? io::Backend::kMmsg : io::Backend::kUring;
  if (config.relay != nullptr) PrepareForRelay(&options);
  return options;
}

}  // namespace ringsock::bench
