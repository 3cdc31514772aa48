// The recvmmsg/sendmmsg loop against a kernel that refuses: this program's own sendmmsg and sendmsg
// stand before those of the C library, so that the loop is the one that is shipped.
#include "io/mmsg_loop.h"

#include <dlfcn.h>
#include <gtest/gtest.h>
#include <netinet/udp.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>
#include <functional>

#include "tests/io/loop_world.h"

namespace {

// Returns what the call shall fail with, 0 to let it pass. Asked for every message on its own.
std::function<int(const msghdr&)> g_refuse;
// The most messages one sendmmsg takes.
unsigned g_most = 1024;
unsigned g_calls = 0;
// What receiving fails with, so many times.
int g_receive_error = 0;
unsigned g_receive_errors = 0;

bool IsTrain(const msghdr& header) {
  for (cmsghdr* each = CMSG_FIRSTHDR(&header); each != nullptr;
       each = CMSG_NXTHDR(const_cast<msghdr*>(&header), each)) {
    if (each->cmsg_level == SOL_UDP && each->cmsg_type == UDP_SEGMENT) return true;
  }
  return false;
}

int Refusal(const msghdr& header) { return g_refuse ? g_refuse(header) : 0; }

}  // namespace

extern "C" int sendmmsg(int fd, mmsghdr* messages, unsigned count, int flags) {
  static const auto next =
      reinterpret_cast<int (*)(int, mmsghdr*, unsigned, int)>(dlsym(RTLD_NEXT, "sendmmsg"));
  ++g_calls;
  unsigned good = 0;
  for (int error = 0; good < count && good < g_most; ++good) {
    if ((error = Refusal(messages[good].msg_hdr)) == 0) continue;
    if (good > 0) break;
    errno = error;
    return -1;
  }
  return next(fd, messages, good, flags);
}

extern "C" ssize_t sendmsg(int fd, const msghdr* message, int flags) {
  static const auto next =
      reinterpret_cast<ssize_t (*)(int, const msghdr*, int)>(dlsym(RTLD_NEXT, "sendmsg"));
  if (const int error = Refusal(*message); error != 0) {
    errno = error;
    return -1;
  }
  return next(fd, message, flags);
}

extern "C" int recvmmsg(int fd, mmsghdr* messages, unsigned count, int flags, timespec* timeout) {
  static const auto next = reinterpret_cast<int (*)(int, mmsghdr*, unsigned, int, timespec*)>(
      dlsym(RTLD_NEXT, "recvmmsg"));
  if (g_receive_errors > 0) {
    --g_receive_errors;
    errno = g_receive_error;
    return -1;
  }
  return next(fd, messages, count, flags, timeout);
}

namespace ringsock::io {
namespace {

class MmsgLoopTest : public testing::Test {
 protected:
  MmsgLoopTest() : loop_(MakeMmsgLoop({}).value()) {
    UdpConfig config;
    config.bind = {IpAddress::V4(127, 0, 0, 1), 0, 0};
    from_ = loop_->OpenUdp(config, &recorder_).value();
    to_ = loop_->OpenUdp(config, &recorder_).value();
  }
  ~MmsgLoopTest() override {
    g_refuse = nullptr;
    g_most = 1024;
    g_receive_errors = 0;
  }

  // A train whose packets carry the next numbers.
  void Queue(uint32_t packets, uint32_t segment = 100) {
    std::vector<std::byte>& bytes = sent_.emplace_back(packets * segment);
    for (uint32_t i = 0; i < packets; ++i, ++next_) {
      memcpy(bytes.data() + i * segment, &next_, sizeof next_);
    }
    loop_->Send(from_,
                {bytes.data(), packets * segment, segment, loop_->LocalEndpoint(to_), {}, nullptr});
  }
  // The numbers that arrived, in order.
  std::vector<uint32_t> Arrived() {
    const Instant guard = SystemClock().Now() + std::chrono::seconds(20);
    // What has left may take a moment, and there must be nothing more.
    while (recorder_.count < Stats().tx_packets && SystemClock().Now() < guard) {
      loop_->Poll(Instant::min());
    }
    while (loop_->Poll(Instant::min()) > 0) {
    }
    std::vector<uint32_t> numbers;
    for (const Received& packet : recorder_.packets) {
      uint32_t number = 0;
      memcpy(&number, packet.bytes.data(), sizeof number);
      numbers.push_back(number);
    }
    return numbers;
  }
  static std::vector<uint32_t> UpTo(uint32_t end, uint32_t without_from = 0, uint32_t without = 0) {
    std::vector<uint32_t> numbers;
    for (uint32_t i = 0; i < end; ++i) {
      if (i < without_from || i >= without_from + without) numbers.push_back(i);
    }
    return numbers;
  }
  UdpStats Stats() { return loop_->Stats(from_); }

