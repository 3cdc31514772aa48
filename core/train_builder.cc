#include "core/train_builder.h"

#include <cstring>

#include "core/packet_train.h"

namespace ringsock {
namespace {

// The table holds what one batch sends, which no sender of packets can aim at usefully: a collision
// costs one kernel buffer. So the seed is fixed.
constexpr uint64_t kSlotSeed = 0x51ab5;

}  // namespace

TrainBuilder::TrainBuilder(io::Loop* loop, uint32_t copy_limit)
    : loop_(loop), copy_limit_(copy_limit) {
  static_assert(kOpenTrains <= 256);  // used_ holds slots as bytes
}

TrainBuilder::~TrainBuilder() {
  for (OpenTrain& train : open_) {
    if (train.slab != nullptr) loop_->ReleaseSlab(train.slab);
  }
}

void TrainBuilder::Add(io::SocketId socket, const Endpoint& to, const PacketTrain& packets) {
  ForEachPiece(packets, io::kMaxTrainPackets,
               [&](const PacketTrain& piece) { AddPiece(socket, to, piece); });
}

void TrainBuilder::AddPiece(io::SocketId socket, const Endpoint& to, const PacketTrain& next) {
  const size_t slot = HashEndpoint(to, kSlotSeed) % kOpenTrains;
  OpenTrain& train = open_[slot];
  if (train.size != 0) {
    if (Extend(train, socket, to, next)) return;
    Close(train);
  } else {
    used_[used_count_++] = static_cast<uint8_t>(slot);
  }
  train.socket = socket;
  train.to = to;
  train.data = next.data;
  train.size = next.size;
  train.segment_size = next.segment_size;
  train.packets = PacketCount(next);
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

void TrainBuilder::Close(OpenTrain& train) {
  loop_->Send(train.socket, {.data = train.data,
                             .size = train.size,
                             .segment_size = train.segment_size,
                             .to = train.to,
                             .slab = train.slab});
  train.size = 0;
  train.slab = nullptr;
}

void TrainBuilder::Flush() {
  for (size_t i = 0; i < used_count_; ++i) {
    OpenTrain& train = open_[used_[i]];
    if (train.size != 0) Close(train);
  }
  used_count_ = 0;
}

}  // namespace ringsock
