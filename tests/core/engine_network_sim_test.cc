// An engine whose network changes, in virtual time: link changes, rebinds at an order, sockets that
// die, and errors that no rebind cures.
#include <cerrno>
#include <chrono>
#include <memory>
#include <string>

#include "core/engine_internal.h"
#include "gtest/gtest.h"
#include "io/sim_network.h"
#include "tests/core/engine_fixture.h"

namespace ringsock {
namespace {

using internal::EngineImpl;
using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::seconds;

constexpr io::SocketId kV4Socket = 0;  // the first that a shard opens

class EngineNetworkSimTest : public testing::Test {
 protected:
  EngineNetworkSimTest()
      : host_(net_.AddHost("gateway", {IpAddress::V4(198, 51, 100, 1)})),
        peer_host_(net_.AddHost("peer", {IpAddress::V4(198, 51, 100, 2)})) {
    peer_loop_ = net_.CreateLoop(peer_host_, {});
    io::UdpConfig config;
    config.bind = *Endpoint::Parse("198.51.100.2:7");
    EXPECT_TRUE(peer_loop_->OpenUdp(config, &peer_).ok());
    net_.SetRunner(peer_loop_.get(), [this] {
      peer_loop_->Poll(Instant::min());
      return Instant::max();
    });
  }

  void Start(const EngineOptions& options) {
    internal::EngineLoops loops;
    auto shard = net_.CreateLoop(host_, options.io);
    auto control = net_.CreateLoop(host_, options.io);
    shard_loop_ = shard.get();
    control_loop_ = control.get();
    loops.shards.push_back(std::move(shard));
    loops.control = std::move(control);
    auto created =
        EngineImpl::Create(options, &handler_, std::move(loops), EngineImpl::Threads::kCaller);
    ASSERT_TRUE(created.ok()) << created.status().ToString();
    engine_ = *std::move(created);
    for (io::SimLoop* loop : {shard_loop_, control_loop_}) {
      net_.SetRunner(loop, [this] {
        engine_->Step();
        return engine_->NextDeadline();
      });
    }
    sender_ = *engine_->NewSender();
    const auto id = engine_->CreateEndpoint(KeyNumber(1), "198.51.100.9:7,198.51.100.2:7");
    ASSERT_TRUE(id.ok());
    id_ = *id;
    engine_->ConfirmPath(id_, *Endpoint::Parse("198.51.100.2:7"));
  }
  // A packet every 100 ms.
  void SendFor(Duration time) {
    for (Duration sent{}; sent < time; sent += milliseconds(100)) {
      EXPECT_EQ(sender_->Send(id_, TrainOf(data_)), SendResult::kOk) << "the sender sees nothing";
      sender_->Flush();
      const uint32_t before = peer_.received;
      net_.RunFor(milliseconds(100));
      // It answers.
      if (peer_.received > before) engine_->ConfirmPath(id_, *Endpoint::Parse("198.51.100.2:7"));
    }
  }
  void FailSends(int error) {
    shard_loop_->faults(kV4Socket).sends = {{.error = error, .count = UINT32_MAX}};
  }
  void KeepFailing(int error, Duration time) {
    // Again and again, as a new socket has no faults.
    for (Duration passed{}; passed < time; passed += milliseconds(100)) {
      FailSends(error);
      SendFor(milliseconds(100));
    }
    shard_loop_->faults(kV4Socket).sends.clear();
  }

  // What the peer gets.
  struct Peer final : io::UdpHandler {
    void OnReceive(io::SocketId, std::span<const io::RxTrain> trains) override {
      for (const io::RxTrain& train : trains) received += train.packets();
    }
    void OnSendFailure(io::SocketId, const io::SendFailure&) override {}
    uint32_t received = 0;
  };

