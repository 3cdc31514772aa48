// What a worker is told by other threads off the path of packets: notices of the registry, in
// order, and calls to make. Its reader looks at one flag per turn; the lock is for when it is set.
#ifndef RINGSOCK_RELAY_MAILBOX_H_
#define RINGSOCK_RELAY_MAILBOX_H_

#include <atomic>
#include <functional>
#include <mutex>
#include <utility>
#include <vector>

#include "io/loop.h"
#include "relay/route.h"

namespace ringsock::relay {

class Mailbox {
 public:
  using Call = std::function<void(Worker&)>;
  struct Mail {
    std::vector<Notice> notices;
    std::vector<Call> calls;  // to be made after the notices
  };

  // The loop to wake. Null: the worker has ended, what is posted is thrown away.
  void SetLoop(io::Loop* loop) {
    const std::lock_guard lock(mutex_);
    loop_ = loop;
    if (loop == nullptr) mail_ = {};
  }

  // Any thread. Bounded by the number of logins and logouts within a turn of the worker.
  void Post(const Notice& notice) {
    const std::lock_guard lock(mutex_);
    if (loop_ == nullptr) return;
    mail_.notices.push_back(notice);
    Announce();
  }
  // False: the worker has ended, and the call will not be made.
  bool Post(Call call) {
    const std::lock_guard lock(mutex_);
    if (loop_ == nullptr) return false;
    mail_.calls.push_back(std::move(call));
    Announce();
    return true;
  }

  // The worker. Everything posted before what it has learned otherwise is seen.
  bool pending() const { return pending_.load(std::memory_order_acquire); }
  Mail Take() {
    const std::lock_guard lock(mutex_);
    pending_.store(false, std::memory_order_relaxed);
    return std::exchange(mail_, {});
  }

 private:
  void Announce() {
    if (pending_.load(std::memory_order_relaxed)) return;
    pending_.store(true, std::memory_order_release);
    loop_->Wake();
  }

  std::mutex mutex_;
  std::atomic<bool> pending_{false};
  io::Loop* loop_ = nullptr;
  Mail mail_;
};

}  // namespace ringsock::relay

#endif  // RINGSOCK_RELAY_MAILBOX_H_
