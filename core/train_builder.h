// Builds trains on the way out: packets of one destination that were sent one after the other leave
// as one kernel buffer. A kernel buffer costs 0.5 to 1 us whatever is in it, so this is where the
// speed of sending comes from: a train of 4 is 3.4 times, one of 46 ten times as cheap per packet.
//
// A fixed number of trains is open at a time, at most one per destination, found by a small hash
// table. So packets of one destination meet however many others came between them in the batch.
// A train stays a view of the caller's bytes while what follows is next to it in memory, and is
// moved to a slab of the loop when that is cheaper than a kernel buffer of its own.
//
// Order: every packet of a destination goes to that destination's open train or behind it, so
// packets of one destination leave in the order of Add(). Different destinations may change places.
#ifndef RINGSOCK_CORE_TRAIN_BUILDER_H_
#define RINGSOCK_CORE_TRAIN_BUILDER_H_

#include <array>
#include <cstddef>
#include <cstdint>

#include "base/endpoint.h"
#include "core/engine.h"
#include "io/loop.h"

namespace ringsock {

// For the loop's thread only. Allocates nothing after construction.
class TrainBuilder {
 public:
  // Destinations with an open train; one more closes them all. More than a loop hands to one
  // OnReceive, so few batches have as many.
  static constexpr size_t kOpenTrains = 64;
  // Bytes worth copying to save one kernel buffer: about 1 us at the speed of a warm copy.
  static constexpr uint32_t kCopyLimit = 8192;

  // `loop` outlives the builder. `copy_limit` 0: never copy (without GSO there is nothing to gain).
  explicit TrainBuilder(io::Loop* loop, uint32_t copy_limit = kCopyLimit);
  // Gives back slabs of trains that were never flushed.
  ~TrainBuilder();
  TrainBuilder(const TrainBuilder&) = delete;
  TrainBuilder& operator=(const TrainBuilder&) = delete;

  // Adds packets of at most io::kMaxDatagram bytes each, any number of them. Nothing is sent for
  // size 0. The bytes must stay until the loop's Flush() that follows ours.
  void Add(io::SocketId socket, const Endpoint& to, const PacketTrain& packets);
  // Closes all open trains, that is, hands them to the loop. Due before the loop flushes.
  void Flush();
  bool empty() const { return open_count_ == 0; }

 private:
  struct OpenTrain {
    io::SocketId socket = 0;
    Endpoint to;
    const std::byte* data = nullptr;  // in the caller's memory, or slab->data
    uint32_t size = 0;
    uint32_t segment_size = 0;
    uint32_t packets = 0;
    io::TxSlab* slab = nullptr;
    uint8_t slot = 0;  // of places_
  };
  // Four times as many as trains, so that a search rarely goes beyond its first slot.
  static constexpr size_t kSlots = 256;

  // The open train of a destination, or null and the slot that a new one takes.
  OpenTrain* Find(const Endpoint& to, size_t* slot);
  static void Begin(OpenTrain& train, io::SocketId socket, const Endpoint& to,
                    const PacketTrain& packets);
  void AddPiece(io::SocketId socket, const Endpoint& to, const PacketTrain& next);
  // True if `next` is now part of `train`.
  bool Extend(OpenTrain& train, io::SocketId socket, const Endpoint& to, const PacketTrain& next);
  void Close(const OpenTrain& train);

  io::Loop* const loop_;
  const uint32_t copy_limit_;
  std::array<OpenTrain, kOpenTrains> open_;  // in the order they were opened
  size_t open_count_ = 0;
  std::array<uint8_t, kSlots> places_{};  // one more than the place in open_; 0: none
};

}  // namespace ringsock

#endif  // RINGSOCK_CORE_TRAIN_BUILDER_H_
