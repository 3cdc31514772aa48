// Loops between two network namespaces: paths with a small MTU, queues that fill, routes that come
// and go, missing privileges. Needs root.
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>

#include "absl/strings/str_cat.h"
#include "io/fd.h"
#include "io/loop.h"
#include "io/udp_socket.h"
#include "tests/io/loop_world.h"

namespace ringsock::io {
namespace {

void Shell(const std::string& command) {
  ASSERT_EQ(system(command.c_str()), 0) << command;  // NOLINT(cert-env33-c): a fixed command
}

// Namespaces "a" and "b" joined by a veth pair, addresses .1 and .2, MTU 1300.
class LoopNetworkTest : public LoopTest {
 protected:
  void SetUp() override {
    LoopTest::SetUp();
    if (IsSkipped()) return;
    RemoveNamespacesOfTheDead();
    home_ = Fd(open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC));
    for (const char* side : {"a", "b"}) {
      Shell(absl::StrCat("ip netns add ", Name(side)));
      Shell(absl::StrCat("ip -n ", Name(side), " link set lo up"));
    }
    Shell(absl::StrCat("ip -n ", Name("a"),
                       " link add v mtu 1300 type veth peer name v mtu 1300 netns ", Name("b")));
    for (const auto& [side, host] : {std::pair{"a", 1}, std::pair{"b", 2}}) {
      const std::string ip = absl::StrCat("ip -n ", Name(side));
      Shell(absl::StrCat(ip, " link set v up"));
      Shell(absl::StrCat(ip, " address add 10.77.0.", host, "/24 dev v"));
      Shell(absl::StrCat(ip, " address add fd77::", host, "/64 dev v nodad"));
    }
    // A worker of the kernel opens the queues, a moment after both ends are up: what is sent before
    // is dropped.
    for (const char* side : {"a", "b"}) {
      const std::string is_up =
          absl::StrCat("ip -n ", Name(side), " -o link show v | grep -q 'state UP'");
      const Instant guard = SystemClock().Now() + std::chrono::seconds(60);
      while (system(is_up.c_str()) != 0) {  // NOLINT(cert-env33-c): a fixed command
        ASSERT_LT(SystemClock().Now(), guard) << is_up;
      }
    }
    a_ = &AddPeerIn("a", 1);
    b_ = &AddPeerIn("b", 2);
  }
  void TearDown() override {
    if (IsSkipped()) return;
    EXPECT_EQ(setns(home_.get(), CLONE_NEWNET), 0);
    for (const char* side : {"a", "b"}) Shell(absl::StrCat("ip netns del ", Name(side)));
  }

  static std::string Name(const char* side) { return absl::StrCat("rsloop", getpid(), side); }
  // What a run that crashed has left.
  static void RemoveNamespacesOfTheDead() {
    std::error_code none;
    for (const auto& entry : std::filesystem::directory_iterator("/run/netns", none)) {
      const std::string name = entry.path().filename();
      int pid = 0;
      if (sscanf(name.c_str(), "rsloop%d", &pid) != 1 || kill(pid, 0) == 0) continue;
      Shell(absl::StrCat("ip netns del ", name));
    }
  }
  void Enter(const char* side) {
    const Fd ns(open(absl::StrCat("/run/netns/", Name(side)).c_str(), O_RDONLY | O_CLOEXEC));
    ASSERT_EQ(setns(ns.get(), CLONE_NEWNET), 0) << strerror(errno);
  }
  IpAddress Host(int host) const {
    return IpAddress::Parse(absl::StrCat(GetParam().v4 ? "10.77.0." : "fd77::", host)).value();
  }
  Peer& AddPeerIn(const char* side, int host, int send_buffer = kDefaultSocketBuffer) {
    Enter(side);
    UdpConfig config;
    config.bind = {Host(host), 0, 0};
    config.send_buffer = send_buffer;
    return AddPeer(Options(), config);
  }
  // A train whose packets carry the next numbers, queued but not flushed.
  void Queue(Peer& from, uint32_t packets, uint32_t segment) {
    std::vector<std::byte>& bytes = sent_.emplace_back(packets * segment);
    for (uint32_t i = 0; i < packets; ++i, ++next_) {
      memcpy(bytes.data() + i * segment, &next_, sizeof next_);
    }
    from.loop->Send(from.socket,
                    {bytes.data(), packets * segment, segment, b_->address, {}, nullptr});
  }
  void ExpectAllInOrder() {
    Until([&] { return b_->recorder.count >= next_; }, "all arrive");
    Settle();
    ASSERT_EQ(b_->recorder.count, next_);
    for (uint32_t i = 0; i < next_; ++i) {
      uint32_t number = 0;
      memcpy(&number, b_->recorder.packets[i].bytes.data(), sizeof number);
      ASSERT_EQ(number, i);
    }
  }

