// Sends of the io_uring loop that the kernel refuses: this program's own io_uring_enter2 stands
// before that of liburing. It turns requests that shall fail into no-operations with that result
// (Linux 6.10), so that everything else is the loop that is shipped and the kernel that runs.
#include "io/uring_sender.h"

#include <dlfcn.h>
#include <gtest/gtest.h>
#include <netinet/udp.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <functional>
#include <numeric>

#include "io/uring_loop.h"
#include "tests/io/loop_world.h"

namespace {

constexpr uint32_t kNopInjectResult = 1;     // IORING_NOP_INJECT_RESULT
constexpr uint32_t kNotification = 1u << 3;  // IORING_CQE_F_NOTIF
constexpr uint32_t kWasCopied = 1u << 31;    // IORING_NOTIF_USAGE_ZC_COPIED

io_uring* g_ring = nullptr;  // the one opened last
// Asked for every send; returns what it shall fail with, 0 to let it pass.
std::function<int(const msghdr&, bool zero_copy)> g_refuse;
bool g_zero_copy_pays = false;  // notifications say so, also on loopback
unsigned g_zero_copy_sends = 0;
unsigned g_registered_sends = 0;  // of these, those from registered memory
bool g_know_registered = true;    // Linux 6.15 and later do
bool g_old_kernel = false;        // knows no SEND with an address
unsigned g_single_sends = 0;

bool IsTrain(const msghdr& header) {
  for (cmsghdr* each = CMSG_FIRSTHDR(&header); each != nullptr;
       each = CMSG_NXTHDR(const_cast<msghdr*>(&header), each)) {
    if (each->cmsg_level == SOL_UDP && each->cmsg_type == UDP_SEGMENT) return true;
  }
  return false;
}

void Refuse(io_uring_sqe& sqe, int error) {
  const uint64_t tag = sqe.user_data;
  memset(&sqe, 0, sizeof sqe);
  sqe.opcode = IORING_OP_NOP;
  sqe.rw_flags = kNopInjectResult;
  sqe.len = static_cast<uint32_t>(-error);
  sqe.user_data = tag;
}

void RefuseSends(io_uring& ring) {
  for (unsigned at = *ring.sq.khead; at != *ring.sq.ktail; ++at) {
    io_uring_sqe& sqe = ring.sq.sqes[at & ring.sq.ring_mask];
    const bool zero_copy = sqe.opcode == IORING_OP_SENDMSG_ZC;
    const bool single = sqe.opcode == IORING_OP_SEND && sqe.addr2 != 0;
    if (!zero_copy && !single && sqe.opcode != IORING_OP_SENDMSG) continue;
    if (single && sqe.fd < 0) {  // asks whether the kernel knows it
      if (g_old_kernel) Refuse(sqe, EINVAL);
      continue;
    }
    if (single) ++g_single_sends;
    if (zero_copy) ++g_zero_copy_sends;
    iovec vector{reinterpret_cast<void*>(sqe.addr), sqe.len};
    msghdr header{};
    if (single) {
      header.msg_iov = &vector;
      header.msg_iovlen = 1;
    } else {
      memcpy(&header, reinterpret_cast<const void*>(sqe.addr), sizeof header);
    }
    int error = g_refuse ? g_refuse(header, zero_copy) : 0;
    if (zero_copy && (sqe.ioprio & IORING_RECVSEND_FIXED_BUF) != 0) {
      ++g_registered_sends;
      if (!g_know_registered) error = EINVAL;
    }
    if (error != 0) Refuse(sqe, error);
  }
}

void PraiseZeroCopy(io_uring& ring) {
  for (unsigned at = *ring.cq.khead; at != *ring.cq.ktail; ++at) {
    io_uring_cqe& cqe = ring.cq.cqes[at & ring.cq.ring_mask];
    if ((cqe.flags & kNotification) != 0) {
      cqe.res = static_cast<int>(static_cast<uint32_t>(cqe.res) & ~kWasCopied);
    }
  }
}

}  // namespace

