// Senders and the rings to the shards, on loops without a network.
#include "core/sender.h"

#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "core/shard_of.h"
#include "gtest/gtest.h"
#include "tests/core/engine_fixture.h"
#include "tests/core/fake_loop.h"

namespace ringsock {
namespace {

class SenderTest : public testing::Test {
 protected:
  static constexpr uint32_t kRingPackets = 16;
  static constexpr uint32_t kMaxSenders = 70;  // more than one word of bits

  SenderTest()
      : queues_({&loops_[0], &loops_[1]},
                {.peers = &peers_, .quiescence = &quiescence_, .reports = &reports_}, kMaxSenders,
                kRingPackets) {}

  std::unique_ptr<Sender> NewSender() {
    auto sender = queues_.NewSender();
    EXPECT_TRUE(sender.ok()) << sender.status().ToString();
    return *std::move(sender);
  }
  // All that waits for a shard, as text.
  std::vector<std::string> Drain(uint32_t shard, size_t budget = 1000) {
    std::vector<std::string> got;
    queues_.Drain(shard, budget, [&got](const PacketRecord& record) {
      got.emplace_back(reinterpret_cast<const char*>(record.packets.data), record.packets.size);
    });
    queues_.Release(shard);
    return got;
  }
  uint64_t Dropped(Drop drop) const { return queues_.Counters().drops[static_cast<size_t>(drop)]; }
  // A peer whose packets go to `shard`.
  PeerId PeerOn(uint32_t shard) const {
    uint64_t id = 1;
    while (ShardOf(PeerId{id}, 2) != shard) ++id;
    return PeerId{id};
  }

