#include "core/rebinder.h"

#include <atomic>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/log.h"
#include "core/shard.h"

namespace ringsock {
namespace {

// How long until a command is tried again for which a shard's ring had no room.
constexpr Duration kRetry = std::chrono::milliseconds(1);
// New ports to try: one that is free in one family may be taken in the other.
constexpr int kPortTries = 16;

bool PortRefused(const absl::Status& status) {
  return absl::IsAlreadyExists(status) || absl::IsPermissionDenied(status);
}

}  // namespace

// One order to shards [first, end). They may outlast the rebinder with it.
struct Rebinder::Round {
  struct Result {
    bool sent = false;
    RebindOutcome outcome;
  };
  size_t first = 0;
  uint16_t port = 0;
  std::vector<Result> results;  // by shard, from `first`; each is written by its shard
  std::atomic<size_t> running{0};
};

std::string RebindResult::ToString() const {
  std::string text = absl::StrCat("rebind (", reason, "): ");
  if (replaced) {
    absl::StrAppend(&text, exact ? "" : "at least ", lost, " packets in old sockets lost");
    if (!status.ok()) absl::StrAppend(&text, "; ");
  }
  if (!status.ok()) absl::StrAppend(&text, "not all sockets are new: ", status.message());
  return text;
}

Rebinder::Rebinder(Environment environment)
    : env_(std::move(environment)), port_(env_.port), throttle_(env_.min_interval) {}

Rebinder::~Rebinder() = default;

void Rebinder::Request(absl::string_view reason, Done done) {
  if (closed_) {
    if (done) done(absl::FailedPreconditionError("the engine is closed"));
    return;
  }
  wanted_ = true;
  reason_ = std::string(reason);
  if (done) waiting_.push_back(std::move(done));
  if (round_ == nullptr) Start();
}

void Rebinder::Close() {
  closed_ = true;
  wanted_ = false;
  round_.reset();
  for (std::vector<Done>* list : {&running_, &waiting_}) {
    for (Done& done : std::exchange(*list, {})) {
      done(absl::FailedPreconditionError("the engine is closed"));
    }
  }
}

void Rebinder::Start() {
  wanted_ = false;
  running_ = std::exchange(waiting_, {});
  result_ = RebindResult{};
  result_.reason = std::exchange(reason_, {});
  result_.port = port_;
  tries_ = 0;
  StartRound(Step::kSamePort, port_, 0, env_.links.size());
}

void Rebinder::StartRound(Step step, uint16_t port, size_t first, size_t end) {
  step_ = step;
  round_ = std::make_shared<Round>();
  round_->first = first;
  round_->port = port;
  round_->results.resize(end - first);
  round_->running.store(end - first, std::memory_order_relaxed);
  SendCommands();
}

void Rebinder::SendCommands() {
  const size_t done = round_->results.size() - round_->running.load(std::memory_order_acquire);
  const size_t end = env_.one_by_one ? done + 1 : round_->results.size();
  for (size_t i = 0; i < std::min(end, round_->results.size()); ++i) {
    Round::Result& result = round_->results[i];
    if (result.sent) continue;
    // Its order may be lost with a shard that stops: nobody waits for it then.
    result.sent = env_.control->RunOnShard(static_cast<uint32_t>(round_->first + i),
                                           [round = round_, i](EngineShard& shard) {
                                             round->results[i].outcome = shard.Rebind(round->port);
                                             round->running.fetch_sub(1, std::memory_order_acq_rel);
                                             shard.TellControl();
                                           });
  }
}

bool Rebinder::Run() {
  if (closed_) return false;
  if (round_ != nullptr) {
    if (round_->running.load(std::memory_order_acquire) == 0) {
      EndRound();
      return true;
    }
    SendCommands();
    return false;
  }
  CheckSockets(env_.control->now());
  return false;
}

Instant Rebinder::NextDeadline() const {
  if (closed_) return Instant::max();
  if (round_ != nullptr) {
    const bool all_sent = std::all_of(round_->results.begin(), round_->results.end(),
                                      [](const Round::Result& result) { return result.sent; });
    return all_sent ? Instant::max() : env_.control->now() + kRetry;
  }
  return DeadSocket() == nullptr ? Instant::max() : throttle_.next();
}

void Rebinder::EndRound() {
  const std::shared_ptr<Round> round = std::exchange(round_, nullptr);
  absl::Status status;
  uint16_t port = round->port;
  for (const Round::Result& result : round->results) {
    const RebindOutcome& outcome = result.outcome;
    if (status.ok()) status = outcome.status;
    result_.replaced |= outcome.replaced;
    result_.lost += outcome.lost;
    result_.exact &= outcome.exact;
    if (outcome.status.ok()) port = outcome.port;
  }
  if (status.ok()) {
    result_.port = port;
    if (step_ == Step::kFirstOnNewPort && env_.links.size() > 1) {
      return StartRound(Step::kOthersOnNewPort, port, 1, env_.links.size());
    }
  } else if (PortRefused(status) && !env_.fixed_port && ++tries_ <= kPortTries) {
    return StartRound(Step::kFirstOnNewPort, 0, 0, 1);
  }
  result_.status = status;
  Finish();
}

void Rebinder::Finish() {
  port_ = result_.port;
  ++rebinds_;
  last_ = result_.ToString();
  if (result_.status.ok()) {
    Log().info("{}", last_);
  } else {
    Log().warn("{}", last_);
  }
  if (env_.rebound) env_.rebound(result_);
  for (Done& done : std::exchange(running_, {})) done(result_.status);
  if (wanted_ && round_ == nullptr && !closed_) Start();
}

const SocketHealth* Rebinder::DeadSocket() const {
  for (const ShardLink* link : env_.links) {
    for (const SocketHealth& health : link->health) {
      if (health.dead()) return &health;
    }
  }
  return nullptr;
}

void Rebinder::CheckSockets(Instant now) {
  if (now < throttle_.next()) return;
  const SocketHealth* const socket = DeadSocket();
  if (socket == nullptr) return;
  throttle_.Rebound(now);
  Request(absl::StrCat("sends fail: ", std::strerror(socket->error())));
}

}  // namespace ringsock
