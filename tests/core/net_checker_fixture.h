// An engine, STUN servers and NAT boxes in a simulated network, in virtual time; relays, names and
// HTTPS are fakes that the test sets.
#ifndef RINGSOCK_TESTS_CORE_NET_CHECKER_FIXTURE_H_
#define RINGSOCK_TESTS_CORE_NET_CHECKER_FIXTURE_H_

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/random.h"
#include "core/engine_internal.h"
#include "gtest/gtest.h"
#include "io/sim_network.h"
#include "stun/server.h"
#include "tests/core/engine_fixture.h"
#include "tests/core/fake_relays.h"
#include "tests/derp/fake_resolver.h"

namespace ringsock {

inline constexpr uint16_t kDataPort = 41641;

inline IpAddress SimV6(uint8_t last) {
  return IpAddress::V6({0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last});
}

// What the world beyond UDP says: relays, names, HTTPS. Outlives the engine, whose connector only
// passes things on.
struct FakeWorld {
  FakeRelays relays;
  std::map<std::string, std::vector<IpAddress>> names;
  std::map<std::string, Duration> https;  // by node; no others answer
  std::vector<std::string> https_asked;
};

class FakeWorldConnector final : public RelayConnector {
 public:
  FakeWorldConnector(FakeWorld* world, io::Loop* loop, TimerQueue* timers)
      : world_(*world), resolver_(&loop->clock(), timers) {
    for (auto& [name, addresses] : world_.names) resolver_.Set(name, addresses);
  }
  absl::Status Prepare() override { return world_.relays.Prepare(); }
  std::unique_ptr<derp::RegionConnection> Connect(const derp::RelayRegion& region,
                                                  const PrivateKey& key,
                                                  derp::RegionEvents* events) override {
    return world_.relays.Connect(region, key, events);
  }
  derp::Resolver* resolver() override { return &resolver_; }
  void MeasureLatency(const derp::RelayNode& node, LatencyDone done) override {
    world_.https_asked.push_back(node.name);
    const auto found = world_.https.find(node.name);
    if (found == world_.https.end()) return done(absl::UnavailableError("no answer"));
    done(found->second);
  }

 private:
  FakeWorld& world_;
  derp::FakeResolver resolver_;
};

class KeepingObserver final : public NetworkObserver {
 public:
  void OnEndpoints(std::span<const OwnEndpoint> list) override {
    endpoints.push_back(ToString(std::vector<OwnEndpoint>(list.begin(), list.end())));
    if (on_endpoints) on_endpoints();
  }
  void OnNetInfo(const NetInfo& info) override { infos.push_back(info); }

  std::function<void()> on_endpoints;
  std::vector<std::string> endpoints;
  std::vector<NetInfo> infos;
};

// A host with an engine of `shards` shards.
struct CheckedNode {
  CheckedNode(io::SimNetwork* net, FakeWorld* world, io::HostId host, const NetworkState& state,
              EngineOptions options = Defaults(), size_t shards = 1)
      : host(host), network(state) {
    internal::EngineLoops loops;
    for (size_t i = 0; i < shards; ++i) loops.shards.push_back(net->CreateLoop(host, options.io));
    loops.control = net->CreateLoop(host, options.io);
    std::vector<io::SimLoop*> all{static_cast<io::SimLoop*>(loops.control.get())};
    for (auto& loop : loops.shards) all.push_back(static_cast<io::SimLoop*>(loop.get()));
    internal::EngineParts parts;
    parts.connector = [world](io::Loop* loop, TimerQueue* timers) {
      return std::make_unique<FakeWorldConnector>(world, loop, timers);
    };
    parts.observer = &observer;
    parts.network = [this]() -> absl::StatusOr<NetworkState> {
      ++network_reads;
      return network;
    };
    parts.random = &random;
    auto created =
        internal::EngineImpl::Create(options, &handler, std::move(loops),
                                     internal::EngineImpl::Threads::kCaller, std::move(parts));
    EXPECT_TRUE(created.ok()) << created.status().ToString();
    engine = *std::move(created);
    for (io::SimLoop* loop : all) {
      net->SetRunner(loop, [this] {
        engine->Step();
        return engine->NextDeadline();
      });
    }
    control_loop = all[0];
  }
  static EngineOptions Defaults() {
    EngineOptions options;
    options.port = kDataPort;
    return options;
  }

