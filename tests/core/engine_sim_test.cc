// The engine in a simulated network: the production code of shards and control, in virtual time,
// with links and sockets that fail on command.
#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "core/engine_internal.h"
#include "gtest/gtest.h"
#include "io/sim_network.h"
#include "tests/core/engine_fixture.h"

namespace ringsock {
namespace {

using internal::EngineImpl;
using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr uint16_t kPort = 41641;

IpAddress V4(uint8_t a, uint8_t b, uint8_t c, uint8_t d) { return IpAddress::V4(a, b, c, d); }

// Takes what a relay would.
class FakeRelay final : public RelayQueue {
 public:
  uint32_t Push(uint32_t, RegionId region, const PublicKey& peer,
                const PacketTrain& packets) override {
    const uint32_t count = packets.size / packets.segment_size;
    const uint32_t taken = std::min(count, room);
    room -= taken;
    regions.push_back(region);
    keys.push_back(peer);
    return taken;
  }
  uint32_t room = 1000;
  std::vector<RegionId> regions;
  std::vector<PublicKey> keys;
};

// A host that runs an engine, with a handler that keeps everything.
struct Node {
  Node(io::SimNetwork* net, std::string name, const std::vector<IpAddress>& addresses,
       io::RealmId realm = io::kInternet, RelayQueue* relay = nullptr, Handler* own = nullptr)
      : host(net->AddHost(std::move(name), addresses, realm)) {
    EngineOptions options;
    options.port = kPort;
    internal::EngineLoops loops;
    auto shard = net->CreateLoop(host, options.io);
    auto control = net->CreateLoop(host, options.io);
    shard_loop = shard.get();
    control_loop = control.get();
    loops.shards.push_back(std::move(shard));
    loops.control = std::move(control);
    auto created = EngineImpl::Create(options, own == nullptr ? &handler : own, std::move(loops),
                                      EngineImpl::Threads::kCaller, {.relay = relay});
    EXPECT_TRUE(created.ok()) << created.status().ToString();
    engine = *std::move(created);
    for (io::SimLoop* loop : {shard_loop, control_loop}) {
      net->SetRunner(loop, [this] {
        engine->Step();
        return engine->NextDeadline();
      });
    }
    sender = *engine->NewSender();
  }

  PeerId Add(uint32_t number, const std::string& endpoints) {
    const auto id = engine->CreateEndpoint(KeyNumber(number), endpoints);
    EXPECT_TRUE(id.ok()) << id.status().ToString();
    return *id;
  }
  void Send(PeerId peer, const std::string& bytes, size_t segment = 0) {
    EXPECT_EQ(sender->Send(peer, TrainOf(bytes, segment)), SendResult::kOk);
    sender->Flush();
  }
  uint64_t Dropped(Drop drop) const { return engine->Counters().drops[static_cast<size_t>(drop)]; }
  // What has come since the last call, in order.
  std::vector<std::string> Fresh() {
    std::vector<std::string> fresh;
    const auto all = handler.WaitFor(0);
    for (; seen < all.size(); ++seen) fresh.push_back(all[seen].bytes);
    return fresh;
  }

  io::HostId host;
  KeepingHandler handler;
  io::SimLoop* shard_loop;
  io::SimLoop* control_loop;
  std::unique_ptr<EngineImpl> engine;
  std::unique_ptr<Sender> sender;
  size_t seen = 0;
};

class EngineSimTest : public testing::Test {
 protected:
  void Run(Duration duration = milliseconds(10)) { net_.RunFor(duration); }

  io::SimNetwork net_{20260101};
};

using Texts = std::vector<std::string>;

// Answers every train out of one buffer, which it fills anew in each call.
class Reusing final : public Handler {
 public:
  void OnReceive(Shard& shard, std::span<const ReceivedTrain> trains) override {
    ++calls;
    scratch_.assign(trains.size() * kSize, static_cast<char>('a' + calls - 1));
    for (size_t i = 0; i < trains.size(); ++i) {
      const auto* bytes = reinterpret_cast<const std::byte*>(&scratch_[i * kSize]);
      EXPECT_EQ(shard.Send(trains[i].peer, {bytes, kSize, kSize}), SendResult::kOk);
    }
  }
  static constexpr uint32_t kSize = 8;
  size_t calls = 0;

