// The thread that asks for a mapping, renews it at half its time, and tries again when nobody
// answered (core/port_mapper.h).
#include "core/port_mapper.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/log.h"
#include "core/new_thread.h"
#include "io/fd.h"

namespace ringsock {
namespace {

class MapperThread final : public PortMapper {
 public:
  MapperThread(const PortMapperOptions& options,
               std::vector<std::unique_ptr<PortMappingProtocol>> protocols, Callback callback)
      : options_(options), callback_(std::move(callback)), protocols_(std::move(protocols)) {
    wanted_.port = options.port;
  }

  ~MapperThread() override {
    if (!thread_.joinable()) return;
    {
      std::lock_guard lock(mutex_);
      stop_ = true;
    }
    Interrupt();
    thread_.join();
  }

  absl::Status Start() {
    if (!interrupt_.valid()) return absl::ErrnoToStatus(errno, "port mapper: eventfd");
    absl::StatusOr<std::thread> thread = NewThread([this] { Main(); });
    if (!thread.ok()) return thread.status();
    thread_ = std::move(*thread);
    return absl::OkStatus();
  }

  void SetGateway(const IpAddress& gateway, uint16_t port) override {
    {
      std::lock_guard lock(mutex_);
      if (wanted_.gateway == gateway && wanted_.port == port) return;
      wanted_.gateway = gateway;
      wanted_.port = port;
      changed_ = true;
    }
    Interrupt();
  }

  PortMapperStatus status() const override {
    std::lock_guard lock(mutex_);
    return status_;
  }

 private:
  struct Target {
    IpAddress gateway = IpAddress::AnyV4();
    uint16_t port = 0;
    bool valid() const { return !gateway.IsUnspecified() && port != 0; }
  };

  void Interrupt() {
    const uint64_t one = 1;
    (void)!write(interrupt_.get(), &one, sizeof(one));
  }

  void Main() {
    Instant next = Instant::max();
    for (;;) {
      Wait(next);
      if (!TakeOrders()) break;
      Retarget();
      if (!target_.valid()) {
        Lose("no default route over IPv4");
        next = Instant::max();
      } else {
        next = Ask();
      }
    }
    if (mapped_ != nullptr) mapped_->Unmap(Request());
  }

  void Wait(Instant until) const {
    int timeout = -1;
    if (until != Instant::max()) {
      const auto wait = std::chrono::ceil<std::chrono::milliseconds>(until - SystemClock().Now());
      timeout = static_cast<int>(std::clamp<int64_t>(wait.count(), 0, 1 << 30));
    }
    pollfd fd{interrupt_.get(), POLLIN, 0};
    (void)poll(&fd, 1, timeout);
  }

  // False: the end.
  bool TakeOrders() {
    std::lock_guard lock(mutex_);
    uint64_t count = 0;
    pollfd fd{interrupt_.get(), POLLIN, 0};
    if (poll(&fd, 1, 0) > 0) (void)!read(interrupt_.get(), &count, sizeof(count));
    if (stop_) return false;
    if (std::exchange(changed_, false)) next_target_ = wanted_;
    return true;
  }

  // Goes over to the gateway and port that were ordered, if others than before were.
  void Retarget() {
    if (!next_target_.has_value()) return;
    // What another router mapped is its own affair: it cannot be reached any more.
    if (mapped_ != nullptr && next_target_->gateway == target_.gateway) mapped_->Unmap(Request());
    target_ = *next_target_;
    next_target_.reset();
    Lose("");
  }

  PortMappingRequest Request() const {
    PortMappingRequest request;
    request.gateway = target_.gateway;
    request.port = target_.port;
    request.external = external_.port != 0 ? external_.port : target_.port;
    request.lifetime = options_.lifetime;
    request.interrupt = interrupt_.get();
    return request;
  }

  // Another order, or the end, has come: what is asked now is of no use.
  bool Interrupted() const {
    std::lock_guard lock(mutex_);
    return stop_ || changed_;
  }

  // Returns when to ask again.
  Instant Ask() {
    std::string errors;
    for (auto& protocol : protocols_) {
      if (Interrupted()) return SystemClock().Now();
      const absl::StatusOr<PortMapping> mapping = protocol->Map(Request());
      if (mapping.ok() && mapping->external.port != 0) {
        mapped_ = protocol.get();
        Publish(*mapping);
        std::swap(protocols_.front(), protocol);
        const Instant now = SystemClock().Now();
        expiry_ = now + mapping->lifetime;
        return now + std::max<Duration>(mapping->lifetime / 2, options_.min_renewal);
      }
      absl::StrAppend(&errors, errors.empty() ? "" : "; ", mapping.status().message());
    }
    const Instant now = SystemClock().Now();
    {
      std::lock_guard lock(mutex_);
      ++status_.requests;
      ++status_.failures;
      if (stop_ || changed_) return now;
    }
    // The router keeps its word until then, also while it does not answer.
    if (mapped_ != nullptr && now < expiry_) {
      SetError(errors);
      return std::min(now + options_.retry, expiry_);
    }
    Lose(errors);
    return now + options_.retry;
  }

  void Publish(const PortMapping& mapping) {
    const bool news = mapping.external != external_;
    external_ = mapping.external;
    {
      std::lock_guard lock(mutex_);
      ++status_.requests;
      status_.external = external_;
      status_.protocol = mapping.protocol;
      status_.last_error.clear();
    }
    if (!news) return;
    Log().info("The router forwards {} to us ({})", external_.ToString(), mapping.protocol);
    callback_(external_);
  }

  void Lose(const std::string& why) {
    const bool had = !external_.IsNone();
    external_ = Endpoint{};
    mapped_ = nullptr;
    {
      std::lock_guard lock(mutex_);
      status_.external = external_;
      status_.protocol.clear();
    }
    SetError(why);
    if (had) callback_(external_);
  }

  void SetError(const std::string& why) {
    std::lock_guard lock(mutex_);
    if (why.empty() || why == status_.last_error) return;
    Log().info("Port mapping: {}", why);
    status_.last_error = why;
  }

  const PortMapperOptions options_;
  const Callback callback_;
  const io::Fd interrupt_{eventfd(0, EFD_CLOEXEC)};
  // Of the thread.
  std::vector<std::unique_ptr<PortMappingProtocol>> protocols_;
  PortMappingProtocol* mapped_ = nullptr;  // that made the mapping
  Target target_;
  std::optional<Target> next_target_;
  Endpoint external_;
  Instant expiry_{};  // when the router forgets it

  mutable std::mutex mutex_;
  Target wanted_;  // guarded by mutex_, like all that follows
  bool changed_ = false;
  bool stop_ = false;
  PortMapperStatus status_;
  std::thread thread_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<PortMapper>> PortMapper::Start(
    const PortMapperOptions& options, std::vector<std::unique_ptr<PortMappingProtocol>> protocols,
    Callback callback) {
  auto mapper = std::make_unique<MapperThread>(options, std::move(protocols), std::move(callback));
  if (absl::Status status = mapper->Start(); !status.ok()) return status;
  return mapper;
}

}  // namespace ringsock
