// The control thread, with readers that the test moves by hand.
#include "core/control.h"

#include <algorithm>
#include <atomic>
#include <thread>
#include <vector>

#include "gtest/gtest.h"
#include "tests/core/engine_fixture.h"
#include "tests/core/fake_loop.h"

namespace ringsock {
namespace {

// Counts control's turns, and the peers that went since the last of them.
class CountingPart final : public ControlPart {
 public:
  bool Run() override {
    most_gone_ = std::max(most_gone_, gone_);
    gone_ = 0;
    turns_.fetch_add(1, std::memory_order_relaxed);
    return false;
  }
  Instant NextDeadline() const override { return Instant::max(); }
  void OnPeerChange(const Peer*, const Peer* now) override {
    if (now == nullptr) ++gone_;
  }

  int turns() const { return turns_.load(std::memory_order_relaxed); }
  // Control's thread.
  size_t most_gone() const { return std::max(most_gone_, gone_); }

 private:
  std::atomic<int> turns_{0};
  size_t gone_ = 0;
  size_t most_gone_ = 0;
};

// Two callers, of whom one has always asked by the time that the other is served.
TEST(ControlTest, CallersWithoutEndLeaveTimeForTheRest) {
  FakeLoop loop;
  Quiescence quiescence;
  PeerTable peers({}, &quiescence);
  PathReports reports(&loop);
  CountingPart part;
  Control control(&loop, &peers, &quiescence, &reports, {}, {});
  control.AddPart(&part);
  ASSERT_TRUE(control.StartThread().ok());
  std::atomic<bool> end{false};
  int served = 0;  // control's thread
  const auto call_on = [&] {
    while (!end.load()) {
      control.Execute([&] {
        ++served;
        // Each call wakes the loop when it has been queued.
        while (!end.load() && loop.wakes() <= served) std::this_thread::yield();
      });
    }
  };
  std::thread first(call_on);
  std::thread second(call_on);
  WaitUntil([&] { return loop.wakes() > 2; });
  const int before = part.turns();
  EXPECT_TRUE(WaitUntil([&] { return part.turns() >= before + 10; })) << "control is kept busy";
  end.store(true);
  first.join();
  second.join();
}

// An observer, which control's thread calls, removes a peer; the shard that still uses it waits for
// somebody who asks how the peers are.
TEST(ControlTest, WhoRemovesOnControlsThreadStillServesOthers) {
  FakeLoop loop;
  Quiescence quiescence;
  PeerTable peers({}, &quiescence);
  PathReports reports(&loop);
  Control control(&loop, &peers, &quiescence, &reports, {}, {});
  ASSERT_TRUE(control.CreateEndpoint(KeyNumber(1), {}).ok());
  ASSERT_TRUE(control.StartThread().ok());
  auto shard = *quiescence.Register();
  shard.Online();
  std::atomic<bool> removed{false};
  std::thread observer([&] {
    control.Execute([&] {
      EXPECT_TRUE(control.RemovePeers(std::vector{KeyNumber(1)}).ok());
      removed.store(true);
    });
  });
  ASSERT_TRUE(WaitUntil([&] { return peers.size() == 0; }));
  std::atomic<bool> asked{false};
  std::vector<PeerStatus> status;
  std::thread asker([&] {
    EXPECT_TRUE(control.AddPeers(&status));
    asked.store(true);
  });
  EXPECT_TRUE(WaitUntil([&] { return asked.load(); })) << "it waits for control, control for us";
  EXPECT_FALSE(removed.load()) << "returned while a reader may use the peer";
  shard.Offline();
  observer.join();
  asker.join();
  EXPECT_TRUE(removed.load());
  EXPECT_TRUE(status.empty());
}

// spec: PEER-2: whoever asks, when the call returns no reader uses a removed peer.
TEST(ControlTest, EveryUpdateWaitsForTheLastRemoval) {
  FakeLoop loop;
  Quiescence quiescence;
  PeerTable peers({}, &quiescence);
  PathReports reports(&loop);
  Control control(&loop, &peers, &quiescence, &reports, {}, {});
  ASSERT_TRUE(control.CreateEndpoint(KeyNumber(1), {}).ok());
  ASSERT_TRUE(control.StartThread().ok());
  auto reader = *quiescence.Register();
  reader.Online();
  std::atomic<bool> passed{false};
  std::atomic<int> returned{0};
  const auto update = [&] {
    EXPECT_TRUE(control.UpdatePeers({}).ok());
    EXPECT_TRUE(passed.load()) << "returned while a reader may use the peer";
    returned.fetch_add(1);
  };
  std::thread first(update);
  ASSERT_TRUE(WaitUntil([&] { return peers.size() == 0; }));
  std::thread second(update);  // finds nothing to remove
  // Time for a call that does not wait to come back. One that waits never does.
  for (int i = 0; i < 2000 && returned.load() == 0; ++i) control.Execute([] {});
  passed.store(true);
  reader.Offline();
  first.join();
  second.join();
  EXPECT_EQ(returned.load(), 2);
}

// Between the groups control does what else there is.
TEST(ControlTest, ManyPeersGoInGroups) {
  constexpr uint32_t kPeers = 5 * Control::kPeersAtOnce + 7;
  FakeLoop loop;
  Quiescence quiescence;
  PeerTable peers({}, &quiescence);
  PathReports reports(&loop);
  CountingPart part;
  Control control(&loop, &peers, &quiescence, &reports, {}, {});
  control.AddPart(&part);
  std::vector<PublicKey> kept;
  for (uint32_t i = 0; i < kPeers; ++i) {
    ASSERT_TRUE(control.CreateEndpoint(KeyNumber(i), {}).ok());
    if (i % 100 == 0) kept.push_back(KeyNumber(i));
  }
  ASSERT_TRUE(control.StartThread().ok());
  std::vector<PublicKey> keys = kept;
  keys.push_back(KeyNumber(kPeers));  // nobody's
  keys.push_back(kept[0]);            // twice
  EXPECT_TRUE(control.UpdatePeers(keys).ok());
  std::vector<PeerStatus> status;
  EXPECT_TRUE(control.AddPeers(&status));
  std::vector<PublicKey> left;
  for (const PeerStatus& peer : status) left.push_back(peer.key);
  EXPECT_EQ(left, kept);
  size_t most_gone = 0;
  control.Execute([&] { most_gone = part.most_gone(); });
  EXPECT_LE(most_gone, Control::kPeersAtOnce);
  EXPECT_GT(most_gone, 0u);
}

}  // namespace
}  // namespace ringsock
