// A gateway under a flood of strangers: what a peer sends still reaches WireGuard, all of it and in
// order; the strangers get no more loopback addresses than their part of the range, and the
// counters say what they were.
#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "gateway/gateway.h"
#include "tests/gateway/udp_peer.h"
#include "tests/gateway/wireguard_messages.h"

namespace ringsock::gateway {
namespace {

enum class Kind { kData, kHandshake, kGarbage };

constexpr uint32_t kRounds = 40;
constexpr size_t kStrangers = 160;
// Of a round; with the good ones they fit the smallest socket buffer that a host may insist on.
constexpr size_t kBad = 40;
constexpr uint32_t kGood = 10;

class FloodTest : public testing::TestWithParam<Kind> {
 protected:
  void SetUp() override {
    config_.wireguard_port = wireguard_.local().port;
    config_.wireguard_key = KeyOf('9');
    config_.local_port = FreePort();
    config_.range = *LoopbackRange::Parse("127.100.0.0/24");
    config_.bind_v4 = IpAddress::V4(127, 0, 0, 1);
    config_.ipv6 = false;
    config_.pin_threads = false;
    config_.shards = 1;
    config_.peers.push_back({KeyOf('1'), "alice", {alice_.local()}});
    auto gateway = Gateway::Start(config_);
    ASSERT_TRUE(gateway.ok()) << gateway.status();
    gateway_ = *std::move(gateway);
    public_ = {IpAddress::V4(127, 0, 0, 1), gateway_->port()};
  }
  Bytes Bad(uint32_t number) const {
    switch (GetParam()) {
      case Kind::kData:
        return Transport(1'000'000 + number);
      case Kind::kHandshake:
        return Initiation(number, KeyOf('8'));  // for somebody else
      default:
        return Bytes(1 + number % 1000, std::byte{0xee});
    }
  }

  UdpPeer wireguard_, alice_;
  std::vector<UdpPeer> strangers_ = std::vector<UdpPeer>(kStrangers);
  Config config_;
  std::unique_ptr<Gateway> gateway_;
  Endpoint public_;
};

TEST_P(FloodTest, APeerIsServedAllTheSame) {
  uint32_t sent = 0, received = 0, strangers_received = 0;
  for (uint32_t round = 0; round < kRounds; ++round) {
    for (size_t i = 0; i < kBad; ++i) {
      const auto number = static_cast<uint32_t>(round * kBad + i);
      strangers_[number % kStrangers].Send(public_, Bad(number));
      if (i % (kBad / kGood) == 0) alice_.Send(public_, Transport(++sent));
    }
    while (received < sent) {
      const Bytes bytes = wireguard_.Receive().bytes;
      ASSERT_GE(bytes.size(), 8u) << "after " << received << " of " << sent;
      if (bytes == Transport(received + 1)) {
        ++received;
      } else {
        ++strangers_received;
        ASSERT_EQ(GetParam(), Kind::kData) << "nothing else of them goes to WireGuard";
      }
    }
  }
  const uint64_t flood = uint64_t{kRounds} * kBad;
  const GatewaySnapshot counters = gateway_->Counters();
  const uint64_t dropped =
      counters[Count::kNoAddress] + counters[Count::kNotForUs] + counters[Count::kMalformed];
  // The last of a round come behind the last good one: they are counted or shown by the next.
  EXPECT_GE(dropped + strangers_received + kBad, flood);
  EXPECT_LE(dropped + strangers_received, flood);
  // A quarter of the range is for unknown sources.
  EXPECT_LE(counters[Count::kPendingAddresses], config_.range.size / 4);
  const Count expected = GetParam() == Kind::kData        ? Count::kNoAddress
                         : GetParam() == Kind::kHandshake ? Count::kNotForUs
                                                          : Count::kMalformed;
  EXPECT_EQ(counters[expected], dropped) << counters.ToString();
  EXPECT_GT(dropped, 0u);
}

INSTANTIATE_TEST_SUITE_P(All, FloodTest,
                         testing::Values(Kind::kData, Kind::kHandshake, Kind::kGarbage),
                         [](const testing::TestParamInfo<Kind>& info) {
                           return info.param == Kind::kData        ? "Data"
                                  : info.param == Kind::kHandshake ? "Handshake"
                                                                   : "Garbage";
                         });

}  // namespace
}  // namespace ringsock::gateway
