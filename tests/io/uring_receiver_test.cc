// When a socket is received from without waiting, and when it waits, on the kernel that runs.
#include "io/uring_receiver.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <memory>
#include <utility>

#include "io/udp_socket.h"
#include "io/uring.h"

namespace ringsock::io {
namespace {

constexpr uint32_t kBuffers = 64;
constexpr SocketId kId = 7;

class UringReceiverTest : public testing::Test {
 protected:
  void SetUp() override {
    if (const auto status = ProbeUring(); !status.ok()) {
      GTEST_SKIP() << std::string(status.message());
    }
    without_waiting_ = ProbeReceiveWithoutWaiting();
    ASSERT_TRUE(ring_.Open(64, 256).ok());
    ring_.Enable();
    ASSERT_TRUE(buffers_.Open(ring_.get(), 0, kBuffers).ok());
    receiver_.MayNotWait(without_waiting_);
    UdpConfig config;
    config.bind = {IpAddress::V4(127, 0, 0, 1), 0, 0};
    auto receiving = OpenUdpSocket(config, false, false);
    auto sending = OpenUdpSocket(config, false, false);
    ASSERT_TRUE(receiving.ok() && sending.ok());
    sending_ = std::move(sending->fd);
    socket_ = std::make_unique<UringSocket>(kId, *std::move(receiving), nullptr, kBuffers);
    receiver_.Add(kId);
  }
  void TearDown() override { ring_.Close(); }

  void Send(uint32_t datagrams) {
    sockaddr_storage to{};
    const socklen_t length = socket_->udp.local.ToSockaddr(&to);
    for (uint32_t i = 0; i < datagrams; ++i) {
      ASSERT_EQ(sendto(sending_.get(), "x", 1, 0, reinterpret_cast<sockaddr*>(&to), length), 1);
    }
  }
  // One turn of a loop. Returns how many datagrams it brought.
  uint32_t Turn() {
    receiver_.Arm(SystemClock());
    ring_.SubmitAndRun();
    uint32_t received = 0;
    ring_.Drain([&](CompletionTag tag, const io_uring_cqe& cqe) {
      if (tag.kind() != CompletionTag::kReceive) return;
      received += receiver_.OnCompletion(socket_.get(), cqe, SystemClock());
    });
    if (!keep_) GiveBack();
    return received;
  }
  // In any number of turns: the kernel takes a break after some dozens of datagrams.
  void Expect(uint32_t datagrams) {
    uint32_t received = 0;
    for (int i = 0; i < 10 && received < datagrams; ++i) received += Turn();
    EXPECT_EQ(received, datagrams);
  }
  void GiveBack() {
    while (socket_->HasFilled()) buffers_.Return(socket_->PopFilled().buffer);
    buffers_.Publish();
  }
  // The kernel holds a receive that waits.
  bool waits() const { return socket_->armed && socket_->waits; }

  bool without_waiting_ = false;
  bool keep_ = false;  // the buffers
  BufferRing buffers_;
  Uring ring_;
  Fd sending_;
  std::unique_ptr<UringSocket> socket_;
  UringReceiver receiver_{&ring_, &buffers_,
                          [this](SocketId id) { return id == kId ? socket_.get() : nullptr; }};
};

TEST_F(UringReceiverTest, FewDatagramsAreWaitedFor) {
  EXPECT_EQ(Turn(), 0u);
  EXPECT_TRUE(waits());
  for (int i = 0; i < 5; ++i) {
    Send(UringReceiver::kBusy - 1);
    Expect(UringReceiver::kBusy - 1);
    EXPECT_TRUE(waits());
  }
}

TEST_F(UringReceiverTest, ABusySocketIsReceivedFromWithoutWaitingUntilItIsNot) {
  if (!without_waiting_) GTEST_SKIP() << "this kernel takes a buffer for nothing";
  Turn();
  Send(20);
  EXPECT_EQ(Turn(), 20u);
  EXPECT_TRUE(waits()) << "it is to end with the next turn";
  uint32_t received = Turn();
  EXPECT_FALSE(socket_->armed);
  EXPECT_TRUE(socket_->busy);
  for (int i = 0; i < 10; ++i) {
    Send(20);
    received += Turn();
    EXPECT_FALSE(socket_->armed) << "it took what was there, and ended";
    EXPECT_TRUE(socket_->busy);
  }
  EXPECT_EQ(received, 200u);
  Send(3);
  EXPECT_EQ(Turn(), 3u);
  EXPECT_FALSE(socket_->busy);
  EXPECT_EQ(Turn(), 0u);
  EXPECT_TRUE(waits());
  Send(1);
  EXPECT_EQ(Turn(), 1u);
}

TEST_F(UringReceiverTest, WithoutBuffersThereIsMore) {
  Turn();
  Send(kBuffers + 30);
  keep_ = true;
  Expect(kBuffers);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(Turn(), 0u);
  EXPECT_GT(socket_->stats.rx_starved, 0u);
  keep_ = false;
  GiveBack();
  Expect(30);
  for (int i = 0; i < 5 && !waits(); ++i) EXPECT_EQ(Turn(), 0u);
  EXPECT_TRUE(waits());
  EXPECT_EQ(socket_->stats.rx_errors, 0u);
}

// A loop that asked for it would never sleep again.
TEST_F(UringReceiverTest, ASocketThatGoesWhileItIsPausedLeavesNoTime) {
  io_uring_cqe failed{};
  failed.res = -ENOMEM;
  while (receiver_.next_resume() == Instant::max()) {
    receiver_.Remove(kId);
    receiver_.OnCompletion(socket_.get(), failed, SystemClock());
  }
  receiver_.Remove(kId);
  EXPECT_EQ(receiver_.next_resume(), Instant::max());
}

}  // namespace
}  // namespace ringsock::io
