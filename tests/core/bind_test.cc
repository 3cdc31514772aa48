// The pull adapter on loopback.
#include "core/bind.h"

#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "gtest/gtest.h"
#include "tests/core/engine_fixture.h"

namespace ringsock {
namespace {

BindOptions Options() {
  BindOptions options;
  options.engine.shards = 2;
  options.engine.pin_threads = false;
  // What happens to the network of the host that the test runs on has paths looked for anew.
  options.engine.network.watch_links = false;
  return options;
}

// Buffers to receive into.
class Buffers {
 public:
  explicit Buffers(size_t count, uint32_t capacity = 2048) {
    for (size_t i = 0; i < count; ++i) {
      memory_.emplace_back(capacity, '\0');
      BindPacket& packet = packets_.emplace_back();
      packet.data = reinterpret_cast<std::byte*>(memory_.back().data());
      packet.capacity = capacity;
    }
  }
  std::span<BindPacket> view() { return packets_; }
  const BindPacket& operator[](size_t i) const { return packets_[i]; }
  std::string Text(size_t i) const { return memory_[i].substr(0, packets_[i].size); }

 private:
  std::vector<std::string> memory_;
  std::vector<BindPacket> packets_;
};

absl::Status Send(Bind& bind, const BindEndpoint& to, const std::vector<std::string>& texts) {
  std::vector<std::span<const std::byte>> packets;
  for (const std::string& text : texts) {
    packets.emplace_back(reinterpret_cast<const std::byte*>(text.data()), text.size());
  }
  return bind.Send(packets, to);
}

class BindTest : public testing::Test {
 protected:
  void Open(Bind& bind) {
    const auto port = bind.Open(0);
    ASSERT_TRUE(port.ok()) << port.status().ToString();
    port_ = *port;
  }
  // Receives until `count` packets have come.
  std::vector<std::string> Receive(Bind& bind, Bind::Source source, size_t count) {
    std::vector<std::string> texts;
    while (texts.size() < count) {
      Buffers buffers(4);
      const auto got = bind.Receive(source, buffers.view());
      EXPECT_TRUE(got.ok()) << got.status().ToString();
      if (!got.ok()) break;
      for (size_t i = 0; i < *got; ++i) {
        texts.push_back(buffers.Text(i));
        last_ = buffers[i].from;
      }
    }
    return texts;
  }

