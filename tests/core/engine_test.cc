// The engine on loopback, on both real backends and both families.
#include "core/engine.h"

#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <tuple>
#include <vector>

#include "gtest/gtest.h"
#include "tests/core/engine_fixture.h"

namespace ringsock {
namespace {

using Param = std::tuple<io::Backend, bool>;  // backend, IPv6

class EngineTest : public testing::TestWithParam<Param> {
 protected:
  bool v6() const { return std::get<1>(GetParam()); }

  EngineOptions Options(uint32_t shards = 1) const {
    EngineOptions options;
    options.shards = shards;
    options.pin_threads = false;
    options.io.backend = std::get<0>(GetParam());
    return options;
  }

  // False, with the test skipped, where this backend or family is not to be had.
  bool StartEngine(const EngineOptions& options) {
    if (!remote_.ok()) return false;
    absl::StatusOr<std::unique_ptr<io::Loop>> probe = io::CreateLoop(options.io);
    if (!probe.ok()) {
      reason_ = probe.status().ToString();
      return false;
    }
    auto engine = Engine::Start(options, &handler_);
    EXPECT_TRUE(engine.ok()) << engine.status().ToString();
    if (!engine.ok()) return false;
    engine_ = *std::move(engine);
    return true;
  }

  PeerId AddPeer(uint32_t number, const std::string& endpoints) {
    absl::StatusOr<PeerId> id = engine_->CreateEndpoint(KeyNumber(number), endpoints);
    EXPECT_TRUE(id.ok()) << id.status().ToString();
    return id.value_or(PeerId::kNone);
  }

  PeerStatus Status(PeerId id) const {
    for (const PeerStatus& peer : engine_->Status().peers) {
      if (peer.id == id) return peer;
    }
    ADD_FAILURE() << "no such peer";
    return {};
  }

  static uint64_t Count(const CounterSnapshot& counters, Drop drop) {
    return counters.drops[static_cast<size_t>(drop)];
  }