  std::unique_ptr<Loop> loop_;
  Recorder recorder_;
  SocketId from_ = 0, to_ = 0;
  uint32_t next_ = 0;
  std::deque<std::vector<std::byte>> sent_;
};

TEST_F(MmsgLoopTest, NothingIsSentTwiceWhenTheKernelStopsEarly) {
  g_most = 3;
  for (uint32_t i = 0; i < 40; ++i) Queue(1 + i % 3);
  loop_->Flush();
  EXPECT_EQ(Arrived(), UpTo(next_));
  EXPECT_EQ(Stats().tx_packets, next_);
}

TEST_F(MmsgLoopTest, EioReplaysTrainsInPlaceAndEndsThemForTheDestination) {
  g_refuse = [](const msghdr& header) { return IsTrain(header) ? EIO : 0; };
  Queue(1);
  Queue(10);
  Queue(1);
  Queue(5);
  Queue(1);
  loop_->Flush();
  EXPECT_EQ(Arrived(), UpTo(18));
  EXPECT_EQ(Stats().tx_replayed, 2u);
  EXPECT_TRUE(recorder_.failures.empty());

  Queue(20);
  g_calls = 0;
  loop_->Flush();
  EXPECT_EQ(Arrived(), UpTo(38));
  EXPECT_EQ(Stats().tx_replayed, 2u) << "it tried again";
  EXPECT_EQ(g_calls, 1u) << "packets of their own still leave in one call";
}

TEST_F(MmsgLoopTest, EmsgsizeEndsTrainsOfThatSizeOnly) {
  g_refuse = [](const msghdr& header) {
    return IsTrain(header) && header.msg_iov->iov_len >= 14000 ? EMSGSIZE : 0;
  };
  Queue(10, 1400);
  loop_->Flush();
  Queue(10, 1400);
  Queue(10, 1000);
  loop_->Flush();
  EXPECT_EQ(Arrived(), UpTo(30));
  EXPECT_EQ(Stats().tx_replayed, 1u);
  EXPECT_EQ(Stats().tx_trains, 21u);
}

TEST_F(MmsgLoopTest, AReplayReportsOnlyWhatFailsAlone) {
  uint32_t refused = 0;
  g_refuse = [&](const msghdr& header) {
    if (IsTrain(header)) return EMSGSIZE;
    uint32_t number = 0;
    memcpy(&number, header.msg_iov->iov_base, sizeof number);
    if (number != 3 && number != 4) return 0;
    ++refused;
    return EPERM;
  };
  Queue(10);
  loop_->Flush();
  EXPECT_EQ(Arrived(), UpTo(10, 3, 2));
  EXPECT_EQ(refused, 2u);
  ASSERT_EQ(recorder_.failures.size(), 1u);
  EXPECT_EQ(recorder_.failures[0].packets, 2u);
  EXPECT_EQ(recorder_.failures[0].error, EPERM);
  EXPECT_EQ(recorder_.failures[0].first_byte, sent_[0].data() + 300);
  EXPECT_EQ(Stats().tx_failed, 2u);
  EXPECT_EQ(Stats().tx_packets, 8u);
}

TEST_F(MmsgLoopTest, AFullBufferLosesTheTrainAndNothingElse) {
  for (const int error : {EAGAIN, ENOBUFS, ENETUNREACH}) {
    recorder_.failures.clear();
    recorder_.packets.clear();
    next_ = 0;
    g_refuse = [error](const msghdr& header) { return IsTrain(header) ? error : 0; };
    Queue(1);
    Queue(10);
    Queue(1);
    loop_->Flush();
    EXPECT_EQ(Arrived(), UpTo(12, 1, 10));
    ASSERT_EQ(recorder_.failures.size(), 1u);
    EXPECT_EQ(recorder_.failures[0].packets, 10u);
    EXPECT_EQ(recorder_.failures[0].error, error);
  }
  EXPECT_EQ(Stats().tx_replayed, 0u);
}

TEST_F(MmsgLoopTest, AnInterruptedCallIsMadeAgain) {
  int interrupts = 3;
  g_refuse = [&](const msghdr&) { return interrupts-- > 0 ? EINTR : 0; };
  Queue(4);
  loop_->Flush();
  EXPECT_EQ(Arrived(), UpTo(4));
}

TEST_F(MmsgLoopTest, ReceiveErrorsAreCountedAndPausedAndPass) {
  loop_->CloseUdp(to_);
  g_receive_error = ENOMEM;
  g_receive_errors = 10;
  const Instant end = SystemClock().Now() + std::chrono::seconds(20);
  while (g_receive_errors > 0 && SystemClock().Now() < end) loop_->Poll(end);
  EXPECT_EQ(g_receive_errors, 0u) << "a pause ends by itself, with nothing to read";
  EXPECT_EQ(Stats().rx_errors, 10u);
  to_ = from_;
  Queue(1);
  loop_->Flush();
  while (recorder_.count == 0 && SystemClock().Now() < end) loop_->Poll(end);
  EXPECT_EQ(recorder_.count, 1u);
  EXPECT_EQ(Stats().rx_errors, 10u);
}

TEST_F(MmsgLoopTest, ASocketThatCannotReceiveDoesNotSpin) {
  g_receive_error = ENOMEM;
  g_receive_errors = 1'000'000;
  // Both sockets: three errors at once, then pauses of 1, 2, 3 ms and so on. Far fewer tries than a
  // loop makes that spins, however slow this host is.
  Queue(1);
  loop_->Flush();
  const Instant end = SystemClock().Now() + std::chrono::milliseconds(100);
  while (SystemClock().Now() < end) loop_->Poll(end);
  EXPECT_LE(1'000'000 - g_receive_errors, 100u);
  g_receive_errors = 0;
  const Instant guard = SystemClock().Now() + std::chrono::seconds(20);
  while (recorder_.count == 0 && SystemClock().Now() < guard) loop_->Poll(guard);
  EXPECT_EQ(recorder_.count, 1u);
}

TEST_F(MmsgLoopTest, HasABoundOnSockets) {
  UdpConfig config;
  config.bind = {IpAddress::V4(127, 0, 0, 1), 0, 0};
  config.receive_buffer = config.send_buffer = 4096;
  absl::Status last;
  for (int i = 0; i < 300 && last.ok(); ++i) last = loop_->OpenUdp(config, &recorder_).status();
  EXPECT_EQ(last.code(), absl::StatusCode::kResourceExhausted) << last;
}

}  // namespace
}  // namespace ringsock::io
