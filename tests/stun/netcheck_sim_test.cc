// Netcheck and STUN server together on a simulated network: what a host behind each kind of NAT
// box finds out about itself.
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "io/sim_network.h"
#include "stun/netcheck.h"
#include "stun/server.h"
#include "tests/io/sim_node.h"

namespace ringsock::stun {
namespace {

using io::V4;
using std::chrono::milliseconds;
using std::chrono::seconds;

IpAddress V6(uint8_t last) {
  return IpAddress::V6({0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last});
}

// A host that runs netchecks out of one data socket per family.
class Client final : public io::UdpHandler, public NetcheckEnvironment {
 public:
  Client(io::SimNetwork* net, io::HostId host, bool v6)
      : net_(net), loop_(net->CreateLoop(host, {})), netcheck({}, net->random(), this) {
    v4_ = Open(IpAddress::AnyV4(), 41641);
    hairpin_ = Open(IpAddress::AnyV4(), 0);
    if (v6) v6_ = Open(IpAddress::AnyV6(), 41641);
    net->SetRunner(loop_.get(), [this] {
      loop_->Poll(net_->now());
      netcheck.Advance(net_->now());
      loop_->Flush();
      return netcheck.NextDeadline();
    });
  }

  Report Run(bool full = true) {
    report.reset();
    EXPECT_TRUE(
        netcheck.Start({.host = {.v4 = true, .v6 = v6_.has_value()}, .full = full}, net_->now()));
    loop_->Flush();
    loop_->Wake();  // the runner names its deadline
    net_->RunFor(seconds(9));
    EXPECT_TRUE(report.has_value());
    return report.value_or(Report{});
  }

  void OnReceive(io::SocketId socket, std::span<const io::RxTrain> trains) override {
    if (socket == hairpin_) return;
    for (const io::RxTrain& train : trains) {
      for (uint32_t at = 0; at < train.size; at += train.segment_size) {
        const size_t size = std::min(train.segment_size, train.size - at);
        netcheck.OnDatagram(train.from, {train.data + at, size}, net_->now());
      }
    }
  }
  void OnSendFailure(io::SocketId, const io::SendFailure&) override {}

  void SendProbe(const Endpoint& to, std::span<const std::byte> packet) override {
    Send(to.IsV4() ? v4_ : v6_.value(), to, packet);
  }
  bool SendHairpin(const Endpoint& to, std::span<const std::byte> packet) override {
    Send(hairpin_, to, packet);
    return true;
  }
  void Resolve(const std::string&, Family) override { ADD_FAILURE() << "no names here"; }
  void MeasureHttps(RegionId region, const ProbeNode&) override { https.push_back(region); }
  void OnReport(const Report& made) override { report = made; }

 private:
  io::SocketId Open(const IpAddress& ip, uint16_t port) {
    const auto socket = loop_->OpenUdp({.bind = {ip, port, 0}}, this);
    EXPECT_TRUE(socket.ok()) << socket.status();
    return socket.value_or(0);
  }
  void Send(io::SocketId socket, const Endpoint& to, std::span<const std::byte> packet) {
    io::TxSlab* slab = loop_->AcquireSlab();
    ASSERT_NE(slab, nullptr);
    std::copy(packet.begin(), packet.end(), slab->data);
    loop_->Send(
        socket,
        {.data = slab->data, .size = static_cast<uint32_t>(packet.size()), .to = to, .slab = slab});
  }

  io::SimNetwork* const net_;
  const std::unique_ptr<io::SimLoop> loop_;
  io::SocketId v4_ = 0;
  io::SocketId hairpin_ = 0;
  std::optional<io::SocketId> v6_;

 public:
  Netcheck netcheck;
  std::optional<Report> report;
  std::vector<RegionId> https;
};

class NetcheckSimTest : public testing::Test {
 protected:
  NetcheckSimTest() {
    for (RegionId id = 1; id <= 3; ++id) {
      const auto last = static_cast<uint8_t>(id);
      const io::HostId host =
          net.AddHost("stun" + std::to_string(id), {V4(198, 51, 100, last), V6(last)});
      // Round trips of 10, 20 and 30 ms.
      net.uplink(host).options.delay = milliseconds(10 * id);
      loops.push_back(net.CreateLoop(host, {}));
      // Both dialects have to understand the client.
      servers.push_back(std::make_unique<Server>(loops.back().get(),
                                                 id == 1 ? Dialect::kReference : Dialect::kRfc));
      EXPECT_TRUE(servers.back()->Open({IpAddress::AnyV4(), kDefaultPort, 0}).ok());
      EXPECT_TRUE(servers.back()->Open({IpAddress::AnyV6(), kDefaultPort, 0}).ok());
      ProbeNode node{.name = "n" + std::to_string(id), .host_name = "n.test"};
      node.v4.ip = V4(198, 51, 100, last);
      node.v6.ip = V6(last);
      map.push_back({id, false, {node}});
    }
  }
  ~NetcheckSimTest() override {
    if (HasFailure()) ADD_FAILURE() << net.Describe();
  }

