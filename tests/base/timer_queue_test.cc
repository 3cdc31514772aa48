// Timers: order, cancelling, and timers that change timers while they fire. That nothing is
// allocated is shown by timer_queue_allocation_test.cc.
#include "base/timer_queue.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/random.h"

namespace ringsock {
namespace {

Instant At(int64_t ns) { return Instant(Duration(ns)); }

class TimerQueueTest : public testing::Test {
 protected:
  std::unique_ptr<Timer> Make(char name) {
    return std::make_unique<Timer>(&queue, [this, name] { fired += name; });
  }
  TimerQueue queue;
  std::string fired;
};

TEST_F(TimerQueueTest, FiresByDeadlineThenInOrderOfScheduling) {
  const auto a = Make('a'), b = Make('b'), c = Make('c'), d = Make('d');
  d->Schedule(At(20));
  b->Schedule(At(10));
  a->Schedule(At(10));
  c->Schedule(At(5));
  EXPECT_EQ(queue.NextDeadline(), At(5));
  EXPECT_EQ(queue.RunDue(At(4)), 0u);
  EXPECT_EQ(queue.RunDue(At(10)), 3u);
  EXPECT_EQ(fired, "cba");
  EXPECT_FALSE(a->scheduled());
  EXPECT_TRUE(d->scheduled());
  EXPECT_EQ(queue.NextDeadline(), At(20));
  EXPECT_EQ(queue.RunDue(Instant::max()), 1u);
  EXPECT_EQ(queue.NextDeadline(), Instant::max());
}

TEST_F(TimerQueueTest, MovingGoesToTheEndOfItsInstantAndNeverIsCancel) {
  const auto a = Make('a'), b = Make('b'), c = Make('c');
  for (Timer* timer : {a.get(), b.get(), c.get()}) timer->Schedule(At(10));
  a->Schedule(At(10));
  b->Schedule(Instant::max());
  EXPECT_FALSE(b->scheduled());
  b->Cancel();
  EXPECT_EQ(queue.size(), 2u);
  queue.RunDue(At(10));
  EXPECT_EQ(fired, "ca");
}

TEST_F(TimerQueueTest, DestroyedTimerDoesNotFire) {
  auto a = Make('a');
  const auto b = Make('b');
  a->Schedule(At(1));
  b->Schedule(At(2));
  a.reset();
  EXPECT_EQ(queue.NextDeadline(), At(2));
  queue.RunDue(At(2));
  EXPECT_EQ(fired, "b");
}

TEST_F(TimerQueueTest, CallbackMayRescheduleItselfAndFiresOncePerRun) {
  std::optional<Timer> timer;
  int count = 0;
  timer.emplace(&queue, [&] {
    ++count;
    timer->Schedule(At(0));
  });
  const auto other = Make('o');
  timer->Schedule(At(0));
  other->Schedule(At(5));
  EXPECT_EQ(queue.RunDue(At(10)), 2u) << "a timer that stays due does not hold up the others";
  EXPECT_EQ(count, 1);
  EXPECT_EQ(fired, "o");
  EXPECT_EQ(queue.RunDue(At(10)), 1u);
  EXPECT_EQ(count, 2);
}

TEST_F(TimerQueueTest, CallbackMayCancelAndDestroyTimersThatAreDueToo) {
  auto victim = Make('v');
  const auto cancelled = Make('c');
  Timer killer(&queue, [&] {
    victim.reset();
    cancelled->Cancel();
  });
  killer.Schedule(At(1));
  victim->Schedule(At(1));
  cancelled->Schedule(At(1));
  EXPECT_EQ(queue.RunDue(At(1)), 1u);
  EXPECT_EQ(fired, "");
}

TEST_F(TimerQueueTest, CallbackMayDestroyItsOwnTimer) {
  const std::string marker(100, 'x');  // on the heap, so that address sanitizer would see its end
  auto timer = std::make_unique<std::optional<Timer>>();
  timer->emplace(&queue, [this, marker, &timer] {
    timer.reset();
    fired += marker.substr(0, 2);
  });
  (*timer)->Schedule(At(1));
  queue.RunDue(At(1));
  EXPECT_EQ(fired, "xx");
  EXPECT_EQ(queue.size(), 0u);
}

// Against the obvious model: a list, sorted stably for every run.
TEST_F(TimerQueueTest, AgreesWithASortedListOnRandomOperations) {
  constexpr uint64_t kSeed = 7;
  SeededRandom random(kSeed);
  constexpr int kTimers = 40;
  std::vector<int> order;
  std::vector<std::unique_ptr<Timer>> timers;
  for (int i = 0; i < kTimers; ++i) {
    timers.push_back(std::make_unique<Timer>(&queue, [&order, i] { order.push_back(i); }));
  }
  std::vector<std::pair<Instant, int>> model;  // in order of scheduling
  int64_t now = 0;
  for (int step = 0; step < 20000; ++step) {
    const int i = static_cast<int>(random.Below(kTimers));
    const auto forget = [&] { std::erase_if(model, [&](auto& m) { return m.second == i; }); };
    switch (random.Below(4)) {
      case 0:
      case 1: {
        const Instant deadline = At(now + static_cast<int64_t>(random.Below(50)));
        forget();
        model.emplace_back(deadline, i);
        timers[i]->Schedule(deadline);
        break;
      }
      case 2:
        forget();
        timers[i]->Cancel();
        break;
      default: {
        now += static_cast<int64_t>(random.Below(10));
        std::stable_sort(model.begin(), model.end(),
                         [](auto& a, auto& b) { return a.first < b.first; });
        std::vector<int> expected;
        while (!model.empty() && model.front().first <= At(now)) {
          expected.push_back(model.front().second);
          model.erase(model.begin());
        }
        order.clear();
        queue.RunDue(At(now));
        ASSERT_EQ(order, expected) << "step " << step << ", seed " << kSeed;
      }
    }
    ASSERT_EQ(queue.size(), model.size());
  }
}

}  // namespace
}  // namespace ringsock
