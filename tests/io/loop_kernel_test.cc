// What only loops on a real kernel do: sleep, be woken by threads, share ports, hold to devices,
// lose packets to a full socket buffer, close and open while others send.
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <thread>

#include "base/spsc_ring.h"
#include "io/loop.h"
#include "tests/io/loop_world.h"

namespace ringsock::io {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

class LoopKernelTest : public LoopTest {};
INSTANTIATE_TEST_SUITE_P(All, LoopKernelTest, testing::ValuesIn(RealWorldsAndFamilies()),
                         ParamName);

// Far enough that only a lost wake-up gets there.
Instant Never() { return SystemClock().Now() + seconds(60); }

// Sets IP_RECVERR on this process's sockets that are bound to `address`: descriptors of a loop are
// its own, and this is what a kernel with errors to tell looks like.
void ReportErrorsOfSocketsAt(const Endpoint& address) {
  const int on = 1;
  for (int fd = 3; fd < 1024; ++fd) {
    sockaddr_storage name{};
    socklen_t length = sizeof name;
    if (getsockname(fd, reinterpret_cast<sockaddr*>(&name), &length) != 0) continue;
    if (Endpoint::FromSockaddr(name) != address) continue;
    setsockopt(fd, IPPROTO_IP, IP_RECVERR, &on, sizeof on);
    setsockopt(fd, IPPROTO_IPV6, IPV6_RECVERR, &on, sizeof on);
  }
}

// A thread's numbers, each followed by a Wake(), and the loop's thread that takes them. Where each
// takes long because other programs run, they are as many as 10 s allow.
struct Wakes {
  explicit Wakes(uint32_t total) : total(total) {}
  void Send(Loop& loop, bool wait_for_each) {
    const Instant end = SystemClock().Now() + seconds(10);
    for (uint32_t i = 0; i < total; ++i) {
      if (i % 64 == 0 && SystemClock().Now() > end) {
        total.store(i, std::memory_order_release);
        return loop.Wake();
      }
      while (wait_for_each && taken.load(std::memory_order_acquire) != i) std::this_thread::yield();
      while (!ring.TryPush(uint32_t{i})) std::this_thread::yield();
      loop.Wake();
    }
  }
  void Take() {
    while (const uint32_t* number = ring.Front()) {
      EXPECT_EQ(*number, taken.load(std::memory_order_relaxed));
      ring.Pop();
      taken.fetch_add(1, std::memory_order_release);
    }
  }
  bool done() const { return taken.load(std::memory_order_relaxed) == total.load(); }

