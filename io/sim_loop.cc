#include "io/sim_loop.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "io/sim_network.h"

namespace ringsock::io {
namespace {

constexpr size_t kSlabSize = 65536;
constexpr uint32_t kMostBuffers = 8;  // of a loop; there may be many
constexpr int kStale = 0xdb;          // what bytes become when they are no longer the handler's

}  // namespace

SimLoop::SimLoop(SimNetwork* network, HostId host, const LoopOptions& options)
    : network_(network), host_(host), options_(options), streams_(network, host, options) {
  const uint32_t buffers =
      std::max(1u, std::min({options.rx_batch, options.rx_buffers, kMostBuffers}));
  for (uint32_t i = 0; i < buffers; ++i) {
    rx_buffers_.push_back(std::make_unique<std::byte[]>(kMaxDatagram));
  }
}

SimLoop::~SimLoop() {
  tx_.clear();  // unlike a close, the end of the loop sends nothing and calls no handler
  for (SocketId id = 0; id < sockets_.size(); ++id) CloseUdp(id);
  network_->Unregister(this);
}

const Clock& SimLoop::clock() const { return network_->clock(); }

absl::StatusOr<SocketId> SimLoop::OpenUdp(const UdpConfig& config, UdpHandler* handler) {
  auto socket = std::make_unique<SimSocket>();
  socket->host = host_;
  socket->handler = handler;
  socket->config = config;
  socket->gso = GsoMemory(options_.gso);
  const absl::Status bound = network_->Bind(socket.get());
  if (!bound.ok()) return bound;
  sockets_.push_back(std::move(socket));
  return static_cast<SocketId>(sockets_.size() - 1);
}

void SimLoop::CloseUdp(SocketId id) {
  SimSocket* socket = Find(id);
  if (socket == nullptr) return;
  Flush();
  network_->Release(socket);
  socket->open = false;
  socket->queue.clear();
  socket->queued_bytes = 0;
}

// No time passes in it, so what was received just stays for the next Poll(). The faults of sending
// were the old socket's.
absl::StatusOr<Reopened> SimLoop::ReopenUdp(SocketId id, uint16_t port) {
  SimSocket* socket = Find(id);
  if (socket == nullptr) return absl::NotFoundError("no such socket");
  if (absl::Status bound = network_->Rebind(socket, port); !bound.ok()) return bound;
  socket->faults.sends.clear();
  return Reopened{.local = socket->local};
}

void SimLoop::Send(SocketId socket, const TxTrain& train) {
  if (tx_.size() >= std::max(1u, options_.tx_queue)) Flush();
  tx_.push_back({socket, train});
}

void SimLoop::Flush() {
  // Handlers must not send from OnSendFailure, so nothing is added meanwhile.
  for (const Queued& queued : tx_) {
    SimSocket* socket = Find(queued.socket);
    if (socket != nullptr) SendTrain(queued.socket, socket, queued.train);
    TxSlab* slab = queued.train.slab;
    if (slab != nullptr) (hold_slabs_ ? held_slabs_ : free_slabs_).push_back(slab);
  }
  tx_.clear();
}

void SimLoop::SendTrain(SocketId id, SimSocket* socket, TxTrain train) {
  do {
    const bool whole = socket->gso.Allows(train.to.ip, train.segment_size, network_->now());
    SendPart(id, socket, CutTrain(&train, whole ? kMaxTrainPackets : 1));
  } while (train.size > 0);
}

void SimLoop::SendPart(SocketId id, SimSocket* socket, const TxTrain& part) {
  const auto report = [&](const SendFailure& failure) {
    socket->stats.tx_failed += failure.packets;
    socket->handler->OnSendFailure(id, failure);
  };
  const int error = HandOver(socket, part);
  if (error == 0) return;
  if (part.packets() == 1 || !ReplayCanHelp(error)) {
    report(SendFailure{&part, 0, part.packets(), error});
    return;
  }
  ++socket->stats.tx_replayed;
  TrainReplay replay(&part);
  while (!replay.done()) {
    TxTrain single = part;
    single.data = replay.packet().data;
    single.size = replay.packet().size;
    single.segment_size = 0;
    replay.Result(HandOver(socket, single), report);
  }
  // Otherwise it was the way that was refused, not the train.
  if (replay.any_sent()) {
    socket->gso.Learn(error, part.to.ip, part.segment_size, network_->now());
  }
}

// Plays the kernel: a train or a datagram, taken or refused as a whole.
int SimLoop::HandOver(SimSocket* socket, const TxTrain& part) {
  std::deque<SocketFaults::Send>& faults = socket->faults.sends;
  while (!faults.empty() && faults.front().count == 0) faults.pop_front();
  if (!faults.empty() && (part.packets() > 1 || !faults.front().trains_only)) {
    const int error = faults.front().error;
    if (--faults.front().count == 0) faults.pop_front();
    return error;
  }
  const int error = network_->Inject(*socket, part);
  if (error != 0) return error;
  ++socket->stats.tx_trains;
  socket->stats.tx_packets += part.packets();
  socket->stats.tx_bytes += part.size;
  return 0;
}

TxSlab* SimLoop::AcquireSlab() {
  if (free_slabs_.empty()) {
    if (slabs_.size() >= options_.tx_slabs) return nullptr;
    auto slab = std::make_unique<Slab>();
    slab->memory = std::make_unique<std::byte[]>(kSlabSize);
    slab->view = {slab->memory.get(), kSlabSize};
    slabs_.push_back(std::move(slab));
    return &slabs_.back()->view;
  }
  TxSlab* slab = free_slabs_.back();
  free_slabs_.pop_back();
  return slab;
}

void SimLoop::ReleaseSlab(TxSlab* slab) { free_slabs_.push_back(slab); }

void SimLoop::HoldSlabs(bool hold) {
  hold_slabs_ = hold;
  if (hold) return;
  free_slabs_.insert(free_slabs_.end(), held_slabs_.begin(), held_slabs_.end());
  held_slabs_.clear();
}

bool SimLoop::HasWork() const {
  return woken_.load(std::memory_order_relaxed) || !tx_.empty() || streams_.HasSimWork() ||
         std::any_of(sockets_.begin(), sockets_.end(),
                     [](const auto& socket) { return !socket->queue.empty(); });
}

size_t SimLoop::Poll(Instant deadline) {
  Flush();
  network_->DeliverDue();
  // As a real one that wakes: a wake-up, or what has arrived, ends the wait.
  if (!woken_.exchange(false, std::memory_order_acquire) && !HasWork()) {
    network_->AdvanceForPoll(deadline, [this] { return HasWork(); });
    woken_.exchange(false, std::memory_order_acquire);
  }
  size_t delivered = 0;
  for (SocketId id = 0; id < sockets_.size(); ++id) {
    if (!sockets_[id]->queue.empty()) delivered += Receive(id, sockets_[id].get());
  }
  delivered += streams_.Deliver();
  Flush();  // what handlers of streams sent
  return delivered;
}

size_t SimLoop::Receive(SocketId id, SimSocket* socket) {
  if (socket->faults.starved_polls > 0) {
    --socket->faults.starved_polls;
    ++socket->stats.rx_starved;
    return 0;
  }
  size_t delivered = 0;
  std::vector<RxTrain> batch;
  // Only what is there now: a handler that answers itself must not keep Poll() for ever.
  size_t available = socket->queue.size();
  while (available > 0) {
    batch.clear();
    while (available > 0 && batch.size() < rx_buffers_.size()) {
      RxTrain train;
      if (TakeTrain(socket, &available, rx_buffers_[batch.size()].get(), &train)) {
        batch.push_back(train);
      }
    }
    if (batch.empty()) break;
    delivered += batch.size();
    socket->handler->OnReceive(id, batch);
    Flush();
    for (const RxTrain& train : batch) std::memset(train.data, kStale, train.size);
  }
  return delivered;
}

bool SimLoop::Joins(const SimSocket& socket, const Datagram& first, const Datagram& next) {
  if (!options_.gro || next.from != first.from || next.to != first.to) return false;
  if (next.payload.empty() || next.payload.size() > first.payload.size()) return false;
  switch (socket.faults.gro) {
    case GroMode::kAsSent:
      return next.train == first.train;
    case GroMode::kMerge:
      return true;
    case GroMode::kSplit:
      return false;
    case GroMode::kRandom:
      return network_->random()->Chance(0.5);
  }
  return false;
}

// Moves one train out of the queue. False: it was cut off by a fault and only counted.
bool SimLoop::TakeTrain(SimSocket* socket, size_t* available, std::byte* buffer, RxTrain* train) {
  const Datagram first = std::move(socket->queue.front());
  *train = {.data = buffer,
            .segment_size = static_cast<uint32_t>(first.payload.size()),
            .from = first.from,
            .to = socket->config.local_address ? first.to.ip : IpAddress::AnyV6()};
  uint32_t packets = 0;
  const auto append = [&](const std::vector<std::byte>& payload) {
    if (!payload.empty()) std::memcpy(buffer + train->size, payload.data(), payload.size());
    train->size += static_cast<uint32_t>(payload.size());
    socket->queued_bytes -= SimNetwork::Footprint(payload.size());
    socket->queue.pop_front();
    --*available;
    ++packets;
  };
  append(first.payload);
  while (*available > 0 && packets < kMaxTrainPackets) {
    const Datagram& next = socket->queue.front();
    const bool last = next.payload.size() < first.payload.size();
    if (train->size + next.payload.size() > kMaxDatagram) break;
    if (!Joins(*socket, first, next)) break;
    append(next.payload);
    if (last) break;
  }
  if (socket->faults.truncated_trains > 0) {
    --socket->faults.truncated_trains;
    ++socket->stats.rx_truncated;
    return false;
  }
  ++socket->stats.rx_trains;
  socket->stats.rx_packets += packets;
  socket->stats.rx_bytes += train->size;
  return true;
}

}  // namespace ringsock::io