  io::SimNetwork net_{20260101};
  const io::HostId host_, peer_host_;
  Peer peer_;
  std::unique_ptr<io::SimLoop> peer_loop_;
  KeepingHandler handler_;
  io::SimLoop* shard_loop_ = nullptr;
  io::SimLoop* control_loop_ = nullptr;
  std::unique_ptr<EngineImpl> engine_;
  std::unique_ptr<Sender> sender_;
  PeerId id_ = PeerId::kNone;
  const std::string data_ = Message(4, "data");
};

// spec: EP-8, PATH-6
TEST_F(EngineNetworkSimTest, ARebindKeepsThePortAndForgetsThePaths) {
  Start({});
  const uint16_t port = engine_->port();
  ASSERT_NE(port, 0);
  EXPECT_EQ(engine_->Status().peers[0].current, *Endpoint::Parse("198.51.100.2:7"));
  ASSERT_TRUE(engine_->Rebind("test").ok());
  EXPECT_EQ(engine_->port(), port);
  const EngineStatus status = engine_->Status();
  EXPECT_TRUE(status.peers[0].current.IsNone());
  EXPECT_EQ(status.rebinds, 1u);
  EXPECT_EQ(status.last_rebind, "rebind (test): 0 packets in old sockets lost");
  // The spray window is open: the second address gets what goes to the first.
  const uint64_t sprays = engine_->Counters().sprays;
  SendFor(milliseconds(100));
  EXPECT_EQ(engine_->Counters().sprays, sprays + 1);
  EXPECT_EQ(peer_.received, 1u);
}

// spec: PATH-6
TEST_F(EngineNetworkSimTest, ALinkChangeForgetsThePathsAndKeepsTheSockets) {
  Start({});
  engine_->LinkChanged("another network");
  net_.RunFor(milliseconds(10));
  const EngineStatus status = engine_->Status();
  EXPECT_TRUE(status.peers[0].current.IsNone());
  EXPECT_EQ(status.link_changes, 1u);
  EXPECT_EQ(status.rebinds, 0u);
}

TEST_F(EngineNetworkSimTest, ADeadSocketIsReplaced) {
  Start({});
  SendFor(seconds(4));
  const uint32_t before = peer_.received;
  EXPECT_GT(before, 0u);
  FailSends(ENETUNREACH);
  SendFor(milliseconds(900));  // not yet: the routes may be changing hands
  EXPECT_EQ(engine_->Status().rebinds, 0u);
  SendFor(seconds(1));
  const EngineStatus status = engine_->Status();
  EXPECT_EQ(status.rebinds, 1u);
  EXPECT_EQ(status.last_rebind.find("rebind (sends fail: Network is unreachable)"), 0u)
      << status.last_rebind;
  SendFor(seconds(5));
  EXPECT_GT(peer_.received, before + 40);
  EXPECT_EQ(engine_->Status().rebinds, 1u);
}

TEST_F(EngineNetworkSimTest, AnErrorOfOneDestinationOrOneThatPassesIsNoDeadSocket) {
  Start({});
  SendFor(seconds(1));
  for (const int error : {EHOSTUNREACH, ECONNREFUSED, EACCES, EMSGSIZE, ENOBUFS, EAGAIN, EINVAL}) {
    KeepFailing(error, seconds(5));
    EXPECT_EQ(engine_->Status().rebinds, 0u) << strerror(error);
  }
}

// A host without a network of that family, say.
TEST_F(EngineNetworkSimTest, ASocketThatNeverSentDidNotDie) {
  Start({});
  KeepFailing(ENETUNREACH, minutes(1));
  EXPECT_EQ(engine_->Status().rebinds, 0u);
}

// As long as something gets through, a firewall is at work and the socket is well.
TEST_F(EngineNetworkSimTest, ADestinationThatIsForbiddenIsNoDeadSocket) {
  Start({});
  SendFor(seconds(4));
  for (int i = 0; i < 100; ++i) {
    shard_loop_->faults(kV4Socket).sends = {{.error = EPERM, .count = 5}};
    SendFor(seconds(1));
  }
  EXPECT_EQ(engine_->Status().rebinds, 0u);
}

// A family whose network is gone for good, or a firewall that lets nothing out: a new socket does
// not help, and paths of the other family are not forgotten again and again for nothing.
TEST_F(EngineNetworkSimTest, ARebindThatDoesNotHelpIsNotRepeated) {
  Start({});
  SendFor(seconds(4));
  KeepFailing(ENETUNREACH, minutes(20));
  EXPECT_EQ(engine_->Status().rebinds, 1u);
  engine_->LinkChanged("another network");
  KeepFailing(ENETUNREACH, minutes(5));
  EXPECT_EQ(engine_->Status().rebinds, 1u);
  // Once it sends again it can die again.
  SendFor(seconds(4));
  KeepFailing(EPERM, seconds(10));
  EXPECT_EQ(engine_->Status().rebinds, 2u);
}

// After 5, 10, 20, ... s.
TEST_F(EngineNetworkSimTest, SocketsThatDieAgainAndAgainAreReplacedEverMoreRarely) {
  Start({});
  const auto die_for = [this](Duration time) {
    for (const Instant end = net_.now() + time; net_.now() < end;) {
      SendFor(seconds(1));
      KeepFailing(EPERM, seconds(5));
    }
    return engine_->Status().rebinds;
  };
  const uint64_t first = die_for(minutes(2));
  EXPECT_GE(first, 3u);
  EXPECT_LE(first, 6u);
  EXPECT_LE(die_for(minutes(20)), first + 6);
}

TEST(RebindThrottleTest, ShortestAgainAfterAQuietTime) {
  RebindThrottle throttle(seconds(5));
  const Instant start(std::chrono::hours(1));
  EXPECT_LE(throttle.next(), start);
  throttle.Rebound(start);
  EXPECT_EQ(throttle.next(), start + seconds(5));
  throttle.Rebound(start + seconds(5));
  EXPECT_EQ(throttle.next(), start + seconds(15));
  throttle.Rebound(start + minutes(10));
  EXPECT_EQ(throttle.next(), start + minutes(10) + seconds(5));
  throttle.Rebound(start + minutes(10) + seconds(5));
  throttle.Reset();
  EXPECT_EQ(throttle.next(), Instant::min());
}

// The address is gone: the old socket stays, and the rebind says why.
TEST_F(EngineNetworkSimTest, ARebindThatFailsChangesNothing) {
  EngineOptions options;
  options.port = 41641;
  options.ipv6 = false;
  options.bind_v4 = IpAddress::V4(198, 51, 100, 1);
  Start(options);
  net_.RemoveAddress(host_, options.bind_v4);
  const absl::Status status = engine_->Rebind("test");
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition) << status.ToString();
  EXPECT_NE(engine_->Status().last_rebind.find("not all sockets are new"), std::string::npos);
  net_.AddAddress(host_, options.bind_v4);
  SendFor(seconds(1));
  EXPECT_EQ(peer_.received, 10u);
}

TEST_F(EngineNetworkSimTest, NothingHappensAfterTheEnd) {
  Start({});
  engine_->Close();
  EXPECT_EQ(engine_->Rebind("late").code(), absl::StatusCode::kFailedPrecondition);
  engine_->LinkChanged("late");
  EXPECT_EQ(engine_->Status().link_changes, 0u);
}

TEST_F(EngineNetworkSimTest, TheIntervalHasBounds) {
  EngineOptions options;
  options.network.min_rebind_interval = Duration::zero();
  internal::EngineLoops loops;
  EXPECT_EQ(internal::CheckOptions(options, &handler_).code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace ringsock
