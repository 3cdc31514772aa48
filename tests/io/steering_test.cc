// Steering on the kernel: every datagram comes to the socket that the rule in C++ names, of both
// families, single or in a train, short or with IP options, and while sockets are replaced.
#include "io/steering.h"

#include <gtest/gtest.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string>
#include <tuple>
#include <vector>

#include "io/udp_reopen.h"
#include "io/udp_socket.h"

namespace ringsock::io {
namespace {

using Bytes = std::vector<std::byte>;

// A WireGuard message: its type, and two indices.
Bytes WireGuard(uint8_t type, uint32_t first, uint32_t second, size_t size = 64) {
  Bytes bytes(size);
  bytes[0] = std::byte{type};
  if (size >= 8) memcpy(&bytes[4], &first, 4);
  if (size >= 12) memcpy(&bytes[8], &second, 4);
  return bytes;
}

Endpoint Loopback(bool v4, uint16_t port = 0) {
  return {v4 ? IpAddress::V4(127, 0, 0, 1) : IpAddress::Parse("::1").value(), port};
}

// A socket that sends, bound to `local`.
class Source {
 public:
  explicit Source(const Endpoint& local) {
    sockaddr_storage address{};
    socklen_t length = local.ToSockaddr(&address);
    auto* const name = reinterpret_cast<sockaddr*>(&address);
    fd_ = Fd(socket(name->sa_family, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    EXPECT_EQ(bind(fd_.get(), name, length), 0) << strerror(errno);
    length = sizeof address;
    EXPECT_EQ(getsockname(fd_.get(), name, &length), 0);
    local_ = Endpoint::FromSockaddr(address);
  }
  int fd() const { return fd_.get(); }
  const Endpoint& local() const { return local_; }
  // `segment` not 0: as one train.
  void Send(const Endpoint& to, const Bytes& bytes, int segment = 0) {
    ASSERT_EQ(setsockopt(fd(), SOL_UDP, UDP_SEGMENT, &segment, sizeof segment), 0);
    sockaddr_storage address{};
    const socklen_t length = to.ToSockaddr(&address);
    ASSERT_EQ(
        sendto(fd(), bytes.data(), bytes.size(), 0, reinterpret_cast<sockaddr*>(&address), length),
        static_cast<ssize_t>(bytes.size()))
        << strerror(errno);
  }

 private:
  Fd fd_;
  Endpoint local_;
};

struct Param {
  bool v4;
  uint32_t sockets;
  Steering steering;
  bool all_addresses = true;  // that the group is bound to
};

class SteeringTest : public testing::TestWithParam<Param> {
 protected:
  void SetUp() override {
    UdpConfig config;
    config.bind = Loopback(GetParam().v4);
    if (GetParam().all_addresses) {
      config.bind.ip = GetParam().v4 ? IpAddress::AnyV4() : IpAddress::AnyV6();
    }
    config.reuse_port = true;
    config.steering = GetParam().steering;
    config.steering_sockets = GetParam().sockets;
    for (uint32_t i = 0; i < GetParam().sockets; ++i) {
      auto opened = OpenUdpSocket(config, /*gso=*/true, /*gro=*/true);
      ASSERT_TRUE(opened.ok()) << opened.status();
      config.bind.port = opened->local.port;
      group_.push_back(std::move(opened).value());
    }
    to_ = Loopback(GetParam().v4, config.bind.port);
  }

  uint32_t Expected(const Endpoint& from, const Bytes& bytes) const {
    return SteeredSocket(GetParam().steering, from, bytes, GetParam().sockets);
  }
  // Waits until `wanted` datagrams have come to a socket, and takes all that are in it.
  static size_t Take(const UdpSocket& socket, size_t wanted = 0) {
    size_t packets = 0;
    do {
      pollfd wait{socket.fd.get(), POLLIN, 0};
      if (wanted > 0 && poll(&wait, 1, 20'000) <= 0) break;
      UdpStats stats;
      DrainUdp(socket, &stats, [&](const RxTrain& train) { packets += train.packets(); });
    } while (packets < wanted);
    return packets;
  }
  // Sends, and sees where it arrives.
  void Check(Source& source, const Bytes& bytes, const char* what, uint32_t packets = 1) {
    source.Send(to_, bytes, packets == 1 ? 0 : static_cast<int>(bytes.size() / packets));
    const uint32_t expected = Expected(source.local(), bytes);
    ASSERT_EQ(Take(group_[expected], packets), packets) << what;
    for (uint32_t i = 0; i < GetParam().sockets; ++i) {
      ASSERT_EQ(Take(group_[i]), 0u) << what << " from " << source.local().ToString() << ", socket "
                                     << i << ", expected at " << expected;
    }
  }
  // Every kind of message of `source`, with indices that begin with `seed`.
  void CheckAll(Source& source, uint32_t seed) {
    Check(source, WireGuard(1, seed, seed, 148), "initiation");
    Check(source, WireGuard(2, ~seed, seed, 92), "response");
    Check(source, WireGuard(3, seed, ~seed), "cookie reply");
    Check(source, WireGuard(4, seed, ~seed), "data");
    Bytes train;
    for (uint32_t i = 0; i < 8; ++i) {
      const Bytes next = WireGuard(4, seed, i, 1400);
      train.insert(train.end(), next.begin(), next.end());
    }
    Check(source, train, "train", 8);
    Bytes other = WireGuard(4, seed, ~seed);
    other[1] = std::byte{1};  // no message of WireGuard has it
    Check(source, other, "something else");
  }

  std::vector<UdpSocket> group_;
  Endpoint to_;
};

TEST_P(SteeringTest, EveryDatagramComesToTheSocketOfItsRule) {
  constexpr uint32_t kSources = 48;
  for (uint32_t i = 0; i < kSources; ++i) {
    Endpoint local = Loopback(GetParam().v4);
    if (GetParam().v4) local.ip = IpAddress::V4(127, 1, static_cast<uint8_t>(i), 7);
    Source source(local);
    ASSERT_NO_FATAL_FAILURE(CheckAll(source, 0x01fe0300 + i * 0x00010807));
  }
}

TEST_P(SteeringTest, ShortOnesComeToTheSocketOfTheirRule) {
  Source source(Loopback(GetParam().v4));
  for (const uint8_t type : {0, 1, 2, 3, 4, 255}) {
    for (size_t size = 0; size <= 16; ++size) {
      Bytes bytes(size);
      std::fill(bytes.begin(), bytes.end(), std::byte{0xff});
      if (size >= 4) memcpy(bytes.data(), "\0\0\0", 4), bytes[0] = std::byte{type};
      ASSERT_NO_FATAL_FAILURE(Check(source, bytes, "short"));
    }
  }
}

TEST_P(SteeringTest, IpOptionsDoNotMatter) {
  if (!GetParam().v4) GTEST_SKIP() << "options are IPv4's";
  Source source(Loopback(true));
  // Three no-operations and the end of the list.
  const uint8_t options[4] = {1, 1, 1, 0};
  ASSERT_EQ(setsockopt(source.fd(), IPPROTO_IP, IP_OPTIONS, options, sizeof options), 0)
      << strerror(errno);
  for (uint32_t i = 0; i < 16; ++i) ASSERT_NO_FATAL_FAILURE(CheckAll(source, i * 77));
}

// The new one gets nothing while the old one is there, and everything that was its afterwards.
TEST_P(SteeringTest, ReplacedSocketsHaveThePlacesOfTheOld) {
  std::vector<Source> sources;
  for (int i = 0; i < 12; ++i) sources.emplace_back(Loopback(GetParam().v4));
  for (uint32_t round = 0; round < 3; ++round) {
    for (uint32_t i = 0; i < GetParam().sockets; ++i) {
      auto fresh = ReplaceUdp(group_[i], to_.port, true, true);
      ASSERT_TRUE(fresh.ok()) << fresh.status();
      EXPECT_TRUE(fresh->exact);
      const UdpSocket old = std::exchange(group_[i], std::move(fresh->fresh));
      for (uint32_t seed = 0; Source & source : sources) {
        ASSERT_NO_FATAL_FAILURE(CheckAll(source, round * 1000 + seed++));
      }
      EXPECT_EQ(Take(old), 0u);
    }
  }
}

// One that joins gets nothing before its turn: what it would get is dealt as before.
TEST_P(SteeringTest, OneMoreInTheGroupGetsNothing) {
  UdpConfig config = group_[0].config;
  config.bind.port = to_.port;
  auto more = OpenUdpSocket(config, true, true);
  ASSERT_TRUE(more.ok()) << more.status();
  Source source(Loopback(GetParam().v4));
  for (uint32_t seed = 0; seed < 32; ++seed) ASSERT_NO_FATAL_FAILURE(CheckAll(source, seed));
  EXPECT_EQ(Take(*more), 0u);
}

std::vector<Param> Params() {
  std::vector<Param> params;
  for (const bool v4 : {true, false}) {
    for (const uint32_t sockets : {2, 3, 4}) {
      params.push_back({v4, sockets, Steering::kSource});
      params.push_back({v4, sockets, Steering::kReceiverIndex});
    }
    params.push_back({v4, 2, Steering::kReceiverIndex, /*all_addresses=*/false});
  }
  return params;
}
INSTANTIATE_TEST_SUITE_P(All, SteeringTest, testing::ValuesIn(Params()),
                         [](const testing::TestParamInfo<Param>& info) {
                           std::string name = info.param.v4 ? "V4" : "V6";
                           name += info.param.steering == Steering::kSource ? "Source" : "Index";
                           name += info.param.all_addresses ? "Any" : "One";
                           return name + std::to_string(info.param.sockets);
                         });

// What embedders may rely on.
TEST(SteeredSocketTest, TheIndexIsLittleEndianAndTakenModulo) {
  const Endpoint from = Loopback(true, 1);
  EXPECT_EQ(SteeredSocket(Steering::kReceiverIndex, from, WireGuard(4, 0x12345678, 0), 7),
            0x12345678u % 7);
  EXPECT_EQ(SteeredSocket(Steering::kReceiverIndex, from, WireGuard(2, 0, 0xfedcba98), 504),
            0xfedcba98u % 504);
  EXPECT_EQ(SteeredSocket(Steering::kNone, from, WireGuard(4, 1, 1), 4), 0u);
}

TEST(SteeredSocketTest, SourcesAreSpreadEvenly) {
  for (const bool many_addresses : {false, true}) {
    std::vector<uint32_t> count(4);
    for (uint32_t i = 0; i < 4000; ++i) {
      const Endpoint from =
          many_addresses ? Endpoint{IpAddress::V4((10u << 24) + i), 41641}
                         : Endpoint{IpAddress::V4(192, 0, 2, 1), static_cast<uint16_t>(1024 + i)};
      ++count[SteeredSocket(Steering::kSource, from, {}, 4)];
    }
    for (const uint32_t each : count) {
      EXPECT_GT(each, 850u);
      EXPECT_LT(each, 1150u);
    }
  }
}

}  // namespace
}  // namespace ringsock::io