  FakeLoop loops_[2];
  FakeLoop control_;
  Quiescence quiescence_;
  PeerTable peers_{{}, &quiescence_};
  PathReports reports_{&control_};
  SenderQueues queues_;
};

TEST_F(SenderTest, ShardsAreToldAtFlush) {
  auto sender = NewSender();
  EXPECT_EQ(sender->Send(PeerOn(1), TrainOf("hello")), SendResult::kOk);
  EXPECT_FALSE(queues_.Pending(1));
  sender->Flush();
  EXPECT_TRUE(queues_.Pending(1));
  EXPECT_FALSE(queues_.Pending(0));
  EXPECT_EQ(loops_[1].wakes(), 1);
  EXPECT_EQ(loops_[0].wakes(), 0);
  EXPECT_EQ(Drain(1), std::vector<std::string>{"hello"});
  EXPECT_FALSE(queues_.Pending(1));
  sender->Flush();
  EXPECT_EQ(loops_[1].wakes(), 1);
}

TEST_F(SenderTest, ShardsAreToldWhenARingIsHalfFull) {
  auto sender = NewSender();
  for (uint32_t i = 0; i < kRingPackets / 2; ++i) sender->Send(PeerOn(0), TrainOf("x"));
  EXPECT_TRUE(queues_.Pending(0));
  EXPECT_EQ(Drain(0).size(), kRingPackets / 2);
}

TEST_F(SenderTest, AFullRingIsACountedDropAndTellsTheShard) {
  auto sender = NewSender();
  for (uint32_t i = 0; i < kRingPackets; ++i) {
    EXPECT_EQ(sender->Send(PeerOn(0), TrainOf("x")), SendResult::kOk);
  }
  EXPECT_EQ(sender->Send(PeerOn(0), TrainOf("12345", 2)), SendResult::kQueueFull);
  EXPECT_EQ(Dropped(Drop::kTxQueueFull), 3u);
  EXPECT_EQ(sender->Send(PeerOn(1), TrainOf("y")), SendResult::kOk);  // the other shard's trouble
  EXPECT_EQ(Drain(0).size(), kRingPackets);
  EXPECT_EQ(sender->Send(PeerOn(0), TrainOf("x")), SendResult::kOk);
}

TEST_F(SenderTest, AddressesAndTrainsArriveAsTheyWere) {
  auto sender = NewSender();
  const Endpoint to = *Endpoint::Parse("192.0.2.1:99");
  EXPECT_EQ(sender->SendTo(to, TrainOf("abcde", 2)), SendResult::kOk);
  sender->Flush();
  size_t shown = 0;
  queues_.Drain(ShardOf(to, 2), 10, [&](const PacketRecord& record) {
    EXPECT_EQ(record.peer, PeerId::kNone);
    EXPECT_EQ(record.address, to);
    EXPECT_EQ(record.packets.segment_size, 2u);
    ++shown;
  });
  EXPECT_EQ(shown, 1u);
}

TEST_F(SenderTest, RelaysAndGiantsAreRefused) {
  auto sender = NewSender();
  EXPECT_EQ(sender->SendTo(RelayEndpoint(3), TrainOf("x")), SendResult::kRelayNotAllowed);
  EXPECT_EQ(Dropped(Drop::kTxRelayNotAllowed), 1u);  // spec: SEND-8
  const std::string giant(io::kMaxDatagram + 1, 'x');
  EXPECT_EQ(sender->Send(PeerId{1}, TrainOf(giant)), SendResult::kTooLarge);
  EXPECT_EQ(Dropped(Drop::kTxTooLarge), 1u);
  EXPECT_EQ(sender->Send(PeerId{1}, TrainOf(giant, 1000)), SendResult::kOk);
  EXPECT_EQ(sender->Send(PeerId{1}, TrainOf("")), SendResult::kOk);
}

TEST_F(SenderTest, NobodyAndNowhereAreRefused) {
  auto sender = NewSender();
  EXPECT_EQ(sender->Send(PeerId::kNone, TrainOf("12345", 2)), SendResult::kUnknownPeer);
  EXPECT_EQ(Dropped(Drop::kTxUnknownPeer), 3u);
  Endpoint no_port = *Endpoint::Parse("192.0.2.1:9");
  no_port.port = 0;
  Endpoint any_v4{IpAddress::AnyV4(), 9}, any_v6{IpAddress::AnyV6(), 9};
  for (const Endpoint& to : {Endpoint{}, no_port, any_v4, any_v6}) {
    EXPECT_EQ(sender->SendTo(to, TrainOf("x")), SendResult::kNoDestination) << to.ToString();
  }
  EXPECT_EQ(Dropped(Drop::kTxNoDestination), 4u);
  sender->Flush();
  EXPECT_FALSE(queues_.Pending(0));
  EXPECT_FALSE(queues_.Pending(1));
}

// What a Sender learns takes effect at once and is reported, the chatter of a busy peer seldom.
TEST_F(SenderTest, LearnsPathsAndReportsThem) {
  const Endpoint one = *Endpoint::Parse("192.0.2.1:1"), two = *Endpoint::Parse("192.0.2.1:2");
  const std::vector<Endpoint> list{*Endpoint::Parse("192.0.2.1:9")};
  const PeerId peer = *peers_.Create(PublicKey{{1}}, list);
  auto sender = NewSender();
  sender->ConfirmPath(PeerId{99}, one);
  sender->ConfirmPath(peer, RelayEndpoint(1));
  EXPECT_EQ(control_.wakes(), 0);
  for (int i = 0; i < 10; ++i) {
    sender->ConfirmPath(peer, one);
    sender->ConfirmPath(peer, one);
    sender->ConfirmPath(peer, two);
  }
  EXPECT_EQ(peers_.FindById(peer)->addresses().Snapshot().roam, two);
  PathReport report;
  ASSERT_TRUE(reports_.Pop(&report));
  EXPECT_EQ(report.change, PathChange::kRoamSet);
  EXPECT_EQ(report.from, one);
  EXPECT_EQ(report.left_out, 0u);
  EXPECT_FALSE(reports_.Pop(&report));
  EXPECT_EQ(control_.wakes(), 1);
  loops_[0].manual_clock().Advance(std::chrono::seconds(1));
  sender->ConfirmPath(peer, list[0]);
  ASSERT_TRUE(reports_.Pop(&report));
  EXPECT_EQ(report.change, PathChange::kRoamCleared);
  EXPECT_EQ(report.previous, two);
  EXPECT_EQ(report.left_out, 19u);
  queues_.Close();
  sender->ConfirmPath(peer, one);
  EXPECT_FALSE(peers_.FindById(peer)->addresses().Snapshot().roaming);
}

TEST_F(SenderTest, ABudgetLeavesTheRestForTheNextTime) {
  auto busy = NewSender();
  auto quiet = NewSender();
  for (int i = 0; i < 10; ++i) busy->Send(PeerOn(0), TrainOf("b"));
  quiet->Send(PeerOn(0), TrainOf("q"));
  busy->Flush();
  quiet->Flush();
  EXPECT_EQ(Drain(0, 4), (std::vector<std::string>{"b", "b", "b", "b", "q"}));
  EXPECT_TRUE(queues_.Pending(0));
  EXPECT_EQ(Drain(0, 100).size(), 6u);
  EXPECT_FALSE(queues_.Pending(0));
}

TEST_F(SenderTest, PlacesAreBoundedAndUsedAgain) {
  std::vector<std::unique_ptr<Sender>> senders;
  for (uint32_t i = 0; i < kMaxSenders; ++i) senders.push_back(NewSender());
  EXPECT_TRUE(absl::IsResourceExhausted(queues_.NewSender().status()));
  senders.back()->Send(PeerOn(0), TrainOf("last words"));
  senders.pop_back();  // ends with packets in the ring
  auto next = NewSender();
  next->Send(PeerOn(0), TrainOf("and on"));
  next->Flush();
  EXPECT_EQ(Drain(0), (std::vector<std::string>{"last words", "and on"}));
}

TEST_F(SenderTest, AfterCloseEverythingIsCounted) {
  auto sender = NewSender();
  sender->Send(PeerOn(0), TrainOf("left behind"));
  NewSender()->Send(PeerOn(0), TrainOf("of one that is gone"));
  queues_.Close();
  EXPECT_EQ(sender->Send(PeerOn(0), TrainOf("12345", 2)), SendResult::kClosed);
  EXPECT_TRUE(absl::IsFailedPrecondition(queues_.NewSender().status()));
  sender.reset();
  EXPECT_EQ(Dropped(Drop::kClosed), 1u + 3u + 1u);
}

TEST_F(SenderTest, PeersAreSpreadOverShards) {
  uint32_t on_first = 0;
  for (uint64_t id = 1; id <= 1000; ++id) on_first += ShardOf(PeerId{id}, 2) == 0;
  EXPECT_GT(on_first, 400u);
  EXPECT_LT(on_first, 600u);
}

// Senders on threads of their own, one of them reborn again and again, while both shards drain:
// every packet that was taken arrives once, and those of one Sender and peer in order. (Of two
// Senders, one after the other, no order is promised: the second may get other rings.)
TEST_F(SenderTest, OrderHoldsAcrossThreads) {
  constexpr int kThreads = 3;
  constexpr uint32_t kPackets = 5'000;
  std::atomic<int> running{kThreads};
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([this, t, &running] {
      std::unique_ptr<Sender> sender = NewSender();
      uint64_t first_peer = 1 + static_cast<uint64_t>(t) * 1'000'000;  // of this Sender
      uint32_t sent = 0;                                               // by this Sender
      for (uint32_t i = 0; i < kPackets;) {
        const uint32_t number = sent / 4;
        std::string bytes(8, '\0');
        std::memcpy(bytes.data(), &number, sizeof(number));
        if (sender->Send(PeerId{first_peer + sent % 4}, TrainOf(bytes)) != SendResult::kOk) {
          std::this_thread::yield();
          continue;
        }
        ++i;
        ++sent;
        if (t == 0 && i % 500 == 0) {
          sender.reset();
          sender = NewSender();
          first_peer += 4;
          sent = 0;
        }
      }
      sender.reset();
      running.fetch_sub(1);
    });
  }
  std::map<uint64_t, uint32_t> next;
  uint64_t got[2] = {0, 0};
  std::mutex mutex;
  const auto drain = [&](uint32_t shard) {
    for (bool last = false;;) {
      queues_.Drain(shard, 8, [&](const PacketRecord& record) {
        uint32_t number;
        std::memcpy(&number, record.packets.data, sizeof(number));
        std::lock_guard lock(mutex);
        EXPECT_EQ(number, next[static_cast<uint64_t>(record.peer)]++);
        ++got[shard];
      });
      queues_.Release(shard);
      if (last && !queues_.Pending(shard)) return;
      last = running.load() == 0;
    }
  };
  std::thread second([&] { drain(1); });
  drain(0);
  second.join();
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(got[0] + got[1], uint64_t{kThreads} * kPackets);
}

}  // namespace
}  // namespace ringsock
