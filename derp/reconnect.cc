#include "derp/reconnect.h"

#include <algorithm>

namespace ringsock::derp {
namespace {

// 250 ms doubled four times is 4 s, which with a quarter of jitter is kMaxReconnect.
constexpr uint32_t kMaxDoublings = 4;
static_assert(kMinReconnect * (1 << kMaxDoublings) * 5 / 4 == kMaxReconnect);

}  // namespace

void Reconnect::OnConnected(Instant now) {
  connected_ = now;
  not_before_ = Instant::min();
  restart_until_ = Instant::min();
}

void Reconnect::OnRestarting(const RestartingFrame& frame, Instant now) {
  const Duration reconnect_in = std::min<Duration>(frame.reconnect_in, kMaxRestart);
  const Duration try_for = std::min<Duration>(frame.try_for, kMaxRestart);
  not_before_ = now + reconnect_in;
  restart_until_ = not_before_ + try_for;
}

Instant Reconnect::OnFailure(Instant now) {
  if (connected_ != Instant::max() && now - connected_ >= kGoodConnection) failures_ = 0;
  connected_ = Instant::max();
  // A relay that is restarting is tried at the first pace.
  const uint32_t doublings = restarting(now) ? 0 : std::min(failures_, kMaxDoublings);
  if (!restarting(now)) ++failures_;
  const Duration delay = kMinReconnect * (1 << doublings);
  const Duration jittered = random_->Between(delay, delay + delay / 4);
  if (not_before_ > now) return not_before_ + (jittered - delay);
  return now + jittered;
}

void Reconnect::Reset() {
  failures_ = 0;
  connected_ = Instant::max();
  not_before_ = Instant::min();
  restart_until_ = Instant::min();
}

}  // namespace ringsock::derp
