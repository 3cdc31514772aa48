// Kernels that lack something: told so by this program's own system calls, which stand before the
// C library's. What is missing is found out, said once, and done without.
#include <dlfcn.h>
#include <gtest/gtest.h>
#include <liburing.h>
#include <linux/filter.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <spdlog/sinks/ostream_sink.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <map>
#include <memory>
#include <set>
#include <sstream>
#include <string>
#include <utility>

#include "base/log.h"
#include "io/loop.h"
#include "io/uring.h"
#include "tests/io/loop_world.h"

namespace {

// Socket options that this kernel does not know, by level and name.
std::set<std::pair<int, int>> g_unknown_options;
// What calls of io_uring fail with: by the number of the system call, or of the registration.
std::map<int, int> g_uring_errors;
int g_missing_operation = -1;
bool g_no_multishot = false;
int g_next_enter = 0;                   // what the next call of io_uring_enter fails with
std::map<unsigned, io_uring*> g_rings;  // by descriptor

constexpr int kSetup = -1;
constexpr int kEnter = -2;

int UringError(int call) {
  const auto error = g_uring_errors.find(call);
  return error == g_uring_errors.end() ? 0 : -error->second;
}

template <typename Function>
Function* Next(const char* name) {
  return reinterpret_cast<Function*>(dlsym(RTLD_NEXT, name));
}

}  // namespace

extern "C" int setsockopt(int fd, int level, int name, const void* value,
                          socklen_t length) noexcept {
  static const auto next = Next<int(int, int, int, const void*, socklen_t)>("setsockopt");
  if (g_unknown_options.count({level, name}) == 0) return next(fd, level, name, value, length);
  errno = ENOPROTOOPT;
  return -1;
}

extern "C" int getsockopt(int fd, int level, int name, void* value, socklen_t* length) noexcept {
  static const auto next = Next<int(int, int, int, void*, socklen_t*)>("getsockopt");
  if (g_unknown_options.count({level, name}) == 0) return next(fd, level, name, value, length);
  errno = ENOPROTOOPT;
  return -1;
}

extern "C" int io_uring_queue_init_params(unsigned entries, io_uring* ring,
                                          io_uring_params* params) {
  static const auto next =
      Next<int(unsigned, io_uring*, io_uring_params*)>("io_uring_queue_init_params");
  if (const int error = UringError(kSetup); error != 0) return error;
  const int result = next(entries, ring, params);
  if (result == 0) g_rings[static_cast<unsigned>(ring->ring_fd)] = ring;
  return result;
}

extern "C" void io_uring_queue_exit(io_uring* ring) {
  static const auto next = Next<void(io_uring*)>("io_uring_queue_exit");
  g_rings.erase(static_cast<unsigned>(ring->ring_fd));
  next(ring);
}

extern "C" int io_uring_register_probe(io_uring* ring, io_uring_probe* probe, unsigned count) {
  static const auto next =
      Next<int(io_uring*, io_uring_probe*, unsigned)>("io_uring_register_probe");
  if (const int error = UringError(IORING_REGISTER_PROBE); error != 0) return error;
  const int result = next(ring, probe, count);
  if (g_missing_operation >= 0) probe->ops[g_missing_operation].flags = 0;
  return result;
}

extern "C" int io_uring_register_buf_ring(io_uring* ring, io_uring_buf_reg* request,
                                          unsigned flags) {
  static const auto next =
      Next<int(io_uring*, io_uring_buf_reg*, unsigned)>("io_uring_register_buf_ring");
  if (const int error = UringError(IORING_REGISTER_PBUF_RING); error != 0) return error;
  return next(ring, request, flags);
}

extern "C" int io_uring_submit_and_wait(io_uring* ring, unsigned count) {
  static const auto next = Next<int(io_uring*, unsigned)>("io_uring_submit_and_wait");
  if (const int error = UringError(kEnter); error != 0) return error;
  return next(ring, count);
}

// A flag that no kernel knows makes it refuse a request as one that does not know multishot would.
extern "C" int io_uring_enter2(unsigned fd, unsigned submit, unsigned complete, unsigned flags,
                               sigset_t* argument, size_t size) {
  if (const int error = std::exchange(g_next_enter, 0); error != 0) return -error;
  for (const auto& [descriptor, ring] : g_rings) {
    if (!g_no_multishot) break;
    for (unsigned at = *ring->sq.khead; at != *ring->sq.ktail; ++at) {
      io_uring_sqe& sqe = ring->sq.sqes[at & ring->sq.ring_mask];
      if (sqe.opcode == IORING_OP_RECVMSG) sqe.ioprio |= 0x8000;
    }
  }
  const auto result = syscall(__NR_io_uring_enter, fd, submit, complete, flags, argument, size);
  return result < 0 ? -errno : static_cast<int>(result);
}

namespace ringsock::io {
namespace {

// What is logged while it lives.
class Said {
 public:
  Said() { Log().sinks().push_back(sink_); }
  ~Said() { Log().sinks().pop_back(); }
  size_t Lines(const std::string& with) const {
    const std::string text = text_.str();
    size_t lines = 0;
    for (size_t at = text.find(with); at != std::string::npos; at = text.find(with, at + 1)) {
      ++lines;
    }
    return lines;
  }
  std::string text() const { return text_.str(); }

