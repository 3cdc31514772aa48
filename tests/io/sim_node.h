// What the tests of the simulated network share: a host with a socket that keeps what it gets, and
// a fixture that describes the network, its seed first, when a test fails.
#ifndef RINGSOCK_TESTS_IO_SIM_NODE_H_
#define RINGSOCK_TESTS_IO_SIM_NODE_H_

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "io/sim_network.h"

namespace ringsock::io {

inline constexpr uint64_t kSeed = 20200501;

inline IpAddress V4(uint8_t a, uint8_t b, uint8_t c, uint8_t d) {
  return IpAddress::V4(a, b, c, d);
}

// A host with one loop and one socket, which keeps what it gets.
class Node final : public UdpHandler {
 public:
  struct Packet {
    Endpoint from;
    std::string bytes;
    Instant at;
  };

  Node(SimNetwork* net, HostId host, uint16_t port, const LoopOptions& options = {},
       const IpAddress& bind = IpAddress::AnyV4())
      : host(host), loop(net->CreateLoop(host, options)), net_(net) {
    const auto opened = loop->OpenUdp({.bind = {bind, port, 0}}, this);
    EXPECT_TRUE(opened.ok()) << opened.status();
    socket = opened.value_or(0);
  }

  void OnReceive(SocketId, std::span<const RxTrain> batch) override {
    for (const RxTrain& train : batch) {
      trains.push_back(train.packets());
      for (uint32_t offset = 0; offset < std::max(1u, train.size);) {
        const uint32_t size = std::min(train.segment_size, train.size - offset);
        const auto* text = reinterpret_cast<const char*>(train.data + offset);
        packets.push_back({train.from, std::string(text, size), net_->now()});
        if (echo) loop->Send(socket, {.data = train.data + offset, .size = size, .to = train.from});
        offset += std::max(1u, size);
      }
    }
  }
  void OnSendFailure(SocketId, const SendFailure& failure) override {
    for (uint32_t i = 0; i < failure.packets; ++i) failures.push_back(failure.error);
  }

  void Send(const Endpoint& to, const std::string& text, uint32_t segment = 0) {
    loop->Send(socket, {.data = reinterpret_cast<const std::byte*>(text.data()),
                        .size = static_cast<uint32_t>(text.size()),
                        .segment_size = segment,
                        .to = to});
    loop->Flush();
  }
  std::string Text() const {
    std::string all;
    for (const Packet& packet : packets) all += packet.bytes + "|";
    return all;
  }
  // The way back to the sender of the last packet.
  Endpoint LastFrom() const { return packets.empty() ? Endpoint{} : packets.back().from; }

  const HostId host;
  const std::unique_ptr<SimLoop> loop;
  SocketId socket = 0;
  bool echo = false;
  std::vector<Packet> packets;
  std::vector<uint32_t> trains;
  std::vector<int> failures;

 private:
  SimNetwork* const net_;
};

class SimNetworkTest : public testing::Test {
 protected:
  ~SimNetworkTest() override {
    if (HasFailure()) ADD_FAILURE() << net.Describe();
  }
  SimNetwork net{kSeed};
  const Endpoint at_b{V4(198, 51, 100, 2), 2000, 0};
  const Endpoint at_c{V4(198, 51, 100, 3), 3000, 0};
};

}  // namespace ringsock::io

#endif  // RINGSOCK_TESTS_IO_SIM_NODE_H_
