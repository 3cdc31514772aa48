// The engine on loopback, on both real backends and both families.
#include "core/engine.h"

#include <algorithm>
#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

#include "core/address_set.h"
#include "gtest/gtest.h"
#include "tests/core/engine_param_test.h"

namespace ringsock {
namespace {

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
    EXPECT_EQ(shard.SendTo(Endpoint{}, train.packets), SendResult::kNoDestination);
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
  engine_->ConfirmPath(peer, Endpoint{});  // nothing can be sent there
  EXPECT_TRUE(Status(peer).current.IsNone());
  engine_->ConfirmPath(peer, better.endpoint());
  EXPECT_EQ(Status(peer).current, better.endpoint());
  send(Message(4, "better"));
  EXPECT_EQ(better.Receive(), Message(4, "better"));
  sender->ConfirmPath(peer, remote_.endpoint());  // lower: the better one is kept
  EXPECT_EQ(Status(peer).current, better.endpoint());
  send(Message(4, "still better"));
  EXPECT_EQ(better.Receive(), Message(4, "still better"));
  EXPECT_TRUE(remote_.Empty());
}

// spec: PATH-3, PATH-4
TEST_P(EngineTest, RoamsAndComesBack) {
  RemoteHost elsewhere(v6());
  START_OR_SKIP(Options());
  const PeerId peer = AddPeer(1, remote_.text());
  handler_.SetReaction([peer](Shard& shard, const ReceivedTrain& train) {
    shard.ConfirmPath(PeerId{999}, train.from);  // one that is not there
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
  CounterSnapshot counters = engine_->Counters();
  EXPECT_EQ(counters.sprays, 3u);
  EXPECT_EQ(Count(counters, Drop::kTxNoRelay), 3u);
  // Inside the window but within 250 ms of the last spray: one destination, the first of the list.
  // A machine that was too slow for that tries again.
  const Clock& clock = SystemClock();
  for (Instant start = clock.Now();;) {
    const Instant handshake = clock.Now();
    ASSERT_LT(handshake - start, kPatience);
    sender->Send(peer, TrainOf(Message(1, "handshake")));
    sender->Send(peer, TrainOf(Message(4, "data")));
    sender->Flush();
    const uint64_t refused = Count(counters, Drop::kTxNoRelay);
    auto both = [&] { return Count(engine_->Counters(), Drop::kTxNoRelay) == refused + 2; };
    ASSERT_TRUE(WaitUntil(both));
    const CounterSnapshot before = std::exchange(counters, engine_->Counters());
    EXPECT_EQ(remote_.Receive(), Message(1, "handshake"));
    EXPECT_EQ(second.Receive(), Message(1, "handshake"));
    if (clock.Now() - handshake < kSprayInterval) {
      EXPECT_EQ(counters.sprays, before.sprays + 1);
      EXPECT_TRUE(remote_.Empty());
      EXPECT_TRUE(second.Empty());
      break;
    }
    // Too slow: the data went to both as well, if it was chosen for as late as that.
    if (counters.sprays == before.sprays + 1) continue;
    EXPECT_EQ(remote_.Receive(), Message(4, "data"));
    EXPECT_EQ(second.Receive(), Message(4, "data"));
  }
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
  auto done = [&] { return Count(engine_->Counters(), Drop::kTxUnknownPeer) == 1; };
  EXPECT_TRUE(WaitUntil(done));
  EXPECT_TRUE(remote_.Empty());
  ASSERT_EQ(engine_->Status().peers.size(), 1u);
  EXPECT_EQ(engine_->Status().peers[0].id, other);
  EXPECT_NE(AddPeer(1, remote_.text()), peer);  // a number never names another one
}

// More than control does at one go. spec: PEER-1, PEER-2
TEST_P(EngineTest, PeersComeAndGoManyAtATime) {
  constexpr uint32_t kPeers = 1000;
  START_OR_SKIP(Options());
  std::vector<PeerEndpoints> peers;
  for (uint32_t i = 0; i < kPeers; ++i) peers.push_back({KeyNumber(i), ""});
  const std::string address = remote_.text();
  peers.back().endpoints = address;
  const auto ids = engine_->CreateEndpoints(peers);
  ASSERT_TRUE(ids.ok()) << ids.status().ToString();
  ASSERT_EQ(ids->size(), kPeers);
  EXPECT_EQ(engine_->Status().peers.size(), kPeers);
  EXPECT_EQ(AddPeer(17, ""), (*ids)[17]);  // the ids come in the order of the keys
  remote_.Send(engine_->port(), Message(4, "from the last"));
  EXPECT_EQ(handler_.WaitFor(1)[0].peer, ids->back());

  std::vector<PublicKey> gone;
  for (uint32_t i = 300; i < kPeers; ++i) gone.push_back(KeyNumber(i));
  gone.push_back(KeyNumber(kPeers));  // nobody's
  ASSERT_TRUE(engine_->RemovePeers(gone).ok());
  EXPECT_EQ(engine_->Status().peers.size(), 300u);
  remote_.Send(engine_->port(), Message(4, "from nobody"));
  EXPECT_EQ(handler_.WaitFor(2)[1].peer, PeerId::kNone);
  ASSERT_TRUE(engine_->RemovePeers(gone).ok());  // again: nothing to do

  engine_->Close();
  EXPECT_TRUE(absl::IsFailedPrecondition(engine_->CreateEndpoints(peers).status()));
  EXPECT_TRUE(absl::IsFailedPrecondition(engine_->RemovePeers(gone)));
  EXPECT_EQ(engine_->Status().peers.size(), 300u);
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
  const std::vector<std::string> good = {
      "", "x", "xyz", stun.substr(0, 19), not_stun, std::string(60'000, 'z'), Message(4, "good")};
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

// STUN at either end and in the middle of a received train is taken out.
TEST_P(EngineTest, StunInsideATrainIsTakenOut) {
  std::atomic<uint32_t> longest{0};
  handler_.reaction = [&longest](Shard&, const ReceivedTrain& train) {
    const uint32_t count = (train.packets.size - 1) / train.packets.segment_size + 1;
    longest.store(std::max(longest.load(), count));
  };
  START_OR_SKIP(Options());
  AddPeer(1, remote_.text());
  size_t shown = 0, stuns = 0;
  for (const std::vector<int>& places : std::vector<std::vector<int>>{
           {}, {0}, {5}, {11}, {0, 1}, {0, 5, 6, 11}, {10, 11}, {0, 1, 2, 3, 4, 5, 7, 8, 9, 11}}) {
    std::string train;
    std::vector<std::string> expected;
    for (int i = 0; i < 12; ++i) {
      std::string packet = Message(4, absl::StrCat("packet number ", 10 + i, "..."));
      if (std::find(places.begin(), places.end(), i) != places.end()) {
        packet.replace(0, 8, std::string("\0\1\0\0\x21\x12\xa4\x42", 8));
        ++stuns;
      } else {
        expected.push_back(packet);
      }
      train += packet;
    }
    remote_.SendTrain(engine_->port(), train, train.size() / 12);
    const auto packets = handler_.WaitFor(shown + expected.size());
    ASSERT_EQ(packets.size(), shown + expected.size());
    for (size_t i = 0; i < expected.size(); ++i) EXPECT_EQ(packets[shown + i].bytes, expected[i]);
    shown += expected.size();
  }
  EXPECT_EQ(longest.load(), 12u) << "no train arrived as one";
  EXPECT_TRUE(WaitUntil([&] { return Count(engine_->Counters(), Drop::kRxStun) == stuns; }));
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
  const auto path =
      engine_->Counters()
          .paths[static_cast<size_t>(v6() ? PathKind::kDirectV6 : PathKind::kDirectV4)];
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
      ASSERT_EQ(hosts[t]->Receive(), Message(4, absl::StrCat(i))) << engine_->Counters().ToString();
    }
  }
}

RINGSOCK_INSTANTIATE_ENGINE_TEST();

}  // namespace
}  // namespace ringsock
