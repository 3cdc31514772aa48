// A network in one process under a test's control: hosts, links, NAT boxes, faults, and a clock
// that moves only when told to. All chance comes from one seed: the same seed and the same calls
// give the same run, which trace().hash() shows.
//
//   SimNetwork net(seed);
//   const RealmId home = net.AddNat({.kind = NatKind::kSymmetric}, {V4(203, 0, 113, 1)});
//   const HostId a = net.AddHost("a", {V4(192, 168, 1, 2)}, home);
//   const HostId b = net.AddHost("b", {V4(198, 51, 100, 2)});
//   net.uplink(a).options.loss = 0.01;
//   std::unique_ptr<SimLoop> loop = net.CreateLoop(a, {});
//   ... net.RunFor(std::chrono::seconds(3));
//
// A datagram goes up its host's link into the host's realm. If the address is there it goes down
// to its owner; else out through the NAT box of the realm, by whose links, into the outer realm. An
// address in no realm on the way is lost. Datagrams to the host itself pass no link.
//
// One thread drives a network and all its loops; only Loop::Wake() may come from others.
#ifndef RINGSOCK_IO_SIM_NETWORK_H_
#define RINGSOCK_IO_SIM_NETWORK_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "base/clock.h"
#include "base/endpoint.h"
#include "base/random.h"
#include "io/loop.h"
#include "io/sim_host.h"
#include "io/sim_link.h"
#include "io/sim_loop.h"
#include "io/sim_nat.h"
#include "io/sim_streams.h"
#include "io/sim_trace.h"
#include "io/sim_types.h"

namespace ringsock::io {

struct SimOptions {
  // Poll() on a loop that has nothing to do moves the clock: to the next event that gives it
  // something, at most to its deadline. For tests with code that polls by itself, one loop at a
  // time. Off: only Step() and the Run functions move it.
  bool poll_advances = false;
  // Loops with work at the same instant run in random order instead of the order they were made.
  bool shuffle_loops = false;
};

class SimNetwork {
 public:
  explicit SimNetwork(uint64_t seed, const SimOptions& options = {});
  SimNetwork(const SimNetwork&) = delete;
  SimNetwork& operator=(const SimNetwork&) = delete;
  ~SimNetwork();

  uint64_t seed() const { return seed_; }
  const Clock& clock() const { return clock_; }
  Instant now() const { return clock_.Now(); }
  Random* random() { return &random_; }
  const SimTrace& trace() const { return trace_; }
  // Seed, time, counters and last events: for the message of a failing test.
  std::string Describe() const;

  // A NAT box with one outside address per family it passes; returns the realm behind it. IPv6
  // hosts behind an IPv4-only box get their IPv6 addresses with AddAddress(..., kInternet).
  RealmId AddNat(const NatOptions& options, const std::vector<IpAddress>& outside,
                 RealmId outer = kInternet);
  SimNat& nat(RealmId inside) { return Behind(inside)->nat; }
  SimLink& nat_uplink(RealmId inside) { return Behind(inside)->uplink; }
  SimLink& nat_downlink(RealmId inside) { return Behind(inside)->downlink; }

  HostId AddHost(std::string name, const std::vector<IpAddress>& addresses,
                 RealmId realm = kInternet);
  // Addresses may come and go while everything runs. What is under way to an address that went is
  // lost; a socket bound to it stays open, and its sends fail with EINVAL as Linux has it.
  void AddAddress(HostId host, const IpAddress& ip, RealmId realm = kInternet,
                  const std::string& device = "eth0");
  void RemoveAddress(HostId host, const IpAddress& ip);
  SimLink& uplink(HostId host) { return Get(host)->uplink; }
  SimLink& downlink(HostId host) { return Get(host)->downlink; }
  // One more link for datagrams that `from` sends and `to` gets, over whatever route.
  SimLink& path(HostId from, HostId to) { return paths_[{from, to}]; }
  // Silently drops everything between the two, or all UDP of a host but its own loopback.
  void SetPartition(HostId a, HostId b, bool on);
  void SetUdpBlocked(HostId host, bool on) { Get(host)->udp_blocked = on; }

