// Names to addresses for relays, without ever blocking the control thread: the interface that
// connections use, and the real one behind it (c-ares on the loop, with a cache).
#ifndef RINGSOCK_DERP_RESOLVER_H_
#define RINGSOCK_DERP_RESOLVER_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/clock.h"
#include "base/endpoint.h"
#include "base/timer_queue.h"
#include "io/loop.h"

namespace ringsock::derp {

enum class AddressFamily : uint8_t { kV4, kV6 };

struct Resolved {
  std::vector<IpAddress> addresses;  // in the order of the answer; at least one
  // The DNS does not answer; these are the addresses of its last good answer.
  bool stale = false;
};

// For one thread, that of its users.
class Resolver {
 public:
  using RequestId = uint64_t;
  // NotFound: the name has no address of that family. Other errors: the DNS did not say.
  using Callback = std::function<void(const absl::StatusOr<Resolved>&)>;

  virtual ~Resolver() = default;

  // Addresses of one family. `done` is called once, from a timer, never from inside this call; it
  // may call everything here.
  virtual RequestId Resolve(const std::string& name, AddressFamily family, Callback done) = 0;
  // `done` of that request will not be called. The answer is still kept for the next one.
  virtual void Cancel(RequestId request) = 0;
  // The link changed: other DNS servers may be set, and what could not be resolved before may be
  // now. Running requests begin anew. Good answers are kept.
  virtual void OnLinkChange() = 0;
};

struct ResolverOptions {
  // "192.0.2.1:53,[2001:db8::1]:53"; empty: those of /etc/resolv.conf.
  std::string servers;
  // Of one try at one server; doubled with each round.
  Duration timeout = std::chrono::milliseconds(400);
  int tries = 3;  // rounds
  // A good answer holds for its TTL, within these.
  Duration min_ttl = std::chrono::seconds(30);
  Duration max_ttl = std::chrono::hours(1);
  // "No such name" and "the DNS does not answer" hold so long.
  Duration negative_ttl = std::chrono::seconds(5);
  // A request waits so long for the DNS before it gets the last good answer, stale (RFC 8767).
  Duration stale_after = std::chrono::milliseconds(500);
  size_t max_entries = 1024;  // names and families in the cache
};

// `loop` and `timers` outlive it; timers->RunDue() is called after each Poll(). Reads /etc/hosts,
// /etc/resolv.conf and /etc/nsswitch.conf, small local files, when it asks; all else is on the
// loop.
absl::StatusOr<std::unique_ptr<Resolver>> NewResolver(io::Loop* loop, TimerQueue* timers,
                                                      const ResolverOptions& options);

}  // namespace ringsock::derp

#endif  // RINGSOCK_DERP_RESOLVER_H_