 private:
  std::string scratch_;
};

// A batch of more pieces than the handler is shown at once: what it sent in the first call is on
// its way before the second one.
TEST_F(EngineSimTest, BytesOfAHandlerMayBeUsedAgainInTheNextCall) {
  Reusing reusing;
  Node far(&net_, "far", {V4(198, 51, 100, 2)});
  Node gateway(&net_, "gateway", {V4(198, 51, 100, 1)}, io::kInternet, nullptr, &reusing);
  const PeerId to_gateway = far.Add(1, "198.51.100.1:41641");
  gateway.Add(2, "198.51.100.2:41641");
  std::string train;
  for (int i = 0; i < 32; ++i) {
    train += Message(4, "packet of data..");
    train += std::string("\0\1\0\0\x21\x12\xa4\x42", 8) + std::string(12, 'x');
  }
  for (int i = 0; i < 3; ++i) far.Send(to_gateway, train, 20);
  Run();
  Texts expected(64, std::string(Reusing::kSize, 'a'));
  expected.resize(96, std::string(Reusing::kSize, 'b'));
  EXPECT_EQ(far.Fresh(), expected);
  EXPECT_EQ(reusing.calls, 2u);
}

// spec: SEND-2, SEND-3, SEND-4
TEST_F(EngineSimTest, SpraysForThreeSecondsAfterAHandshake) {
  Node gateway(&net_, "gateway", {V4(198, 51, 100, 1)});
  Node far(&net_, "far", {V4(198, 51, 100, 2)});
  Node near(&net_, "near", {V4(198, 51, 100, 3)});
  const PeerId peer = gateway.Add(1, "198.51.100.2:41641,198.51.100.3:41641");
  const Endpoint near_endpoint = *Endpoint::Parse("198.51.100.3:41641");
  gateway.engine->ConfirmPath(peer, near_endpoint);
  const std::string data = Message(4, "data");
  const Texts one{data}, none;

  gateway.Send(peer, data);
  Run(milliseconds(1));
  EXPECT_EQ(near.Fresh(), one);
  EXPECT_EQ(far.Fresh(), none);

  gateway.Send(peer, Message(1, "hello"));
  Run(milliseconds(1));
  EXPECT_EQ(near.Fresh().size(), 1u);
  EXPECT_EQ(far.Fresh().size(), 1u);

  // The handshake has forgotten the path: one destination is the first of the list.
  gateway.Send(peer, data);
  Run(milliseconds(248));
  EXPECT_EQ(near.Fresh(), none);
  EXPECT_EQ(far.Fresh(), one);

  Run(milliseconds(1));  // 250 ms since the spray
  gateway.Send(peer, data + data + data, data.size());
  Run(milliseconds(1));
  EXPECT_EQ(near.Fresh(), one);  // the first packet of the train only
  EXPECT_EQ(far.Fresh(), (Texts{data, data, data}));

  Run(seconds(3));
  gateway.Send(peer, data);
  Run();
  EXPECT_EQ(near.Fresh(), none);
  EXPECT_EQ(far.Fresh(), one);
  EXPECT_EQ(gateway.engine->Counters().sprays, 2u);
}

// spec: SEND-3, PEER-1: a control plane tells in mid-session that the peer is somewhere else too.
TEST_F(EngineSimTest, NewEndpointsAreTriedAtOnce) {
  Node gateway(&net_, "gateway", {V4(198, 51, 100, 1)});
  Node far(&net_, "far", {V4(198, 51, 100, 2)});
  Node near(&net_, "near", {V4(198, 51, 100, 3)});
  const PeerId peer = gateway.Add(1, "198.51.100.2:41641");
  const std::string data = Message(4, "data");
  const Texts one{data}, none;
  gateway.Send(peer, data);
  Run(milliseconds(1));
  EXPECT_EQ(far.Fresh(), one);

  EXPECT_EQ(gateway.Add(1, "198.51.100.2:41641,198.51.100.3:41641"), peer);
  gateway.engine->ConfirmPath(peer, *Endpoint::Parse("198.51.100.2:41641"));
  for (int i = 0; i < 2; ++i) {
    gateway.Send(peer, data);
    Run(milliseconds(1));
    EXPECT_EQ(far.Fresh(), one);
    EXPECT_EQ(near.Fresh(), i == 0 ? one : none);
  }
  // The same list, or less of it, tries nothing.
  Run(seconds(4));
  for (const char* list : {"198.51.100.2:41641,198.51.100.3:41641", "198.51.100.2:41641"}) {
    gateway.Add(1, list);
    gateway.Send(peer, data);
    Run(milliseconds(1));
    EXPECT_EQ(far.Fresh(), one);
    EXPECT_EQ(near.Fresh(), none);
  }
}

// spec: RECV-4, PATH-3: the peer moves to another network in mid-stream and nothing else happens.
TEST_F(EngineSimTest, FollowsAPeerThatMoves) {
  Node gateway(&net_, "gateway", {V4(198, 51, 100, 1)});
  Node laptop(&net_, "laptop", {V4(198, 51, 100, 2)});
  const PeerId peer = gateway.Add(1, "198.51.100.2:41641");
  const PeerId home = laptop.Add(9, "198.51.100.1:41641");
  // The handler authenticates: what says "data" is the peer's.
  gateway.handler.reaction = [peer](Shard& shard, const ReceivedTrain& train) {
    shard.ConfirmPath(peer, train.from);
    shard.Send(peer, train.packets);
  };
  Texts want;
  for (int i = 0; i < 100; ++i) {
    if (i == 50) {
      net_.RemoveAddress(laptop.host, V4(198, 51, 100, 2));
      net_.AddAddress(laptop.host, V4(203, 0, 113, 77));
    }
    want.push_back(Message(4, absl::StrCat("data ", i)));
    laptop.Send(home, want.back());
    Run(milliseconds(20));
  }
  EXPECT_EQ(laptop.Fresh(), want);
  const EngineStatus status = gateway.engine->Status();
  EXPECT_TRUE(status.peers[0].roaming);
  EXPECT_EQ(status.peers[0].current.ToString(), "203.0.113.77:41641");
  EXPECT_EQ(gateway.engine->Counters().rx_unknown_source, 50u);
}

// spec: SEND-2, PATH-5: a better path that died is left, and taken again when it is back.
TEST_F(EngineSimTest, LeavesADeadPathAtTheNextHandshakeAndReturns) {
  Node gateway(&net_, "gateway", {V4(198, 51, 100, 1)});
  Node slow(&net_, "slow", {V4(198, 51, 100, 2)});
  Node fast(&net_, "fast", {V4(198, 51, 100, 3)});
  const PeerId peer = gateway.Add(1, "198.51.100.2:41641,198.51.100.3:41641");
  gateway.handler.reaction = [peer](Shard& shard, const ReceivedTrain& train) {
    shard.ConfirmPath(peer, train.from);
  };
  for (Node* node : {&slow, &fast}) {
    node->handler.reaction = [](Shard& shard, const ReceivedTrain& train) {
      shard.SendTo(train.from, train.packets);
    };
  }
  const auto current = [&] { return gateway.engine->Status().peers[0].current.ToString(); };
  gateway.Send(peer, Message(1, "hello"));
  Run();
  EXPECT_EQ(current(), "198.51.100.3:41641");
  net_.SetPartition(gateway.host, fast.host, true);
  Run(seconds(5));
  gateway.Send(peer, Message(4, "lost"));
  Run();
  EXPECT_EQ(current(), "198.51.100.3:41641");
  gateway.Send(peer, Message(1, "hello"));
  Run();
  EXPECT_EQ(current(), "198.51.100.2:41641");
  net_.SetPartition(gateway.host, fast.host, false);
  gateway.Send(peer, Message(1, "hello"));
  Run();
  EXPECT_EQ(current(), "198.51.100.3:41641");
}

// spec: SEND-7, and relay destinations without a relay.
TEST_F(EngineSimTest, RelayPacketsGoToTheRelayQueue) {
  FakeRelay relay;
  Node gateway(&net_, "gateway", {V4(198, 51, 100, 1)}, io::kInternet, &relay);
  const PeerId peer = gateway.Add(5, "127.3.3.40:12");
  gateway.Send(peer, Message(4, "1234"));
  Run();
  EXPECT_EQ(relay.regions, std::vector<RegionId>{12});
  EXPECT_EQ(relay.keys, std::vector<PublicKey>{KeyNumber(5)});
  relay.room = 1;
  const std::string packet = Message(4, "x");
  gateway.Send(peer, packet + packet + packet, packet.size());
  Run();
  EXPECT_EQ(gateway.Dropped(Drop::kTxQueueFull), 2u);
  EXPECT_EQ(gateway.engine->Counters().paths[static_cast<size_t>(PathKind::kRelay)].tx_packets, 2u);
}

// spec: SEND-5: what the kernel refused is not counted as sent.
TEST_F(EngineSimTest, FailedSendsAreTakenBackAndCountedByReason) {
  Node gateway(&net_, "gateway", {V4(198, 51, 100, 1)});
  Node other(&net_, "other", {V4(198, 51, 100, 2)});
  const PeerId peer = gateway.Add(1, "198.51.100.2:41641");
  const std::pair<int, Drop> cases[] = {{EMSGSIZE, Drop::kTxMessageSize},
                                        {ENOBUFS, Drop::kTxBufferFull},
                                        {EAGAIN, Drop::kTxBufferFull},
                                        {ENETUNREACH, Drop::kTxUnreachable},
                                        {ECONNREFUSED, Drop::kTxUnreachable},
                                        {EPERM, Drop::kTxRefused},
                                        {EBADF, Drop::kTxError}};
  for (const auto& [error, drop] : cases) {
    const uint64_t before = gateway.Dropped(drop);
    gateway.shard_loop->faults(0).sends.push_back({.error = error, .count = 1});
    gateway.Send(peer, Message(4, "refused"));
    Run();
    EXPECT_EQ(gateway.Dropped(drop), before + 1) << error;
  }
  EXPECT_TRUE(other.Fresh().empty());
  gateway.Send(peer, Message(4, "sent"));
  Run();
  EXPECT_EQ(other.Fresh(), Texts{Message(4, "sent")});
  const auto path = gateway.engine->Counters().paths[0];
  EXPECT_EQ(path.tx_packets, 1u);
  EXPECT_EQ(path.tx_bytes, Message(4, "sent").size());
}

// A train that is refused because it is one arrives packet by packet, in order, nothing twice.
TEST_F(EngineSimTest, ARefusedTrainStillArrives) {
  Node gateway(&net_, "gateway", {V4(198, 51, 100, 1)});
  Node other(&net_, "other", {V4(198, 51, 100, 2)});
  const PeerId peer = gateway.Add(1, "198.51.100.2:41641");
  gateway.shard_loop->faults(0).sends.push_back({.error = EIO, .count = 1, .trains_only = true});
  std::string train;
  Texts want;
  for (int i = 0; i < 8; ++i) {
    want.push_back(Message(4, absl::StrCat("part ", i)));
    train += want.back();
  }
  gateway.Send(peer, train, want[0].size());
  Run();
  EXPECT_EQ(other.Fresh(), want);
  EXPECT_EQ(gateway.engine->Counters().paths[0].tx_packets, 8u);
}

// spec: RECV-6
TEST_F(EngineSimTest, TruncatedDatagramsAreCounted) {
  Node gateway(&net_, "gateway", {V4(198, 51, 100, 1)});
  Node other(&net_, "other", {V4(198, 51, 100, 2)});
  const PeerId peer = other.Add(1, "198.51.100.1:41641");
  gateway.shard_loop->faults(0).truncated_trains = 1;
  other.Send(peer, Message(4, "too much"));
  Run();
  other.Send(peer, Message(4, "enough"));
  Run();
  EXPECT_EQ(gateway.Fresh(), Texts{Message(4, "enough")});
  EXPECT_EQ(gateway.Dropped(Drop::kRxTruncated), 1u);
}

// spec: RECV-1: STUN goes to control when somebody there wants it, with its sender and its time.
TEST_F(EngineSimTest, StunGoesToControlAndControlCanAsk) {
  Node gateway(&net_, "gateway", {V4(198, 51, 100, 1)});
  Node server(&net_, "server", {V4(198, 51, 100, 2)});
  const Endpoint server_endpoint = *Endpoint::Parse("198.51.100.2:41641");
  std::string stun("\0\1\0\0\x21\x12\xa4\x42", 8);
  stun.resize(20, 'i');
  struct Got {
    uint32_t shard;
    Endpoint from;
    std::string bytes;
    Instant received;
  };
  std::vector<Got> got;
  gateway.engine->control().SetStunHandler([&got](uint32_t shard, const StunPacket& packet) {
    got.push_back({shard, packet.from,
                   std::string(reinterpret_cast<const char*>(packet.data.data()), packet.size),
                   packet.received});
  });
  server.engine->control().SetStunHandler([&](uint32_t shard, const StunPacket& packet) {
    server.engine->control().SendTo(shard, packet.from, {packet.data.data(), packet.size});
  });
  net_.uplink(server.host).options.delay = milliseconds(30);
  const Instant start = net_.now();
  EXPECT_TRUE(gateway.engine->control().SendTo(
      0, server_endpoint, {reinterpret_cast<const std::byte*>(stun.data()), stun.size()}));
  Run(milliseconds(100));
  ASSERT_EQ(got.size(), 1u);
  EXPECT_EQ(got[0].shard, 0u);
  EXPECT_EQ(got[0].from, server_endpoint);
  EXPECT_EQ(got[0].bytes, stun);
  EXPECT_EQ(got[0].received - start, milliseconds(30));
  EXPECT_TRUE(gateway.Fresh().empty());
  gateway.engine->control().SetStunHandler(nullptr);
  gateway.engine->control().SendTo(0, server_endpoint,
                                   {reinterpret_cast<const std::byte*>(stun.data()), stun.size()});
  Run(milliseconds(100));
  EXPECT_EQ(gateway.Dropped(Drop::kRxStun), 1u);
}

TEST_F(EngineSimTest, CommandsRunOnTheShard) {
  Node gateway(&net_, "gateway", {V4(198, 51, 100, 1)});
  const EngineShard* ran_on = nullptr;
  EXPECT_TRUE(
      gateway.engine->control().RunOnShard(0, [&ran_on](EngineShard& shard) { ran_on = &shard; }));
  Run();
  EXPECT_EQ(ran_on, &gateway.engine->shard(0));
  size_t queued = 0;
  while (gateway.engine->control().RunOnShard(0, [](EngineShard&) {})) ++queued;
  EXPECT_EQ(queued, 16u);  // bounded
}

TEST_F(EngineSimTest, TimersOfControlFireInVirtualTime) {
  Node gateway(&net_, "gateway", {V4(198, 51, 100, 1)});
  int fired = 0;
  Timer timer(&gateway.engine->control().timers(), [&fired] { ++fired; });
  timer.Schedule(net_.now() + seconds(20));
  gateway.engine->control().Execute([] {});
  gateway.control_loop->Wake();
  Run(milliseconds(19'999));
  EXPECT_EQ(fired, 0);
  Run(milliseconds(2));
  EXPECT_EQ(fired, 1);
}

// Two engines, sockets that cut trains anywhere and refuse
// at times, and slabs that run out: what arrives is whole and comes from who sent it, and every
// packet is accounted for.
TEST_F(EngineSimTest, NothingIsLostWithoutACounter) {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    io::SimNetwork net(seed);
    Node a(&net, "a", {V4(198, 51, 100, 1)});
    Node b(&net, "b", {V4(198, 51, 100, 2)});
    const PeerId to_b = a.Add(2, "198.51.100.2:41641");
    const PeerId to_a = b.Add(1, "198.51.100.1:41641");
    b.handler.reaction = [to_a](Shard& shard, const ReceivedTrain& train) {
      EXPECT_EQ(train.peer, to_a);
      shard.Send(to_a, train.packets);
    };
    a.shard_loop->faults(0).gro = b.shard_loop->faults(0).gro = io::GroMode::kRandom;
    b.shard_loop->HoldSlabs(seed % 3 == 0);
    uint64_t sent = 0;
    for (int i = 0; i < 200; ++i) {
      const std::string packet = Message(4, std::string(10 + (seed * 7 + i) % 50, 'a' + i % 26));
      std::string train;
      const int count = 1 + (i * 31 + static_cast<int>(seed)) % 5;
      for (int k = 0; k < count; ++k) train += packet;
      a.Send(to_b, train, packet.size());
      sent += static_cast<uint64_t>(count);
      if (i % 20 == 7) b.shard_loop->faults(0).sends.push_back({.error = ENOBUFS, .count = 1});
      if (i % 3 == 0) net.RunFor(std::chrono::microseconds(100));
    }
    net.RunFor(seconds(1));
    const CounterSnapshot at_a = a.engine->Counters();
    const CounterSnapshot at_b = b.engine->Counters();
    EXPECT_EQ(at_a.paths[0].tx_packets, sent);
    EXPECT_EQ(at_b.paths[0].rx_packets, sent);
    EXPECT_EQ(at_b.paths[0].tx_packets + b.Dropped(Drop::kTxBufferFull), sent);
    EXPECT_EQ(at_a.paths[0].rx_packets, at_b.paths[0].tx_packets);
    EXPECT_GT(b.Dropped(Drop::kTxBufferFull), 0u);
  }
}

}  // namespace
}  // namespace ringsock
