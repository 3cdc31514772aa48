// Netchecks and endpoint updates of a whole engine, in a simulated network.
#include "core/net_checker.h"

#include <gtest/gtest.h>

#include "stun/message.h"
#include "tests/core/net_checker_fixture.h"

namespace ringsock {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using stun::Answer;
using Texts = std::vector<std::string>;

const IpAddress kOutside = IpAddress::V4(192, 0, 2, 5);

class NetCheckerTest : public NetCheckerFixture {};

// --- What is found out ---

// spec: EP-3, EP-4, EP-5, EP-7, NC-6, NC-10
TEST_F(NetCheckerTest, ReportsWhatServersSee) {
  auto node = Behind({});
  node->SetMap(Map());
  Run();
  const stun::Report report = node->Report();
  EXPECT_TRUE(report.udp);
  EXPECT_FALSE(report.ipv6);
  EXPECT_EQ(report.mapping_varies, Answer::kNo);
  EXPECT_EQ(report.preferred, 1);
  // From the sockets that carry data: the box keeps their port (spec: NC-1).
  EXPECT_EQ(node->Endpoints(), "203.0.113.1:41641 (stun), 192.168.1.2:41641 (local)");
  // The start and the map were one update.
  EXPECT_EQ(node->observer.endpoints, (Texts{node->Endpoints()}));
  ASSERT_EQ(node->observer.infos.size(), 1u);
  EXPECT_EQ(node->observer.infos[0].home, 1);
  EXPECT_EQ(node->observer.infos[0].latency.at("2-v4"), milliseconds(20));
  const EngineStatus status = node->engine->Status();
  EXPECT_EQ(status.home, 1);
  ASSERT_TRUE(status.net_info.has_value());
  EXPECT_TRUE(status.net_info->udp);
}

// spec: NC-6
TEST_F(NetCheckerTest, SymmetricBoxVaries) {
  auto node = Behind({.kind = io::NatKind::kSymmetric});
  node->SetMap(Map());
  Run();
  EXPECT_EQ(node->Report().mapping_varies, Answer::kYes);
}

// spec: NC-7
TEST_F(NetCheckerTest, Hairpin) {
  for (const bool leads_back : {false, true}) {
    auto node = Behind({.kind = io::NatKind::kFullCone, .hairpin = leads_back});
    node->SetMap(Map());
    Run();
    EXPECT_EQ(node->Report().hairpin, leads_back ? Answer::kYes : Answer::kNo);
    node.reset();
    net_.nat(io::RealmId{1}).set_outside({});  // its address is the next one's
  }
}

TEST_F(NetCheckerTest, DualStack) {
  auto node = Open({kOutside, SimV6(99)});
  node->SetMap(Map());
  Run();
  const stun::Report report = node->Report();
  EXPECT_TRUE(report.ipv6);
  EXPECT_EQ(report.hairpin, Answer::kYes);
  // Found by STUN and by looking: once (spec: EP-3).
  EXPECT_EQ(node->Endpoints(), "192.0.2.5:41641 (stun), [2001:db8::63]:41641 (stun)");
  EXPECT_EQ(node->observer.infos[0].latency.count("3-v6"), 1u);
}

// A family without an address is not even tried.
TEST_F(NetCheckerTest, OnlyIpv6) {
  auto node = Open({SimV6(99)});
  node->SetMap(Map());
  Run();
  const stun::Report report = node->Report();
  EXPECT_TRUE(report.udp);
  EXPECT_TRUE(report.ipv6);
  EXPECT_TRUE(report.global_v4.IsNone());
  EXPECT_EQ(report.preferred, 1);
  EXPECT_EQ(node->Endpoints(), "[2001:db8::63]:41641 (stun)");
  const auto counters = node->engine->Counters();
  EXPECT_EQ(counters.paths[static_cast<size_t>(PathKind::kDirectV4)].tx_packets, 0u);
  EXPECT_EQ(counters.drops[static_cast<size_t>(Drop::kTxUnreachable)], 0u);
}

TEST_F(NetCheckerTest, Ipv6SwitchedOff) {
  EngineOptions options = CheckedNode::Defaults();
  options.ipv6 = false;
  auto node = Open({kOutside, SimV6(99)}, 1, options);
  node->SetMap(Map());
  Run();
  EXPECT_FALSE(node->Report().ipv6);
  EXPECT_EQ(node->Endpoints(), "192.0.2.5:41641 (stun)");
}

// spec: NC-9
TEST_F(NetCheckerTest, BlockedUdpAsksHttps) {
  auto node = Open({kOutside});
  net_.SetUdpBlocked(node->host, true);
  world_.https = {{"1a", milliseconds(80)}, {"2a", milliseconds(40)}};
  node->SetMap(Map());
  Run();
  const stun::Report report = node->Report();
  EXPECT_FALSE(report.udp);
  EXPECT_EQ(world_.https_asked, (Texts{"1a", "2a", "3a"}));
  EXPECT_EQ(report.latency.size(), 2u);
  EXPECT_EQ(report.preferred, 2);
  EXPECT_EQ(node->engine->Status().home, 2);
  EXPECT_EQ(node->Endpoints(), "192.0.2.5:41641 (local)");
  EXPECT_FALSE(node->observer.infos.at(0).udp);
}

// spec: EP-6
TEST_F(NetCheckerTest, NothingAtAllKeepsTheHome) {
  auto node = Open({kOutside});
  node->SetMap(Map());
  Run();
  ASSERT_EQ(node->engine->Status().home, 1);
  net_.SetUdpBlocked(node->host, true);
  node->engine->ReStun("test");
  Run(seconds(10));
  EXPECT_FALSE(node->Report().udp);
  EXPECT_EQ(node->Report().preferred, 0);
  EXPECT_EQ(node->engine->Status().home, 1);
}

// spec: NC-11. What does not resolve is skipped; the others are found by their names.
TEST_F(NetCheckerTest, Names) {
  world_.names["derp2.example"] = {IpAddress::V4(198, 51, 100, 2), SimV6(2)};
  derp::RelayMap map = Map();
  for (const RegionId id : {RegionId{2}, RegionId{3}}) {
    map.regions[id].nodes[0].ipv4.clear();
    map.regions[id].nodes[0].ipv6.clear();
  }
  auto node = Open({kOutside, SimV6(99)});
  node->SetMap(map);
  Run();
  const stun::Report report = node->Report();
  EXPECT_EQ(report.latency.size(), 2u);
  EXPECT_TRUE(report.latency.at(2).v4.has_value());
  EXPECT_TRUE(report.latency.at(2).v6.has_value());
  EXPECT_EQ(node->Stats().unresolved, 6u);  // three tries of each family
}

// --- Strangers ---

// A host that sends what it likes, and answers STUN as it likes.
class Stranger final : public io::UdpHandler {
 public:
  Stranger(io::SimNetwork* net, io::HostId host) : loop_(net->CreateLoop(host, {})) {
    socket_ = *loop_->OpenUdp({.bind = {IpAddress::AnyV4(), stun::kDefaultPort, 0}}, this);
    other_ = *loop_->OpenUdp({.bind = {IpAddress::AnyV4(), 0, 0}}, this);
    net->SetRunner(loop_.get(), [this] {
      loop_->Poll(Instant::min());
      return Instant::max();
    });
  }
  void Send(const Endpoint& to, std::span<const std::byte> bytes, bool from_other = false) {
    loop_->Send(from_other ? other_ : socket_,
                {.data = bytes.data(), .size = static_cast<uint32_t>(bytes.size()), .to = to});
    loop_->Flush();
  }
  void OnReceive(io::SocketId, std::span<const io::RxTrain> trains) override {
    for (const io::RxTrain& train : trains) {
      stun::TransactionId id;
      if (stun::ParseBindingRequest({train.data, train.size}, stun::Dialect::kReference, &id) ==
          stun::ParseResult::kOk) {
        requests.emplace_back(train.from, id);
      }
    }
  }
  void OnSendFailure(io::SocketId, const io::SendFailure&) override {}

