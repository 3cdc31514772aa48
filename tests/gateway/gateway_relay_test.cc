// The gateway between a stand-in for WireGuard and peers that come over a relay, directly, or both.
#include <array>
#include <chrono>
#include <condition_variable>
#include <ctime>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/escaping.h"
#include "derp/tls.h"
#include "gateway/gateway.h"
#include "tests/derp/relay_fixture.h"
#include "tests/gateway/udp_peer.h"
#include "tests/gateway/wireguard_messages.h"

namespace ringsock::gateway {
namespace {

using ::testing::HasSubstr;

constexpr RegionId kRegion = 7;
constexpr std::chrono::seconds kPatience(20);

// A relay in a thread of its own, with a certificate of its own that its node pins.
class RunningRelay {
 public:
  RunningRelay() : loop_(*io::CreateLoop(io::LoopOptions{})) {
    const int64_t now = std::time(nullptr);
    const auto certificate = derp::MakeSelfSignedCertificate("relay.test", now - 60, now + 3600);
    tls_ = *derp::TlsServerContext::Create({.meta_key = derp::RelayFixture::Key(1).Public()});
    EXPECT_TRUE(tls_->Load(certificate->chain_pem, certificate->key_pem).ok());
    pin_ = *derp::CertificatePin(certificate->chain_pem);
    derp::RelayFixture::Options options;
    options.bind.ip = IpAddress::V4(127, 0, 0, 1);
    options.tls = tls_.get();
    relay_ = std::make_unique<derp::RelayFixture>(loop_.get(), &timers_, options);
    relay_->on_packet = [this](const PublicKey&, const PublicKey& to,
                               std::span<const std::byte> packet) {
      const std::lock_guard<std::mutex> lock(mutex_);
      sent_.push_back({to, Bytes(packet.begin(), packet.end())});
      changed_.notify_all();
      return false;
    };
    thread_ = std::thread([this] { Run(); });
  }
  ~RunningRelay() {
    Do([this] { stop_ = true; });
    thread_.join();
  }

  derp::RelayMap Map() {
    derp::RelayMap map;
    derp::RelayRegion region = relay_->Region(kRegion);
    region.nodes[0].insecure_for_tests = false;
    region.nodes[0].cert_name =
        "sha256-raw:" + absl::BytesToHexString(absl::string_view(
                            reinterpret_cast<const char*>(pin_.data()), pin_.size()));
    map.regions.emplace(kRegion, region);
    return map;
  }

  // Hands `packet` to `client` as one of `source`, once it is logged in.
  void Deliver(const PublicKey& client, const PublicKey& source, const Bytes& packet) {
    bool delivered = false;
    const Instant end = SystemClock().Now() + kPatience;
    while (!delivered && SystemClock().Now() < end) {
      Do([&] {
        delivered = relay_->Has(client) && relay_->Deliver(client, source, packet);
        if (delivered) relay_->Flush();
      });
    }
    EXPECT_TRUE(delivered);
  }

  struct Sent {
    PublicKey to;
    Bytes packet;
  };
  // The next packet that the gateway sent; a default one, and a failed test, if none comes.
  Sent Receive() {
    std::unique_lock<std::mutex> lock(mutex_);
    const bool came = changed_.wait_for(lock, kPatience, [this] { return !sent_.empty(); });
    EXPECT_TRUE(came) << "nothing came";
    if (!came) return {};
    Sent first = std::move(sent_.front());
    sent_.pop_front();
    return first;
  }
  bool Received() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return !sent_.empty();
  }

 private:
  // Runs on the relay's thread, and has run when it returns.
  void Do(std::function<void()> work) {
    std::unique_lock<std::mutex> lock(mutex_);
    work_ = std::move(work);
    loop_->Wake();
    changed_.wait(lock, [this] { return work_ == nullptr; });
  }
  void Run() {
    while (!stop_) {
      loop_->Poll(timers_.NextDeadline());
      timers_.RunDue(SystemClock().Now());
      std::function<void()> work;
      {
        const std::lock_guard<std::mutex> lock(mutex_);
        work = work_;
      }
      if (work == nullptr) continue;
      work();
      const std::lock_guard<std::mutex> lock(mutex_);
      work_ = nullptr;
      changed_.notify_all();
    }
    relay_.reset();
  }

  const std::unique_ptr<io::Loop> loop_;
  TimerQueue timers_;
  std::unique_ptr<derp::TlsServerContext> tls_;
  std::array<uint8_t, 32> pin_{};
  std::unique_ptr<derp::RelayFixture> relay_;
  bool stop_ = false;  // of the thread

