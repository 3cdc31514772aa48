// When to connect to a relay again. 250 ms after the first failure, then twice as long each time up
// to 5 s, each with jitter, so that the clients of a relay that died do not come back as one (spec:
// DERP-5). A relay that announced its restart is believed.
#ifndef RINGSOCK_DERP_RECONNECT_H_
#define RINGSOCK_DERP_RECONNECT_H_

#include <cstdint>

#include "base/clock.h"
#include "base/random.h"
#include "derp/frame.h"

namespace ringsock::derp {

inline constexpr Duration kMinReconnect = std::chrono::milliseconds(250);
inline constexpr Duration kMaxReconnect = std::chrono::seconds(5);
// A connection that lasted this long was a good one: the next failure starts from kMinReconnect.
// Else a relay that lets clients in and throws them out would be called four times a second.
inline constexpr Duration kGoodConnection = std::chrono::seconds(10);
// The longest that a Restarting frame may keep a client away or on the fast schedule.
inline constexpr Duration kMaxRestart = std::chrono::minutes(2);

// Not thread safe. `random` outlives it.
class Reconnect {
 public:
  explicit Reconnect(Random* random) : random_(random) {}

  // The login is over.
  void OnConnected(Instant now);
  // The relay will restart: it asks to be called again after frame.reconnect_in, and to be tried
  // for frame.try_for before its clients look elsewhere.
  void OnRestarting(const RestartingFrame& frame, Instant now);
  // The connection ended, or could not be made. Returns when to try next.
  Instant OnFailure(Instant now);
  // The link changed: what failed before says nothing. The next try may be at once.
  void Reset();

  // While true, failures are those of a restart that was announced: no reason to choose another
  // home.
  bool restarting(Instant now) const { return now < restart_until_; }

 private:
  Random* const random_;
  uint32_t failures_ = 0;  // in a row
  Instant connected_ = Instant::max();
  Instant not_before_ = Instant::min();
  Instant restart_until_ = Instant::min();
};

}  // namespace ringsock::derp

#endif  // RINGSOCK_DERP_RECONNECT_H_