 private:
  std::ostringstream text_;
  std::shared_ptr<spdlog::sinks::ostream_sink_mt> sink_ =
      std::make_shared<spdlog::sinks::ostream_sink_mt>(text_, /*force_flush=*/true);
};

class KernelFeaturesTest : public testing::Test {
 protected:
  ~KernelFeaturesTest() override {
    g_unknown_options.clear();
    g_uring_errors.clear();
    g_missing_operation = -1;
    g_no_multishot = false;
  }
};

// ---- Sockets, on both loops ----

struct End {
  std::unique_ptr<Loop> loop;
  Recorder recorder;
  SocketId socket = 0;
  Endpoint address;
};

class SocketFeaturesTest : public KernelFeaturesTest, public testing::WithParamInterface<Backend> {
 protected:
  void SetUp() override {
    if (GetParam() != Backend::kUring) return;
    if (const auto status = ProbeUring(); !status.ok()) {
      GTEST_SKIP() << std::string(status.message());
    }
  }
  // With a socket, on loopback.
  void Open(End* end, UdpConfig config = {}) {
    end->loop = CreateLoop({.backend = GetParam()}).value();
    config.bind.ip = IpAddress::V4(127, 0, 0, 1);
    const auto socket = end->loop->OpenUdp(config, &end->recorder);
    ASSERT_TRUE(socket.ok()) << socket.status();
    end->socket = *socket;
    end->address = end->loop->LocalEndpoint(*socket);
  }
  // Sends a train of 8 and waits for it. Returns how many trains of how many packets arrived.
  std::pair<size_t, size_t> SendTrain(End& from, End& to) {
    const std::vector<std::byte> bytes = Pattern(8 * 300, 5);
    to.recorder.packets.clear();
    to.recorder.trains = 0;
    from.loop->Send(from.socket, {bytes.data(), 8 * 300, 300, to.address, {}, nullptr});
    from.loop->Flush();
    const Instant end = SystemClock().Now() + std::chrono::seconds(20);
    while (to.recorder.packets.size() < 8 && SystemClock().Now() < end) {
      to.loop->Poll(SystemClock().Now() + std::chrono::milliseconds(10));
    }
    EXPECT_TRUE(from.recorder.failures.empty());
    for (size_t i = 0; i < to.recorder.packets.size(); ++i) {
      EXPECT_TRUE(std::equal(to.recorder.packets[i].bytes.begin(),
                             to.recorder.packets[i].bytes.end(), bytes.begin() + i * 300));
    }
    return {to.recorder.trains, to.recorder.packets.size()};
  }
};
INSTANTIATE_TEST_SUITE_P(All, SocketFeaturesTest, testing::Values(Backend::kMmsg, Backend::kUring),
                         [](const testing::TestParamInfo<Backend>& info) {
                           return info.param == Backend::kUring ? "Uring" : "Mmsg";
                         });

TEST_P(SocketFeaturesTest, AllThere) {
  Said said;
  End a, b;
  Open(&a);
  Open(&b);
  EXPECT_EQ(SendTrain(a, b), std::pair(size_t{1}, size_t{8}));
  EXPECT_EQ(said.Lines("this kernel"), 0u) << said.text();
}

TEST_P(SocketFeaturesTest, NoGro) {
  Said said;
  g_unknown_options = {{SOL_UDP, UDP_GRO}};
  End a, b;
  Open(&a);
  Open(&b);
  EXPECT_EQ(SendTrain(a, b), std::pair(size_t{8}, size_t{8}));
  static size_t lines = 0;
  lines += said.Lines("no UDP_GRO");
  EXPECT_EQ(lines, 1u) << "once in a process, whatever the backend: " << said.text();
}

TEST_P(SocketFeaturesTest, NoSegmentation) {
  Said said;
  g_unknown_options = {{SOL_UDP, UDP_SEGMENT}};
  End a, b;
  Open(&a);
  Open(&b);
  EXPECT_EQ(SendTrain(a, b).second, 8u);
  EXPECT_EQ(a.loop->Stats(a.socket).tx_trains, 8u);
  static size_t lines = 0;
  lines += said.Lines("no UDP_SEGMENT");
  EXPECT_EQ(lines, 1u) << said.text();
}

TEST_P(SocketFeaturesTest, NoneOfIt) {
  g_unknown_options = {{SOL_UDP, UDP_SEGMENT},         {SOL_UDP, UDP_GRO},
                       {SOL_SOCKET, SO_RCVBUFFORCE},   {SOL_SOCKET, SO_SNDBUFFORCE},
                       {SOL_SOCKET, SO_BINDTOIFINDEX}, {SOL_SOCKET, SO_MEMINFO}};
  End a, b;
  Open(&a);
  Open(&b);
  EXPECT_EQ(SendTrain(a, b), std::pair(size_t{8}, size_t{8}));
  EXPECT_EQ(b.loop->Stats(b.socket).rx_kernel_drops, 0u);
}

TEST_P(SocketFeaturesTest, NoSteering) {
  Said said;
  g_unknown_options = {{SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF}};
  UdpConfig config;
  config.reuse_port = true;
  config.steering = Steering::kSource;
  config.steering_sockets = 2;
  End a, b, c;
  Open(&a, config);
  config.bind.port = a.address.port;
  Open(&b, config);
  Open(&c);
  const std::vector<std::byte> bytes = Pattern(100, 1);
  c.loop->Send(c.socket, {bytes.data(), 100, 0, a.address, {}, nullptr});
  c.loop->Flush();
  const Instant end = SystemClock().Now() + std::chrono::seconds(20);
  while (a.recorder.count + b.recorder.count == 0 && SystemClock().Now() < end) {
    a.loop->Poll(Instant::min());
    b.loop->Poll(Instant::min());
  }
  EXPECT_EQ(a.recorder.count + b.recorder.count, 1u);
  static size_t lines = 0;
  lines += said.Lines("SO_ATTACH_REUSEPORT_CBPF");
  EXPECT_EQ(lines, 1u) << said.text();
}

// A socket is then told in the old way that it gets nothing more.
TEST_P(SocketFeaturesTest, ReopensWithoutBindingToNoDevice) {
  g_unknown_options = {{SOL_SOCKET, SO_BINDTOIFINDEX}};
  End a, b;
  Open(&a);
  Open(&b);
  for (int i = 0; i < 3; ++i) {
    const auto reopened = b.loop->ReopenUdp(b.socket, b.address.port);
    ASSERT_TRUE(reopened.ok()) << reopened.status();
    EXPECT_TRUE(reopened->exact);
    EXPECT_EQ(SendTrain(a, b).second, 8u);
  }
}

// ---- io_uring: what is missing makes for the other backend, with the reason ----

class UringFeaturesTest : public KernelFeaturesTest {
 protected:
  void SetUp() override {
    if (const auto status = ProbeUring(); !status.ok()) {
      GTEST_SKIP() << std::string(status.message());
    }
  }
  // The loop works all the same, and the log has one line with `reason`.
  void ExpectOtherBackend(const std::string& reason) {
    Said said;
    const auto loop = CreateLoop({});
    ASSERT_TRUE(loop.ok()) << loop.status();
    EXPECT_STREQ((*loop)->name(), "mmsg");
    EXPECT_EQ(said.Lines("backend recvmmsg/sendmmsg because"), 1u) << said.text();
    EXPECT_EQ(said.Lines(reason), 1u) << said.text();
    const auto forced = CreateLoop({.backend = Backend::kUring});
    EXPECT_FALSE(forced.ok());
    EXPECT_NE(forced.status().ToString().find(reason), std::string::npos) << forced.status();
  }
};

TEST_F(UringFeaturesTest, NotInTheKernel) {
  g_uring_errors = {{kSetup, ENOSYS}};
  ExpectOtherBackend("is not in this kernel");
}
TEST_F(UringFeaturesTest, BeforeLinux6_1) {
  g_uring_errors = {{kSetup, EINVAL}};
  ExpectOtherBackend("is too old");
}
TEST_F(UringFeaturesTest, NoMemoryToLock) {
  g_uring_errors = {{kSetup, ENOMEM}};
  ExpectOtherBackend("RLIMIT_MEMLOCK");
}
TEST_F(UringFeaturesTest, NoDescriptors) {
  g_uring_errors = {{kSetup, EMFILE}};
  ExpectOtherBackend("ulimit -n");
}
TEST_F(UringFeaturesTest, Forbidden) {
  g_uring_errors = {{kSetup, EPERM}};
  ExpectOtherBackend("is forbidden");
}
TEST_F(UringFeaturesTest, SetUpAllowedAndEnteringForbidden) {
  g_uring_errors = {{kEnter, EPERM}};
  ExpectOtherBackend("is forbidden");
}
TEST_F(UringFeaturesTest, NoBufferRings) {
  g_uring_errors = {{IORING_REGISTER_PBUF_RING, EINVAL}};
  ExpectOtherBackend("has no buffer rings");
}
TEST_F(UringFeaturesTest, NoProbe) {
  g_uring_errors = {{IORING_REGISTER_PROBE, EINVAL}};
  ExpectOtherBackend("is too old");
}
TEST_F(UringFeaturesTest, AnOperationIsMissing) {
  g_missing_operation = IORING_OP_SENDMSG_ZC;
  ExpectOtherBackend("lacks SENDMSG_ZC");
}
TEST_F(UringFeaturesTest, NoMultishotReceive) {
  g_no_multishot = true;
  ExpectOtherBackend("has no multishot receive");
}

// Whoever waits for one of them would wait for ever.
TEST_F(UringFeaturesTest, DroppedCompletionsEndTheProcessAndSayWhy) {
  const auto poll = [] {
    const auto loop = CreateLoop({.backend = Backend::kUring}).value();
    g_next_enter = EBADR;
    loop->Poll(Instant::min());
  };
  EXPECT_DEATH(poll(), "dropped some.*memory limit");
}

}  // namespace
}  // namespace ringsock::io
