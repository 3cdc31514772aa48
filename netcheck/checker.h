// Runs netchecks (stun/netcheck.h) without an engine: sockets of its own on one loop, and the parts
// that the engine uses for names, HTTPS and the relay map.
#ifndef RINGSOCK_NETCHECK_CHECKER_H_
#define RINGSOCK_NETCHECK_CHECKER_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "base/random.h"
#include "base/timer_queue.h"
#include "core/hairpin_socket.h"
#include "derp/latency_check.h"
#include "derp/relay_map.h"
#include "derp/resolver.h"
#include "io/loop.h"
#include "netcheck/findings.h"
#include "stun/netcheck.h"

namespace ringsock::netcheck {

// All outlive the checker.
struct CheckerDeps {
  io::Loop* loop = nullptr;
  TimerQueue* timers = nullptr;
  derp::Resolver* resolver = nullptr;
  derp::TlsClientContext* tls = nullptr;
  Random* random = nullptr;  // SystemRandom() in production: of transaction ids
};

struct CheckerOptions {
  uint16_t port = 0;  // to send from, both families; 0: the kernel chooses
  Duration timeout = std::chrono::seconds(3);
  bool plain_http_for_tests = false;
};

// For the loop's thread. Its owner calls Turn() until running() is false.
class Checker final : private stun::NetcheckEnvironment, private io::UdpHandler {
 public:
  // Datagrams that wait between two turns; more are dropped and missed like any that is lost.
  static constexpr size_t kMaxReceived = 1024;
  static constexpr size_t kMaxNames = 32;  // in Findings::unresolved

  Checker(const CheckerDeps& deps, const CheckerOptions& options, const derp::RelayMap& map);
  ~Checker() override;
  Checker(const Checker&) = delete;
  Checker& operator=(const Checker&) = delete;

  // Opens the sockets. Errors are the loop's, with their cure.
  absl::Status Open();
  uint16_t port() const { return port_; }

  // Begins a report. `host` and `local` are what this host has now, `home` is the region it is at
  // home in; 0: nowhere. Not while one is running.
  void Start(const stun::HostFamilies& host, std::vector<IpAddress> local, bool full,
             RegionId home);
  bool running() const { return netcheck_.running(); }
  // Delivers what is there, or waits for it until `deadline` or NextDeadline().
  void Turn(Instant deadline);
  Instant NextDeadline() const;
  // Of the report that ended last; without the port mapping, which is not its affair.
  const Findings& findings() const { return findings_; }

 private:
  struct Received {
    Endpoint from;
    std::vector<std::byte> bytes;
    Instant at;
  };

  // NetcheckEnvironment
  void SendProbe(const Endpoint& to, std::span<const std::byte> packet) override;
  bool SendHairpin(const Endpoint& to, std::span<const std::byte> packet) override;
  void Resolve(const std::string& host_name, stun::Family family) override;
  void MeasureHttps(RegionId region, const stun::ProbeNode& node) override;
  void OnReport(const stun::Report& report) override;
  // UdpHandler
  void OnReceive(io::SocketId socket, std::span<const io::RxTrain> trains) override;
  void OnSendFailure(io::SocketId socket, const io::SendFailure& failure) override;

  Instant now() const { return deps_.loop->clock().Now(); }
  void Send(std::optional<io::SocketId> socket, const Endpoint& to,
            std::span<const std::byte> packet);
  void Unresolved(const std::string& name, absl::string_view why);
  // What comes from inside the loop's turn waits for its end: the netcheck may send.
  void Later(std::function<void()> what) { events_.push_back(std::move(what)); }

  const CheckerDeps deps_;
  const CheckerOptions options_;
  const derp::RelayMap map_;
  HairpinSocket hairpin_;
  derp::LatencyChecks https_;
  stun::Netcheck netcheck_;
  uint16_t port_ = 0;
  std::optional<io::SocketId> v4_;
  std::optional<io::SocketId> v6_;
  std::deque<Received> received_;
  std::deque<std::function<void()>> events_;
  std::map<derp::Resolver::RequestId, std::string> names_;  // asked for and not answered
  std::set<std::string> resolved_;                          // names with an address
  stun::NetcheckStats before_;                              // the report
  Findings findings_;
};

}  // namespace ringsock::netcheck

#endif  // RINGSOCK_NETCHECK_CHECKER_H_