  std::vector<std::pair<Endpoint, stun::TransactionId>> requests;

 private:
  std::unique_ptr<io::SimLoop> loop_;
  io::SocketId socket_ = 0;
  io::SocketId other_ = 0;
};

std::vector<std::byte> AnswerTo(const stun::TransactionId& id, const Endpoint& mapped) {
  std::array<std::byte, stun::kResponseSizeV6> answer;
  const size_t size = stun::EncodeBindingResponse(id, mapped, answer);
  return {answer.begin(), answer.begin() + size};
}

// spec: NC-11, RECV-1
TEST_F(NetCheckerTest, ForgedAnswersAreCountedAndChangeNothing) {
  auto node = Open({kOutside});
  Stranger stranger(&net_, net_.AddHost("stranger", {IpAddress::V4(192, 0, 2, 66)}));
  const Endpoint engine{kOutside, kDataPort, 0};
  const Endpoint lie = *Endpoint::Parse("6.6.6.6:666");
  SeededRandom random(3);
  const auto answer = AnswerTo(stun::MakeTransactionId(&random), lie);
  // Before there is a map nobody takes STUN.
  stranger.Send(engine, answer);
  Run(seconds(1));
  const auto dropped = [&] {
    return node->engine->Counters().drops[static_cast<size_t>(Drop::kRxStun)];
  };
  EXPECT_EQ(dropped(), 1u);
  node->SetMap(Map());
  Run(milliseconds(2));  // asked, not answered
  std::vector<std::byte> broken = answer;
  broken[3] = std::byte{200};  // longer than it is
  stranger.Send(engine, answer);
  stranger.Send(engine, broken);
  Run();
  EXPECT_EQ(node->Stats().unknown_id, 1u);
  EXPECT_EQ(node->Stats().malformed, 1u);
  EXPECT_EQ(node->Endpoints(), "192.0.2.5:41641 (stun)");
  // Nor does WireGuard see any of it.
  EXPECT_EQ(node->handler.size(), 0u);
  EXPECT_EQ(dropped(), 1u);
  // Without a map again.
  node->SetMap(std::nullopt);
  stranger.Send(engine, answer);
  Run(seconds(1));
  EXPECT_EQ(dropped(), 2u);
}

// Of the server that was asked: from elsewhere, of the other family, and twice.
TEST_F(NetCheckerTest, WrongAnswersAreCountedAndChangeNothing) {
  const IpAddress ip = IpAddress::V4(192, 0, 2, 66);
  Stranger server(&net_, net_.AddHost("server", {ip}));
  derp::RelayMap map = RelayMapOf({1});
  map.regions[1].nodes[0].ipv4 = ip.ToString();
  auto node = Open({kOutside});
  node->SetMap(map);
  Run(milliseconds(1));
  ASSERT_EQ(server.requests.size(), 1u);
  const auto& [from, id] = server.requests[0];
  const Endpoint lie = *Endpoint::Parse("6.6.6.6:666");
  server.Send(from, AnswerTo(id, lie), /*from_other=*/true);
  Run(milliseconds(1));
  EXPECT_EQ(node->Stats().wrong_source, 1u);
  server.Send(from, AnswerTo(id, *Endpoint::Parse("[2001:db8::6]:666")));
  Run(milliseconds(1));
  EXPECT_EQ(node->Stats().wrong_family, 1u);
  EXPECT_EQ(node->Stats().answers, 0u);
  server.Send(from, AnswerTo(id, *Endpoint::Parse("192.0.2.5:41641")));
  server.Send(from, AnswerTo(id, lie));
  Run(milliseconds(1));
  EXPECT_EQ(node->Stats().answers, 1u);
  EXPECT_EQ(node->Stats().repeated, 1u);
  Run();
  EXPECT_EQ(node->Endpoints(), "192.0.2.5:41641 (stun)");
}

TEST_F(NetCheckerTest, LateAnswersAreCounted) {
  net_.uplink(ServerHost(3)).options.delay = seconds(4);
  net_.SetUdpBlocked(ServerHost(2), true);
  auto node = Open({kOutside});
  node->SetMap(Map());
  Run(seconds(3));  // a netcheck of an update has 2 s (spec: EP-5)
  EXPECT_EQ(node->Report().latency.size(), 1u);
  EXPECT_EQ(node->Stats().late, 0u);
  Run(seconds(3));
  EXPECT_EQ(node->Stats().late, 3u);
}

// --- When ---

// spec: EP-1: nothing by itself without peers.
TEST_F(NetCheckerTest, WithoutPeersOnlyWhenAsked) {
  auto node = Open({kOutside});
  Run(std::chrono::minutes(10));
  EXPECT_EQ(Requests(), 0u);
  EXPECT_EQ(node->observer.endpoints, (Texts{"192.0.2.5:41641 (local)"}));
  node->SetMap(Map());  // spec: DERP-7
  Run();
  const uint64_t first = Requests();
  EXPECT_GE(first, 3u);
  Run(std::chrono::minutes(10));
  EXPECT_EQ(Requests(), first);
  node->engine->ReStun("test");
  Run();
  EXPECT_GT(Requests(), first);
}

// spec: EP-1
TEST_F(NetCheckerTest, RepeatsWhileThereIsAPeer) {
  auto node = Open({kOutside});
  node->SetMap(Map());
  node->AddPeer(1);
  Run(seconds(10));
  Instant last = node->Report().started;
  int repeats = 0;
  for (int tenths = 0; tenths < 6000; ++tenths) {
    Run(milliseconds(100));
    const stun::Report report = node->Report();
    if (report.started == last) continue;
    // The report before took up to 600 ms, of which the hairpin check is most.
    EXPECT_GE(report.started - last, seconds(20));
    EXPECT_LE(report.started - last, seconds(27));
    last = report.started;
    ++repeats;
  }
  EXPECT_GE(repeats, 22);
  EXPECT_LE(repeats, 30);
  // The list has not changed, and latencies are no news.
  EXPECT_EQ(node->observer.endpoints.size(), 1u);
  EXPECT_EQ(node->observer.infos.size(), 1u);
  node->RemovePeers();
  Run(seconds(1));
  const uint64_t requests = Requests();
  Run(std::chrono::minutes(10));
  EXPECT_EQ(Requests(), requests);
}

// spec: PEER-2, PEER-3
TEST_F(NetCheckerTest, TheFirstPeerAndTheFirstKeyAskForAnUpdate) {
  auto node = Open({kOutside});
  node->SetMap(Map());
  Run();
  Instant last = node->Report().started;
  const auto updated = [&] {
    Run();
    return std::exchange(last, node->Report().started) != last;
  };
  EXPECT_FALSE(updated());
  node->AddPeer(1);
  EXPECT_TRUE(updated());
  node->AddPeer(2);
  EXPECT_FALSE(updated());
  node->RemovePeers();
  EXPECT_FALSE(updated());
  node->AddPeer(1);
  EXPECT_TRUE(updated());
  EXPECT_TRUE(node->engine->SetPrivateKey(PrivateKey::Generate()).ok());
  EXPECT_TRUE(updated());
}

// spec: EP-2
TEST_F(NetCheckerTest, RequestsDuringAnUpdateBecomeOne) {
  auto node = Open({kOutside});
  node->SetMap(Map());
  Run(milliseconds(2));
  const uint64_t probes = node->Stats().probes_sent;
  for (int i = 0; i < 100; ++i) node->engine->ReStun(absl::StrCat("reason ", i));
  Run(milliseconds(2));
  EXPECT_EQ(node->Stats().probes_sent, probes);  // the first one still runs
  Run(seconds(5));
  const uint64_t after = node->Stats().probes_sent;
  EXPECT_GT(after, probes);
  EXPECT_LE(after, probes + 6);  // one small report
  Run(seconds(5));
  EXPECT_EQ(node->Stats().probes_sent, after);
}

TEST_F(NetCheckerTest, ANewMapIsAskedInFull) {
  auto node = Open({kOutside});
  node->SetMap(Map({1, 2}));
  Run();
  EXPECT_EQ(node->Report().latency.size(), 2u);
  node->SetMap(Map({2, 3}));
  Run();
  EXPECT_TRUE(node->Report().full);
  EXPECT_TRUE(node->Report().latency.contains(3));
  EXPECT_EQ(node->engine->Status().home, 2);
  node->SetMap(std::nullopt);
  Run();
  EXPECT_EQ(node->engine->Status().home, 0);  // spec: EP-7
}

TEST_F(NetCheckerTest, SwitchedOffItSendsNothing) {
  EngineOptions options = CheckedNode::Defaults();
  options.network.netcheck = false;
  auto node = Open({kOutside}, 1, options);
  node->SetMap(Map());
  node->AddPeer(1);
  Run(std::chrono::minutes(2));
  EXPECT_EQ(Requests(), 0u);
  EXPECT_FALSE(node->engine->Status().last_report.has_value());
  EXPECT_EQ(node->Endpoints(), "192.0.2.5:41641 (local)");
  EXPECT_NE(node->engine->Status().home, 0);  // spec: EP-6
  EXPECT_TRUE(node->observer.infos.empty());
}

// What was asked before is not taken for a network without UDP.
TEST_F(NetCheckerTest, AMapThatGoesDuringANetcheck) {
  auto node = Open({kOutside});
  node->SetMap(Map());
  Run(milliseconds(2));
  node->SetMap(std::nullopt);
  Run();
  ASSERT_EQ(node->observer.infos.size(), 1u);
  EXPECT_TRUE(node->observer.infos[0].udp);
  EXPECT_EQ(node->observer.infos[0].home, 0);
  EXPECT_EQ(node->engine->Status().home, 0);
}

// A host that is in no network asks nobody, and does not wait for it.
TEST_F(NetCheckerTest, WithoutAnAddressNobodyIsAsked) {
  auto node = Open({kOutside});
  node->SetMap(Map());
  Run();
  const uint64_t probes = node->Stats().probes_sent;
  node->network = StateOf({});
  net_.SetUdpBlocked(node->host, true);
  node->engine->ReStun("link down");
  Run(milliseconds(1));
  EXPECT_EQ(node->Endpoints(), "127.0.0.1:41641 (loopback)");
  EXPECT_EQ(node->Stats().probes_sent, probes);
  EXPECT_TRUE(world_.https_asked.empty());
  EXPECT_EQ(node->engine->Status().home, 1);
  EXPECT_EQ(node->observer.infos.size(), 1u);
  node->network = StateOf({kOutside});
  net_.SetUdpBlocked(node->host, false);
  node->engine->ReStun("link up");
  Run(milliseconds(600));
  EXPECT_EQ(node->Endpoints(), "192.0.2.5:41641 (stun)");
}

// --- What is told ---

TEST_F(NetCheckerTest, AddressesThatComeAndGo) {
  auto node = Open({kOutside});
  node->AddPeer(1);
  Run(seconds(1));
  node->network = StateOf({kOutside, IpAddress::V4(10, 0, 0, 1)});
  Run(seconds(30));
  EXPECT_EQ(node->observer.endpoints,
            (Texts{"192.0.2.5:41641 (local)", "192.0.2.5:41641 (local), 10.0.0.1:41641 (local)"}));
  // Whoever watches the host says so, and it is not read any more.
  const int reads = node->network_reads;
  node->engine->net_checker().SetNetworkState(StateOf({IpAddress::V4(10, 0, 0, 1)}));
  node->engine->ReStun("link changed");
  Run(seconds(1));
  EXPECT_EQ(node->Endpoints(), "10.0.0.1:41641 (local)");
  EXPECT_EQ(node->network_reads, reads);
}

TEST_F(NetCheckerTest, APortMappingIsListedBehindStun) {
  auto node = Behind({});
  node->SetMap(Map());
  Run();
  const Endpoint mapped = *Endpoint::Parse("203.0.113.1:50000");
  node->engine->net_checker().SetPortMapping(mapped);
  Run();
  EXPECT_EQ(node->Endpoints(),
            "203.0.113.1:41641 (stun), 203.0.113.1:50000 (portmap), 192.168.1.2:41641 (local)");
  const size_t told = node->observer.endpoints.size();
  node->engine->net_checker().SetPortMapping(mapped);  // again
  Run();
  EXPECT_EQ(node->observer.endpoints.size(), told);
  node->engine->net_checker().SetPortMapping({});
  Run();
  EXPECT_EQ(node->Endpoints(), "203.0.113.1:41641 (stun), 192.168.1.2:41641 (local)");
}

// An observer may ask for everything that does not end the engine.
TEST_F(NetCheckerTest, ObserversMayCallTheEngine) {
  auto node = Open({kOutside});
  int calls = 0;
  node->observer.on_endpoints = [&] {
    if (++calls > 5) return;
    EXPECT_TRUE(
        node->engine->SetRelayMap(calls % 2 == 1 ? std::optional(Map()) : std::nullopt).ok());
    EXPECT_TRUE(node->engine->UpdatePeers({}).ok());
    EXPECT_FALSE(node->engine->Status().backend.empty());
    node->engine->ReStun("observer");
  };
  Run(seconds(20));
  EXPECT_GE(calls, 2);
}

TEST_F(NetCheckerTest, NothingComesAfterClose) {
  auto node = Open({kOutside});
  node->SetMap(Map());
  node->AddPeer(1);
  Run(milliseconds(15));  // half way
  const size_t told = node->observer.endpoints.size();
  node->engine->Close();
  node->engine->ReStun("too late");
  Run(std::chrono::minutes(1));
  EXPECT_EQ(node->observer.endpoints.size(), told);
  EXPECT_EQ(node->observer.infos.size(), 0u);
}

}  // namespace
}  // namespace ringsock