  uint16_t port_ = 0;
  BindEndpoint last_;
};

TEST_F(BindTest, APeersPacketsComeAndGoInOrder) {
  Bind bind(Options());
  Open(bind);
  RemoteHost host;
  const auto peer = bind.CreateEndpoint(KeyNumber(1), host.text());
  ASSERT_TRUE(peer.ok()) << peer.status().ToString();
  std::vector<std::string> texts;
  for (int i = 0; i < 50; ++i) texts.push_back(Message(4, absl::StrCat("number ", i)));
  for (const std::string& text : texts) host.Send(port_, text);
  EXPECT_EQ(Receive(bind, Bind::Source::kV4, texts.size()), texts);
  EXPECT_EQ(last_.peer, peer->peer);
  EXPECT_EQ(last_.address, host.endpoint());
  EXPECT_TRUE(Send(bind, last_, texts).ok());
  for (const std::string& text : texts) EXPECT_EQ(host.Receive(), text);
}

// spec: RECV-4, SEND-8, PATH-3
// What it is told at the first opening it is told at each: the port may be another one.
TEST_F(BindTest, AnObserverHearsOfEachOpening) {
  class Counting final : public NetworkObserver {
   public:
    void OnEndpoints(std::span<const OwnEndpoint> endpoints) override {
      port = endpoints[0].endpoint.port;
      ++calls;
    }
    std::atomic<uint16_t> port{0};
    std::atomic<int> calls{0};
  };
  Counting observer;
  BindOptions options = Options();
  options.observer = &observer;
  options.engine.bind_v4 = IpAddress::V4(127, 0, 0, 1);
  options.engine.ipv6 = false;
  Bind bind(options);
  for (int i = 1; i <= 3; ++i) {
    Open(bind);
    ASSERT_TRUE(WaitUntil([&] { return observer.calls.load() == i; }));
    EXPECT_EQ(observer.port.load(), port_);
    bind.Close();
    EXPECT_EQ(observer.calls.load(), i);
  }
}

TEST_F(BindTest, AnUnknownSourceCanBeAnsweredAndConfirmed) {
  Bind bind(Options());
  Open(bind);
  RemoteHost host;
  const auto peer = bind.CreateEndpoint(KeyNumber(1), "192.0.2.1:9");
  host.Send(port_, Message(1, "hello"));
  Receive(bind, Bind::Source::kV4, 1);
  EXPECT_EQ(last_.peer, PeerId::kNone);
  EXPECT_TRUE(Send(bind, last_, {Message(2, "hello yourself")}).ok());
  EXPECT_EQ(host.Receive(), Message(2, "hello yourself"));
  bind.ConfirmPath(peer->peer, last_);
  EXPECT_TRUE(Send(bind, *peer, {Message(4, "found you")}).ok());
  EXPECT_EQ(host.Receive(), Message(4, "found you"));
}

// spec: RECV-6
TEST_F(BindTest, APacketLargerThanItsBufferIsAnErrorOnThatPacket) {
  Bind bind(Options());
  Open(bind);
  RemoteHost host;
  host.Send(port_, "small");
  host.Send(port_, std::string(200, 'x'));
  host.Send(port_, "again");
  size_t seen = 0;
  for (const char* want : {"small", "", "again"}) {
    Buffers buffers(1, 100);
    const auto got = bind.Receive(Bind::Source::kV4, buffers.view());
    ASSERT_TRUE(got.ok());
    ASSERT_EQ(*got, 1u);
    EXPECT_EQ(buffers[0].too_large, seen == 1);
    EXPECT_EQ(buffers[0].size, seen == 1 ? 200u : 5u);
    if (seen != 1) {
      EXPECT_EQ(buffers.Text(0), want);
    }
    ++seen;
  }
}

// spec: RECV-5
TEST_F(BindTest, AFullFamilyDoesNotStarveTheOther) {
  RemoteHost v4, v6(/*v6=*/true);
  if (!v6.ok()) GTEST_SKIP() << "no IPv6 here";
  BindOptions options = Options();
  options.queue_packets = 8;
  Bind bind(options);
  Open(bind);
  // Nobody takes the IPv4 packets: their queue runs over.
  const auto overflown = [&] {
    v4.Send(port_, Message(4, "nobody takes me"));
    return bind.Counters().drops[static_cast<size_t>(Drop::kRxQueueFull)] > 0;
  };
  ASSERT_TRUE(WaitUntil(overflown));
  v6.Send(port_, Message(4, "through"));
  EXPECT_EQ(Receive(bind, Bind::Source::kV6, 1), std::vector<std::string>{Message(4, "through")});
  // What was taken into the queue is still there, and then new packets come through again.
  EXPECT_EQ(Receive(bind, Bind::Source::kV4, 8).size(), 8u);
}

// spec: RECV-7
TEST_F(BindTest, CloseUnblocksEveryReceiver) {
  Bind bind(Options());
  Open(bind);
  std::atomic<int> cancelled{0};
  std::vector<std::thread> threads;
  for (const auto source :
       {Bind::Source::kV4, Bind::Source::kV4, Bind::Source::kV6, Bind::Source::kRelay}) {
    threads.emplace_back([&bind, &cancelled, source] {
      Buffers buffers(2);
      const auto got = bind.Receive(source, buffers.view());
      EXPECT_TRUE(absl::IsCancelled(got.status())) << got.status().ToString();
      cancelled.fetch_add(1);
    });
  }
  ASSERT_TRUE(WaitUntil([&] { return bind.waiting() == 4; }));
  bind.Close();
  bind.Close();
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(cancelled.load(), 4);
  EXPECT_TRUE(absl::IsCancelled(
      Send(bind, BindEndpoint{PeerId::kNone, *Endpoint::Parse("127.0.0.1:9")}, {"late"})));
  Buffers buffers(1);
  EXPECT_TRUE(absl::IsCancelled(bind.Receive(Bind::Source::kV4, buffers.view()).status()));
  EXPECT_EQ(bind.waiting(), 0u);
}

// As WireGuard does when its port changes: endpoints and paths that it has kept stay good.
TEST_F(BindTest, OpensAgainAfterClose) {
  Bind bind(Options());
  Open(bind);
  RemoteHost host, moved;
  const auto peer = bind.CreateEndpoint(KeyNumber(1), host.text());
  const auto gone = bind.CreateEndpoint(KeyNumber(2), "192.0.2.1:9");
  ASSERT_TRUE(bind.engine()->UpdatePeers(std::vector<PublicKey>{KeyNumber(1)}).ok());
  for (int round = 0, taken = 0; round < 3; ++round) {
    host.Send(port_, Message(4, "in"));
    EXPECT_EQ(Receive(bind, Bind::Source::kV4, 1), std::vector<std::string>{Message(4, "in")});
    EXPECT_EQ(last_.peer, peer->peer);
    EXPECT_TRUE(Send(bind, *peer, {Message(4, "out")}).ok());
    EXPECT_EQ((round == 0 ? host : moved).Receive(), Message(4, "out"));
    bind.ConfirmPath(peer->peer, {PeerId::kNone, moved.endpoint()});
    host.Send(port_, Message(4, "nobody takes this one"));
    std::thread waiting([&bind] {
      Buffers buffers(1);
      EXPECT_TRUE(absl::IsCancelled(bind.Receive(Bind::Source::kV6, buffers.view()).status()));
    });
    EXPECT_TRUE(WaitUntil([&] { return bind.waiting() == 1; }));
    const std::shared_ptr<Engine> before = bind.engine();
    bind.Close();
    EXPECT_EQ(before->Status().peers.size(), 1u);
    auto port = bind.Open(round == 1 ? port_ : 0);
    waiting.join();
    if (round == 1 && absl::IsAlreadyExists(port.status()) && ++taken <= 5) {
      // Another program got the port as soon as it was free: the round once more.
      port = bind.Open(0);
      --round;
    }
    ASSERT_TRUE(port.ok()) << port.status().ToString();
    port_ = *port;
    EXPECT_TRUE(before->Status().peers.empty());  // they are the next engine's
    EXPECT_TRUE(absl::IsFailedPrecondition(before->UpdatePeers({})));
    before->ConfirmPath(peer->peer, host.endpoint());
    EXPECT_EQ(bind.engine()->Status().peers.size(), 1u);
  }
  EXPECT_NE(bind.CreateEndpoint(KeyNumber(3), "")->peer, gone->peer);
}

TEST_F(BindTest, AnOpenThatFailsMayBeTriedAgain) {
  Bind bind(Options()), other(Options());
  Open(other);
  EXPECT_TRUE(absl::IsAlreadyExists(bind.Open(port_).status()));
  EXPECT_EQ(bind.engine(), nullptr);
  EXPECT_TRUE(bind.Open(0).ok());
  BindOptions huge = Options();
  huge.queue_packets = UINT32_MAX;
  EXPECT_TRUE(absl::IsInvalidArgument(Bind(huge).Open(0).status()));
}

// spec: PEER-2
TEST_F(BindTest, PacketsOfARemovedPeerDoNotComeOutOfTheQueue) {
  Bind bind(Options());
  Open(bind);
  RemoteHost host, stranger;
  ASSERT_TRUE(bind.CreateEndpoint(KeyNumber(1), host.text()).ok());
  for (int i = 0; i < 10; ++i) host.Send(port_, Message(4, "of a peer"));
  const auto received = [&] { return bind.Counters().paths[0].rx_packets; };
  ASSERT_TRUE(WaitUntil([&] { return received() == 10; }));
  ASSERT_TRUE(bind.engine()->UpdatePeers({}).ok());
  stranger.Send(port_, Message(4, "of nobody"));
  EXPECT_EQ(Receive(bind, Bind::Source::kV4, 1), std::vector<std::string>{Message(4, "of nobody")});
  EXPECT_EQ(last_.peer, PeerId::kNone);
  EXPECT_EQ(bind.Counters().drops[static_cast<size_t>(Drop::kRxPeerGone)], 10u);
}

// A reader that keeps up loses nothing, also if its buffers never end where a train does.
TEST_F(BindTest, BuffersNeedNotMatchTrains) {
  constexpr int kTrain = 7, kTrains = 60, kAhead = 3;
  BindOptions options = Options();
  options.engine.shards = 1;
  options.queue_packets = 4;
  Bind bind(options);
  Open(bind);
  RemoteHost host;
  std::vector<std::string> sent, got;
  const auto packets = [&] { return bind.Counters().paths[0].rx_packets; };
  for (int i = 0; i < kTrains || got.size() < sent.size();) {
    if (i < kTrains && sent.size() < got.size() / kTrain * kTrain + kAhead * kTrain) {
      std::string train;
      for (int k = 0; k < kTrain; ++k) {
        sent.push_back(Message(4, absl::StrCat("packet ", 1000 + i * kTrain + k)));
        train += sent.back();
      }
      host.SendTrain(port_, train, sent.back().size());
      ASSERT_TRUE(WaitUntil([&] { return packets() == sent.size(); }));
      ++i;
      continue;
    }
    Buffers buffers(5);
    const auto count = bind.Receive(Bind::Source::kV4, buffers.view());
    ASSERT_TRUE(count.ok());
    for (size_t k = 0; k < *count; ++k) got.push_back(buffers.Text(k));
  }
  EXPECT_EQ(got, sent);
  EXPECT_EQ(bind.Counters().drops[static_cast<size_t>(Drop::kRxQueueFull)], 0u);
}

TEST_F(BindTest, NowhereIsNoDestination) {
  Bind bind(Options());
  Open(bind);
  EXPECT_TRUE(absl::IsInvalidArgument(Send(bind, BindEndpoint{}, {"x"})));
}

TEST_F(BindTest, BeforeOpenNothingWorks) {
  Bind bind(Options());
  Buffers buffers(1);
  EXPECT_TRUE(absl::IsFailedPrecondition(bind.Receive(Bind::Source::kV4, buffers.view()).status()));
  EXPECT_TRUE(absl::IsFailedPrecondition(Send(bind, {}, {"x"})));
  EXPECT_TRUE(absl::IsFailedPrecondition(bind.CreateEndpoint(KeyNumber(1), "").status()));
  EXPECT_EQ(bind.engine(), nullptr);
}

TEST_F(BindTest, ErrorsOfASendAreReported) {
  Bind bind(Options());
  Open(bind);
  EXPECT_TRUE(absl::IsFailedPrecondition(bind.Open(0).status()));
  RemoteHost host;
  const BindEndpoint to{PeerId::kNone, host.endpoint()};
  const std::string giant(io::kMaxDatagram + 1, 'x');
  EXPECT_TRUE(absl::IsInvalidArgument(Send(bind, to, {giant, "the others go"})));
  EXPECT_EQ(host.Receive(), "the others go");
  EXPECT_TRUE(absl::IsInvalidArgument(Send(bind, {PeerId::kNone, RelayEndpoint(1)}, {"x"})));
  Bind other(Options());
  EXPECT_TRUE(absl::IsAlreadyExists(other.Open(port_).status()));
}

TEST_F(BindTest, ParsesEndpoints) {
  const auto v4 = Bind::ParseEndpoint("192.0.2.1:51820");
  ASSERT_TRUE(v4.ok());
  EXPECT_EQ(v4->ToString(), "192.0.2.1:51820");
  EXPECT_TRUE(Bind::ParseEndpoint("[2001:db8::1]:51820").ok());
  for (const char* bad : {"", "192.0.2.1", "192.0.2.1:0", "host:1", "127.3.3.40:7"}) {
    EXPECT_TRUE(absl::IsInvalidArgument(Bind::ParseEndpoint(bad).status())) << bad;
  }
}

}  // namespace
}  // namespace ringsock
