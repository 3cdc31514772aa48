// The netcheck: asks STUN servers in many regions what they see of us, and makes of the answers a
// report: our public addresses, what kind of NAT we are behind, which region is near (spec:
// stun-netcheck.md, NC-1 to NC-12). A state machine: datagrams, DNS answers and the time go in,
// datagrams, questions and a report come out. It opens no socket, so that probes can travel on the
// very socket that carries data, whose mapping is the one that matters (NC-1).
#ifndef RINGSOCK_STUN_NETCHECK_H_
#define RINGSOCK_STUN_NETCHECK_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"
#include "base/clock.h"
#include "base/endpoint.h"
#include "base/random.h"
#include "stun/message.h"
#include "stun/probe_plan.h"
#include "stun/report.h"

namespace ringsock::stun {

// What a netcheck wants done. Called from inside the calls of Netcheck, and must not call back into
// it, but for OnReport(), which comes last.
class NetcheckEnvironment {
 public:
  virtual ~NetcheckEnvironment() = default;

  // Out of the data socket (spec: NC-1). The bytes are valid in the call.
  virtual void SendProbe(const Endpoint& to, std::span<const std::byte> packet) = 0;
  // Out of another socket, to our own global IPv4 address (spec: NC-7). False: it did not leave.
  virtual bool SendHairpin(const Endpoint& to, std::span<const std::byte> packet) = 0;
  // Answered by Netcheck::OnResolved(); an answer that never comes does no harm.
  virtual void Resolve(const std::string& host_name, Family family) = 0;
  // Measure `GET https://<node>/derp/latency-check`, from the request sent to the first byte
  // received (spec: NC-9). Answered by Netcheck::OnHttpsLatency().
  virtual void MeasureHttps(RegionId region, const ProbeNode& node) = 0;
  virtual void OnReport(const Report& report) = 0;
};

struct NetcheckOptions {
  // For all that goes over UDP (spec: NC-8). A caller may give each report less.
  Duration timeout = std::chrono::seconds(3);
  // If half the time of a report has passed in silence, HTTPS is asked meanwhile, for so long
  // (spec: NC-9). Only then can a report take longer than `timeout`.
  Duration https_timeout = std::chrono::seconds(5);
  Duration hairpin_timeout = std::chrono::milliseconds(500);  // spec: NC-7
  Duration full_interval = std::chrono::minutes(5);           // spec: NC-4
};

struct NetcheckRequest {
  HostFamilies host;
  bool full = false;   // ask for the full plan (spec: NC-4)
  Duration timeout{};  // 0, or more than that of the options: that of the options
  RegionId home = 0;   // where we are now (spec: NC-10); 0: nowhere
};

// Belongs to the control thread.
class Netcheck {
 public:
  // All must outlive it. Transaction ids are taken from `random`, which therefore is
  // SystemRandom() in production.
  Netcheck(const NetcheckOptions& options, Random* random, NetcheckEnvironment* environment);
  Netcheck(const Netcheck&) = delete;
  Netcheck& operator=(const Netcheck&) = delete;

  // For reports that start from now on; the first of them has the full plan. Regions of id 0 and
  // repeated ones are left out.
  void SetMap(const ProbeMap& map);

  // The host is in another network: what was measured says nothing any more, and the next report
  // has the full plan. One that runs goes on.
  void OnNetworkChange();

  // Starts a report. False, and nothing happens, if one is running (spec: NC-11).
  bool Start(const NetcheckRequest& request, Instant now);
  bool running() const { return running_; }

  // STUN that the data socket received (spec: RECV-1), from anybody.
  void OnDatagram(const Endpoint& from, std::span<const std::byte> packet, Instant now);
  // An empty list: the name does not resolve. The first address of the family is taken.
  void OnResolved(absl::string_view host_name, Family family, std::span<const IpAddress> addresses,
                  Instant now);
  void OnHttpsLatency(RegionId region, std::optional<Duration> latency, Instant now);
  // A frame came from a region's relay: a sign of life (spec: NC-10).
  void OnRelayFrame(RegionId region, Instant now);

  // When Advance() is wanted next; Instant::max(): not before something else happens.
  Instant NextDeadline() const;
  void Advance(Instant now);

  const NetcheckStats& stats() const { return stats_; }
  // The last one that ended; none before.
  const std::optional<Report>& last_report() const { return last_; }

 private:
  enum class Resolution : uint8_t { kPending, kFailed, kDone };
  struct Resolved {
    Resolution state = Resolution::kPending;
    IpAddress ip;
  };
  struct Set {
    ProbeSet plan;
    size_t next = 0;   // of its probes
    size_t sent = 0;   // how many have left
    Duration shift{};  // how late the last probe was, by DNS say: the next one is as late
    bool done = false;
  };
  struct Sent {
    size_t set;
    Endpoint to;
    Instant at;
    bool answered = false;
  };

  ProbePlan MakePlan(const NetcheckRequest& request, Instant now);
  void StartResolving();
  void RunProbes(Instant now);
  // When the next probe of a set is due; only if there is one.
  Instant DueTime(const Set& set) const;
  // The next one of a set.
  void SendProbe(size_t index, const IpAddress& server, Instant now);
  bool WouldHelp(const ProbeSet& set) const;
  // What DNS said of a node; nullptr if its address is in the map.
  const Resolved* FindResolved(const ProbeNode& node, Family family) const;

  void OnResponse(const Endpoint& from, std::span<const std::byte> packet, Instant now);
  void TakeLatency(const Set& set, Duration latency);
  void TakeV4(const Endpoint& server, const Endpoint& mapped, Instant now);
  void CheckHairpin(Instant now);

  void StartHttps(Instant now);
  void Finish(Instant now);

  const NetcheckOptions options_;
  Random* const random_;
  NetcheckEnvironment* const environment_;

  ProbeMap next_map_;  // of the next report
  bool map_changed_ = false;
  bool full_wanted_ = false;
  ProbeMap map_;  // of the running one
  std::optional<Report> last_;
  std::optional<Instant> last_full_;
  ReportHistory history_;
  std::map<RegionId, Instant> last_frame_;  // bounded: regions of the map
  std::set<std::pair<std::string, Family>> said_unresolved_;
  NetcheckStats stats_;

  // Of the running report, some of it kept until the next one to know late answers.
  bool running_ = false;
  Report report_;
  NetcheckRequest request_;
  Instant deadline_{};     // of UDP
  bool udp_over_ = false;  // at the deadline, or because everything is known
  std::vector<Set> sets_;
  absl::flat_hash_map<TransactionId, Sent> sent_;
  std::map<std::pair<std::string, Family>, Resolved> resolved_;
  std::optional<Endpoint> first_v4_server_;
  std::optional<TransactionId> hairpin_id_;
  Instant hairpin_deadline_{};
  std::optional<Instant> https_started_;
  std::set<RegionId> https_waiting_;
  std::map<RegionId, Duration> https_latency_;
};

}  // namespace ringsock::stun

#endif  // RINGSOCK_STUN_NETCHECK_H_
