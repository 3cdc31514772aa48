// What a relay serves beside its clients, on a thread and a loop of its own: STUN to everyone,
// metrics and health to this host.
#ifndef RINGSOCK_RELAY_LOCAL_SERVICES_H_
#define RINGSOCK_RELAY_LOCAL_SERVICES_H_

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/endpoint.h"
#include "io/loop.h"
#include "relay/local_http.h"
#include "stun/server.h"

namespace ringsock::relay {

class LocalServices {
 public:
  struct Options {
    io::LoopOptions loop;
    std::vector<Endpoint> stun;       // empty: no STUN
    std::optional<Endpoint> metrics;  // none: no pages
    // Makes a page, on the thread of this object. `stun` is null without STUN.
    std::function<LocalPage(absl::string_view path, const stun::ServerStats* stun)> pages;
  };

  // Opens the sockets and starts the thread. Errors name the address and the cure.
  static absl::StatusOr<std::unique_ptr<LocalServices>> Start(Options options);
  ~LocalServices();  // stops the thread

  // In the order of Options::stun, with the ports that the kernel chose.
  const std::vector<Endpoint>& stun_endpoints() const { return stun_endpoints_; }
  const std::optional<Endpoint>& metrics_endpoint() const { return metrics_endpoint_; }

 private:
  LocalServices(Options options, std::unique_ptr<io::Loop> loop);
  absl::Status Open();
  void Run();

  const Options options_;
  const std::unique_ptr<io::Loop> loop_;
  std::unique_ptr<stun::Server> stun_;
  std::unique_ptr<LocalHttp> http_;
  std::vector<Endpoint> stun_endpoints_;
  std::optional<Endpoint> metrics_endpoint_;
  std::atomic<bool> stopping_{false};
  std::thread thread_;
};

}  // namespace ringsock::relay

#endif  // RINGSOCK_RELAY_LOCAL_SERVICES_H_
