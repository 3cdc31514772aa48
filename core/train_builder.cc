#include "core/train_builder.h"

#include <cstring>

#include "core/packet_train.h"

namespace ringsock {
namespace {

// The table holds what one batch sends, which no sender of packets can aim at usefully: the longest
// search is over its few dozen trains. So the seed is fixed.
constexpr uint64_t kSlotSeed = 0x51ab5;

}  // namespace

TrainBuilder::TrainBuilder(io::Loop* loop, uint32_t copy_limit)
    : loop_(loop), copy_limit_(copy_limit) {
  static_assert(kOpenTrains < kSlots && kSlots <= 256);  // places and slots are bytes
}

TrainBuilder::~TrainBuilder() {
  for (size_t i = 0; i < open_count_; ++i) {
    if (open_[i].slab != nullptr) loop_->ReleaseSlab(open_[i].slab);
  }
}

void TrainBuilder::Add(io::SocketId socket, const Endpoint& to, const PacketTrain& packets) {
  ForEachPiece(packets, io::kMaxTrainPackets,
               [&](const PacketTrain& piece) { AddPiece(socket, to, piece); });
}

TrainBuilder::OpenTrain* TrainBuilder::Find(const Endpoint& to, size_t* slot) {
  // Ends: there are more slots than trains.
  for (*slot = HashEndpoint(to, kSlotSeed) % kSlots; places_[*slot] != 0;
       *slot = (*slot + 1) % kSlots) {
    OpenTrain& train = open_[places_[*slot] - 1];
    if (train.to == to) return &train;
  }
  return nullptr;
}

void TrainBuilder::Begin(OpenTrain& train, io::SocketId socket, const Endpoint& to,
                         const PacketTrain& packets) {
  train.socket = socket;
  train.to = to;
  train.data = packets.data;
  train.size = packets.size;
  train.segment_size = packets.segment_size;
  train.packets = PacketCount(packets);
  train.slab = nullptr;
}

void TrainBuilder::AddPiece(io::SocketId socket, const Endpoint& to, const PacketTrain& next) {
  size_t slot;
  if (OpenTrain* train = Find(to, &slot)) {
    if (Extend(*train, socket, to, next)) return;
    Close(*train);
    return Begin(*train, socket, to, next);
  }
  if (open_count_ == kOpenTrains) {
    Flush();
    Find(to, &slot);
  }
  OpenTrain& train = open_[open_count_++];
  places_[slot] = static_cast<uint8_t>(open_count_);
  train.slot = static_cast<uint8_t>(slot);
  Begin(train, socket, to, next);
}

// The open train takes the next packets if
//   1. they leave by the same socket for the same destination,
//   2. no shorter packet has ended the train,
//   3. they are of the train's segment size, or are one packet that is shorter (and ends it),
//   4. together they are no more packets than the kernel takes, and
//   5. no more bytes than a train may have;
// and then, without a copy, if
//   6. the train is a view and they are next to it in memory;
// or else, with a copy, if
//   7. the bytes to copy (the train's own too while it is a view) cost less than a kernel buffer,
//   8. and there is a slab.
bool TrainBuilder::Extend(OpenTrain& train, io::SocketId socket, const Endpoint& to,
                          const PacketTrain& next) {
  const uint32_t count = PacketCount(next);
  if (train.socket != socket || !(train.to == to)) return false;       // 1
  if (train.size != train.packets * train.segment_size) return false;  // 2
  if (next.segment_size != train.segment_size && (count != 1 || next.size > train.segment_size)) {
    return false;  // 3
  }
  if (train.packets + count > io::kMaxTrainPackets) return false;       // 4
  if (train.size + next.size > io::kMaxDatagram) return false;          // 5
  if (train.slab != nullptr || next.data != train.data + train.size) {  // 6
    const uint32_t copied = next.size + (train.slab == nullptr ? train.size : 0);
    if (copied > copy_limit_) return false;  // 7
    if (train.slab == nullptr) {
      io::TxSlab* slab = loop_->AcquireSlab();
      if (slab == nullptr) return false;  // 8
      std::memcpy(slab->data, train.data, train.size);
      train.slab = slab;
      train.data = slab->data;
    }
    std::memcpy(train.slab->data + train.size, next.data, next.size);
  }
  train.size += next.size;
  train.packets += count;
  return true;
}

void TrainBuilder::Close(const OpenTrain& train) {
  loop_->Send(train.socket, {.data = train.data,
                             .size = train.size,
                             .segment_size = train.segment_size,
                             .to = train.to,
                             .slab = train.slab});
}

void TrainBuilder::Flush() {
  for (size_t i = 0; i < open_count_; ++i) {
    Close(open_[i]);
    places_[open_[i].slot] = 0;
  }
  open_count_ = 0;
}

}  // namespace ringsock