  std::mutex mutex_;
  std::condition_variable changed_;
  std::function<void()> work_;
  std::deque<Sent> sent_;
  std::thread thread_;
};

class GatewayRelayTest : public testing::TestWithParam<uint32_t> {  // shards
 protected:
  // Alice is at the relay and at an address, Bob at neither.
  GatewayRelayTest() {
    config_.wireguard_port = wireguard_.local().port;
    config_.local_port = FreePort();
    config_.bind_v4 = IpAddress::V4(127, 0, 0, 1);
    config_.ipv6 = false;
    config_.pin_threads = false;
    config_.socket_buffer = 1 << 20;
    config_.shards = GetParam();
    config_.private_key = std::make_shared<const PrivateKey>(PrivateKey::Generate());
    ours_ = config_.private_key->Public();
    config_.derp_map = relay_.Map();
    config_.peers.resize(2);
    config_.peers[kAlice] = {KeyOf('1'), "alice", {RelayEndpoint(kRegion), alice_.local()}};
    config_.peers[kBob] = {KeyOf('2'), "bob", {}};
  }

  void Start() {
    auto gateway = Gateway::Start(config_);
    ASSERT_TRUE(gateway.ok()) << gateway.status();
    gateway_ = *std::move(gateway);
    public_.ip = IpAddress::V4(127, 0, 0, 1);
    public_.port = gateway_->port();
    for (const std::string& line : gateway_->WgSetLines()) {
      const size_t at = line.find("endpoint ") + 9;
      homes_.push_back(*Endpoint::Parse(line.substr(at, line.find(' ', at) - at)));
    }
  }
  std::string Line(const std::string& start) {
    for (const std::string& line : gateway_->Status()) {
      if (line.find(start) == 0) return line;
    }
    return "";
  }
  bool Eventually(const std::function<bool()>& condition) {
    const Instant end = SystemClock().Now() + kPatience;
    while (!condition()) {
      if (SystemClock().Now() > end) return false;
      std::this_thread::yield();
    }
    return true;
  }

