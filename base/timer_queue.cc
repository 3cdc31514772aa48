#include "base/timer_queue.h"

#include <algorithm>
#include <cassert>
#include <utility>

namespace ringsock {

Timer::Timer(TimerQueue* queue, std::function<void()> callback)
    : queue_(queue), callback_(std::move(callback)) {
  // Room is made here, so that Schedule() never allocates; doubled, so that it is made rarely.
  const size_t needed = ++queue_->timers_;
  if (queue_->heap_.capacity() < needed) queue_->heap_.reserve(std::max<size_t>(8, 2 * needed));
}

Timer::~Timer() {
  Cancel();
  if (queue_->running_ == this) queue_->running_ = nullptr;
  --queue_->timers_;
}

void Timer::Schedule(Instant deadline) {
  Cancel();
  if (deadline == Instant::max()) return;
  // Inside RunDue(now) the past begins at `now`: else a timer that goes back to the past whenever
  // it fires would stay ahead of the others that are due.
  deadline_ = std::max(deadline, queue_->round_);
  order_ = queue_->next_order_++;
  queue_->Insert(this);
}

void Timer::Cancel() {
  if (scheduled()) queue_->Remove(this);
}

TimerQueue::~TimerQueue() { assert(timers_ == 0 && "a timer outlives its queue"); }

Instant TimerQueue::NextDeadline() const {
  return heap_.empty() ? Instant::max() : heap_.front()->deadline_;
}

size_t TimerQueue::RunDue(Instant now) {
  assert(running_ == nullptr && "RunDue() from inside a callback");
  const uint64_t end = next_order_;
  size_t fired = 0;
  round_ = now;
  while (!heap_.empty() && heap_.front()->deadline_ <= now && heap_.front()->order_ < end) {
    Timer* timer = heap_.front();
    Remove(timer);
    ++fired;
    // The callback may destroy its timer, so it runs from here and goes back if there is a where.
    running_ = timer;
    std::function<void()> callback = std::move(timer->callback_);
    callback();
    if (running_ != nullptr) timer->callback_ = std::move(callback);
    running_ = nullptr;
  }
  round_ = Instant::min();
  return fired;
}

bool TimerQueue::Before(const Timer& a, const Timer& b) {
  return a.deadline_ != b.deadline_ ? a.deadline_ < b.deadline_ : a.order_ < b.order_;
}

void TimerQueue::Place(size_t position, Timer* timer) {
  heap_[position] = timer;
  timer->position_ = position;
}

void TimerQueue::SiftUp(size_t position) {
  Timer* timer = heap_[position];
  while (position > 0) {
    const size_t parent = (position - 1) / 2;
    if (!Before(*timer, *heap_[parent])) break;
    Place(position, heap_[parent]);
    position = parent;
  }
  Place(position, timer);
}

void TimerQueue::SiftDown(size_t position) {
  Timer* timer = heap_[position];
  for (;;) {
    size_t child = 2 * position + 1;
    if (child >= heap_.size()) break;
    if (child + 1 < heap_.size() && Before(*heap_[child + 1], *heap_[child])) ++child;
    if (!Before(*heap_[child], *timer)) break;
    Place(position, heap_[child]);
    position = child;
  }
  Place(position, timer);
}

void TimerQueue::Insert(Timer* timer) {
  heap_.push_back(timer);
  SiftUp(heap_.size() - 1);
}

void TimerQueue::Remove(Timer* timer) {
  const size_t position = timer->position_;
  timer->position_ = Timer::kIdle;
  Timer* last = heap_.back();
  heap_.pop_back();
  if (last == timer) return;
  Place(position, last);
  SiftUp(position);
  SiftDown(last->position_);
}

}  // namespace ringsock
