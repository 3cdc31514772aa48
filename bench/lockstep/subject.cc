#include "bench/lockstep/subject.h"

#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <deque>
#include <latch>
#include <utility>

#include "absl/strings/str_cat.h"
#include "bench/baseline/baseline.h"
#include "bench/forwarder.h"
#include "bench/routes.h"
#include "bench/sockets.h"
#include "core/engine_internal.h"
#include "io/steering.h"

namespace ringsock::bench {
namespace {

using internal::EngineImpl;

class BareSubject final : public LockstepSubject {
 public:
  explicit BareSubject(const SubjectConfig& config)
      : config_(config), routes_(MakeRoutes(config)) {}
  ~BareSubject() override {
    for (Place& place : places_) {
      place.loop.reset();
      if (place.fd >= 0) close(place.fd);
    }
  }
  absl::Status Open();

  uint16_t port() const override { return port_; }
  absl::Status Start(uint32_t index) override {
    Place& place = places_[index];
    return std::exchange(place.started, true) ? absl::OkStatus() : place.loop->Open();
  }
  void Turn(uint32_t place) override { places_[place].loop->Turn(); }
  uint64_t Done(uint32_t place) const override {
    const BaselineTotals& totals = places_[place].totals;
    return config_.traffic.mode == Mode::kReceive ? totals.received : totals.sent;
  }
  void Close(uint32_t) override {}

 private:
  struct Place {
    int fd = -1;
    BaselineTotals totals;
    Source source;
    Baseline baseline;
    std::unique_ptr<BareLoop> loop;
    bool started = false;
  };
  absl::Status OpenPlace(Place* place);

  const SubjectConfig config_;
  const RouteTable routes_;
  uint16_t port_ = 0;
  std::atomic<bool> stop_{false};
  std::atomic<uint64_t> feedback_{0};
  std::deque<Place> places_;
};

absl::Status BareSubject::Open() {
  for (size_t i = 0; i < config_.cores.size(); ++i) {
    if (absl::Status status = OpenPlace(&places_.emplace_back()); !status.ok()) return status;
  }
  const auto places = static_cast<uint32_t>(places_.size());
  if (places > 1 &&
      !io::AttachSteering(places_[0].fd, /*v4=*/true, io::Steering::kSource, places)) {
    return absl::UnavailableError(absl::StrCat("steering: ", std::strerror(errno)));
  }
  return absl::OkStatus();
}

absl::Status BareSubject::OpenPlace(Place* place) {
  const auto fd = OpenUdpSocket({config_.address, port_}, config_.socket_buffer);
  if (!fd.ok()) return fd.status();
  place->fd = *fd;
  port_ = LocalPort(*fd);
  const timeval timeout = {.tv_sec = 0, .tv_usec = 20'000};
  if (setsockopt(*fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout)) != 0) {
    return absl::UnavailableError(absl::StrCat("SO_RCVTIMEO: ", std::strerror(errno)));
  }
  const bool sends = config_.traffic.mode == Mode::kSend;
  if (sends) place->source = MakeSource(config_);
  place->baseline = {.fd = *fd,
                     .routes = &routes_,
                     .receive_only = config_.traffic.mode == Mode::kReceive,
                     .source = sends ? &place->source : nullptr,
                     .batch = std::max(config_.spec.batch, 1u),
                     .spin = config_.engine.spin > Duration::zero(),
                     .stop = &stop_,
                     .feedback = &feedback_,
                     .totals = &place->totals};
  switch (config_.spec.kind) {
    case SubjectKind::kRecvmmsgGro:
      place->loop = NewRecvmmsgGro(place->baseline);
      break;
    case SubjectKind::kUring:
      place->loop = NewUring(place->baseline);
      break;
    default:
      return absl::InvalidArgumentError(
          absl::StrCat(config_.spec.Label(), " cannot be run turn by turn"));
  }
  return absl::OkStatus();
}

class EngineSubject final : public LockstepSubject {
 public:
  explicit EngineSubject(const Traffic& traffic)
      : mode_(traffic.mode), forwarder_(traffic, &feedback_) {}
  absl::Status Open(const SubjectConfig& config);

  uint16_t port() const override { return engine_->port(); }
  absl::Status Start(uint32_t) override { return absl::OkStatus(); }
  void Turn(uint32_t place) override {
    const Instant now = SystemClock().Now();
    engine_->shard(place).Step(now + std::chrono::milliseconds(20));
  }
  uint64_t Done(uint32_t place) const override {
    const CounterSnapshot counters = engine_->shard(place).Counters();
    const auto& path = counters.paths[static_cast<size_t>(PathKind::kDirectV4)];
    return mode_ == Mode::kReceive ? path.rx_packets - counters.rx_unknown_source : path.tx_packets;
  }
  // A ring is for the thread that used it first, to the end.
  void Close(uint32_t place) override { engine_->shard(place).Stop(/*tell_handler=*/true); }

 private:
  const Mode mode_;
  std::atomic<uint64_t> feedback_{0};
  Forwarder forwarder_;
  std::unique_ptr<EngineImpl> engine_;
};

absl::Status EngineSubject::Open(const SubjectConfig& config) {
  EngineOptions options = EngineOptionsOf(config);
  options.steering = config.cores.size() > 1 ? io::Steering::kSource : io::Steering::kNone;
  options.network.netcheck = false;
  options.network.watch_links = false;
  internal::EngineLoops loops;
  for (size_t i = 0; i <= config.cores.size(); ++i) {
    auto loop = io::CreateLoop(options.io);
    if (!loop.ok()) return loop.status();
    if (i < config.cores.size()) {
      loops.shards.push_back(*std::move(loop));
    } else {
      loops.control = *std::move(loop);
    }
  }
  auto engine =
      EngineImpl::Create(options, &forwarder_, std::move(loops), EngineImpl::Threads::kCaller);
  if (!engine.ok()) return engine.status();
  engine_ = *std::move(engine);
  if (absl::Status status = AddPeers(config, engine_.get(), &forwarder_); !status.ok()) {
    return status;
  }
  forwarder_.Open();
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<LockstepSubject>> LockstepSubject::Create(
    const SubjectConfig& config) {
  if (config.spec.is_bare()) {
    auto subject = std::make_unique<BareSubject>(config);
    if (absl::Status status = subject->Open(); !status.ok()) return status;
    return subject;
  }
  auto subject = std::make_unique<EngineSubject>(config.traffic);
  if (absl::Status status = subject->Open(config); !status.ok()) return status;
  return subject;
}

}  // namespace ringsock::bench