  static constexpr PeerIndex kAlice = 0;
  static constexpr PeerIndex kBob = 1;
  UdpPeer wireguard_;
  UdpPeer alice_;
  RunningRelay relay_;
  Config config_;
  PublicKey ours_;
  std::unique_ptr<Gateway> gateway_;
  Endpoint public_;
  std::vector<Endpoint> homes_;
};

// spec: RECV-3, PATH-1, PATH-5, SEND-2, SEND-4
TEST_P(GatewayRelayTest, TheRelayIsAPathOfItsOwnAndNeverPreferred) {
  Start();
  relay_.Deliver(ours_, KeyOf('1'), Initiation(300, ours_));
  const auto relayed = wireguard_.Receive();
  EXPECT_EQ(relayed.bytes, Initiation(300, ours_));
  EXPECT_NE(relayed.from, homes_[kAlice]);
  // The answer goes over all paths.
  const Bytes response = Response(400, 300, KeyOf('1'));
  wireguard_.Send(relayed.from, response);
  EXPECT_EQ(alice_.Receive().bytes, response);
  const auto sent = relay_.Receive();
  EXPECT_EQ(sent.to, KeyOf('1'));
  EXPECT_EQ(sent.packet, response);
  EXPECT_THAT(Line("peer alice:"), HasSubstr(", path relay of region 7 (test)"));
  EXPECT_THAT(Line("port "), HasSubstr("0 direct, 1 relayed, 1 without"));
  EXPECT_THAT(Line("relay of region 7"), HasSubstr(", home: up for "));

  // Heard directly too: another address, and from then on the better path.
  alice_.Send(public_, Transport(400));
  const auto direct = wireguard_.Receive();
  EXPECT_NE(direct.from, relayed.from);
  wireguard_.Send(direct.from, Transport(300, 96, 1));
  EXPECT_EQ(alice_.Receive().bytes, Transport(300, 96, 1));
  EXPECT_THAT(Line("peer alice:"), HasSubstr(", path direct " + alice_.local().ToString()));

  // Over the relay once more, which is answered directly.
  relay_.Deliver(ours_, KeyOf('1'), Transport(400, 128));
  const auto again = wireguard_.Receive();
  EXPECT_EQ(again.bytes, Transport(400, 128));
  EXPECT_EQ(again.from, relayed.from);
  wireguard_.Send(again.from, Transport(300, 128, 2));
  EXPECT_EQ(alice_.Receive().bytes, Transport(300, 128, 2));
  EXPECT_THAT(Line("peer alice:"), HasSubstr(", path direct " + alice_.local().ToString() +
                                             ", but last heard over the relay of region 7 (test)"));
}

// What WireGuard sends before anything was heard goes to the first address, which is the relay.
TEST_P(GatewayRelayTest, HomeLeadsToTheRelay) {
  Start();
  // A packet waits 3 s for the connection, which is little on a busy machine.
  ASSERT_TRUE(
      Eventually([&] { return Line("relay of region 7").find(": up ") != std::string::npos; }));
  wireguard_.Send(homes_[kAlice], Transport(300));
  EXPECT_EQ(relay_.Receive().packet, Transport(300));
  EXPECT_THAT(Line("peer alice:"), HasSubstr(", path none confirmed"));
}

// Known without a netcheck, from where most peers are.
TEST_P(GatewayRelayTest, HomeIsKnown) {
  config_.netcheck = false;
  Start();
  gateway_->Watch();
  EXPECT_EQ(gateway_->home(), kRegion);
  Config next = config_;
  next.derp_map.reset();
  next.peers.erase(next.peers.begin() + kAlice);
  ASSERT_TRUE(gateway_->Reload(next).ok());
  gateway_->Watch();
  EXPECT_EQ(gateway_->home(), 0);
}

// The relay says whose a packet is; a key that no peer has gets nothing to WireGuard.
TEST_P(GatewayRelayTest, StrangersOverTheRelayAreDropped) {
  Start();
  relay_.Deliver(ours_, KeyOf('5'), Initiation(300, ours_));
  EXPECT_TRUE(Eventually([&] { return gateway_->Counters()[Count::kUnknownRelayed] == 1; }));
  relay_.Deliver(ours_, KeyOf('1'), Transport(8));
  EXPECT_EQ(wireguard_.Receive().bytes, Transport(8));
  EXPECT_EQ(gateway_->Counters()[Count::kToWireGuard], 1u);
}

// A peer that nobody said is at a relay is heard there, but has no address to be answered at.
TEST_P(GatewayRelayTest, APeerWithoutAddressIsHeardAndNotAnswered) {
  Start();
  relay_.Deliver(ours_, KeyOf('2'), Initiation(300, ours_));
  const auto received = wireguard_.Receive();
  wireguard_.Send(received.from, Response(400, 300, KeyOf('2')));
  EXPECT_TRUE(Eventually([&] {
    return gateway_->EngineCounters().drops[static_cast<size_t>(Drop::kTxNoDestination)] == 1;
  }));
  EXPECT_FALSE(relay_.Received());
  EXPECT_THAT(Line("peer bob:"), HasSubstr(", path none confirmed"));
}

// The relay's certificate is not the pinned one: said with the reason, and direct paths work.
TEST_P(GatewayRelayTest, AWrongRelayIsSaid) {
  derp::RelayNode& node = config_.derp_map->regions.at(kRegion).nodes[0];
  node.cert_name = "sha256-raw:" + std::string(64, '0');
  Start();
  EXPECT_TRUE(Eventually([&] {
    const std::string line = Line("relay of region 7");
    return line.find(": down for ") != std::string::npos &&
           line.find("certificate") != std::string::npos;
  })) << Line("relay of region 7");
  alice_.Send(public_, Transport(7));
  const auto received = wireguard_.Receive();
  wireguard_.Send(received.from, Transport(8));
  EXPECT_EQ(alice_.Receive().bytes, Transport(8));
  EXPECT_FALSE(relay_.Received());
}

// The map gets a region more, and a peer another name: the relay and who is reached by it stay.
TEST_P(GatewayRelayTest, AReloadLeavesOtherRelaysAlone) {
  Start();
  relay_.Deliver(ours_, KeyOf('1'), Initiation(300, ours_));
  const Endpoint path = wireguard_.Receive().from;
  wireguard_.Send(path, Response(400, 300, KeyOf('1')));
  relay_.Receive();
  alice_.Receive();
  derp::RelayRegion other = config_.derp_map->regions.at(kRegion);
  other.region_id = kRegion + 1;
  for (derp::RelayNode& node : other.nodes) {
    node.region_id = kRegion + 1;
    node.name = "8a";
  }
  config_.derp_map->regions.emplace(kRegion + 1, other);
  config_.peers[kBob].name = "robert";
  auto result = gateway_->Reload(config_);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_THAT(result->changes, testing::ElementsAre("derp_map", "peers: 1 renamed"));
  relay_.Deliver(ours_, KeyOf('1'), Transport(400));
  EXPECT_EQ(wireguard_.Receive().from, path);
  // On the connection of before.
  EXPECT_THAT(Line("relay of region 7"), HasSubstr(", sent 1, received 2,"));
  EXPECT_THAT(Line("peer alice:"), HasSubstr(", path relay of region 7 (test)"));
  // Relays go, and come back.
  config_.derp_map.reset();
  ASSERT_TRUE(gateway_->Reload(config_).ok());
  EXPECT_EQ(Line("relay of "), "");
  config_.derp_map = relay_.Map();
  ASSERT_TRUE(gateway_->Reload(config_).ok());
  EXPECT_TRUE(
      Eventually([&] { return Line("relay of region 7").find(": up ") != std::string::npos; }));
  relay_.Deliver(ours_, KeyOf('1'), Transport(401));
  EXPECT_EQ(wireguard_.Receive().from, path);
}

INSTANTIATE_TEST_SUITE_P(Shards, GatewayRelayTest, testing::Values(1u, 2u));

}  // namespace
}  // namespace ringsock::gateway