  std::atomic<uint32_t> total;
  SpscRing<uint32_t> ring{64};
  std::atomic<uint32_t> taken{0};
};

void ExpectNoWakeUpIsLost(Loop& loop, uint32_t threads, uint32_t rounds, bool wait_for_each) {
  std::deque<Wakes> wakes;
  std::vector<std::thread> senders;
  for (uint32_t i = 0; i < threads; ++i) {
    Wakes& mine = wakes.emplace_back(rounds);
    senders.emplace_back([&mine, &loop, wait_for_each] { mine.Send(loop, wait_for_each); });
  }
  bool lost = false;
  for (bool done = false; !done;) {
    const Instant deadline = Never();
    loop.Poll(deadline);
    // Reported once; the numbers are in the rings all the same, so that the threads can end.
    if (SystemClock().Now() >= deadline) lost = true;
    done = true;
    for (Wakes& each : wakes) {
      each.Take();
      done = done && each.done();
    }
  }
  for (std::thread& sender : senders) sender.join();
  EXPECT_FALSE(lost);
}

// Sends to one address as fast as it can, until it is destroyed.
class Flood {
 public:
  explicit Flood(const Endpoint& to)
      : thread_([this, to] {
          sockaddr_storage address;
          const socklen_t length = to.ToSockaddr(&address);
          const int fd = socket(address.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
          const std::array<std::byte, 200> bytes{};
          while (!stop_.load(std::memory_order_relaxed)) {
            sendto(fd, bytes.data(), bytes.size(), 0, reinterpret_cast<sockaddr*>(&address),
                   length);
            sent_.fetch_add(1, std::memory_order_release);
          }
          close(fd);
        }) {}
  ~Flood() {
    stop_.store(true);
    thread_.join();
  }
  uint64_t sent() const { return sent_.load(std::memory_order_acquire); }

 private:
  std::atomic<bool> stop_{false};
  std::atomic<uint64_t> sent_{0};
  std::thread thread_;
};

// Packets arrive at every moment of a close and of an open.
TEST_P(LoopKernelTest, ClosesAndRebindsWhileAnotherThreadSends) {
  Peer& peer = AddPeer();
  MoveToAPortOfItsOwn(peer);
  peer.recorder.keep = false;
  UdpConfig config;
  config.bind = peer.address;
  {
    const Flood flood(peer.address);
    for (uint32_t round = 0; round < 300; ++round) {
      const size_t had = peer.recorder.count;
      if (round % 3 != 0) {
        ASSERT_TRUE(Until([&] { return peer.recorder.count > had; }, "the new socket receives"));
      }
      peer.loop->CloseUdp(peer.socket);
      const size_t before = peer.recorder.count;
      const uint64_t sent = flood.sent();
      while (flood.sent() < sent + 2) std::this_thread::yield();
      peer.loop->Poll(SystemClock().Now());
      ASSERT_EQ(peer.recorder.count, before) << "the handler was called after the close";
      const auto opened = peer.loop->OpenUdp(config, &peer.recorder);
      ASSERT_TRUE(opened.ok()) << "round " << round << ": " << opened.status();
      peer.socket = *opened;
    }
  }
  const size_t before = peer.recorder.count;
  SendNow(peer, peer.address, Pattern(77, 1));
  EXPECT_TRUE(Until([&] { return peer.recorder.count > before; }, "the last socket receives"));
}

// ICMP told to the socket ends a receive. It is counted, and receiving goes on.
TEST_P(LoopKernelTest, AReceiveErrorIsCountedAndPasses) {
  Peer& peer = AddPeer();
  Endpoint closed;
  {
    const Peer& other = AddPeer();
    closed = other.address;
    other.loop->CloseUdp(other.socket);
  }
  ReportErrorsOfSocketsAt(peer.address);
  EXPECT_TRUE(Until(
      [&] {
        // A send may be told instead of the receive.
        SendNow(peer, closed, Pattern(10, 1));
        Settle();
        return peer.loop->Stats(peer.socket).rx_errors > 0;
      },
      "a receive is told"));
  const size_t before = peer.recorder.count;
  EXPECT_TRUE(Until(
      [&] {
        SendNow(peer, peer.address, Pattern(77, 1));
        return peer.recorder.count > before;
      },
      "it receives"));
}

TEST_P(LoopKernelTest, LosesNoWakeUpOfOneThread) {
  ExpectNoWakeUpIsLost(*AddPeer().loop, 1, 100'000, /*wait_for_each=*/true);
}

TEST_P(LoopKernelTest, LosesNoWakeUpOfThreeThreads) {
  ExpectNoWakeUpIsLost(*AddPeer().loop, 3, 30'000, /*wait_for_each=*/false);
}

TEST_P(LoopKernelTest, LosesNoWakeUpWhileItSpins) {
  LoopOptions options = Options();
  options.spin = std::chrono::microseconds(5);
  ExpectNoWakeUpIsLost(*AddPeer(options).loop, 1, 20'000, /*wait_for_each=*/true);
}

TEST_P(LoopKernelTest, AWakeUpBeforePollEndsIt) {
  Peer& a = AddPeer();
  a.loop->Wake();
  a.loop->Wake();
  EXPECT_EQ(a.loop->Poll(Instant::max()), 0u);  // would never return
}

TEST_P(LoopKernelTest, WaitsUntilTheDeadlineAndNoMuchLonger) {
  Peer& a = AddPeer();
  for (const Duration wait : {Duration(0), Duration(1), Duration(milliseconds(3))}) {
    const Instant deadline = SystemClock().Now() + wait;
    uint32_t polls = 0;
    do {
      EXPECT_EQ(a.loop->Poll(deadline), 0u);
      ++polls;
    } while (SystemClock().Now() < deadline);
    EXPECT_LE(polls, 5u) << "it does not wait but spins";
  }
  EXPECT_EQ(a.loop->Poll(Instant::min()), 0u);
}

TEST_P(LoopKernelTest, ADatagramEndsASleep) {
  Peer& a = AddPeer();
  Peer& b = AddPeer();
  constexpr size_t kRounds = 2000;
  // The echo makes each thread sleep for the other.
  const auto echo = [](Peer& peer) {
    return [&peer](SocketId socket, std::span<const RxTrain> trains) {
      for (const RxTrain& train : trains) {
        peer.loop->Send(socket,
                        {train.data, train.size, train.segment_size, train.from, {}, nullptr});
      }
    };
  };
  b.recorder.on_receive = echo(b);
  a.recorder.on_receive = echo(a);
  std::thread other([&b] {
    while (b.recorder.count < kRounds) b.loop->Poll(Instant::max());
  });
  SendNow(a, b.address, Pattern(100, 1));
  while (a.recorder.count < kRounds) a.loop->Poll(Instant::max());
  other.join();
}

TEST_P(LoopKernelTest, SeveralLoopsShareAPort) {
  UdpConfig config;
  config.reuse_port = true;
  Peer& b = AddPeer(Options(), config);
  config.bind = b.address;
  Peer& c = AddPeer(Options(), config);
  EXPECT_EQ(c.address, b.address);
  Peer& a = AddPeer();
  for (int i = 0; i < 60; ++i) {
    UdpConfig any;
    any.bind = Bind(2);
    const auto socket = a.loop->OpenUdp(any, &a.recorder);
    ASSERT_TRUE(socket.ok()) << socket.status();
    const std::vector<std::byte>& bytes = sent_.emplace_back(Pattern(100, 1));
    a.loop->Send(*socket, {bytes.data(), 100, 0, b.address, {}, nullptr});
  }
  a.loop->Flush();
  Until([&] { return b.recorder.count + c.recorder.count == 60; }, "all arrive at one of them");
  EXPECT_GT(b.recorder.count, 0u);
  EXPECT_GT(c.recorder.count, 0u);
}

TEST_P(LoopKernelTest, HoldsASocketToADevice) {
  UdpConfig config;
  config.device = "lo";
  Peer& b = AddPeer(Options(), config);
  Peer& a = AddPeer();
  SendNow(a, b.address, Pattern(100, 1));
  EXPECT_TRUE(Until([&] { return b.recorder.count == 1; }, "it arrives"));

  config.bind = Bind(0);
  config.device = "nosuch0";
  const auto none = a.loop->OpenUdp(config, &a.recorder);
  EXPECT_EQ(none.status().code(), absl::StatusCode::kNotFound) << none.status();
  EXPECT_NE(std::string(none.status().message()).find("nosuch0"), std::string::npos);
}

TEST_P(LoopKernelTest, AnAddressThatIsNotHereSaysSo) {
  Peer& a = AddPeer();
  UdpConfig config;
  config.bind = {
      GetParam().v4 ? IpAddress::V4(192, 0, 2, 1) : IpAddress::Parse("2001:db8::1").value(), 0, 0};
  const auto none = a.loop->OpenUdp(config, &a.recorder);
  EXPECT_EQ(none.status().code(), absl::StatusCode::kFailedPrecondition) << none.status();
}

TEST_P(LoopKernelTest, CountsWhatTheKernelDrops) {
  UdpConfig config;
  config.receive_buffer = 32 << 10;
  Peer& a = AddPeer();
  Peer& b = AddPeer(Options(), config);
  constexpr uint32_t kSent = 500;
  for (uint32_t i = 0; i < kSent; ++i) SendNow(a, b.address, Pattern(1000, i));
  Until(
      [&] {
        const UdpStats stats = b.loop->Stats(b.socket);
        return stats.rx_packets + stats.rx_kernel_drops == kSent;
      },
      "everything is received or counted");
  EXPECT_GT(b.loop->Stats(b.socket).rx_kernel_drops, 0u);
  EXPECT_GT(b.recorder.count, 0u);
}

TEST_P(LoopKernelTest, ABusySocketDoesNotStarveAnother) {
  LoopOptions options = Options();
  options.gro = false;
  Peer& a = AddPeer();
  Peer& b = AddPeer(options);
  Recorder quiet;
  UdpConfig config;
  config.bind = Bind(1);
  const auto socket = b.loop->OpenUdp(config, &quiet);
  ASSERT_TRUE(socket.ok()) << socket.status();
  Settle();
  for (uint32_t i = 0; i < 1000; ++i) SendNow(a, b.address, Pattern(100, i));
  SendNow(a, b.loop->LocalEndpoint(*socket), Pattern(100, 1));
  for (int polls = 0; polls < 20; ++polls) b.loop->Poll(Instant::min());
  EXPECT_EQ(quiet.count, 1u);
  EXPECT_LT(b.recorder.count, 1000u) << "one Poll() must not take everything";
}

TEST_P(LoopKernelTest, SendsFromTheAddressItIsTold) {
  UdpConfig config;
  config.bind = {GetParam().v4 ? IpAddress::AnyV4() : IpAddress::AnyV6(), 0, 0};
  // IPv6 has one loopback address; there it is only said, not chosen among several.
  const IpAddress source =
      GetParam().v4 ? IpAddress::V4(127, 9, 8, 7) : IpAddress::Parse("::1").value();
  Peer& b = AddPeer();
  Peer& a = peers_.emplace_back();
  a.loop = &world_->Add(Options());
  const auto socket = a.loop->OpenUdp(config, &a.recorder);
  ASSERT_TRUE(socket.ok()) << socket.status();
  const std::vector<std::byte> bytes = Pattern(3000, 1);
  a.loop->Send(*socket, {bytes.data(), 3000, 1000, b.address, source, nullptr});
  a.loop->Flush();
  ASSERT_TRUE(Until([&] { return b.recorder.count == 3; }, "all arrive"));
  EXPECT_EQ(b.recorder.packets[2].from.ip, source);
}

}  // namespace
}  // namespace ringsock::io
