// When our own endpoints are looked at again, and who is told: at start, every 20 to 26 s while
// there is a peer, and when asked. One update at a time; what is asked for meanwhile comes after it
// (spec: magicsock.md, EP-1 to EP-5). A state machine: the time and reports go in, netchecks and
// news come out.
#ifndef RINGSOCK_CORE_ENDPOINT_UPDATES_H_
#define RINGSOCK_CORE_ENDPOINT_UPDATES_H_

#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "base/clock.h"
#include "base/random.h"
#include "core/own_endpoints.h"
#include "stun/report.h"

namespace ringsock {

// Under the 30 s after which the strictest common NATs forget a mapping (spec: EP-1).
inline constexpr Duration kMinReStun = std::chrono::seconds(20);
inline constexpr Duration kMaxReStun = std::chrono::seconds(26);
// What a netcheck of an update may take (spec: EP-5).
inline constexpr Duration kUpdateTimeout = std::chrono::seconds(2);

class EndpointUpdatesEnvironment {
 public:
  virtual ~EndpointUpdatesEnvironment() = default;
  // Ends in EndpointUpdates::OnReport(), later. False: there is nobody to ask (no relay map), and
  // the update goes on without a report.
  virtual bool StartNetcheck(Duration timeout) = 0;
  // Takes the region a report prefers (0: none) and returns the home that follows (spec: EP-6).
  virtual RegionId ChooseHome(RegionId preferred) = 0;
  // The addresses of now, with those of `report`.
  virtual EndpointInputs Inputs(const stun::Report& report) = 0;
  // The list changed (spec: EP-4).
  virtual void OnEndpoints(const std::vector<OwnEndpoint>& endpoints) = 0;
  // It changed in substance (spec: EP-5). Not called for an update without a report.
  virtual void OnNetInfo(const NetInfo& info) = 0;
};

// For one thread, the control thread. All must outlive it.
class EndpointUpdates {
 public:
  EndpointUpdates(Random* random, EndpointUpdatesEnvironment* environment)
      : random_(random), environment_(environment) {}
  EndpointUpdates(const EndpointUpdates&) = delete;
  EndpointUpdates& operator=(const EndpointUpdates&) = delete;

  // Asks for an update; `reason` is for the log. One that runs goes on, and another follows with
  // the latest reason asked for (spec: EP-2).
  void Request(absl::string_view reason, Instant now);
  // Without peers nothing is done by itself. From none to some asks for an update (spec: PEER-2).
  void SetHavePeers(bool have, Instant now);
  void OnReport(const stun::Report& report, Instant now);

  // When Advance() is wanted; Instant::max(): not before something else happens.
  Instant NextDeadline() const { return running_ ? Instant::max() : due_; }
  void Advance(Instant now);

  bool running() const { return running_; }
  const std::vector<OwnEndpoint>& endpoints() const { return endpoints_; }
  const std::optional<NetInfo>& net_info() const { return net_info_; }

 private:
  void Begin(std::string reason, Instant now);
  void Finish(const stun::Report& report, Instant now);
  void Publish(const stun::Report& report);

  Random* const random_;
  EndpointUpdatesEnvironment* const environment_;
  bool have_peers_ = false;
  bool running_ = false;
  std::string reason_;                 // of the running update
  std::optional<std::string> wanted_;  // when it is over
  Instant due_ = Instant::max();
  std::vector<OwnEndpoint> endpoints_;
  std::optional<NetInfo> net_info_;
};

}  // namespace ringsock

#endif  // RINGSOCK_CORE_ENDPOINT_UPDATES_H_