  std::unique_ptr<SimLoop> CreateLoop(HostId host, const LoopOptions& options);
  // Called in place of loop->Poll() when the loop has work or the time it named last has come (and
  // once at first); returns when it wants to run again, Instant::max() for "only with work".
  void SetRunner(SimLoop* loop, std::function<Instant()> runner);
  // Runs something at a time, before what arrives then.
  void At(Instant when, std::function<void()> action);

  // Moves to the next instant at which anything happens and carries it out. False: nothing will.
  bool Step();
  // Everything up to now + duration; the clock stands there afterwards.
  void RunFor(Duration duration);
  // Until no datagram is under way, no action pending and no loop has work; true if it came to that
  // within `limit`. Timers of runners run meanwhile, but do not prolong it.
  bool RunUntilIdle(Duration limit = std::chrono::minutes(1));

  // --- For SimLoop ---
  absl::Status Bind(SimSocket* socket) { return Get(socket->host)->Bind(socket); }
  void Release(SimSocket* socket) { Get(socket->host)->Release(socket); }
  absl::Status Rebind(SimSocket* socket, uint16_t port) {
    return Get(socket->host)->Rebind(socket, port);
  }
  void Unregister(SimLoop* loop);
  // Takes a train or a datagram as the kernel would: 0 or a positive errno.
  int Inject(const SimSocket& socket, const TxTrain& part);
  // --- For SimStreams ---
  void AttachStreams(HostId host, SimStreams* streams) { streams_.push_back({host, streams}); }
  void DetachStreams(HostId host, SimStreams* streams) {
    std::erase(streams_, std::pair(host, streams));
  }
  bool HasAddress(HostId host, const IpAddress& ip) { return Get(host)->Find(ip) != nullptr; }
  // The source address for a connection; unspecified: the host has none of that family.
  IpAddress StreamSource(HostId host, const IpAddress& to);
  bool StreamPortTaken(HostId host, const Endpoint& local) const;
  void SendSegment(Datagram datagram);
  // Puts what is due now into the sockets.
  void DeliverDue();
  void AdvanceForPoll(Instant deadline, const std::function<bool()>& satisfied);
  // Bytes of a socket's receive buffer that a datagram takes: with the kernel's overhead.
  static size_t Footprint(size_t payload) { return payload + 256; }

 private:
  enum class Stage { kAction, kEnterRealm, kDownlink, kDeliver };
  struct Event {
    Stage stage = Stage::kAction;
    RealmId realm{};
    HostId host{};
    Datagram datagram;
    std::function<void()> action;
  };
  struct NatBox {
    SimNat nat;
    RealmId outer{};
    SimLink uplink;
    SimLink downlink;
  };
  struct Runner {
    SimLoop* loop;
    std::function<Instant()> run;
    Instant next = Instant::max();
  };

  SimHost* Get(HostId host) { return &hosts_[static_cast<size_t>(host)]; }
  NatBox* Behind(RealmId inside);
  std::optional<HostId> OwnerOf(const IpAddress& ip, RealmId realm) const;
  std::optional<RealmId> NatOwning(const IpAddress& ip, RealmId outer) const;

  void Schedule(Instant at, Event event);
  void Cross(SimLink* link, Event event);  // over a link, then on with the event
  void Handle(Event event);
  void EnterRealm(Event event);
  void EnterNat(RealmId inside, Event event);
  void LeaveRealm(Event event);
  void Deliver(Event event);
  void DeliverSegment(HostId host, Datagram datagram);
  void Drop(SimEvent why, const Datagram& datagram) { trace_.Record(why, datagram, now()); }

  Instant NextEvent() const;
  Instant NextTimer() const;
  void RunLoops();
  bool RunRound();
  void AdvanceTo(Instant when);

  const uint64_t seed_;
  const SimOptions options_;
  ManualClock clock_;
  SeededRandom random_;
  SimTrace trace_;
  std::deque<SimHost> hosts_;  // references stay valid
  std::deque<NatBox> nats_;    // the realm behind nats_[i] is i + 1
  std::map<std::pair<HostId, HostId>, SimLink> paths_;
  std::set<std::pair<HostId, HostId>> partitions_;
  std::multimap<Instant, Event> events_;  // equal keys keep the order they came in
  std::vector<Runner> runners_;
  std::vector<std::pair<HostId, SimStreams*>> streams_;
  uint64_t next_train_ = 0;
};

}  // namespace ringsock::io

#endif  // RINGSOCK_IO_SIM_NETWORK_H_