  Fd home_;
  Peer* a_ = nullptr;
  Peer* b_ = nullptr;
  uint32_t next_ = 0;
};
INSTANTIATE_TEST_SUITE_P(All, LoopNetworkTest, testing::ValuesIn(RealWorldsAndFamilies()),
                         ParamName);

// The kernel refuses the train; alone, its packets travel in fragments.
TEST_P(LoopNetworkTest, ATrainLargerThanThePathIsReplayedInPlace) {
  Queue(*a_, 1, 500);
  Queue(*a_, 10, 1400);
  Queue(*a_, 10, 1000);
  Queue(*a_, 1, 500);
  a_->loop->Flush();
  ExpectAllInOrder();
  const UdpStats first = a_->loop->Stats(a_->socket);
  EXPECT_EQ(first.tx_replayed, 1u);
  EXPECT_EQ(first.tx_failed, 0u);
  EXPECT_EQ(first.tx_packets, 22u);

  for (int i = 0; i < 5; ++i) {
    Queue(*a_, 10, 1400);
    Queue(*a_, 10, 1000);
    a_->loop->Flush();
    ExpectAllInOrder();
  }
  const UdpStats second = a_->loop->Stats(a_->socket);
  EXPECT_EQ(second.tx_replayed, 1u) << "it tries again what it has learnt";
  EXPECT_EQ(second.tx_trains - first.tx_trains, 5u * 11u) << "smaller segments still go as trains";
}

// More than one batch of refusals and successes, interleaved.
TEST_P(LoopNetworkTest, ManyRefusedTrainsKeepTheOrder) {
  for (uint32_t i = 0; i < 60; ++i) Queue(*a_, 1 + i % 7, i % 2 == 0 ? 1400 : 200 + i);
  a_->loop->Flush();
  ExpectAllInOrder();
  EXPECT_EQ(a_->loop->Stats(a_->socket).tx_failed, 0u);
}

// Many trains of one size to a way that takes them (this host itself); then the same size as single
// datagrams, and others, to one with a smaller MTU.
TEST_P(LoopNetworkTest, ASizeThatIsCommonElsewhereIsSentInFragments) {
  const std::vector<std::byte> train(2 * 1400);
  for (int i = 0; i < 100; ++i) {
    a_->loop->Send(a_->socket, {train.data(), 2 * 1400, 1400, a_->address, {}, nullptr});
    a_->loop->Flush();
  }
  Until([&] { return a_->recorder.count >= 200; }, "they arrive");
  for (const uint32_t size : {1000u, 1400u, 200u, 1400u, 1401u, 3000u}) {
    Queue(*a_, 1, size);
    a_->loop->Flush();
  }
  Queue(*a_, 3, 1200);
  Queue(*a_, 3, 1400);
  a_->loop->Flush();
  ExpectAllInOrder();
  EXPECT_TRUE(a_->recorder.failures.empty());
}

TEST_P(LoopNetworkTest, AFullSendBufferIsCountedAndLeavesTheLoopAlive) {
  Shell(absl::StrCat("tc -n ", Name("a"),
                     " qdisc add dev v root tbf rate 8kbit burst 3000 limit 100000000"));
  Peer& slow = AddPeerIn("a", 1, /*send_buffer=*/20'000);
  const uint32_t kPackets = 400;
  for (uint32_t i = 0; i < kPackets; ++i) Queue(slow, 1, 1000);
  slow.loop->Flush();
  const UdpStats stats = slow.loop->Stats(slow.socket);
  EXPECT_GT(stats.tx_packets, 0u);
  EXPECT_GT(stats.tx_failed, 0u);
  EXPECT_EQ(stats.tx_packets + stats.tx_failed, kPackets);
  for (const Failed& failure : slow.recorder.failures) {
    EXPECT_TRUE(failure.error == EAGAIN || failure.error == ENOBUFS) << strerror(failure.error);
  }
  Shell(absl::StrCat("tc -n ", Name("a"), " qdisc del dev v root"));
  b_->recorder.packets.clear();
  const std::vector<std::byte> last = Pattern(99, 1);
  SendNow(slow, b_->address, last);
  EXPECT_TRUE(Until(
      [&] { return !b_->recorder.packets.empty() && b_->recorder.packets.back().bytes == last; },
      "the socket sends again"));
}

TEST_P(LoopNetworkTest, ARouteThatComesBackIsUsedAgain) {
  Shell(absl::StrCat("ip -n ", Name("a"), " link set v down"));
  const std::vector<std::byte> lost = Pattern(10 * 1000, 1);
  SendNow(*a_, b_->address, lost, 1000);
  EXPECT_EQ(a_->recorder.failed_packets, 10u);
  for (const Failed& failure : a_->recorder.failures) {
    EXPECT_TRUE(failure.error == ENETUNREACH || failure.error == EINVAL ||
                failure.error == EADDRNOTAVAIL || failure.error == EHOSTUNREACH)
        << strerror(failure.error);
  }
  Shell(absl::StrCat("ip -n ", Name("a"), " link set v up"));
  if (!GetParam().v4)
    Shell(absl::StrCat("ip -n ", Name("a"), " address replace fd77::1/64 dev v nodad"));
  Until(
      [&] {
        if (b_->recorder.count == 0) SendNow(*a_, b_->address, Pattern(100, 2));
        return b_->recorder.count > 0;
      },
      "it sends again without a new socket");
  const uint64_t trains = a_->loop->Stats(a_->socket).tx_trains;
  SendNow(*a_, b_->address, Pattern(10 * 1000, 3), 1000);
  EXPECT_EQ(a_->loop->Stats(a_->socket).tx_trains, trains + 1) << "trains leave as trains";
}

TEST_P(LoopNetworkTest, APortWithoutPrivilegeNamesTheCure) {
  Enter("a");
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    if (setgid(65534) != 0 || setuid(65534) != 0) _exit(10);
    UdpConfig config;
    config.bind = {Host(1), 53, 0};
    const auto socket = OpenUdpSocket(config, true, true);
    const bool right =
        socket.status().code() == absl::StatusCode::kPermissionDenied &&
        std::string(socket.status().message()).find("CAP_NET_BIND_SERVICE") != std::string::npos;
    _exit(right ? 0 : 11);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

}  // namespace
}  // namespace ringsock::io
