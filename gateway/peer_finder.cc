#include "gateway/peer_finder.h"

#include <cstring>
#include <utility>

#include "gateway/gateway_tables.h"

namespace ringsock::gateway {

void LearnOwner(GatewayTables* tables, PathAddress* address, PeerIndex owner,
                std::span<const std::byte> message) {
  PathAddresses& addresses = *tables->addresses;
  const bool response = WholeTypeOf(message) == MessageType::kResponse;
  if (address->owner != owner) {
    // A home stays its peer's: WireGuard was told another one by mistake.
    if (address->kind == AddressKind::kFree) {
      addresses.Adopt(address, owner);
    } else if (address->kind == AddressKind::kAdopted ||
               (address->kind == AddressKind::kPath && response)) {
      // WireGuard responds to what it has authenticated. An initiation it sends of itself, to an
      // address that may have stood for somebody else before we were started.
      addresses.SetOwner(address, owner);
    }
  }
  tables->sessions.Record(*SenderIndex(message.data(), message.size()), owner);
}

PeerFinder::PeerFinder(GatewayTables* tables, uint32_t shards, Quiescence::Reader reader,
                       std::unique_ptr<Sender> sender)
    : tables_(*tables), reader_(std::move(reader)), sender_(std::move(sender)) {
  for (uint32_t i = 0; i < shards; ++i) {
    rings_.push_back(std::make_unique<SpscRing<Request>>(kWaiting));
  }
  thread_ = std::thread(&PeerFinder::Run, this);
}

PeerFinder::~PeerFinder() { Stop(); }

void PeerFinder::Stop() {
  if (!thread_.joinable()) return;
  stop_.store(true, std::memory_order_relaxed);
  pushed_.fetch_add(1, std::memory_order_release);
  pushed_.notify_one();
  thread_.join();
}

bool PeerFinder::Find(uint32_t shard, const PathAddress& address,
                      std::span<const std::byte> message, bool deliver) {
  Request* request = rings_[shard]->Reserve();
  if (request == nullptr || message.size() > request->message.size()) return false;
  request->address = address;
  request->deliver = deliver;
  request->size = static_cast<uint32_t>(message.size());
  std::memcpy(request->message.data(), message.data(), message.size());
  rings_[shard]->Publish();
  pushed_.fetch_add(1, std::memory_order_release);
  pushed_.notify_one();  // a system call only if the thread sleeps
  return true;
}

void PeerFinder::Run() {
  while (!stop_.load(std::memory_order_relaxed)) {
    const uint32_t pushed = pushed_.load(std::memory_order_acquire);
    bool idle = true;
    // One of each shard in turn, so that none waits for another's.
    for (const auto& ring : rings_) {
      const Request* request = ring->Front();
      if (request == nullptr) continue;
      Handle(*request);
      ring->Pop();
      idle = false;
    }
    if (idle) pushed_.wait(pushed, std::memory_order_acquire);
  }
}

void PeerFinder::Handle(const Request& request) {
  const std::span<const std::byte> message(request.message.data(), request.size);
  // A change of configuration waits for this, 0.4 ms per 1,000 peers.
  const Quiescence::Section section(&reader_);
  const PeerView& view = *tables_.view();
  const PeerIndex owner = view.mac1_keys.Find(message);
  if (owner == kNoPeer) {
    if (request.deliver && request.address.kind != AddressKind::kPath) {
      counters_.Add(Count::kUnknownPeer, 1);
    }
    return;
  }
  PathAddress address = request.address;
  LearnOwner(&tables_, &address, owner, message);
  tables_.addresses->SetCurrent(owner, address.offset);
  counters_.Add(Count::kRecognisedMac1, 1);  // what it tells is in force
  if (!request.deliver) return;
  sender_->Send(view.ids[owner], {message.data(), request.size, request.size});
  sender_->Flush();
}

}  // namespace ringsock::gateway
