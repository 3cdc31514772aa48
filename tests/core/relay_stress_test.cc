// Shards, Senders and control on threads of their own, with relays that send everything back: the
// rings under load, while map, key and peers change. Most useful under the thread sanitizer.
#include <array>
#include <atomic>
#include <cstring>
#include <deque>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "core/engine_internal.h"
#include "gtest/gtest.h"
#include "tests/core/engine_fixture.h"
#include "tests/core/fake_relays.h"

namespace ringsock {
namespace {

constexpr uint32_t kPeers = 8;

// Sends every packet back to us, as its peer's.
class EchoConnection final : public derp::RegionConnection {
 public:
  EchoConnection(RegionId region, const Clock* clock, TimerQueue* timers,
                 derp::RegionEvents* events, std::atomic<uint64_t>* echoed)
      : region_(region), clock_(*clock), events_(*events), echoed_(*echoed), timer_(timers, [this] {
          Turn();
        }) {
    timer_.Schedule(clock_.Now());
  }
  RegionId region() const override { return region_; }
  bool up() const override { return up_; }
  bool Send(const PublicKey& peer, std::span<const std::byte> packet) override {
    waiting_.emplace_back(peer, std::vector<std::byte>(packet.begin(), packet.end()));
    return true;
  }
  void Flush() override {
    ++flushes_;
    timer_.Schedule(clock_.Now());
  }
  void SetPreferred(bool) override {}
  void Reconnect(absl::string_view) override {}
  derp::RegionConnectionStatus Status() const override { return {}; }
  const derp::RegionCounters& counters() const override { return counters_; }

 private:
  void Turn() {
    if (!std::exchange(up_, true)) events_.OnUp(*this);
    for (; !waiting_.empty(); waiting_.pop_front()) {
      echoed_.fetch_add(1, std::memory_order_relaxed);
      events_.OnPacket(*this, waiting_.front().first, waiting_.front().second);
    }
    events_.OnPacketsEnd(*this);
  }

  const RegionId region_;
  const Clock& clock_;
  derp::RegionEvents& events_;
  std::atomic<uint64_t>& echoed_;
  bool up_ = false;
  uint64_t flushes_ = 0;
  std::deque<std::pair<PublicKey, std::vector<std::byte>>> waiting_;
  derp::RegionCounters counters_;
  Timer timer_;
};

class EchoConnector final : public RelayConnector {
 public:
  EchoConnector(io::Loop* loop, TimerQueue* timers, std::atomic<uint64_t>* echoed)
      : clock_(loop->clock()), timers_(timers), echoed_(echoed) {}
  absl::Status Prepare() override { return absl::OkStatus(); }
  std::unique_ptr<derp::RegionConnection> Connect(const derp::RelayRegion& region,
                                                  const PrivateKey&,
                                                  derp::RegionEvents* events) override {
    return std::make_unique<EchoConnection>(region.region_id, &clock_, timers_, events, echoed_);
  }

 private:
  const Clock& clock_;
  TimerQueue* const timers_;
  std::atomic<uint64_t>* const echoed_;
};

// A packet is its peer's number and its own.
std::string Numbered(uint32_t peer, uint32_t number) {
  std::string bytes = Message(4, "");
  bytes.append(reinterpret_cast<const char*>(&peer), sizeof(peer));
  bytes.append(reinterpret_cast<const char*>(&number), sizeof(number));
  return bytes;
}

// Every peer's packets come back in order, on one shard.
class CheckingHandler final : public Handler {
 public:
  void OnReceive(Shard& shard, std::span<const ReceivedTrain> trains) override {
    for (const ReceivedTrain& train : trains) {
      EXPECT_EQ(train.path, PathKind::kRelay);
      for (uint32_t at = 0; at < train.packets.size; at += train.packets.segment_size) {
        uint32_t peer = 0, number = 0;
        std::memcpy(&peer, train.packets.data + at + 4, sizeof(peer));
        std::memcpy(&number, train.packets.data + at + 8, sizeof(number));
        received.fetch_add(1, std::memory_order_relaxed);
        if (train.peer == PeerId::kNone) continue;
        Seen& seen = seen_[peer];
        if (seen.shard.exchange(shard.index()) != shard.index()) ++seen.moves;
        if (seen.next.exchange(number + 1) > number) ++seen.reordered;
      }
    }
  }
  void Check() const {
    for (const Seen& seen : seen_) {
      EXPECT_EQ(seen.reordered.load(), 0u);
      EXPECT_LE(seen.moves.load(), 1u);
    }
  }
  std::atomic<uint64_t> received{0};

