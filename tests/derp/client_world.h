// What the tests of the relay client share: a simulated network with one client host and relays on
// hosts of their own, all in virtual time.
#ifndef RINGSOCK_TESTS_DERP_CLIENT_WORLD_H_
#define RINGSOCK_TESTS_DERP_CLIENT_WORLD_H_

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "derp/region_connection.h"
#include "io/sim_network.h"
#include "tests/derp/fake_resolver.h"
#include "tests/derp/relay_fixture.h"
#include "tests/io/sim_node.h"

namespace ringsock::derp {

// Long enough for DNS, TCP and a login over links of 10 ms.
inline constexpr Duration kEnough = std::chrono::milliseconds(300);

inline std::vector<std::byte> Packet(size_t size, uint8_t fill = 0x5a) {
  return std::vector<std::byte>(size, std::byte{fill});
}
inline PublicKey PeerKey(uint8_t first) {
  PublicKey key;
  key.bytes.fill(0x11);
  key.bytes[0] = first;
  return key;
}

// Keeps what a connection tells.
class Recorder final : public RegionEvents {
 public:
  void OnUp(RegionConnection&) override {
    ++ups;
    story += "up ";
    if (on_up) on_up();
  }
  void OnPacket(RegionConnection&, const PublicKey& source,
                std::span<const std::byte> packet) override {
    sources.push_back(source);
    sizes.push_back(packet.size());
    if (on_packet) on_packet();
  }
  void OnPacketsEnd(RegionConnection&) override { ++packet_ends; }
  void OnPeerGone(RegionConnection&, const PublicKey& peer) override { gone.push_back(peer); }
  void OnHealth(RegionConnection&, absl::string_view problem) override {
    health.emplace_back(problem);
  }
  void OnDown(RegionConnection&, const absl::Status& why) override {
    downs.push_back(why);
    story += "down ";
    if (on_down) on_down();
  }

  int ups = 0;
  int packet_ends = 0;
  std::vector<PublicKey> sources;
  std::vector<size_t> sizes;
  std::vector<PublicKey> gone;
  std::vector<std::string> health;
  std::vector<absl::Status> downs;
  std::string story;  // ups and downs in order
  std::function<void()> on_up, on_packet, on_down;
};

// A host with a loop and timers that run by themselves.
struct WorldHost {
  WorldHost(io::SimNetwork* net, const std::string& name, const std::vector<IpAddress>& addresses)
      : id(net->AddHost(name, addresses)), loop(net->CreateLoop(id, {})) {
    net->uplink(id).options.delay = std::chrono::milliseconds(5);
    net->downlink(id).options.delay = std::chrono::milliseconds(5);
    net->SetRunner(loop.get(), [this, net] {
      loop->Poll(net->now());
      timers.RunDue(net->now());
      return timers.NextDeadline();
    });
  }
  const io::HostId id;
  const std::unique_ptr<io::SimLoop> loop;
  TimerQueue timers;
};

struct WorldRelay {
  WorldRelay(io::SimNetwork* net, const std::string& name, const std::vector<IpAddress>& addresses,
             const RelayFixture::Options& options)
      : host(net, name, addresses), relay(host.loop.get(), &host.timers, options) {}
  WorldHost host;
  RelayFixture relay;
};

class ClientWorldTest : public testing::Test {
 protected:
  ~ClientWorldTest() override {
    if (HasFailure()) ADD_FAILURE() << net.Describe();
  }

  // A relay at 198.51.100.`last`:443.
  RelayFixture& AddRelay(uint8_t last, RelayFixture::Options options = {}) {
    return AddRelayAt({IpAddress::V4(198, 51, 100, last)}, std::move(options));
  }
  RelayFixture& AddRelayAt(const std::vector<IpAddress>& addresses,
                           RelayFixture::Options options = {}) {
    if (options.bind.IsNone()) options.bind = {addresses.front(), 443, 0};
    const std::string name = "relay " + addresses.front().ToString();
    relays.push_back(std::make_unique<WorldRelay>(&net, name, addresses, options));
    return relays.back()->relay;
  }
  // A region with nodes named after the relays, in that order.
  static RelayRegion RegionOf(const std::vector<RelayFixture*>& relays, RegionId id = 1) {
    RelayRegion region;
    region.region_id = id;
    region.region_code = "test";
    for (const RelayFixture* relay : relays) {
      region.nodes.push_back(
          relay->Node(std::to_string(id) + static_cast<char>('a' + region.nodes.size()), id));
    }
    return region;
  }
  // Lets time pass. The client's turn comes first: what a test called may have set timers.
  void Run(Duration duration) {
    client.loop->Wake();
    net.RunFor(duration);
  }
  RegionConnectionDeps Deps() {
    return {.loop = client.loop.get(),
            .timers = &client.timers,
            .resolver = &resolver,
            .tls = nullptr,
            .random = &random};
  }
  static RegionConnectionOptions Plain() {
    RegionConnectionOptions options;
    options.plain_http_for_tests = true;
    return options;
  }
  std::unique_ptr<RegionConnection> Connect(const RelayRegion& region, RegionEvents* to,
                                            RegionConnectionOptions options = Plain()) {
    return NewRegionConnection(Deps(), region, key, std::move(options), to);
  }

  io::SimNetwork net{io::kSeed};
  WorldHost client{&net, "client", {IpAddress::V4(192, 0, 2, 1)}};
  std::vector<std::unique_ptr<WorldRelay>> relays;
  SeededRandom random{7};
  FakeResolver resolver{&net.clock(), &client.timers};
  const PrivateKey key = RelayFixture::Key(1001);
  const PublicKey self = key.Public();
  Recorder events;
};

}  // namespace ringsock::derp

#endif  // RINGSOCK_TESTS_DERP_CLIENT_WORLD_H_
