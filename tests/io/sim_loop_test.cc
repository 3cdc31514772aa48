// Faults at single sockets of a simulated loop, and trains that arrive merged, split or replayed.
#include <gtest/gtest.h>

#include <cerrno>
#include <string>
#include <vector>

#include "io/sim_network.h"
#include "tests/io/sim_node.h"

namespace ringsock::io {
namespace {

TEST_F(SimNetworkTest, TrainsArriveWholeMergedSplitOrCutAtRandom) {
  Node a(&net, net.AddHost("a", {V4(198, 51, 100, 1)}), 1000);
  Node b(&net, net.AddHost("b", {at_b.ip}), 2000);
  const auto arrive = [&](GroMode mode) {
    b.trains.clear();
    b.packets.clear();
    b.loop->faults(b.socket).gro = mode;
    a.Send(at_b, "aabbcc", 2);
    a.Send(at_b, "ddeef", 2);
    a.Send(at_b, "gg");
    net.RunUntilIdle();
    EXPECT_EQ(b.Text(), "aa|bb|cc|dd|ee|f|gg|");
    return b.trains;
  };
  EXPECT_EQ(arrive(GroMode::kAsSent), (std::vector<uint32_t>{3, 3, 1}));
  EXPECT_EQ(arrive(GroMode::kMerge), (std::vector<uint32_t>{6, 1}));  // a short one ends a train
  EXPECT_EQ(arrive(GroMode::kSplit), (std::vector<uint32_t>(7, 1)));
  bool differs = false;
  const std::vector<uint32_t> first = arrive(GroMode::kRandom);
  for (int i = 0; i < 20; ++i) differs |= arrive(GroMode::kRandom) != first;
  EXPECT_TRUE(differs);
}

TEST_F(SimNetworkTest, RefusedTrainIsReplayedInOrderAndNothingTwice) {
  Node a(&net, net.AddHost("a", {V4(198, 51, 100, 1)}), 1000);
  Node b(&net, net.AddHost("b", {at_b.ip}), 2000);
  for (const int error : {EMSGSIZE, EINVAL, EIO}) {
    a.loop->faults(a.socket).sends = {{.error = error, .trains_only = true}};
    a.Send(at_b, "112233", 2);
  }
  EXPECT_EQ(a.loop->Stats(a.socket).tx_replayed, 1u) << "the destination is remembered";
  net.RunUntilIdle();
  EXPECT_EQ(b.Text(), "11|22|33|11|22|33|11|22|33|");
  EXPECT_TRUE(a.failures.empty());
  EXPECT_EQ(a.loop->Stats(a.socket).tx_packets, 9u);
}

TEST_F(SimNetworkTest, FailuresOfSinglePacketsAreReportedAlone) {
  Node a(&net, net.AddHost("a", {V4(198, 51, 100, 1)}), 1000);
  Node b(&net, net.AddHost("b", {at_b.ip}), 2000);
  // The train, then its first packet.
  a.loop->faults(a.socket).sends = {{.error = EIO}, {.error = EPERM}};
  a.Send(at_b, "112233", 2);
  EXPECT_EQ(a.failures, std::vector<int>{EPERM});
  // No replay can help here: the whole train is lost and reported.
  Node c(&net, a.host, 1001);
  c.loop->faults(c.socket).sends = {{.error = ENOBUFS}};
  c.Send(at_b, "445566", 2);
  c.Send(at_b, "77");
  EXPECT_EQ(c.failures, (std::vector<int>{ENOBUFS, ENOBUFS, ENOBUFS}));
  EXPECT_EQ(c.loop->Stats(c.socket).tx_failed, 3u);
  net.RunUntilIdle();
  EXPECT_EQ(b.Text(), "22|33|77|");
}

TEST_F(SimNetworkTest, StarvationDelaysTruncationAndFullBuffersDropAndAllIsCounted) {
  Node a(&net, net.AddHost("a", {V4(198, 51, 100, 1)}), 1000);
  Node b(&net, net.AddHost("b", {at_b.ip}), 2000);
  b.loop->faults(b.socket) = {.starved_polls = 3, .truncated_trains = 1};
  a.Send(at_b, "112233", 2);
  a.Send(at_b, "4");
  net.RunUntilIdle();
  EXPECT_EQ(b.Text(), "4|");
  EXPECT_EQ(b.loop->Stats(b.socket).rx_starved, 3u);
  EXPECT_EQ(b.loop->Stats(b.socket).rx_truncated, 1u);

  const auto opened =
      b.loop->OpenUdp({.bind = {IpAddress::AnyV4(), 2001, 0}, .receive_buffer = 3000}, &b);
  ASSERT_TRUE(opened.ok());
  for (int i = 0; i < 10; ++i) a.Send({at_b.ip, 2001, 0}, std::string(1000, 'x'));
  net.RunUntilIdle();
  const UdpStats stats = b.loop->Stats(*opened);
  EXPECT_EQ(stats.rx_packets, 3u);
  EXPECT_EQ(stats.rx_kernel_drops, 7u);
}

TEST_F(SimNetworkTest, BytesShownToAHandlerAreOverwrittenAfterwards) {
  struct Hoarder final : UdpHandler {
    void OnReceive(SocketId, std::span<const RxTrain> trains) override { kept = trains[0].data; }
    void OnSendFailure(SocketId, const SendFailure&) override {}
    const std::byte* kept = nullptr;
  } hoarder;
  Node a(&net, net.AddHost("a", {V4(198, 51, 100, 1)}), 1000);
  const auto loop = net.CreateLoop(net.AddHost("b", {at_b.ip}), {});
  ASSERT_TRUE(loop->OpenUdp({.bind = at_b}, &hoarder).ok());
  a.Send(at_b, "x");
  net.RunUntilIdle();
  ASSERT_NE(hoarder.kept, nullptr);
  EXPECT_NE(*hoarder.kept, std::byte{'x'});
}

TEST_F(SimNetworkTest, SlabsRunOutWhileTheKernelHoldsThem) {
  Node a(&net, net.AddHost("a", {V4(198, 51, 100, 1)}), 1000, {.tx_slabs = 2});
  a.loop->HoldSlabs(true);
  for (int i = 0; i < 2; ++i) {
    TxSlab* slab = a.loop->AcquireSlab();
    ASSERT_NE(slab, nullptr);
    EXPECT_GE(slab->capacity, kMaxDatagram);
    a.loop->Send(a.socket, {.data = slab->data, .size = 1, .to = at_b, .slab = slab});
  }
  a.loop->Flush();
  EXPECT_EQ(a.loop->AcquireSlab(), nullptr);
  a.loop->HoldSlabs(false);
  EXPECT_NE(a.loop->AcquireSlab(), nullptr);
}

}  // namespace
}  // namespace ringsock::io
