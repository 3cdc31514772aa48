// Long trains that an engine forwards leave without a copy by a device that reads memory itself (an
// ifb here), and with one over loopback. Needs root.
#include <sched.h>

#include <cstdlib>
#include <memory>
#include <string>
#include <thread>

#include "absl/strings/str_cat.h"
#include "core/engine.h"
#include "gtest/gtest.h"
#include "tests/core/engine_fixture.h"

namespace ringsock {
namespace {

constexpr int kTrains = 50;
constexpr int kSegments = 20;
constexpr size_t kSize = 1000;

// Sends what peer 1 sends to peer 2.
class Forwarder final : public Handler {
 public:
  PeerId to = PeerId::kNone;  // set before there are packets
  void OnReceive(Shard& shard, std::span<const ReceivedTrain> trains) override {
    for (const ReceivedTrain& train : trains) shard.Send(to, train.packets);
  }
};

// What the engine counted when trains for `target` had left it; "" or why it could not be.
std::string Forward(const std::string& target, CounterSnapshot* counters) {
  EngineOptions options;
  options.shards = 1;
  options.pin_threads = false;
  options.ipv6 = false;
  options.io.backend = io::Backend::kUring;
  if (const auto loop = io::CreateLoop(options.io); !loop.ok()) return loop.status().ToString();
  Forwarder forwarder;
  auto engine = Engine::Start(options, &forwarder);
  if (!engine.ok()) return engine.status().ToString();
  RemoteHost source;
  EXPECT_TRUE((*engine)->CreateEndpoint(KeyNumber(1), source.text()).ok());
  forwarder.to = *(*engine)->CreateEndpoint(KeyNumber(2), target);
  (*engine)->ConfirmPath(forwarder.to, *Endpoint::Parse(target));
  std::string train;
  for (int i = 0; i < kSegments; ++i) train += Message(4, std::string(kSize - 4, 'x'));
  const auto direct = static_cast<size_t>(PathKind::kDirectV4);
  for (uint64_t i = 1; i <= kTrains; ++i) {
    source.SendTrain((*engine)->port(), train, kSize);
    EXPECT_TRUE(
        WaitUntil([&] { return (*engine)->Counters().paths[direct].tx_packets >= i * kSegments; }));
  }
  (*engine)->Close();
  *counters = (*engine)->Counters();
  return "";
}

// On a thread in a network namespace of its own, where 198.18.0.2 is behind an ifb.
void ForwardInNamespace(const std::string& target, CounterSnapshot* counters) {
  std::string why;
  std::thread([&] {
    if (unshare(CLONE_NEWNET) != 0) {
      why = "needs the right to make a network namespace";
    } else if (system(  // NOLINT(cert-env33-c): a fixed command
                   "ip link set lo up && ip link add z type ifb 2>/dev/null && "
                   "ip link set z up && ip address add 198.18.0.1/24 dev z && "
                   "ip neigh add 198.18.0.2 lladdr 02:00:00:00:00:02 dev z nud permanent") != 0) {
      why = "this kernel has no ifb";
    } else {
      why = Forward(target, counters);
    }
  }).join();
  if (!why.empty()) GTEST_SKIP() << why;
}

TEST(EngineZeroCopyTest, ForwardedTrainsLeaveADeviceWithoutACopy) {
  CounterSnapshot counters;
  ForwardInNamespace("198.18.0.2:9", &counters);
  if (IsSkipped()) return;
  EXPECT_GT(counters.tx_zero_copy, 0u);
  EXPECT_LE(counters.tx_zero_copy, kTrains + 1u);
  EXPECT_EQ(counters.tx_zero_copy_copied, 0u);
}

TEST(EngineZeroCopyTest, ForwardedTrainsAreCopiedOnLoopback) {
  CounterSnapshot counters;
  ForwardInNamespace("127.0.0.1:9", &counters);
  if (IsSkipped()) return;
  EXPECT_EQ(counters.tx_zero_copy, 0u);
  EXPECT_GE(counters.tx_zero_copy_copied, 1u);
  EXPECT_LE(counters.tx_zero_copy_copied, 3u) << "trials are rare";
}

}  // namespace
}  // namespace ringsock
