// Arithmetic on PacketTrain: what its fields mean when they come from an embedder.
#ifndef RINGSOCK_CORE_PACKET_TRAIN_H_
#define RINGSOCK_CORE_PACKET_TRAIN_H_

#include <algorithm>
#include <cstdint>

#include "core/engine.h"
#include "io/loop.h"

namespace ringsock {

// Bytes of each packet but the last. 0 or more than the size means one packet, as in io::TxTrain.
inline uint32_t SegmentSize(const PacketTrain& train) {
  return train.segment_size == 0 ? train.size : std::min(train.segment_size, train.size);
}

inline uint32_t PacketCount(const PacketTrain& train) {
  const uint32_t segment = SegmentSize(train);
  if (train.size == segment) return train.size != 0;  // a division is what single packets notice
  return (train.size - 1) / segment + 1;
}

// Calls visit(const PacketTrain&) for pieces of whole packets, each of at most `most_packets` and,
// unless a single packet is larger, io::kMaxDatagram bytes. In order.
template <typename Visit>
void ForEachPiece(PacketTrain train, uint32_t most_packets, Visit&& visit) {
  const uint32_t segment = SegmentSize(train);
  if (segment == 0) return;
  if (train.size == segment) return visit(PacketTrain{train.data, segment, segment});
  const auto fit = static_cast<uint32_t>(io::kMaxDatagram / segment);
  const uint64_t bytes = uint64_t{std::clamp<uint32_t>(fit, 1, most_packets)} * segment;
  while (train.size > 0) {
    const auto piece = static_cast<uint32_t>(std::min<uint64_t>(train.size, bytes));
    visit(PacketTrain{train.data, piece, std::min(segment, piece)});
    train.data += piece;
    train.size -= piece;
  }
}

}  // namespace ringsock

#endif  // RINGSOCK_CORE_PACKET_TRAIN_H_