extern "C" int io_uring_queue_init_params(unsigned entries, io_uring* ring,
                                          io_uring_params* params) {
  static const auto next = reinterpret_cast<int (*)(unsigned, io_uring*, io_uring_params*)>(
      dlsym(RTLD_NEXT, "io_uring_queue_init_params"));
  g_ring = ring;
  return next(entries, ring, params);
}

extern "C" int io_uring_enter2(unsigned fd, unsigned submit, unsigned complete, unsigned flags,
                               sigset_t* argument, size_t size) {
  RefuseSends(*g_ring);
  const auto result = syscall(__NR_io_uring_enter, fd, submit, complete, flags, argument, size);
  const int error = errno;
  if (g_zero_copy_pays) PraiseZeroCopy(*g_ring);
  return result < 0 ? -error : static_cast<int>(result);
}

namespace ringsock::io {
namespace {

class UringSenderTest : public testing::Test {
 protected:
  void SetUp() override { Start(); }
  void TearDown() override { Pass(); }
  // A new loop, with nothing behind it.
  void Start(const LoopOptions& options = {}) {
    Pass();
    recorder_.packets.clear();
    recorder_.failures.clear();
    auto loop = MakeUringLoop(options);
    if (!loop.ok()) GTEST_SKIP() << std::string(loop.status().message());
    loop_ = std::move(loop).value();
    UdpConfig config;
    config.bind = {IpAddress::V4(127, 0, 0, 1), 0, 0};
    from_ = loop_->OpenUdp(config, &recorder_).value();
    to_ = loop_->OpenUdp(config, &recorder_).value();
    g_refuse = [](const msghdr&, bool) { return ENOTTY; };
    Queue(1);
    loop_->Flush();
    if (recorder_.failures.empty() || recorder_.failures[0].error != ENOTTY) {
      GTEST_SKIP() << "no-operations of this kernel have no result (Linux 6.10)";
    }
    g_refuse = nullptr;
    g_zero_copy_sends = g_registered_sends = 0;
    recorder_.failures.clear();
    next_ = 0;
    before_ = loop_->Stats(from_);
  }
  static void Pass() {
    g_refuse = nullptr;
    g_zero_copy_pays = false;
    g_know_registered = true;
    g_old_kernel = false;
  }

  std::vector<std::byte> Numbers(uint32_t packets, uint32_t segment) {
    std::vector<std::byte> bytes(size_t{packets} * segment);
    for (uint32_t i = 0; i < packets; ++i, ++next_) {
      memcpy(bytes.data() + size_t{i} * segment, &next_, sizeof next_);
    }
    return bytes;
  }
  // A train whose packets carry the next numbers.
  void Queue(uint32_t packets, uint32_t segment = 100) {
    const auto& bytes = sent_.emplace_back(Numbers(packets, segment));
    loop_->Send(from_,
                {bytes.data(), packets * segment, segment, loop_->LocalEndpoint(to_), {}, nullptr});
  }
  // The same in a slab, long enough for zero copy.
  void QueueSlab(uint32_t packets = 20, uint32_t segment = 1000) {
    TxSlab* const slab = loop_->AcquireSlab();
    ASSERT_NE(slab, nullptr);
    const auto bytes = Numbers(packets, segment);
    memcpy(slab->data, bytes.data(), bytes.size());
    loop_->Send(from_,
                {slab->data, packets * segment, segment, loop_->LocalEndpoint(to_), {}, slab});
  }
  void PollUntil(const std::function<bool()>& done) {
    const Instant guard = SystemClock().Now() + std::chrono::seconds(20);
    while (!done() && SystemClock().Now() < guard) {
      loop_->Poll(SystemClock().Now() + std::chrono::milliseconds(1));
    }
    EXPECT_TRUE(done());
  }
  // Waits for so many packets, and a little for more; their numbers in order of arrival.
  std::vector<uint32_t> Arrived(size_t packets) {
    PollUntil([&] { return recorder_.packets.size() >= packets; });
    for (int i = 0; i < 3; ++i) loop_->Poll(SystemClock().Now());
    std::vector<uint32_t> numbers;
    for (const Received& packet : recorder_.packets) {
      memcpy(&numbers.emplace_back(), packet.bytes.data(), sizeof(uint32_t));
    }
    return numbers;
  }
  static std::vector<uint32_t> Range(uint32_t first, uint32_t end) {
    std::vector<uint32_t> numbers(end - first);
    std::iota(numbers.begin(), numbers.end(), first);
    return numbers;
  }
  UdpStats Stats() { return loop_->Stats(from_); }

