// The thread behind core/link_monitor.h: waits for events, lets them settle, reads the whole state
// and compares.
#include "core/link_monitor.h"

#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <mutex>
#include <thread>
#include <utility>

#include "absl/status/status.h"
#include "base/log.h"
#include "core/new_thread.h"
#include "io/fd.h"

namespace ringsock {
namespace {

// How long after a failed read of the state it is tried again.
constexpr Duration kRetry = std::chrono::seconds(1);

class MonitorThread final : public LinkMonitor {
 public:
  MonitorThread(const LinkMonitorOptions& options, Callback callback)
      : options_(options),
        callback_(std::move(callback)),
        settle_(options.quiet, options.longest) {}

  ~MonitorThread() override {
    if (!thread_.joinable()) return;
    const uint64_t one = 1;
    // An eventfd of value 0 takes any number.
    (void)!write(stop_.get(), &one, sizeof(one));
    thread_.join();
  }

  absl::Status Start() {
    if (events_.get() < 0 || stop_.get() < 0) return Error("socket");
    sockaddr_nl address{};
    address.nl_family = AF_NETLINK;
    address.nl_groups = RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR | RTMGRP_IPV4_ROUTE |
                        RTMGRP_IPV6_ROUTE;
    if (bind(events_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) < 0) {
      return Error("bind");
    }
    // After the events are on their way, so that no change falls between.
    absl::StatusOr<NetworkState> state = ReadNetworkState(options_.ignored);
    if (!state.ok()) return state.status();
    state_ = std::move(*state);
    absl::StatusOr<std::thread> thread = NewThread([this] { Main(); });
    if (!thread.ok()) return thread.status();
    thread_ = std::move(*thread);
    return absl::OkStatus();
  }

  NetworkState state() const override {
    std::lock_guard lock(mutex_);
    return state_;
  }
  LinkMonitorStats stats() const override {
    std::lock_guard lock(mutex_);
    return stats_;
  }

 private:
  static absl::Status Error(const char* what) {
    return absl::ErrnoToStatus(errno, std::string("link monitor: ") + what);
  }

  void Main() {
    std::array<pollfd, 2> fds{pollfd{events_.get(), POLLIN, 0}, pollfd{stop_.get(), POLLIN, 0}};
    for (;;) {
      if (poll(fds.data(), fds.size(), Timeout()) < 0 && errno != EINTR) {
        // Neither memory nor descriptors are asked for: it cannot fail.
        Log().error("Link monitor stopped: {}", Error("poll").ToString());
        return;
      }
      if (fds[1].revents != 0) return;
      if (fds[0].revents != 0) TakeEvents();
      if (SystemClock().Now() >= settle_.deadline()) Compare();
    }
  }

  int Timeout() const {
    if (settle_.deadline() == Instant::max()) return -1;
    const auto wait =
        std::chrono::ceil<std::chrono::milliseconds>(settle_.deadline() - SystemClock().Now());
    return static_cast<int>(std::max<int64_t>(0, wait.count()));
  }

  // What they say does not matter. An overrun (ENOBUFS) is an event as well.
  void TakeEvents() {
    std::array<char, 16384> buffer;
    uint64_t count = 0;
    while (recv(events_.get(), buffer.data(), buffer.size(), MSG_DONTWAIT) > 0 ||
           errno == ENOBUFS) {
      ++count;
      errno = 0;
    }
    settle_.OnEvent(SystemClock().Now());
    std::lock_guard lock(mutex_);
    stats_.events += count;
  }

  void Compare() {
    settle_.Reset();
    absl::StatusOr<NetworkState> now = ReadNetworkState(options_.ignored);
    std::unique_lock lock(mutex_);
    if (!now.ok()) {
      ++stats_.errors;
      lock.unlock();
      Log().warn("The state of the network could not be read, trying again: {}",
                 now.status().ToString());
      settle_.Delay(SystemClock().Now() + kRetry);
      return;
    }
    if (*now == state_) {
      ++stats_.noise;
      return;
    }
    ++stats_.changes;
    const std::string change = DescribeChange(state_, *now);
    state_ = *now;
    lock.unlock();
    callback_(*now, change);
  }

  const LinkMonitorOptions options_;
  const Callback callback_;
  const io::Fd events_{socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE)};
  const io::Fd stop_{eventfd(0, EFD_CLOEXEC)};
  Settle settle_;  // of the thread
  mutable std::mutex mutex_;
  NetworkState state_;      // guarded by mutex_
  LinkMonitorStats stats_;  // guarded by mutex_
  std::thread thread_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<LinkMonitor>> LinkMonitor::Start(const LinkMonitorOptions& options,
                                                                Callback callback) {
  auto monitor = std::make_unique<MonitorThread>(options, std::move(callback));
  if (absl::Status status = monitor->Start(); !status.ok()) return status;
  return monitor;
}

}  // namespace ringsock
