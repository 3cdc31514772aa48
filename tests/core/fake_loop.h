// A loop without a network: it keeps what is sent, and its slabs can run out.
#ifndef RINGSOCK_TESTS_CORE_FAKE_LOOP_H_
#define RINGSOCK_TESTS_CORE_FAKE_LOOP_H_

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/clock.h"
#include "io/loop.h"

namespace ringsock {

class FakeLoop final : public io::Loop {
 public:
  static constexpr uint16_t kFirstPort = 40'000;

  struct Sent {
    io::SocketId socket;
    io::TxTrain train;
    bool copied;                       // it was in a slab
    std::vector<std::string> packets;  // as the bytes were at Send()
  };

  explicit FakeLoop(size_t slabs = 64) {
    for (size_t i = 0; i < slabs; ++i) {
      memory_.push_back(std::make_unique<std::byte[]>(io::kMaxDatagram));
      slabs_.push_back({memory_.back().get(), io::kMaxDatagram});
    }
    for (io::TxSlab& slab : slabs_) free_.push_back(&slab);
  }

  const char* name() const override { return "fake"; }
  const Clock& clock() const override { return clock_; }
  absl::StatusOr<io::SocketId> OpenUdp(const io::UdpConfig& config, io::UdpHandler*) override {
    opened_.push_back(config);
    return static_cast<io::SocketId>(opened_.size() - 1);
  }
  void CloseUdp(io::SocketId) override {}
  absl::StatusOr<io::Reopened> ReopenUdp(io::SocketId socket, uint16_t port) override {
    if (on_reopen) {
      if (absl::Status status = on_reopen(port); !status.ok()) return status;
    }
    opened_[socket].bind.port = port;
    return io::Reopened{.local = LocalEndpoint(socket)};
  }
  // Each socket that leaves the choice to the kernel gets a number of its own.
  Endpoint LocalEndpoint(io::SocketId socket) const override {
    Endpoint local = opened_[socket].bind;
    if (local.port == 0) local.port = static_cast<uint16_t>(kFirstPort + socket);
    return local;
  }
  io::UdpStats Stats(io::SocketId) const override {
    ++stats_calls_;
    return {};
  }
  void Send(io::SocketId socket, const io::TxTrain& train) override {
    Sent sent{socket, train, train.slab != nullptr, {}};
    const uint32_t segment = train.segment_size == 0 ? train.size : train.segment_size;
    for (uint32_t at = 0; at < train.size; at += segment) {
      const auto* data = reinterpret_cast<const char*>(train.data + at);
      sent.packets.emplace_back(data, std::min(segment, train.size - at));
    }
    if (train.slab != nullptr) free_.push_back(train.slab);
    sent_.push_back(std::move(sent));
  }
  void Flush() override {}
  io::TxSlab* AcquireSlab() override {
    if (free_.empty()) return nullptr;
    io::TxSlab* slab = free_.back();
    free_.pop_back();
    return slab;
  }
  void ReleaseSlab(io::TxSlab* slab) override { free_.push_back(slab); }
  size_t Poll(Instant deadline) override {
    if (on_poll) on_poll(deadline);
    return 0;
  }
  void Wake() override { wakes_.fetch_add(1, std::memory_order_relaxed); }

  std::vector<Sent>& sent() { return sent_; }
  size_t free_slabs() const { return free_.size(); }
  int wakes() const { return wakes_.load(std::memory_order_relaxed); }
  ManualClock& manual_clock() { return clock_; }
  // What was asked for, by socket.
  const std::vector<io::UdpConfig>& opened() const { return opened_; }
  int stats_calls() const { return stats_calls_; }

  // Whether a socket can be opened again on that port.
  std::function<absl::Status(uint16_t port)> on_reopen;
  // What a Poll() does.
  std::function<void(Instant deadline)> on_poll;

 private:
  ManualClock clock_;
  std::vector<std::unique_ptr<std::byte[]>> memory_;
  std::vector<io::TxSlab> slabs_;
  std::vector<io::TxSlab*> free_;
  std::vector<Sent> sent_;
  std::vector<io::UdpConfig> opened_;
  mutable int stats_calls_ = 0;
  std::atomic<int> wakes_{0};
};

}  // namespace ringsock

#endif  // RINGSOCK_TESTS_CORE_FAKE_LOOP_H_