 private:
  struct Seen {
    std::atomic<uint32_t> shard{UINT32_MAX};
    std::atomic<uint32_t> next{0};
    std::atomic<uint32_t> moves{0};
    std::atomic<uint32_t> reordered{0};
  };
  std::array<Seen, kPeers> seen_;
};

class RelayStressTest : public testing::Test {
 protected:
  void StartEngine() {
    EngineOptions options;
    options.shards = 2;
    options.pin_threads = false;
    options.ipv6 = false;
    options.relay.ring_packets = 256;
    options.io.backend = io::Backend::kMmsg;
    internal::EngineLoops loops;
    for (int i = 0; i < 2; ++i) loops.shards.push_back(*io::CreateLoop(options.io));
    loops.control = *io::CreateLoop(options.io);
    internal::EngineParts parts;
    parts.connector = [this](io::Loop* loop, TimerQueue* timers) {
      return std::make_unique<EchoConnector>(loop, timers, &echoed_);
    };
    auto created =
        internal::EngineImpl::Create(options, &handler_, std::move(loops),
                                     internal::EngineImpl::Threads::kOwn, std::move(parts));
    ASSERT_TRUE(created.ok()) << created.status().ToString();
    engine_ = *std::move(created);
    for (uint32_t i = 0; i < kPeers; ++i) {
      peers_[i] =
          *engine_->CreateEndpoint(KeyNumber(i), i % 2 == 0 ? "127.3.3.40:1" : "127.3.3.40:2");
    }
    ASSERT_TRUE(engine_->SetRelayMap(RelayMapOf({1, 2})).ok());
    ASSERT_TRUE(engine_->SetPrivateKey(PrivateKey::Generate()).ok());
  }
  // One thread's packets, for every second peer.
  void SendAll(uint32_t first) {
    const auto sender = *engine_->NewSender();
    for (uint32_t number = 0; !stop_.load(); ++number) {
      for (uint32_t peer = first; peer < kPeers; peer += 2) {
        sender->Send(peers_[peer], TrainOf(Numbered(peer, number)));
        sent_.fetch_add(1, std::memory_order_relaxed);
      }
      sender->Flush();
      if (number % 16 == 0) std::this_thread::yield();
    }
  }
  void Change(int round) {
    switch (round % 4) {
      case 0:
        EXPECT_TRUE(engine_->SetRelayMap(std::nullopt).ok());
        EXPECT_TRUE(engine_->SetRelayMap(RelayMapOf({1, 2})).ok());
        break;
      case 1:
        EXPECT_TRUE(engine_->SetPrivateKey(PrivateKey::Generate()).ok());
        break;
      case 2: {
        std::vector<PublicKey> keys;
        for (uint32_t i = 1; i < kPeers; ++i) keys.push_back(KeyNumber(i));
        EXPECT_TRUE(engine_->UpdatePeers(keys).ok());  // without the first one, from now on
        break;
      }
      case 3:
        EXPECT_TRUE(WaitUntil([this] { return !engine_->Status().relays.empty(); }));
        EXPECT_TRUE(engine_->SetRelayMap(RelayMapOf({1, 2, 3})).ok());
        EXPECT_TRUE(engine_->SetRelayMap(RelayMapOf({1, 2})).ok());
        break;
    }
  }

  std::atomic<uint64_t> echoed_{0}, sent_{0};
  std::atomic<bool> stop_{false};
  CheckingHandler handler_;
  std::unique_ptr<internal::EngineImpl> engine_;
  std::array<PeerId, kPeers> peers_{};
};

TEST_F(RelayStressTest, EverythingComesBackOrIsCounted) {
  StartEngine();
  ASSERT_NE(engine_, nullptr);
  std::thread threads[] = {std::thread([this] { SendAll(0); }),
                           std::thread([this] { SendAll(1); })};
  // Changes now and then; in between, traffic has to get through.
  for (int round = 0; round < 12; ++round) {
    const uint64_t before = handler_.received.load();
    EXPECT_TRUE(WaitUntil([&] { return handler_.received.load() > before + 200; })) << round;
    Change(round);
  }
  // Close while packets are under way in every ring.
  engine_->Close();
  stop_.store(true);
  for (std::thread& thread : threads) thread.join();
  handler_.Check();
  const CounterSnapshot counters = engine_->Counters();
  const CounterSnapshot::Path& relay = counters.paths[static_cast<size_t>(PathKind::kRelay)];
  uint64_t ends = relay.tx_packets + relay.rx_packets;
  for (const uint64_t drop : counters.drops) ends += drop;
  EXPECT_EQ(ends, sent_.load() + echoed_.load()) << counters.ToString();
  EXPECT_EQ(relay.rx_packets, handler_.received.load());
  EXPECT_EQ(relay.rx_bytes, 12 * relay.rx_packets);
}

}  // namespace
}  // namespace ringsock
