// Zero-copy send to a device that reads the memory itself: an ifb, whose packets end in it, behind
// a queue that holds them back for as long as a test likes. Needs root.
#include <arpa/inet.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <sched.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "io/fd.h"
#include "io/loop.h"
#include "io/uring_loop.h"
#include "io/zero_copy_memory.h"
#include "tests/io/loop_world.h"

namespace ringsock::io {
namespace {

constexpr uint32_t kPackets = 20;
constexpr uint32_t kSize = 1000;
constexpr uint32_t kTrain = kPackets * kSize;  // long enough for zero copy
// Ethernet, IP and UDP headers of what the tap sees.
constexpr size_t kHeaders = 14 + 20 + 8;

bool Shell(const std::string& command) {
  return system(command.c_str()) == 0;  // NOLINT(cert-env33-c): fixed commands
}

// Sees what the device is given to send, when it is given it. That is a reader more, for whom the
// kernel copies.
class Tap {
 public:
  Tap() : fd_(socket(AF_PACKET, SOCK_RAW, 0)) {
    const int room = 64 << 20;
    setsockopt(fd_.get(), SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof room);
    sockaddr_ll address{};
    address.sll_family = AF_PACKET;
    address.sll_protocol = htons(ETH_P_ALL);
    address.sll_ifindex = static_cast<int>(if_nametoindex("z"));
    EXPECT_EQ(bind(fd_.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  }
  // The payload of the next train of kTrain bytes, or nothing.
  std::vector<std::byte> Next() {
    std::vector<std::byte> packet(1 << 16);
    for (;;) {
      const ssize_t size = recv(fd_.get(), packet.data(), packet.size(), MSG_DONTWAIT);
      if (size < 0) return {};
      if (static_cast<size_t>(size) != kHeaders + kTrain) continue;
      return {packet.begin() + kHeaders, packet.begin() + size};
    }
  }

 private:
  Fd fd_;
};

// A train whose packets all say `number`.
std::vector<std::byte> TrainNumber(uint32_t number) {
  std::vector<std::byte> bytes(kTrain, static_cast<std::byte>(number));
  for (uint32_t at = 0; at < kTrain; at += kSize) memcpy(&bytes[at], &number, sizeof number);
  return bytes;
}

// On a thread that lives in a network namespace of its own.
class Sending {
 public:
  static void InNamespace(const std::function<void(Sending&)>& test) {
    std::string why;
    std::thread([&] {
      Sending sending;
      why = sending.Open();
      if (why.empty()) test(sending);
    }).join();
    if (!why.empty()) GTEST_SKIP() << why;
  }

  Loop& loop() { return *loop_; }
  SocketId socket() const { return socket_; }
  Endpoint device() const { return {IpAddress::V4(198, 18, 0, 2), 9, 0}; }
  UdpStats Stats() { return loop_->Stats(socket_); }

  // A slab with train `number`, queued; null if there was none.
  TxSlab* Queue(uint32_t number) {
    TxSlab* const slab = loop_->AcquireSlab();
    if (slab == nullptr) return nullptr;
    const auto bytes = TrainNumber(number);
    memcpy(slab->data, bytes.data(), bytes.size());
    loop_->Send(socket_, {slab->data, kTrain, kSize, device(), {}, slab});
    return slab;
  }
  // `done` is asked no more once it has said yes.
  void PollUntil(const std::function<bool()>& done, const char* what) {
    const Instant guard = SystemClock().Now() + std::chrono::seconds(20);
    while (!done()) {
      if (SystemClock().Now() > guard) {
        ADD_FAILURE() << what;
        return;
      }
      loop_->Poll(SystemClock().Now() + std::chrono::milliseconds(1));
    }
  }
  // Until the device has proved good.
  void Learn() {
    ASSERT_NE(Queue(0), nullptr);
    loop_->Flush();
    PollUntil([&] { return Stats().tx_zero_copy == 1; }, "the trial's verdict");
  }
  // The queue in front of the device passes one train on, and nothing for hours.
  void HoldBack() {
    ASSERT_TRUE(Shell(absl::StrCat("tc qdisc add dev z root tbf rate 8bit burst ", kTrain + 5000,
                                   " limit 100000000")));
  }
  void LetGo() {
    ASSERT_TRUE(Shell("tc qdisc change dev z root tbf rate 10gbit burst 10000000 limit 100000000"));
    // The queue looks at its new rate when it is next given something.
    const std::array<std::byte, 1> kick{};
    loop_->Send(socket_, {kick.data(), 1, 0, device(), {}, nullptr});
    loop_->Flush();
  }

 private:
  // Why it cannot be; "" if all is well.
  std::string Open() {
    if (unshare(CLONE_NEWNET) != 0) return "needs the right to make a network namespace";
    if (!Shell("ip link add z type ifb 2>/dev/null")) return "this kernel has no ifb";
    const bool up = Shell(
        "ip link set lo up && ip link set z up && ip address add 198.18.0.1/24 dev z && "
        "ip neigh add 198.18.0.2 lladdr 02:00:00:00:00:02 dev z nud permanent");
    if (!up) return "ip failed";
    LoopOptions options;
    options.tx_slabs = 3;
    options.rx_buffers = 4;
    auto loop = MakeUringLoop(options);
    if (!loop.ok()) return std::string(loop.status().message());
    loop_ = std::move(loop).value();
    UdpConfig config;
    config.bind = {IpAddress::V4(198, 18, 0, 1), 0, 0};
    auto socket = loop_->OpenUdp(config, &recorder_);
    if (!socket.ok()) return std::string(socket.status().message());
    socket_ = *socket;
    return "";
  }

  Recorder recorder_;
  std::unique_ptr<Loop> loop_;
  SocketId socket_ = 0;
};

TEST(ZeroCopyNetworkTest, TurnsOnForADeviceAndStaysOn) {
  Sending::InNamespace([](Sending& sending) {
    sending.Learn();
    for (uint32_t i = 1; i <= 50; ++i) {
      sending.PollUntil([&] { return sending.Queue(i) != nullptr; }, "a slab comes back");
      sending.loop().Flush();
    }
    sending.PollUntil([&] { return sending.Stats().tx_zero_copy == 51; }, "all without a copy");
    const UdpStats stats = sending.Stats();
    EXPECT_EQ(stats.tx_zero_copy_copied, 0u);
    EXPECT_EQ(stats.tx_trains, 51u);
    EXPECT_EQ(stats.tx_failed, 0u);
  });
}

TEST(ZeroCopyNetworkTest, ASlabIsUsedAgainOnlyWhenTheDeviceHasReadIt) {
  Sending::InNamespace([](Sending& sending) {
    sending.Learn();
    sending.HoldBack();
    TxSlab* const first = sending.Queue(1);
    TxSlab* const held = sending.Queue(2);
    ASSERT_TRUE(first != nullptr && held != nullptr && first != held);
    sending.loop().Flush();
    sending.PollUntil([&] { return sending.Stats().tx_zero_copy == 2; }, "the first has gone");
    TxSlab* const one = sending.loop().AcquireSlab();
    TxSlab* const two = sending.loop().AcquireSlab();
    ASSERT_TRUE(one != nullptr && two != nullptr);
    for (int i = 0; i < 10; ++i) sending.loop().Poll(SystemClock().Now());
    EXPECT_EQ(sending.loop().AcquireSlab(), nullptr) << "the third is still read";
    EXPECT_TRUE(one != held && two != held);
    // Others use the memory around it.
    for (TxSlab* slab : {one, two}) memset(slab->data, 0xee, slab->capacity);

    Tap tap;
    sending.LetGo();
    std::vector<std::byte> seen;
    sending.PollUntil([&] { return !(seen = tap.Next()).empty(); }, "it leaves");
    EXPECT_EQ(seen, TrainNumber(2));
    TxSlab* again = nullptr;
    sending.PollUntil([&] { return (again = sending.loop().AcquireSlab()) != nullptr; },
                      "the slab comes back");
    EXPECT_EQ(again, held);
  });
}

// What a handler forwards lies in the loop's own receive buffers. Half of them may be read by the
// device at a time; the rest goes on receiving, and what finds no room is copied.
TEST(ZeroCopyNetworkTest, ReceiveBuffersAreForwardedWithoutACopyAndInOrder) {
  Sending::InNamespace([](Sending& sending) {
    Loop& loop = sending.loop();
    Recorder forwarder, source;
    UdpConfig config;
    config.bind = {IpAddress::V4(127, 0, 0, 1), 0, 0};
    const SocketId in = loop.OpenUdp(config, &forwarder).value();
    const SocketId out = loop.OpenUdp(config, &source).value();
    forwarder.on_receive = [&](SocketId, std::span<const RxTrain> trains) {
      for (const RxTrain& train : trains) {
        loop.Send(sending.socket(),
                  {train.data, train.size, train.segment_size, sending.device(), {}, nullptr});
      }
    };
    sending.Learn();
    sending.HoldBack();
    const UdpStats before = sending.Stats();
    constexpr uint32_t kTrains = 40;
    for (uint32_t i = 0; i < kTrains; ++i) {
      const auto bytes = TrainNumber(i);
      loop.Send(out, {bytes.data(), kTrain, kSize, loop.LocalEndpoint(in), {}, nullptr});
      loop.Flush();
      const size_t packets = size_t{i + 1} * kPackets;
      sending.PollUntil([&] { return forwarder.count >= packets; }, "it goes on receiving");
    }
    EXPECT_EQ(sending.Stats().tx_packets - before.tx_packets, kTrains * kPackets);
    EXPECT_EQ(sending.Stats().tx_failed, 0u);

    Tap tap;
    sending.LetGo();
    // The first had left before.
    for (uint32_t i = 1; i < kTrains; ++i) {
      std::vector<std::byte> seen;
      sending.PollUntil([&] { return !(seen = tap.Next()).empty(); }, "it leaves");
      ASSERT_EQ(seen, TrainNumber(i)) << i;
    }
    const auto judged = [&] {
      const UdpStats stats = sending.Stats();
      return stats.tx_zero_copy + stats.tx_zero_copy_copied - before.tx_zero_copy;
    };
    sending.PollUntil([&] { return judged() >= 3; },
                      "one that left at once and two that were held");
    EXPECT_EQ(judged(), 3u) << "more than half of the buffers";
  });
}

// A tap is a second reader: the kernel copies for it, says so, and we stop.
TEST(ZeroCopyNetworkTest, TurnsOffWhileTheKernelCopies) {
  Sending::InNamespace([](Sending& sending) {
    sending.Learn();
    Tap tap;
    const Instant start = SystemClock().Now();
    for (uint32_t i = 1; i <= 20; ++i) {
      sending.PollUntil([&] { return sending.Queue(i) != nullptr; }, "a slab comes back");
      sending.loop().Flush();
      sending.PollUntil([&] { return sending.Stats().tx_zero_copy_copied > 0; }, "the verdict");
      std::vector<std::byte> seen;
      sending.PollUntil([&] { return !(seen = tap.Next()).empty(); }, "it leaves");
      EXPECT_EQ(seen, TrainNumber(i));
    }
    // It is tried again after a while.
    const auto again = (SystemClock().Now() - start) / ZeroCopyMemory::kFirstRetry;
    EXPECT_LE(sending.Stats().tx_zero_copy_copied, 1u + static_cast<uint64_t>(again));
    EXPECT_EQ(sending.Stats().tx_zero_copy, 1u);
    EXPECT_EQ(sending.Stats().tx_trains, 21u);
  });
}

}  // namespace
}  // namespace ringsock::io
