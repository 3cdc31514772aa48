// A loop that sends nowhere at no cost: what is left is the cost of those who give it trains. Slabs
// are as many as anybody wants at a time.
#ifndef RINGSOCK_BENCH_NULL_LOOP_H_
#define RINGSOCK_BENCH_NULL_LOOP_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "base/clock.h"
#include "io/loop.h"

namespace ringsock::bench {

class NullLoop final : public io::Loop {
 public:
  explicit NullLoop(size_t slabs = 64) : slabs_(slabs) {
    for (io::TxSlab& slab : slabs_) {
      memory_.push_back(std::make_unique<std::byte[]>(io::kMaxDatagram));
      slab = {memory_.back().get(), io::kMaxDatagram};
      free_.push_back(&slab);
    }
  }

  const char* name() const override { return "null"; }
  const Clock& clock() const override { return clock_; }
  absl::StatusOr<io::SocketId> OpenUdp(const io::UdpConfig&, io::UdpHandler*) override {
    return io::SocketId{0};
  }
  void CloseUdp(io::SocketId) override {}
  absl::StatusOr<io::Reopened> ReopenUdp(io::SocketId, uint16_t) override { return io::Reopened{}; }
  Endpoint LocalEndpoint(io::SocketId) const override { return {}; }
  io::UdpStats Stats(io::SocketId) const override { return {}; }
  void Send(io::SocketId, const io::TxTrain& train) override {
    ++trains_;
    if (train.slab != nullptr) free_.push_back(train.slab);
  }
  void Flush() override {}
  io::TxSlab* AcquireSlab() override {
    if (free_.empty()) return nullptr;
    io::TxSlab* slab = free_.back();
    free_.pop_back();
    return slab;
  }
  void ReleaseSlab(io::TxSlab* slab) override { free_.push_back(slab); }
  size_t Poll(Instant) override { return 0; }
  void Wake() override {}

  // How many were sent.
  uint64_t trains() const { return trains_; }

 private:
  ManualClock clock_;
  std::vector<std::unique_ptr<std::byte[]>> memory_;
  std::vector<io::TxSlab> slabs_;
  std::vector<io::TxSlab*> free_;
  uint64_t trains_ = 0;
};

}  // namespace ringsock::bench

#endif  // RINGSOCK_BENCH_NULL_LOOP_H_
