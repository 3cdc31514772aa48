// Scheduling, cancelling and firing timers allocates nothing. A program of its own, because it
// counts in operator new.
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <memory>
#include <new>
#include <vector>

#include "base/timer_queue.h"

namespace {
std::atomic<size_t> allocations{0};
}  // namespace

// Not inlined: the compiler would see malloc() on one side and delete on the other.
[[gnu::noinline]] void* operator new(size_t size) {
  ++allocations;
  if (void* memory = std::malloc(size == 0 ? 1 : size)) return memory;
  throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, size_t) noexcept { std::free(memory); }

namespace ringsock {
namespace {

TEST(TimerQueueAllocationTest, SchedulingAndFiringAllocateNothing) {
  TimerQueue queue;
  std::vector<std::unique_ptr<Timer>> timers;
  int count = 0;
  for (int i = 0; i < 100; ++i) {
    timers.push_back(std::make_unique<Timer>(&queue, [&count] { ++count; }));
  }
  const size_t before = allocations;
  for (int round = 0; round < 10; ++round) {
    for (int i = 0; i < 100; ++i) timers[i]->Schedule(Instant(Duration(i * 7 % 13)));
    for (int i = 0; i < 100; i += 3) timers[i]->Cancel();
    queue.RunDue(Instant(Duration(20)));
  }
  EXPECT_EQ(allocations, before);
  EXPECT_EQ(count, 10 * 66);
}

}  // namespace
}  // namespace ringsock
