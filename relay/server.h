// A relay server (DERP): clients log in with their key and send one another packets by key (spec:
// derp.md). Worker threads, each with a loop of its own, share nothing on the path of a packet.
//
//   stream ─▶ TLS ─▶ session ─▶ route by key ─▶ queue of the destination ─▶ TLS ─▶ stream
//                                    └─ on another worker: ring of bytes ─┘
#ifndef RINGSOCK_RELAY_SERVER_H_
#define RINGSOCK_RELAY_SERVER_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/clock.h"
#include "base/endpoint.h"
#include "relay/client_status.h"
#include "relay/counters.h"
#include "relay/options.h"

namespace ringsock::relay {

// Start() and Stop() are for one thread; the rest is for any, while the server exists.
class Server {
 public:
  virtual ~Server() = default;  // stops it at once

  // Errors name the option at fault.
  static absl::StatusOr<std::unique_ptr<Server>> Create(Options options);

  // Listens and starts the workers. An error (address taken, no io_uring where it was forced)
  // leaves nothing running. Once.
  virtual absl::Status Start() = 0;
  // Where it listens, in the order of Options::listen. After Start().
  virtual std::vector<Endpoint> LocalEndpoints() const = 0;
  // Takes no more connections, tells clients to reconnect (Restarting), sends what waits for them
  // for up to `grace`, closes, and joins the workers. Once; later calls do nothing.
  virtual void Stop(Duration grace) = 0;

  // Who may log in from now on; null: everyone. Clients that are connected and no longer on it are
  // closed. Servers of the mesh need not be on it.
  virtual void SetAllowList(std::shared_ptr<const AllowList> allow) = 0;

  // Sums of the workers' counters; does not disturb them.
  virtual Stats GetStats() const = 0;
  // At most `max` connections that are logged in. Asks the workers, so it may take a turn of each;
  // none from workers that have stopped.
  virtual std::vector<ClientStatus> Clients(size_t max) = 0;
  // Every worker has come round within `within`: what /healthz asks.
  virtual bool Responsive(Duration within) = 0;
};

}  // namespace ringsock::relay

#endif  // RINGSOCK_RELAY_SERVER_H_
