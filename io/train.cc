// Index arithmetic of trains, and the memory of destinations that refuse them.
#include "io/train.h"

#include <algorithm>

namespace ringsock::io {

TxTrain CutTrain(TxTrain* train, uint32_t max_packets) {
  TxTrain part = *train;
  if (train->packets() > 1) {
    const uint32_t fit = static_cast<uint32_t>(kMaxDatagram) / train->segment_size;
    const uint32_t take = std::max(1u, std::min(max_packets, fit));
    part.size = std::min<uint64_t>(train->size, uint64_t{take} * train->segment_size);
  }
  train->data += part.size;
  train->size -= part.size;
  if (train->size > 0) part.slab = nullptr;
  return part;
}

TrainReplay::Packet TrainReplay::packet() const {
  if (packets_ == 1) return {train_->data, train_->size};
  const uint32_t offset = next_ * train_->segment_size;
  return {train_->data + offset, std::min(train_->segment_size, train_->size - offset)};
}

size_t GsoMemory::SlotOf(const IpAddress& to) {
  return HashEndpoint(Endpoint{to, 0, 0}, /*seed=*/0) % kSlots;
}

bool GsoMemory::AllowsSlow(const IpAddress& to, uint32_t segment_size, Instant now) const {
  if (off_ && now < eio_until_) return false;
  const Slot& slot = slots_[SlotOf(to)];
  return slot.limit == 0 || segment_size < slot.limit || now >= slot.until || slot.to != to;
}

void GsoMemory::Learn(int error, const IpAddress& to, uint32_t segment_size, Instant now) {
  if (!ReplayCanHelp(error)) return;
  if (error == EIO) {
    CountEio(to, now);
    segment_size = 1;
  }
  Slot& slot = slots_[SlotOf(to)];
  if (slot.limit == 0) ++used_;
  const bool known = slot.limit != 0 && slot.to == to && now < slot.until;
  slot = {to, known ? std::min(slot.limit, segment_size) : segment_size, now + kLifetime};
}

// One route with a transform must not cost the others their trains; a device that takes none does.
void GsoMemory::CountEio(const IpAddress& to, Instant now) {
  if (now >= eio_until_) {
    eio_count_ = 0;
    off_ = false;
  }
  if (off_) return;  // sent before it was off; the pause is not prolonged
  const auto end = eio_.begin() + eio_count_;
  if (std::find(eio_.begin(), end, to) != end) return;
  eio_[eio_count_++] = to;
  eio_until_ = now + kLifetime;
  off_ = eio_count_ == kEioDestinations;
}

}  // namespace ringsock::io
