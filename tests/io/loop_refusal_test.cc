// The part of the suite of every Loop in which the kernel refuses: a train as a whole, a datagram,
// or for want of buffers. Whatever happens, packets keep their order and none comes twice.
#include <cerrno>
#include <cstring>
#include <numeric>

#include "io/loop.h"
#include "io/sim_loop.h"
#include "tests/io/loop_world.h"
#include "tests/io/refused_sends.h"

namespace ringsock::io {
namespace {

constexpr uint32_t kMany = 1000;

class LoopRefusalTest : public LoopTest {
 protected:
  void SetUp() override {
    LoopTest::SetUp();
    if (IsSkipped()) return;
    a_ = &AddPeer();
    b_ = &AddPeer();
    if (GetParam().factory.name != "Uring") return;
    Refuse(ENOTTY, kMany, /*trains_only=*/false);
    Queue(1);
    a_->loop->Flush();
    Refuse(0, 0, false);
    next_ = 0;
    if (a_->recorder.failed_packets != 1) {
      GTEST_SKIP() << "no-operations of this kernel have no result (Linux 6.10)";
    }
    a_->recorder.failures.clear();
    a_->recorder.failed_packets = 0;
  }
  void TearDown() override { RefuseSends(nullptr); }

  // The next `count` sends of `a` (only trains, if told so) fail with `error`.
  void Refuse(int error, uint32_t count, bool trains_only) {
    if (!GetParam().factory.real) {
      SocketFaults& faults = static_cast<SimLoop*>(a_->loop)->faults(a_->socket);
      faults.sends.clear();
      if (count > 0) {
        faults.sends.push_back({.error = error, .count = count, .trains_only = trains_only});
      }
      return;
    }
    RefuseSends([error, left = count, trains_only](bool train) mutable {
      if (left == 0 || (trains_only && !train)) return 0;
      --left;
      return error;
    });
  }

  // Packets that carry the next numbers.
  void Queue(uint32_t packets, uint32_t segment = 200) {
    auto& bytes = sent_.emplace_back(size_t{packets} * segment);
    for (uint32_t i = 0; i < packets; ++i, ++next_) {
      memcpy(bytes.data() + size_t{i} * segment, &next_, sizeof next_);
    }
    a_->loop->Send(a_->socket,
                   {bytes.data(), packets * segment, segment, b_->address, {}, nullptr});
  }
  std::vector<uint32_t> Arrived() const {
    std::vector<uint32_t> numbers;
    for (const Received& packet : b_->recorder.packets) {
      memcpy(&numbers.emplace_back(), packet.bytes.data(), sizeof(uint32_t));
    }
    return numbers;
  }
  // Every number below next_ but [from, to).
  std::vector<uint32_t> AllBut(uint32_t from, uint32_t to) const {
    std::vector<uint32_t> numbers(next_);
    std::iota(numbers.begin(), numbers.end(), 0);
    numbers.erase(numbers.begin() + from, numbers.begin() + to);
    return numbers;
  }
  void ExpectArrival(const std::vector<uint32_t>& numbers) {
    ASSERT_TRUE(Until([&] { return b_->recorder.count >= numbers.size(); }, "what left arrives"));
    Settle();
    EXPECT_EQ(Arrived(), numbers);
  }

  Peer* a_ = nullptr;
  Peer* b_ = nullptr;
  uint32_t next_ = 0;
};
INSTANTIATE_TEST_SUITE_P(All, LoopRefusalTest, testing::ValuesIn(WorldsAndFamilies()), ParamName);

// Singles and trains of several sizes to one address in one flush.
TEST_P(LoopRefusalTest, RefusedTrainsAreReplayedInOrderNothingTwice) {
  for (const int error : {EMSGSIZE, EIO, EINVAL}) {
    const UdpStats before = a_->loop->Stats(a_->socket);
    const uint32_t first = next_;
    Refuse(error, kMany, /*trains_only=*/true);
    Queue(1);
    Queue(10, 200);
    Queue(1, 300);
    Queue(20, 400);
    Queue(5, 100);
    Queue(1);
    a_->loop->Flush();
    Refuse(0, 0, false);
    EXPECT_TRUE(a_->recorder.failures.empty()) << strerror(error);
    ExpectArrival(AllBut(0, 0));
    const UdpStats stats = a_->loop->Stats(a_->socket);
    EXPECT_EQ(stats.tx_packets - before.tx_packets, next_ - first) << strerror(error);
    EXPECT_GE(stats.tx_replayed, error == EMSGSIZE ? 1u : 0u);
  }
}

// A replay in which some packets fail alone: the others go, in order, and each loss is told once.
TEST_P(LoopRefusalTest, APacketThatFailsInAReplayIsLostAlone) {
  Queue(1);
  a_->loop->Flush();
  Refuse(EMSGSIZE, /*count=*/2, /*trains_only=*/false);  // the train, then its first packet
  Queue(10);
  a_->loop->Flush();
  EXPECT_EQ(a_->recorder.failed_packets, 1u);
  ASSERT_EQ(a_->recorder.failures.size(), 1u);
  EXPECT_EQ(a_->recorder.failures[0].error, EMSGSIZE);
  EXPECT_EQ(a_->recorder.failures[0].first_byte, sent_.back().data());
  ExpectArrival(AllBut(1, 2));
}

// No room is not the train's fault: it is lost as a whole, told once, and not sent again.
TEST_P(LoopRefusalTest, NoBuffersLosesTheTrainAndNothingElse) {
  for (const int error : {ENOBUFS, EAGAIN}) {
    b_->recorder.packets.clear();
    b_->recorder.count = 0;
    a_->recorder.failures.clear();
    a_->recorder.failed_packets = 0;
    next_ = 0;
    Refuse(error, /*count=*/1, /*trains_only=*/true);
    Queue(1);
    Queue(10);
    Queue(1, 300);
    Queue(10);
    a_->loop->Flush();
    Refuse(0, 0, false);
    EXPECT_EQ(a_->recorder.failed_packets, 10u) << strerror(error);
    for (const Failed& failure : a_->recorder.failures) EXPECT_EQ(failure.error, error);
    ExpectArrival(AllBut(1, 11));
  }
}

}  // namespace
}  // namespace ringsock::io