  Recorder recorder_;
  std::unique_ptr<Loop> loop_;
  SocketId from_ = 0, to_ = 0;
  uint32_t next_ = 0;
  UdpStats before_;
  std::deque<std::vector<std::byte>> sent_;
};

TEST_F(UringSenderTest, RefusedTrainsAreReplayedInPlaceAndRemembered) {
  for (const int error : {EIO, EMSGSIZE, EINVAL}) {
    Start();
    g_refuse = [error](const msghdr& header, bool) { return IsTrain(header) ? error : 0; };
    for (const uint32_t packets : {1u, 10u, 1u, 5u, 5u, 1u, 1u}) Queue(packets);
    loop_->Flush();
    EXPECT_EQ(Arrived(24), Range(0, 24)) << strerror(error);
    EXPECT_TRUE(recorder_.failures.empty());
    const uint64_t replayed = Stats().tx_replayed;
    EXPECT_GE(replayed, 1u);
    Queue(20);
    loop_->Flush();
    EXPECT_EQ(Arrived(44), Range(0, 44));
    EXPECT_EQ(Stats().tx_replayed, replayed) << "it tried again";
  }
}

TEST_F(UringSenderTest, SinglePacketsNeedNoMessageWhereTheKernelTakesAnAddress) {
  g_single_sends = 0;
  for (const uint32_t packets : {1u, 3u, 1u}) Queue(packets);
  loop_->Flush();
  EXPECT_EQ(Arrived(5), Range(0, 5));
  EXPECT_EQ(g_single_sends, 2u);

  recorder_.packets.clear();
  next_ = 0;
  auto loop = MakeUringLoop({});
  ASSERT_TRUE(loop.ok()) << loop.status();
  loop_ = std::move(loop).value();
  UdpConfig config;
  config.bind = {IpAddress::V4(127, 0, 0, 1), 0, 0};
  from_ = loop_->OpenUdp(config, &recorder_).value();
  to_ = loop_->OpenUdp(config, &recorder_).value();
  g_old_kernel = true;
  g_single_sends = 0;
  for (const uint32_t packets : {1u, 3u, 1u}) Queue(packets);
  loop_->Flush();
  EXPECT_EQ(Arrived(5), Range(0, 5));
  EXPECT_EQ(g_single_sends, 0u);
}

TEST_F(UringSenderTest, ATrainThatFailedWithTheWayIsStillWelcomeLater) {
  g_refuse = [](const msghdr&, bool) { return EINVAL; };
  Queue(10);
  loop_->Flush();
  EXPECT_EQ(recorder_.failed_packets, 1u + 10u);
  g_refuse = nullptr;
  Queue(10);
  loop_->Flush();
  EXPECT_EQ(Arrived(10), Range(10, 20));
  EXPECT_EQ(Stats().tx_trains, before_.tx_trains + 1);
}

TEST_F(UringSenderTest, AFullBufferLosesTheTrainAndNothingElse) {
  for (const int error : {EAGAIN, ENOBUFS}) {
    Start();
    g_refuse = [error](const msghdr& header, bool) { return IsTrain(header) ? error : 0; };
    for (const uint32_t packets : {1u, 10u, 1u}) Queue(packets);
    loop_->Flush();
    EXPECT_EQ(Arrived(2), (std::vector<uint32_t>{0, 11}));
    ASSERT_EQ(recorder_.failures.size(), 1u);
    EXPECT_EQ(recorder_.failures[0].packets, 10u);
    EXPECT_EQ(recorder_.failures[0].error, error);
    EXPECT_EQ(Stats().tx_replayed, 0u);
  }
}

// As Linux 6.1 does, which knows no verdicts.
TEST_F(UringSenderTest, AKernelWithoutZeroCopyIsAskedOnce) {
  for (const int error : {EINVAL, EOPNOTSUPP}) {
    Start();
    g_refuse = [error](const msghdr&, bool zero_copy) { return zero_copy ? error : 0; };
    QueueSlab();
    loop_->Flush();
    const Instant later = SystemClock().Now() + 2 * ZeroCopyMemory::kTrialGap;
    PollUntil([&] { return SystemClock().Now() > later; });
    UdpConfig config;
    config.bind = {IpAddress::V4(127, 0, 0, 2), 0, 0};
    to_ = loop_->OpenUdp(config, &recorder_).value();
    QueueSlab();
    loop_->Flush();
    EXPECT_EQ(Arrived(40).size(), 40u);
    EXPECT_EQ(g_zero_copy_sends, 1u) << "a second destination is not asked";
    EXPECT_EQ(Stats().tx_trains, 2u) << "the copies left as trains";
    EXPECT_TRUE(recorder_.failures.empty());
  }
}

TEST_F(UringSenderTest, ATrainWhoseZeroCopyFailsIsNotSentBehindItsSuccessor) {
  g_zero_copy_pays = true;
  QueueSlab();
  loop_->Flush();
  PollUntil([&] { return Stats().tx_zero_copy == 1; });
  EXPECT_EQ(Arrived(20), Range(0, 20));

  unsigned refusals = 1;
  g_refuse = [&](const msghdr&, bool zero_copy) {
    return zero_copy && refusals > 0 && refusals-- > 0 ? ENOMEM : 0;
  };
  QueueSlab();
  QueueSlab();
  loop_->Flush();
  std::vector<uint32_t> expected = Range(0, 60);
  expected.erase(expected.begin() + 20, expected.begin() + 40);
  EXPECT_EQ(Arrived(40), expected);
  ASSERT_EQ(recorder_.failures.size(), 1u);
  EXPECT_EQ(recorder_.failures[0].packets, 20u);
  EXPECT_EQ(recorder_.failures[0].error, ENOMEM);
  EXPECT_EQ(g_zero_copy_sends, 3u);
}

TEST_F(UringSenderTest, AShortTrainIsCopied) {
  g_zero_copy_pays = true;
  QueueSlab(/*packets=*/16, /*segment=*/ZeroCopyMemory::kMinBytes / 16 - 1);
  loop_->Flush();
  EXPECT_EQ(Arrived(16), Range(0, 16));
  EXPECT_EQ(g_zero_copy_sends, 0u);
  QueueSlab(/*packets=*/16, /*segment=*/ZeroCopyMemory::kMinBytes / 16);
  loop_->Flush();
  EXPECT_EQ(Arrived(32), Range(0, 32));
  EXPECT_EQ(g_zero_copy_sends, 1u);
}

TEST_F(UringSenderTest, MemoryIsRegisteredOnceTheFirstVerdictIsGood) {
  QueueSlab();
  loop_->Flush();
  PollUntil([&] { return Stats().tx_zero_copy_copied == 1; });
  QueueSlab();
  loop_->Flush();
  EXPECT_EQ(g_registered_sends, 0u) << "this way copies";

  // Memory that the usual RLIMIT_MEMLOCK of 8 MiB has room for.
  Start({.rx_buffers = 4, .tx_slabs = 8});
  g_zero_copy_pays = true;
  QueueSlab();
  loop_->Flush();
  PollUntil([&] { return Stats().tx_zero_copy == 1; });
  EXPECT_EQ(g_registered_sends, 0u);
  uint64_t others = 0;
  for (uint64_t i = 2; i < 200; ++i) {
    QueueSlab();
    loop_->Flush();
    PollUntil([&] { return recorder_.packets.size() == 20 * i && Stats().tx_zero_copy + 1 >= i; });
    // The second has been queued when the flush registers the memory, the third has not.
    if (i == 3 && g_registered_sends == 0) GTEST_SKIP() << "RLIMIT_MEMLOCK forbids registering";
    if (i == 3) others = i - g_registered_sends;
    if (i == 4 && g_registered_sends == 1) GTEST_SKIP() << "needs Linux 6.15";
    if (i > 3) {
      ASSERT_EQ(g_registered_sends, i - others);
    }
  }
  PollUntil([&] { return Stats().tx_zero_copy == 199; });
  EXPECT_EQ(Arrived(20 * 199), Range(0, 20 * 199));
  EXPECT_TRUE(recorder_.failures.empty());
}

TEST_F(UringSenderTest, AKernelWithoutRegisteredSendsGetsTheOthers) {
  g_zero_copy_pays = true;
  g_know_registered = false;
  QueueSlab();
  loop_->Flush();
  PollUntil([&] { return Stats().tx_zero_copy == 1; });
  for (int i = 0; i < 2; ++i) {
    QueueSlab();
    QueueSlab();
    loop_->Flush();
  }
  PollUntil([&] { return Stats().tx_zero_copy >= 3; });
  EXPECT_EQ(Arrived(100), Range(0, 100));
  EXPECT_LE(g_registered_sends, 2u) << "one submission's";
  EXPECT_TRUE(recorder_.failures.empty());
}

// A handler forwards the very bytes it is shown; the slab of another train is lent, not sent.
TEST_F(UringSenderTest, ReceiveBuffersAndLentSlabsGoWithoutACopyToo) {
  g_zero_copy_pays = true;
  QueueSlab();
  loop_->Flush();
  PollUntil([&] { return Stats().tx_zero_copy == 1; });
  EXPECT_EQ(Arrived(20), Range(0, 20));

  TxSlab* const slab = loop_->AcquireSlab();
  ASSERT_NE(slab, nullptr);
  const auto bytes = Numbers(40, 1000);
  memcpy(slab->data, bytes.data(), bytes.size());
  const Endpoint to = loop_->LocalEndpoint(to_);
  loop_->Send(from_, {slab->data, 20'000, 1000, to, {}, nullptr});
  loop_->Send(from_, {slab->data + 20'000, 20'000, 1000, to, {}, nullptr});
  loop_->Flush();
  PollUntil([&] { return Stats().tx_zero_copy == 3; });
  EXPECT_NE(loop_->AcquireSlab(), slab) << "its owner keeps it";
  loop_->ReleaseSlab(slab);
  EXPECT_EQ(loop_->AcquireSlab(), slab);
  EXPECT_EQ(Arrived(60), Range(0, 60));
}

TEST_F(UringSenderTest, TrainsWhoseZeroCopyFailsTogetherAreCopiedInOrder) {
  g_zero_copy_pays = true;
  QueueSlab();
  loop_->Flush();
  PollUntil([&] { return Stats().tx_zero_copy == 1; });
  g_refuse = [](const msghdr&, bool zero_copy) { return zero_copy ? ENOMEM : 0; };
  QueueSlab();
  QueueSlab();
  loop_->Flush();
  EXPECT_EQ(Arrived(60), Range(0, 60));
  EXPECT_TRUE(recorder_.failures.empty());
}

}  // namespace
}  // namespace ringsock::io
