// What becomes of sockets that were replaced: packets that come late, and their end.
#include "io/udp_reopen.h"

#include <poll.h>
#include <sys/socket.h>

#include <gtest/gtest.h>

namespace ringsock::io {
namespace {

constexpr SocketId kId = 7;

struct Recorder final : public UdpHandler {
  void OnReceive(SocketId socket, std::span<const RxTrain> trains) override {
    EXPECT_EQ(socket, kId);
    for (const RxTrain& train : trains) bytes += train.size;
  }
  void OnSendFailure(SocketId, const SendFailure&) override { FAIL() << "nothing is sent"; }
  uint32_t bytes = 0;
};

// The old socket is told nothing here, so that what is sent to it plays the late packets.
class RetiredSocketsTest : public testing::Test {
 protected:
  RetiredSocketsTest() {
    UdpConfig config;
    config.bind.ip = IpAddress::V4(127, 0, 0, 1);
    auto opened = OpenUdpSocket(config, /*gso=*/false, /*gro=*/false);
    EXPECT_TRUE(opened.ok()) << opened.status();
    old_ = *std::move(opened);
    to_ = old_.local;
    sender_ = *OpenUdpSocket(config, /*gso=*/false, /*gro=*/false);
  }
  // On loopback it is there when this returns.
  void Send(uint32_t bytes) {
    const std::string data(bytes, 'x');
    sockaddr_storage address{};
    const socklen_t length = to_.ToSockaddr(&address);
    EXPECT_EQ(sendto(sender_.fd.get(), data.data(), bytes, 0,
                     reinterpret_cast<const sockaddr*>(&address), length),
              static_cast<ssize_t>(bytes));
  }
  uint64_t Retire(bool keep) {
    return retired_.Retire(std::move(old_), keep, kId, &stats_, &recorder_, clock_.Now());
  }
  // Whether its port is free, so that it has been closed.
  bool Closed() {
    UdpConfig config;
    config.bind = to_;
    return OpenUdpSocket(config, /*gso=*/false, /*gro=*/false).ok();
  }

  ManualClock clock_;
  Recorder recorder_;
  UdpStats stats_;
  UdpSocket old_;
  UdpSocket sender_;
  Endpoint to_;
  uint32_t flushes_ = 0;
  RetiredSockets retired_{[this] { ++flushes_; }};
};

TEST_F(RetiredSocketsTest, LatePacketsAreDelivered) {
  EXPECT_EQ(retired_.NextLook(), Instant::max());
  Send(100);
  EXPECT_EQ(Retire(/*keep=*/true), 0u);
  EXPECT_EQ(recorder_.bytes, 100u);
  EXPECT_EQ(flushes_, 1u);

  Send(10);
  Send(1);
  EXPECT_EQ(retired_.Look(clock_), 0u) << "not yet";
  EXPECT_EQ(retired_.NextLook(), clock_.Now() + RetiredSockets::kLookEvery);
  clock_.Advance(RetiredSockets::kLookEvery);
  EXPECT_EQ(retired_.Look(clock_), 2u);
  EXPECT_EQ(recorder_.bytes, 111u);
  EXPECT_EQ(stats_.rx_packets, 3u);
  EXPECT_EQ(stats_.rx_bytes, 111u);
  EXPECT_EQ(flushes_, 3u);
  EXPECT_EQ(retired_.NextLook(), clock_.Now() + RetiredSockets::kLookEvery);
  EXPECT_FALSE(Closed());

  Send(5);
  clock_.Advance(RetiredSockets::kKeep);
  EXPECT_EQ(retired_.Look(clock_), 1u) << "a last time";
  EXPECT_EQ(recorder_.bytes, 116u);
  EXPECT_TRUE(Closed());
  EXPECT_EQ(retired_.NextLook(), Instant::max());
  EXPECT_EQ(retired_.Look(clock_), 0u);
}

// What it was told about what it had sent.
TEST_F(RetiredSocketsTest, ErrorsAreCounted) {
  sockaddr_storage address{};
  const socklen_t length = sender_.local.ToSockaddr(&address);
  sender_.fd.Close();  // nobody has that port
  ASSERT_EQ(connect(old_.fd.get(), reinterpret_cast<const sockaddr*>(&address), length), 0);
  ASSERT_EQ(send(old_.fd.get(), "x", 1, 0), 1);
  pollfd error{old_.fd.get(), 0, 0};
  ASSERT_EQ(poll(&error, 1, 20'000), 1);
  EXPECT_EQ(Retire(/*keep=*/true), 0u);
  EXPECT_EQ(stats_.rx_errors, 1u);
  EXPECT_EQ(stats_.rx_packets, 0u);
}

TEST_F(RetiredSocketsTest, ClosedWithItsSlot) {
  Retire(/*keep=*/true);
  retired_.Close(kId + 1);
  EXPECT_FALSE(Closed());
  retired_.Close(kId);
  EXPECT_TRUE(Closed());
  EXPECT_EQ(retired_.NextLook(), Instant::max());
}

TEST_F(RetiredSocketsTest, MakesRoom) {
  Retire(/*keep=*/true);
  Send(100);
  retired_.MakeRoom(kId + 1, /*shared=*/false);
  retired_.MakeRoom(kId, /*shared=*/true);
  EXPECT_EQ(recorder_.bytes, 0u);
  EXPECT_FALSE(Closed());
  retired_.MakeRoom(kId, /*shared=*/false);
  EXPECT_EQ(recorder_.bytes, 100u);
  EXPECT_TRUE(Closed());
  EXPECT_EQ(retired_.NextLook(), Instant::max()) << "or the loop never sleeps again";
}

TEST_F(RetiredSocketsTest, AreNeverMany) {
  const Endpoint first = to_;
  for (size_t i = 0; i < RetiredSockets::kMost; ++i) {
    Retire(/*keep=*/true);
    old_ = *OpenUdpSocket({.bind = {IpAddress::V4(127, 0, 0, 1), 0, 0}}, false, false);
  }
  to_ = first;
  EXPECT_FALSE(Closed());
  Send(100);
  retired_.MakeRoom(kId, /*shared=*/true);
  EXPECT_EQ(recorder_.bytes, 100u);
  EXPECT_TRUE(Closed());
}

// Of a port that is given up nothing may stay, or it would not be free for others.
TEST_F(RetiredSocketsTest, AnotherPortEndsAll) {
  const Endpoint first = to_;
  Retire(/*keep=*/true);
  Send(10);
  old_ = *OpenUdpSocket({.bind = {IpAddress::V4(127, 0, 0, 1), 0, 0}}, false, false);
  to_ = old_.local;
  Send(100);
  EXPECT_EQ(Retire(/*keep=*/false), 0u);
  EXPECT_EQ(recorder_.bytes, 110u);
  EXPECT_TRUE(Closed());
  to_ = first;
  EXPECT_TRUE(Closed());
}

}  // namespace
}  // namespace ringsock::io