  void SetMap(std::optional<derp::RelayMap> map) {
    const absl::Status status = engine->SetRelayMap(std::move(map));
    EXPECT_TRUE(status.ok()) << status.ToString();
    control_loop->Wake();
  }
  void AddPeer(uint32_t number, const std::string& endpoints = "192.0.2.99:1") {
    EXPECT_TRUE(engine->CreateEndpoint(KeyNumber(number), endpoints).ok());
    control_loop->Wake();
  }
  void RemovePeers() {
    EXPECT_TRUE(engine->UpdatePeers({}).ok());
    control_loop->Wake();
  }
  // Of the last netcheck; an empty one and a failure if there was none.
  stun::Report Report() {
    const auto report = engine->Status().last_report;
    EXPECT_TRUE(report.has_value()) << "no netcheck has ended";
    return report.value_or(stun::Report{});
  }
  stun::NetcheckStats Stats() { return engine->Status().netcheck; }
  std::string Endpoints() { return ToString(engine->Status().endpoints); }

  const io::HostId host;
  NetworkState network;
  int network_reads = 0;
  SeededRandom random{7};
  KeepingHandler handler;
  KeepingObserver observer;
  io::SimLoop* control_loop = nullptr;
  std::unique_ptr<internal::EngineImpl> engine;
};

// STUN servers of the regions 1 to 3, whose round trips are 10, 20 and 30 ms.
class NetCheckerFixture : public testing::Test {
 protected:
  NetCheckerFixture() {
    net_.RunFor(std::chrono::hours(1));  // no time of the test is the beginning of time
    for (RegionId id = 1; id <= 3; ++id) {
      const auto last = static_cast<uint8_t>(id);
      const io::HostId host =
          net_.AddHost(absl::StrCat("stun ", id), {IpAddress::V4(198, 51, 100, last), SimV6(last)});
      net_.uplink(host).options.delay = std::chrono::milliseconds(10 * id);
      server_loops_.push_back(net_.CreateLoop(host, {}));
      servers_.push_back(
          std::make_unique<stun::Server>(server_loops_.back().get(), stun::Dialect::kReference));
      EXPECT_TRUE(servers_.back()->Open({IpAddress::AnyV4(), stun::kDefaultPort, 0}).ok());
      EXPECT_TRUE(servers_.back()->Open({IpAddress::AnyV6(), stun::kDefaultPort, 0}).ok());
    }
  }
  ~NetCheckerFixture() override {
    if (HasFailure()) ADD_FAILURE() << net_.Describe();
  }

  io::HostId ServerHost(RegionId id) const { return server_loops_[id - 1u]->host(); }
  // Nodes "1a" to "3a" with the servers' addresses.
  static derp::RelayMap Map(const std::vector<RegionId>& regions = {1, 2, 3}) {
    derp::RelayMap map = RelayMapOf(regions);
    for (auto& [id, region] : map.regions) {
      const auto last = static_cast<uint8_t>(id);
      region.nodes[0].ipv4 = IpAddress::V4(198, 51, 100, last).ToString();
      region.nodes[0].ipv6 = SimV6(last).ToString();
    }
    return map;
  }
  static NetworkState StateOf(const std::vector<IpAddress>& addresses) {
    NetworkState state;
    if (!addresses.empty()) state.addresses["eth0"] = addresses;
    state.loopback = {IpAddress::V4(127, 0, 0, 1)};
    return state;
  }
  // A host of its own on the internet.
  std::unique_ptr<CheckedNode> Open(const std::vector<IpAddress>& addresses, size_t shards = 1,
                                    EngineOptions options = CheckedNode::Defaults()) {
    return std::make_unique<CheckedNode>(&net_, &world_, net_.AddHost("node", addresses),
                                         StateOf(addresses), options, shards);
  }
  // A host behind a box whose outside address is 203.0.113.1.
  std::unique_ptr<CheckedNode> Behind(const io::NatOptions& nat, size_t shards = 1) {
    const io::RealmId home = net_.AddNat(nat, {IpAddress::V4(203, 0, 113, 1)});
    const IpAddress inside = IpAddress::V4(192, 168, 1, 2);
    return std::make_unique<CheckedNode>(&net_, &world_, net_.AddHost("node", {inside}, home),
                                         StateOf({inside}), CheckedNode::Defaults(), shards);
  }
  void Run(Duration duration = std::chrono::seconds(3)) { net_.RunFor(duration); }
  // Requests that the servers have got.
  uint64_t Requests() const {
    uint64_t sum = 0;
    for (const auto& server : servers_) sum += server->stats().requests;
    return sum;
  }

  io::SimNetwork net_{20261122};
  FakeWorld world_;
  std::vector<std::unique_ptr<io::SimLoop>> server_loops_;
  std::vector<std::unique_ptr<stun::Server>> servers_;
};

}  // namespace ringsock

#endif  // RINGSOCK_TESTS_CORE_NET_CHECKER_FIXTURE_H_