  uint8_t next_outside = 10;

  std::unique_ptr<Client> Behind(const io::NatOptions& nat) {
    const io::RealmId home = net.AddNat(nat, {V4(203, 0, 113, 1)});
    auto client =
        std::make_unique<Client>(&net, net.AddHost("client", {V4(192, 168, 1, 2)}, home), false);
    client->netcheck.SetMap(map);
    return client;
  }

  io::SimNetwork net{io::kSeed};
  std::vector<std::unique_ptr<io::SimLoop>> loops;
  std::vector<std::unique_ptr<Server>> servers;
  ProbeMap map;
};

TEST_F(NetcheckSimTest, DualStackWithoutNat) {
  Client client(&net, net.AddHost("client", {V4(203, 0, 113, 5), V6(99)}), true);
  client.netcheck.SetMap(map);
  const Report report = client.Run();
  EXPECT_EQ(report.global_v4.ToString(), "203.0.113.5:41641");
  EXPECT_EQ(report.global_v6.ToString(), "[2001:db8::63]:41641");
  EXPECT_EQ(report.mapping_varies, Answer::kNo);
  EXPECT_EQ(report.hairpin, Answer::kYes);
  EXPECT_EQ(report.preferred, 1);
  ASSERT_EQ(report.latency.size(), 3u);
  EXPECT_EQ(report.latency.at(3).v4, milliseconds(30));
  EXPECT_EQ(report.latency.at(3).v6, milliseconds(30));
}

// spec: NC-6, NC-7
TEST_F(NetcheckSimTest, ConesMapAlikeWhateverTheyFilter) {
  for (const bool hairpin : {false, true}) {
    for (const auto kind : {io::NatKind::kFullCone, io::NatKind::kPortRestricted}) {
      SCOPED_TRACE(static_cast<int>(kind));
      const io::RealmId home =
          net.AddNat({.kind = kind, .hairpin = hairpin}, {V4(203, 0, 113, next_outside)});
      Client client(&net, net.AddHost("client", {V4(192, 168, 1, 2)}, home), false);
      client.netcheck.SetMap(map);
      const Report report = client.Run();
      EXPECT_EQ(report.mapping_varies, Answer::kNo);
      EXPECT_EQ(report.global_v4.ip, V4(203, 0, 113, next_outside));
      // A box that filters does so for its own hosts too: nobody inside was asked before.
      const bool seen = hairpin && kind == io::NatKind::kFullCone;
      EXPECT_EQ(report.hairpin, seen ? Answer::kYes : Answer::kNo);
      ++next_outside;
    }
  }
}

// spec: NC-6
TEST_F(NetcheckSimTest, SymmetricNatVaries) {
  const auto client = Behind({.kind = io::NatKind::kSymmetric});
  const Report report = client->Run();
  EXPECT_EQ(report.mapping_varies, Answer::kYes);
  EXPECT_EQ(report.global_v4.ip, V4(203, 0, 113, 1));
  EXPECT_TRUE(report.udp);
}

// spec: NC-3: later reports ask less.
TEST_F(NetcheckSimTest, LaterReportsAreSmall) {
  const auto client = Behind({});
  client->Run();
  const uint64_t before = client->netcheck.stats().probes_sent;
  const Report report = client->Run(false);
  EXPECT_FALSE(report.full);
  EXPECT_EQ(report.latency.size(), 3u);
  EXPECT_EQ(client->netcheck.stats().probes_sent - before, 3u);
}

// spec: NC-9
TEST_F(NetcheckSimTest, BlockedUdpAsksHttps) {
  const io::HostId host = net.AddHost("client", {V4(203, 0, 113, 5)});
  net.SetUdpBlocked(host, true);
  Client client(&net, host, false);
  client.netcheck.SetMap(map);
  const Report report = client.Run();
  EXPECT_FALSE(report.udp);
  EXPECT_EQ(client.https, (std::vector<RegionId>{1, 2, 3}));
  EXPECT_EQ(client.netcheck.stats().probes_sent, 9u);
}

// spec: NC-5: tries repair losses.
TEST_F(NetcheckSimTest, LossyLine) {
  const auto client = Behind({});
  int answered = 0;
  for (const auto& loop : loops) net.uplink(loop->host()).options.loss = 0.2;
  for (int i = 0; i < 50; ++i) {
    if (client->Run().udp) ++answered;
  }
  EXPECT_EQ(answered, 50);  // all nine probes of a report lost: 0.2^9
}

}  // namespace
}  // namespace ringsock::stun
