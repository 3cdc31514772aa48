// What only a simulated network can do to a stream: loss, rates, partitions, NAT, hosts that
// forget.
#include "io/sim_streams.h"

#include "tests/io/sim_node.h"
#include "tests/io/stream_world.h"

namespace ringsock::io {
namespace {

using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::seconds;

class SimStreamsTest : public SimNetworkTest {
 protected:
  // Host a connects to host b, which listens.
  void Pair(RealmId realm = kInternet, ConnectConfig config = {}) {
    a = net.AddHost("a", {realm == kInternet ? V4(198, 51, 100, 1) : V4(192, 168, 1, 2)}, realm);
    b = net.AddHost("b", {at_b.ip});
    for (const HostId host : {a, b}) net.uplink(host).options.delay = milliseconds(10);
    loop_a = net.CreateLoop(a, {});
    loop_b = net.CreateLoop(b, {});
    acceptor.loop = loop_b->streams();
    ASSERT_TRUE(loop_b->streams()->Listen({.bind = at_b}, &acceptor).ok());
    config.to = at_b;
    end.loop = loop_a->streams();
    end.id = end.loop->Connect(config, &end).value();
  }
  void Connected() {
    net.RunFor(seconds(1));
    ASSERT_EQ(end.connects, 1);
    ASSERT_EQ(acceptor.ends.size(), 1u);
    other = acceptor.ends[0].get();
  }
  // Sends `total` bytes as fast as they are taken.
  void Pump(uint64_t total) {
    const auto more = [this, total](StreamId) {
      while (end.sent < total && end.SendNext(std::min<uint64_t>(65536, total - end.sent)) > 0) {
      }
    };
    end.on_writable = more;
    more(end.id);
  }

  HostId a{}, b{};
  std::unique_ptr<SimLoop> loop_a, loop_b;
  Acceptor acceptor;
  StreamEnd end;
  StreamEnd* other = nullptr;
};

TEST_F(SimStreamsTest, LossAndReorderingAreMadeGood) {
  Pair();
  Connected();
  for (const HostId host : {a, b}) {
    net.uplink(host).options.loss = 0.02;
    net.uplink(host).options.reorder = 0.02;
    net.uplink(host).options.duplicate = 0.02;
  }
  Pump(3'000'000);
  net.RunFor(minutes(10));
  EXPECT_EQ(other->received, 3'000'000u);
  EXPECT_TRUE(other->in_order);
  end.loop->Close(end.id);
  net.RunFor(minutes(1));
  EXPECT_EQ(other->ends, 1);
  EXPECT_FALSE(other->closed) << other->why;
}

TEST_F(SimStreamsTest, TheRateOfALinkHoldsBytesBack) {
  Pair();
  Connected();
  net.uplink(a).options.bytes_per_second = 125'000;  // 1 Mb/s
  Pump(1'000'000);
  net.RunFor(seconds(4));
  EXPECT_GT(other->received, 400'000u);
  EXPECT_LT(other->received, 500'000u);
  net.RunFor(seconds(6));
  EXPECT_EQ(other->received, 1'000'000u);
}

TEST_F(SimStreamsTest, GoesOnAfterAPartition) {
  Pair();
  Connected();
  net.SetPartition(a, b, true);
  Pump(100'000);
  net.RunFor(seconds(60));
  EXPECT_EQ(other->received, 0u);
  EXPECT_FALSE(end.closed || other->closed);
  net.SetPartition(a, b, false);
  net.RunFor(seconds(30));
  EXPECT_EQ(other->received, 100'000u);
}

TEST_F(SimStreamsTest, UserTimeoutEndsAHalfOpenConnection) {
  ConnectConfig config;
  config.options.user_timeout = seconds(20);
  Pair(kInternet, config);
  Connected();
  net.SetPartition(a, b, true);
  end.SendNext(1);
  net.RunFor(seconds(15));
  EXPECT_FALSE(end.closed);
  net.RunFor(seconds(20));
  ASSERT_TRUE(end.closed);
  EXPECT_EQ(end.why.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_FALSE(other->closed) << "the silent side cannot know";
}

TEST_F(SimStreamsTest, AHostThatHasForgottenResets) {
  Pair();
  Connected();
  loop_b = nullptr;  // a crash: nothing is sent
  net.RunFor(seconds(1));
  EXPECT_FALSE(end.closed);
  end.SendNext(1);
  net.RunFor(seconds(1));
  ASSERT_TRUE(end.closed);
  EXPECT_EQ(end.why.code(), absl::StatusCode::kUnavailable);
}

TEST_F(SimStreamsTest, ASynThatIsLostIsSentAgain) {
  Pair();
  net.SetPartition(a, b, true);
  net.RunFor(milliseconds(500));
  net.SetPartition(a, b, false);
  net.RunFor(seconds(5));
  EXPECT_EQ(end.connects, 1);
  EXPECT_EQ(acceptor.ends.size(), 1u);
}

TEST_F(SimStreamsTest, PassesNatAndUdpBlocks) {
  const RealmId home = net.AddNat({}, {V4(203, 0, 113, 1)});
  Pair(home);
  net.SetUdpBlocked(a, true);
  Connected();
  EXPECT_EQ(acceptor.froms[0].ip, V4(203, 0, 113, 1));
  Pump(10'000);
  other->SendNext(10'000);
  net.RunFor(seconds(1));
  EXPECT_EQ(other->received, 10'000u);
  EXPECT_EQ(end.received, 10'000u);
}

TEST_F(SimStreamsTest, NothingHappensOnceAllIsSaid) {
  Pair();
  Connected();
  Pump(100'000);
  EXPECT_TRUE(net.RunUntilIdle());
  end.loop->Close(end.id);
  net.RunFor(seconds(1));
  other->loop->Close(other->id);
  EXPECT_TRUE(net.RunUntilIdle());
  EXPECT_EQ(loop_a->streams()->totals().open, 0u);
  EXPECT_EQ(loop_b->streams()->totals().open, 1u);
}

}  // namespace
}  // namespace ringsock::io
