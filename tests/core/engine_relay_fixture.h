// Engines and relays on hosts of a simulated network, in virtual time: the production code of
// shards, control and relay connections, without TLS.
#ifndef RINGSOCK_TESTS_CORE_ENGINE_RELAY_FIXTURE_H_
#define RINGSOCK_TESTS_CORE_ENGINE_RELAY_FIXTURE_H_

#include <chrono>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/random.h"
#include "core/engine_internal.h"
#include "derp/region_connection.h"
#include "gtest/gtest.h"
#include "io/sim_network.h"
#include "tests/core/engine_fixture.h"
#include "tests/derp/fake_resolver.h"
#include "tests/derp/relay_fixture.h"

namespace ringsock {

// Enough to connect and log in, and for a packet to come and go.
inline constexpr Duration kConnectTime = std::chrono::milliseconds(500);

// Real connections, without TLS and DNS.
class PlainConnector final : public RelayConnector {
 public:
  PlainConnector(io::Loop* loop, TimerQueue* timers, const RelayOptions& options)
      : options_(options), resolver_(&loop->clock(), timers) {
    deps_.loop = loop;
    deps_.timers = timers;
    deps_.resolver = &resolver_;
    deps_.random = &random_;
  }
  absl::Status Prepare() override { return absl::OkStatus(); }
  std::unique_ptr<derp::RegionConnection> Connect(const derp::RelayRegion& region,
                                                  const PrivateKey& key,
                                                  derp::RegionEvents* events) override {
    derp::RegionConnectionOptions options;
    options.queue = {.max_bytes = options_.queue_bytes, .max_age = options_.queue_age};
    options.plain_http_for_tests = true;
    return derp::NewRegionConnection(deps_, region, key, std::move(options), events);
  }

 private:
  const RelayOptions options_;
  SeededRandom random_{5};
  derp::FakeResolver resolver_;
  derp::RegionConnectionDeps deps_;
};

// A host with an engine and a handler that keeps everything and confirms every path: all packets in
// these tests are genuine.
struct RelayedNode {
  static EngineOptions Defaults() {
    EngineOptions options;
    options.port = 41641;
    options.network.netcheck = false;  // the relays here have no STUN
    return options;
  }
  RelayedNode(io::SimNetwork* net, uint8_t last, EngineOptions options = Defaults(),
              size_t shards = 1)
      : ip(IpAddress::V4(192, 0, 2, last)),
        host(net->AddHost(absl::StrCat("node ", last), {ip})),
        key(derp::RelayFixture::Key(1000 + last)) {
    net->uplink(host).options.delay = std::chrono::milliseconds(1);
    internal::EngineLoops loops;
    for (size_t i = 0; i < shards; ++i) loops.shards.push_back(net->CreateLoop(host, options.io));
    loops.control = net->CreateLoop(host, options.io);
    std::vector<io::SimLoop*> all{static_cast<io::SimLoop*>(loops.control.get())};
    control_loop = all[0];
    for (auto& loop : loops.shards) all.push_back(static_cast<io::SimLoop*>(loop.get()));
    handler.reaction = [](Shard& shard, const ReceivedTrain& train) {
      shard.ConfirmPath(train.peer, train.from);
    };
    internal::EngineParts parts;
    parts.connector = [&options](io::Loop* loop, TimerQueue* timers) {
      return std::make_unique<PlainConnector>(loop, timers, options.relay);
    };
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
    sender = *engine->NewSender();
  }

  std::string address() const { return Endpoint{ip, engine->port(), 0}.ToString(); }
  PeerId Add(const RelayedNode& peer, const std::string& endpoints) {
    const auto id = engine->CreateEndpoint(peer.key.Public(), endpoints);
    EXPECT_TRUE(id.ok()) << id.status().ToString();
    control_loop->Wake();
    return *id;
  }
  void SetRelays(std::optional<derp::RelayMap> map) {
    const absl::Status status = engine->SetRelayMap(std::move(map));
    EXPECT_TRUE(status.ok()) << status.ToString();
    EXPECT_TRUE(engine->SetPrivateKey(key).ok());
    control_loop->Wake();
  }
  SendResult Send(PeerId peer, const std::string& bytes, size_t segment = 0) {
    const SendResult result = sender->Send(peer, TrainOf(bytes, segment));
    sender->Flush();
    return result;
  }
  uint64_t Dropped(Drop drop) const { return engine->Counters().drops[static_cast<size_t>(drop)]; }
  CounterSnapshot::Path Path(PathKind kind) const {
    return engine->Counters().paths[static_cast<size_t>(kind)];
  }
  // What has come since the last call, as "path:bytes" without WireGuard's type.
  std::vector<std::string> Fresh() {
    std::vector<std::string> fresh;
    const auto all = handler.WaitFor(0);
    for (; seen < all.size(); ++seen) {
      fresh.push_back(absl::StrCat(PathKindName(all[seen].path), ":", all[seen].bytes.substr(4)));
    }
    return fresh;
  }

  const IpAddress ip;
  const io::HostId host;
  const PrivateKey key;
  KeepingHandler handler;
  io::SimLoop* control_loop = nullptr;
  std::unique_ptr<internal::EngineImpl> engine;
  std::unique_ptr<Sender> sender;
  size_t seen = 0;
};

// A relay on a host of its own.
struct RelayHost {
  RelayHost(io::SimNetwork* net, RegionId number)
      : region(number),
        host(net->AddHost(absl::StrCat("relay ", number), {Ip(number)})),
        loop(net->CreateLoop(host, {})),
        relay(loop.get(), &timers, {.bind = {Ip(number), 443, 0}, .info = {}, .seed = number}) {
    net->uplink(host).options.delay = std::chrono::milliseconds(5);
    net->SetRunner(loop.get(), [this, net] {
      loop->Poll(net->now());
      timers.RunDue(net->now());
      return timers.NextDeadline();
    });
  }
  static IpAddress Ip(RegionId number) {
    return IpAddress::V4(198, 51, 100, static_cast<uint8_t>(number));
  }

  const RegionId region;
  const io::HostId host;
  const std::unique_ptr<io::SimLoop> loop;
  TimerQueue timers;
  derp::RelayFixture relay;
};

class EngineRelayTest : public testing::Test {
 protected:
  static derp::RelayMap MapOf(const std::vector<RelayHost*>& relays) {
    derp::RelayMap map;
    for (const RelayHost* relay : relays) {
      map.regions[relay->region] = relay->relay.Region(relay->region);
    }
    return map;
  }
  void Run(Duration duration = std::chrono::milliseconds(50)) { net_.RunFor(duration); }

  io::SimNetwork net_{20260301};
};

}  // namespace ringsock

#endif  // RINGSOCK_TESTS_CORE_ENGINE_RELAY_FIXTURE_H_
