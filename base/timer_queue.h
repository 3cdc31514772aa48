// Timers of one control thread: a queue sorted by deadline, and timers that their users own. The
// thread asks for the next deadline, waits in its loop until then, and runs what is due.
#ifndef RINGSOCK_BASE_TIMER_QUEUE_H_
#define RINGSOCK_BASE_TIMER_QUEUE_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include "base/clock.h"

namespace ringsock {

class TimerQueue;

// One thing that happens later. Belongs to its user, who outlives neither it nor, while it is
// scheduled, the queue; destroying it cancels it. Scheduling and firing allocate nothing.
class Timer {
 public:
  Timer(TimerQueue* queue, std::function<void()> callback);
  ~Timer();
  Timer(const Timer&) = delete;
  Timer& operator=(const Timer&) = delete;

  // Fires once at or after `deadline`; a timer that is scheduled already is moved. Instant::max()
  // is never: the same as Cancel().
  void Schedule(Instant deadline);
  // Does nothing if it is not scheduled.
  void Cancel();
  bool scheduled() const { return position_ != kIdle; }
  // Only if scheduled().
  Instant deadline() const { return deadline_; }

 private:
  friend class TimerQueue;
  static constexpr size_t kIdle = SIZE_MAX;

  TimerQueue* const queue_;
  std::function<void()> callback_;
  Instant deadline_{};
  uint64_t order_ = 0;       // breaks ties: timers of one instant fire as they were scheduled
  size_t position_ = kIdle;  // in the heap
};

// Not thread safe. Must outlive its timers. Schedule, cancel and fire cost O(log n).
class TimerQueue {
 public:
  TimerQueue() = default;
  ~TimerQueue();
  TimerQueue(const TimerQueue&) = delete;
  TimerQueue& operator=(const TimerQueue&) = delete;

  // Deadline of the first timer; Instant::max() without one.
  Instant NextDeadline() const;
  // Fires every timer whose deadline is `now` or earlier, by deadline, then in the order they were
  // scheduled. A callback may schedule, cancel and destroy any timer, its own too; what it
  // schedules fires in the next call at the earliest, so a timer of period zero hangs no thread.
  // Returns how many fired. Not from inside a callback.
  size_t RunDue(Instant now);
  size_t size() const { return heap_.size(); }

 private:
  friend class Timer;

  void Place(size_t position, Timer* timer);
  void SiftUp(size_t position);
  void SiftDown(size_t position);
  void Insert(Timer* timer);
  void Remove(Timer* timer);
  static bool Before(const Timer& a, const Timer& b);

  std::vector<Timer*> heap_;
  size_t timers_ = 0;  // that exist: the heap has room for all of them
  uint64_t next_order_ = 0;
  Timer* running_ = nullptr;        // whose callback is running; null once it is destroyed
  Instant round_ = Instant::min();  // the `now` of the RunDue() in progress
};

}  // namespace ringsock

#endif  // RINGSOCK_BASE_TIMER_QUEUE_H_