  KeepingHandler handler_;
  RemoteHost remote_{v6()};
  std::unique_ptr<Engine> engine_;
  std::string reason_ = "no such address family here";
};

#define START_OR_SKIP(options) \
  if (!StartEngine(options)) GTEST_SKIP() << reason_

TEST_P(EngineTest, EchoesToAPeer) {
  handler_.reaction = [](Shard& shard, const ReceivedTrain& train) {
    EXPECT_EQ(shard.Send(train.peer, train.packets), SendResult::kOk);
  };
  START_OR_SKIP(Options());
  const PeerId peer = AddPeer(1, remote_.text());
  remote_.Send(engine_->port(), Message(4, "ping"));
  EXPECT_EQ(remote_.Receive(), Message(4, "ping"));
  const auto packets = handler_.WaitFor(1);
  EXPECT_EQ(packets[0].peer, peer);  // spec: RECV-2
  EXPECT_EQ(packets[0].from, remote_.endpoint());
  EXPECT_EQ(packets[0].path, v6() ? PathKind::kDirectV6 : PathKind::kDirectV4);
}

// spec: RECV-4, SEND-8
TEST_P(EngineTest, AnUnknownSourceIsShownAndCanBeAnswered) {
  handler_.reaction = [](Shard& shard, const ReceivedTrain& train) {
    EXPECT_EQ(train.peer, PeerId::kNone);
    EXPECT_EQ(shard.SendTo(train.from, train.packets), SendResult::kOk);
    EXPECT_EQ(shard.SendTo(RelayEndpoint(1), train.packets), SendResult::kRelayNotAllowed);
    EXPECT_EQ(shard.Send(train.peer, train.packets), SendResult::kUnknownPeer);
  };
  START_OR_SKIP(Options());
  remote_.Send(engine_->port(), Message(1, "who are you"));
  EXPECT_EQ(remote_.Receive(), Message(1, "who are you"));
  const CounterSnapshot counters = engine_->Counters();
  EXPECT_EQ(counters.rx_unknown_source, 1u);
  EXPECT_EQ(Count(counters, Drop::kTxRelayNotAllowed), 1u);
  EXPECT_EQ(Count(counters, Drop::kTxUnknownPeer), 1u);
}

// spec: PATH-2, PATH-4, PATH-5, SEND-4
TEST_P(EngineTest, ConfirmedPathsAreUsed) {
  RemoteHost better(v6());
  START_OR_SKIP(Options());
  const PeerId peer = AddPeer(1, remote_.text() + "," + better.text());
  auto sender = *engine_->NewSender();
  const auto send = [&](const std::string& text) {
    EXPECT_EQ(sender->Send(peer, TrainOf(text)), SendResult::kOk);
    sender->Flush();
  };
  send(Message(4, "first of the list"));
  EXPECT_EQ(remote_.Receive(), Message(4, "first of the list"));
  engine_->ConfirmPath(peer, better.endpoint());
  EXPECT_EQ(Status(peer).current, better.endpoint());
  send(Message(4, "better"));
  EXPECT_EQ(better.Receive(), Message(4, "better"));
  engine_->ConfirmPath(peer, remote_.endpoint());  // lower: the better one is kept
  EXPECT_EQ(Status(peer).current, better.endpoint());
  EXPECT_TRUE(remote_.Empty());
}

// spec: PATH-3, PATH-4
TEST_P(EngineTest, RoamsAndComesBack) {
  RemoteHost elsewhere(v6());
  handler_.reaction = [](Shard& shard, const ReceivedTrain& train) {
    shard.ConfirmPath(PeerId{1}, train.from);  // the wrong id, if it is one, changes nothing
  };
  START_OR_SKIP(Options());
  const PeerId peer = AddPeer(1, remote_.text());
  handler_.SetReaction([peer](Shard& shard, const ReceivedTrain& train) {
    shard.ConfirmPath(peer, train.from);
    EXPECT_EQ(shard.Send(peer, train.packets), SendResult::kOk);
  });
  elsewhere.Send(engine_->port(), Message(4, "I moved"));
  EXPECT_EQ(elsewhere.Receive(), Message(4, "I moved"));
  EXPECT_TRUE(Status(peer).roaming);
  EXPECT_EQ(Status(peer).current, elsewhere.endpoint());
  remote_.Send(engine_->port(), Message(4, "I am back"));
  EXPECT_EQ(remote_.Receive(), Message(4, "I am back"));
  EXPECT_FALSE(Status(peer).roaming);
  EXPECT_TRUE(elsewhere.Empty());
}

// spec: SEND-2, SEND-5
TEST_P(EngineTest, HandshakesGoEverywhere) {
  RemoteHost second(v6());
  START_OR_SKIP(Options());
  // A relay in front, which is not there yet: the others still get theirs.
  const PeerId peer = AddPeer(1, "127.3.3.40:7," + remote_.text() + "," + second.text());
  auto sender = *engine_->NewSender();
  for (const uint32_t type : {1u, 2u, 3u}) {
    EXPECT_EQ(sender->Send(peer, TrainOf(Message(type, "handshake"))), SendResult::kOk);
    sender->Flush();
    EXPECT_EQ(remote_.Receive(), Message(type, "handshake"));
    EXPECT_EQ(second.Receive(), Message(type, "handshake"));
  }
  // Inside the window but within 250 ms of the last spray: one destination, the first of the list.
  const CounterSnapshot counters = engine_->Counters();
  EXPECT_EQ(counters.sprays, 3u);
  EXPECT_EQ(Count(counters, Drop::kTxNoRelay), 3u);
}

TEST_P(EngineTest, ATrainKeepsItsOrderAroundAHandshake) {
  START_OR_SKIP(Options());
  const PeerId peer = AddPeer(1, remote_.text());
  auto sender = *engine_->NewSender();
  std::string train;
  std::vector<std::string> packets;
  for (int i = 0; i < 9; ++i) {
    packets.push_back(Message(i == 4 ? 1 : 4, absl::StrCat("packet ", i)));
    train += packets.back();
  }
  EXPECT_EQ(sender->Send(peer, TrainOf(train, packets[0].size())), SendResult::kOk);
  sender->Flush();
  for (const std::string& packet : packets) EXPECT_EQ(remote_.Receive(), packet);
}

// spec: PEER-2
TEST_P(EngineTest, ARemovedPeerIsGone) {
  START_OR_SKIP(Options());
  const PeerId peer = AddPeer(1, remote_.text());
  const PeerId other = AddPeer(2, "192.0.2.1:9");
  auto sender = *engine_->NewSender();
  ASSERT_TRUE(engine_->UpdatePeers(std::vector<PublicKey>{KeyNumber(2)}).ok());
  EXPECT_EQ(sender->Send(peer, TrainOf(Message(4, "too late"))), SendResult::kOk);
  sender->Flush();
  remote_.Send(engine_->port(), Message(4, "whose am I"));
  EXPECT_EQ(handler_.WaitFor(1)[0].peer, PeerId::kNone);
  EXPECT_TRUE(remote_.Empty());
  EXPECT_EQ(Count(engine_->Counters(), Drop::kTxUnknownPeer), 1u);
  ASSERT_EQ(engine_->Status().peers.size(), 1u);
  EXPECT_EQ(engine_->Status().peers[0].id, other);
  EXPECT_NE(AddPeer(1, remote_.text()), peer);  // a number never names another one
}

// spec: PEER-1
TEST_P(EngineTest, NewEndpointsReplaceTheOld) {
  RemoteHost moved(v6());
  START_OR_SKIP(Options());
  const PeerId peer = AddPeer(1, remote_.text());
  EXPECT_EQ(AddPeer(1, moved.text()), peer);
  moved.Send(engine_->port(), Message(4, "new"));
  EXPECT_EQ(handler_.WaitFor(1)[0].peer, peer);
  remote_.Send(engine_->port(), Message(4, "old"));
  EXPECT_EQ(handler_.WaitFor(2)[1].peer, PeerId::kNone);
  const auto bad = engine_->CreateEndpoint(KeyNumber(1), "192.0.2.1:1,nonsense");
  EXPECT_TRUE(absl::IsInvalidArgument(bad.status())) << bad.status().ToString();
  EXPECT_EQ(Status(peer).addresses, std::vector<Endpoint>{moved.endpoint()});
}

// spec: RECV-1; and the datagrams that are nothing at all.
TEST_P(EngineTest, BadDatagramsAreCountedAndDisturbNothing) {
  START_OR_SKIP(Options());
  const PeerId peer = AddPeer(1, remote_.text());
  std::string stun(20, '\0');
  stun[1] = 1;
  stun[4] = 0x21, stun[5] = 0x12, stun[6] = static_cast<char>(0xa4), stun[7] = 0x42;
  std::string not_stun = stun;
  not_stun[0] = static_cast<char>(0xc0);
  const std::vector<std::string> good = {"", "x", "xyz", stun.substr(0, 19), not_stun,
                                         std::string(60'000, 'z'), Message(4, "good")};
  size_t shown = 0;
  for (const std::string& bytes : good) {
    remote_.Send(engine_->port(), bytes);
    remote_.Send(engine_->port(), stun);
    shown += !bytes.empty();
  }
  const auto packets = handler_.WaitFor(shown);
  ASSERT_EQ(packets.size(), shown);
  for (size_t i = 0; i < shown; ++i) {
    EXPECT_EQ(packets[i].bytes, good[i + 1]);
    EXPECT_EQ(packets[i].peer, peer);
  }
  auto done = [&] { return Count(engine_->Counters(), Drop::kRxStun) == good.size(); };
  EXPECT_TRUE(WaitUntil(done));
  EXPECT_EQ(Count(engine_->Counters(), Drop::kRxEmpty), 1u);
}

// A run of equal-sized datagrams may come as one train; STUN in its middle is taken out.
TEST_P(EngineTest, StunInsideATrainIsTakenOut) {
  START_OR_SKIP(Options());
  AddPeer(1, remote_.text());
  std::vector<std::string> expected;
  std::string train;
  for (int i = 0; i < 12; ++i) {
    std::string packet = Message(4, absl::StrCat("packet number ", 10 + i, "..."));
    ASSERT_GE(packet.size(), 20u);
    if (i % 5 == 2) {
      packet.replace(0, 8, std::string("\0\1\0\0\x21\x12\xa4\x42", 8));
    } else {
      expected.push_back(packet);
    }
    remote_.Send(engine_->port(), packet);
  }
  const auto packets = handler_.WaitFor(expected.size());
  ASSERT_EQ(packets.size(), expected.size());
  for (size_t i = 0; i < expected.size(); ++i) EXPECT_EQ(packets[i].bytes, expected[i]);
}

TEST_P(EngineTest, SendFailuresAreCountedByReason) {
  START_OR_SKIP(Options());
  const PeerId peer = AddPeer(1, remote_.text());
  const PeerId empty = AddPeer(2, "");
  auto sender = *engine_->NewSender();
  const std::string giant(io::kMaxDatagram + 1, 'x');
  EXPECT_EQ(sender->Send(peer, TrainOf(giant)), SendResult::kTooLarge);
  sender->Send(empty, TrainOf(Message(4, "nowhere")));  // spec: SEND-4
  sender->Send(empty, TrainOf(Message(1, "nowhere")));
  sender->Send(peer, TrainOf(Message(4, "somewhere")));
  sender->Flush();
  EXPECT_EQ(remote_.Receive(), Message(4, "somewhere"));
  auto done = [&] { return Count(engine_->Counters(), Drop::kTxNoDestination) == 2; };
  EXPECT_TRUE(WaitUntil(done));
  EXPECT_EQ(Count(engine_->Counters(), Drop::kTxTooLarge), 1u);
  const auto path = engine_->Counters().paths[static_cast<size_t>(
      v6() ? PathKind::kDirectV6 : PathKind::kDirectV4)];
  EXPECT_EQ(path.tx_packets, 1u);
  EXPECT_EQ(path.tx_bytes, Message(4, "somewhere").size());
}

// spec: SEND-6
TEST_P(EngineTest, AFamilyThatIsOffIsSkipped) {
  RemoteHost other(!v6());
  EngineOptions options = Options();
  (v6() ? options.ipv4 : options.ipv6) = false;
  if (!other.ok()) GTEST_SKIP() << "needs both families";
  START_OR_SKIP(options);
  const PeerId both = AddPeer(1, other.text() + "," + remote_.text());
  const PeerId none = AddPeer(2, other.text());
  auto sender = *engine_->NewSender();
  sender->Send(both, TrainOf(Message(1, "handshake")));
  sender->Flush();
  EXPECT_EQ(remote_.Receive(), Message(1, "handshake"));
  EXPECT_EQ(Count(engine_->Counters(), Drop::kTxNoSocket), 0u);
  sender->Send(none, TrainOf(Message(1, "handshake")));
  sender->Send(none, TrainOf(Message(4, "data")));
  sender->Flush();
  auto done = [&] { return Count(engine_->Counters(), Drop::kTxNoSocket) == 2; };
  EXPECT_TRUE(WaitUntil(done));
}

TEST_P(EngineTest, SendersOnManyThreadsKeepTheOrderPerPeer) {
  // As many small packets as any host's default receive buffer holds: nothing may be lost.
  constexpr uint32_t kThreads = 3, kPackets = 200;
  START_OR_SKIP(Options(2));
  std::vector<std::unique_ptr<RemoteHost>> hosts;
  std::vector<PeerId> peers;
  for (uint32_t t = 0; t < kThreads; ++t) {
    hosts.push_back(std::make_unique<RemoteHost>(v6()));
    peers.push_back(AddPeer(t + 1, hosts.back()->text()));
  }
  std::vector<std::thread> threads;
  for (uint32_t t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      auto sender = *engine_->NewSender();
      for (uint32_t i = 0; i < kPackets;) {
        const std::string bytes = Message(4, absl::StrCat(i));
        if (sender->Send(peers[t], TrainOf(bytes)) == SendResult::kOk) {
          ++i;
        } else {
          std::this_thread::yield();
        }
        if (i % 7 == 0) sender->Flush();
      }
    });
  }
  for (auto& thread : threads) thread.join();
  for (uint32_t t = 0; t < kThreads; ++t) {
    for (uint32_t i = 0; i < kPackets; ++i) {
      ASSERT_EQ(hosts[t]->Receive(), Message(4, absl::StrCat(i)))
          << engine_->Counters().ToString();
    }
  }
}

TEST_P(EngineTest, ClosesUnderTrafficAndFreesThePort) {
  handler_.reaction = [](Shard& shard, const ReceivedTrain& train) {
    shard.SendTo(train.from, train.packets);
  };
  for (int round = 0; round < 3; ++round) {
    EngineOptions options = Options(2);
    START_OR_SKIP(options);
    const uint16_t port = engine_->port();
    AddPeer(1, remote_.text());
    std::atomic<bool> stop{false};
    std::thread traffic([&] {
      auto sender = *engine_->NewSender();
      while (!stop.load()) {
        remote_.Send(port, Message(4, "in"));
        sender->Send(PeerId{1}, TrainOf(Message(4, "out")));
        sender->Flush();
      }
      EXPECT_EQ(sender->Send(PeerId{1}, TrainOf(Message(4, "late"))), SendResult::kClosed);
    });
    handler_.WaitFor(handler_.size() + 20);
    engine_->Close();
    const size_t after_close = handler_.size();
    engine_->Close();  // spec: RECV-7
    stop.store(true);
    traffic.join();
    EXPECT_EQ(handler_.size(), after_close);
    EXPECT_TRUE(absl::IsFailedPrecondition(engine_->CreateEndpoint(KeyNumber(9), "").status()));
    EXPECT_EQ(engine_->Status().peers.size(), 1u);
    options.port = port;
    auto again = Engine::Start(options, &handler_);
    EXPECT_TRUE(again.ok()) << again.status().ToString();
  }
}

TEST_P(EngineTest, APortInUseIsAnErrorThatNamesIt) {
  for (const uint32_t shards : {1u, 2u}) {
    START_OR_SKIP(Options(shards));
    for (const uint32_t others : {1u, 2u}) {
      EngineOptions options = Options(others);
      options.port = engine_->port();
      const auto second = Engine::Start(options, &handler_);
      ASSERT_FALSE(second.ok()) << shards << " shards, then " << others;
      EXPECT_TRUE(absl::IsAlreadyExists(second.status())) << second.status().ToString();
      EXPECT_NE(second.status().ToString().find(std::to_string(options.port)), std::string::npos);
    }
  }
}

TEST_P(EngineTest, AllShardsShareOnePort) {
  handler_.reaction = [](Shard& shard, const ReceivedTrain& train) {
    EXPECT_EQ(shard.Send(train.peer, train.packets), SendResult::kOk);
  };
  START_OR_SKIP(Options(3));
  EXPECT_EQ(engine_->Status().shards, 3u);
  for (uint32_t i = 0; i < 20; ++i) {
    RemoteHost host(v6());
    AddPeer(i + 1, host.text());
    host.Send(engine_->port(), Message(4, absl::StrCat(i)));
    EXPECT_EQ(host.Receive(), Message(4, absl::StrCat(i)));
  }
}

TEST_P(EngineTest, EnginesLiveSideBySide) {
  START_OR_SKIP(Options());
  KeepingHandler other_handler;
  auto other = Engine::Start(Options(), &other_handler);
  ASSERT_TRUE(other.ok());
  ASSERT_NE((*other)->port(), engine_->port());
  remote_.Send((*other)->port(), Message(4, "other"));
  other_handler.WaitFor(1);
  EXPECT_EQ(handler_.size(), 0u);
}

// A handler that fails to start fails the engine, and only shards that started are stopped.
TEST_P(EngineTest, AFailingHandlerFailsTheStart) {
  class Failing final : public Handler {
   public:
    absl::Status OnShardStart(Shard& shard) override {
      if (shard.index() == 1) return absl::InternalError("shard 1 has no luck");
      started.fetch_add(1);
      return absl::OkStatus();
    }
    void OnShardStop(Shard&) override { stopped.fetch_add(1); }
    void OnReceive(Shard&, std::span<const ReceivedTrain>) override {}
    std::atomic<int> started{0}, stopped{0};
  };
  START_OR_SKIP(Options());  // only to know that the backend is there
  Failing handler;
  const auto engine = Engine::Start(Options(2), &handler);
  ASSERT_FALSE(engine.ok());
  EXPECT_EQ(engine.status().message(), "shard 1 has no luck");
  EXPECT_EQ(handler.started.load(), handler.stopped.load());
}

// An embedder with a socket of its own on the shard's thread, as the gateway has.
TEST_P(EngineTest, AnEmbeddersSocketMaySendThroughTheShard) {
  class Crossing final : public Handler, public io::UdpHandler {
   public:
    explicit Crossing(bool v6) : v6_(v6) {}
    absl::Status OnShardStart(Shard& shard) override {
      shard_ = &shard;
      io::UdpConfig config;
      config.bind.ip = v6_ ? *IpAddress::Parse("::1") : IpAddress::V4(127, 0, 0, 1);
      auto opened = shard.loop().OpenUdp(config, this);
      if (!opened.ok()) return opened.status();
      socket_ = *opened;
      port.store(shard.loop().LocalEndpoint(socket_).port);
      return absl::OkStatus();
    }
    void OnReceive(Shard& shard, std::span<const ReceivedTrain> trains) override {
      for (const ReceivedTrain& train : trains) {
        shard.loop().Send(socket_, {.data = train.packets.data,
                                    .size = train.packets.size,
                                    .segment_size = train.packets.segment_size,
                                    .to = back_});
      }
    }
    void OnReceive(io::SocketId, std::span<const io::RxTrain> trains) override {
      for (const io::RxTrain& train : trains) {
        back_ = train.from;
        EXPECT_EQ(shard_->Send(peer, {train.data, train.size, train.segment_size}),
                  SendResult::kOk);
      }
    }
    void OnSendFailure(io::SocketId, const io::SendFailure&) override {}

    std::atomic<uint16_t> port{0};
    std::atomic<PeerId> peer{PeerId::kNone};

   private:
    const bool v6_;
    Shard* shard_ = nullptr;
    io::SocketId socket_ = 0;
    Endpoint back_;
  };
  START_OR_SKIP(Options());
  Crossing crossing(v6());
  auto engine = Engine::Start(Options(), &crossing);
  ASSERT_TRUE(engine.ok()) << engine.status().ToString();
  RemoteHost local(v6());
  crossing.peer = *(*engine)->CreateEndpoint(KeyNumber(1), remote_.text());
  for (int i = 0; i < 5; ++i) {
    local.Send(crossing.port.load(), Message(4, absl::StrCat("out ", i)));
    EXPECT_EQ(remote_.Receive(), Message(4, absl::StrCat("out ", i)));
    remote_.Send((*engine)->port(), Message(4, absl::StrCat("in ", i)));
    EXPECT_EQ(local.Receive(), Message(4, absl::StrCat("in ", i)));
  }
}

TEST(EngineOptionsTest, BadOptionsAreErrors) {
  KeepingHandler handler;
  EngineOptions off;
  off.ipv4 = off.ipv6 = false;
  EXPECT_TRUE(absl::IsInvalidArgument(Engine::Start(off, &handler).status()));
  EngineOptions crossed;
  crossed.bind_v4 = *IpAddress::Parse("::1");
  EXPECT_TRUE(absl::IsInvalidArgument(Engine::Start(crossed, &handler).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(Engine::Start(EngineOptions{}, nullptr).status()));
  EngineOptions elsewhere;
  elsewhere.shards = 1;
  elsewhere.bind_v4 = IpAddress::V4(192, 0, 2, 1);
  const auto status = Engine::Start(elsewhere, &handler).status();
  EXPECT_NE(status.ToString().find("192.0.2.1"), std::string::npos) << status.ToString();
}

TEST(EngineOptionsTest, AllOptionsArePrinted) {
  const std::string text = EngineOptions{}.ToString();
  for (const char* name : {"port=0", "ipv4=0.0.0.0", "ipv6=::", "shards=0", "backend=auto",
                           "gso=1", "gro=1", "zero_copy=1", "max_senders=64"}) {
    EXPECT_NE(text.find(name), std::string::npos) << name;
  }
}

std::string ParamName(const testing::TestParamInfo<Param>& info) {
  return absl::StrCat(std::get<0>(info.param) == io::Backend::kUring ? "Uring" : "Mmsg",
                      std::get<1>(info.param) ? "V6" : "V4");
}

INSTANTIATE_TEST_SUITE_P(All, EngineTest,
                         testing::Combine(testing::Values(io::Backend::kMmsg, io::Backend::kUring),
                                          testing::Bool()),
                         ParamName);

}  // namespace
}  // namespace ringsock
