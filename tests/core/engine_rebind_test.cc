// Rebinds on real sockets: under full load in both directions nothing is lost, nobody sees an
// error, the port stays; and rebinds that meet each other, peers that come and go, and the end.
#include <atomic>
#include <cstring>
#include <fstream>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "core/engine.h"
#include "gtest/gtest.h"
#include "tests/core/engine_fixture.h"

namespace ringsock {
namespace {

// Packets that one side may be ahead of the other: what the kernel has no room for would blur the
// count. The smallest socket buffer that a host may insist on holds some 250.
constexpr uint64_t kWindow = 200;

// Counts, and answers nothing.
class Counting final : public Handler {
 public:
  void OnReceive(Shard&, std::span<const ReceivedTrain> trains) override {
    for (const ReceivedTrain& train : trains) {
      const uint32_t size = train.packets.segment_size;
      received.fetch_add((train.packets.size + size - 1) / size);
    }
  }
  std::atomic<uint64_t> received{0};
};

// Runs `turn` on a thread until the end.
class Repeating {
 public:
  template <typename Turn>
  explicit Repeating(Turn turn)
      : thread_([this, turn = std::move(turn)]() mutable {
          while (!stop_.load(std::memory_order_relaxed)) turn();
        }) {}
  ~Repeating() { Stop(); }
  void Stop() {
    stop_.store(true);
    if (thread_.joinable()) thread_.join();
  }

 private:
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

struct Param {
  io::Backend backend;
  bool v6;
  uint32_t shards;
};

class EngineRebindTest : public testing::TestWithParam<Param> {
 protected:
  void SetUp() override {
    options_.shards = GetParam().shards;
    options_.pin_threads = false;
    options_.ipv4 = !GetParam().v6;
    options_.ipv6 = GetParam().v6;
    options_.network.watch_links = false;
    options_.io.backend = GetParam().backend;
    if (const auto loop = io::CreateLoop(options_.io); !loop.ok()) {
      GTEST_SKIP() << loop.status().ToString();
    }
  }
  void Start(Handler* handler) {
    auto started = Engine::Start(options_, handler);
    ASSERT_TRUE(started.ok()) << started.status().ToString();
    engine_ = *std::move(started);
  }
  uint64_t Dropped(Drop drop) { return engine_->Counters().drops[static_cast<size_t>(drop)]; }

  EngineOptions options_;
  Counting handler_;  // outlives the engine
  KeepingHandler keeping_;
  std::unique_ptr<Engine> engine_;
};

// spec: EP-8
TEST_P(EngineRebindTest, LosesNothingUnderFullLoad) {
  constexpr int kRebinds = 50;
  constexpr size_t kHosts = 4;
  Start(&handler_);
  ASSERT_NE(engine_, nullptr);
  const uint16_t port = engine_->port();
  std::vector<std::unique_ptr<RemoteHost>> hosts;
  std::vector<PeerId> peers;
  for (uint32_t i = 0; i < kHosts; ++i) {
    hosts.push_back(std::make_unique<RemoteHost>(GetParam().v6));
    peers.push_back(*engine_->CreateEndpoint(KeyNumber(i), hosts[i]->text()));
  }
  const std::string data = Message(4, std::string(196, 'x'));

  std::atomic<uint64_t> sent_in{0}, sent_out{0}, received_out{0};
  Repeating inbound([&, next = size_t{0}]() mutable {
    if (sent_in.load() > handler_.received.load() + kWindow) return std::this_thread::yield();
    hosts[next++ % kHosts]->Send(port, data);  // fails the test on an error
    sent_in.fetch_add(1);
  });
  auto sender = *engine_->NewSender();
  Repeating outbound([&, next = size_t{0}]() mutable {
    if (sent_out.load() > received_out.load() + kWindow) return std::this_thread::yield();
    EXPECT_EQ(sender->Send(peers[next++ % kHosts], TrainOf(data)), SendResult::kOk);
    sender->Flush();
    sent_out.fetch_add(1);
  });
  Repeating receiving([&] {
    for (auto& host : hosts) {
      while (!host->Empty()) received_out.fetch_add(1);
    }
    std::this_thread::yield();
  });

  for (int i = 0; i < kRebinds; ++i) {
    const uint64_t in = handler_.received.load(), out = received_out.load();
    ASSERT_TRUE(WaitUntil([&] {
      return handler_.received.load() > in + 50 && received_out.load() > out + 50;
    })) << "traffic both ways, rebind "
        << i;
    const absl::Status status = engine_->Rebind("test");
    ASSERT_TRUE(status.ok()) << status.ToString();
  }
  inbound.Stop();
  outbound.Stop();
  EXPECT_TRUE(WaitUntil([&] { return handler_.received.load() == sent_in.load(); }))
      << "sent to it " << sent_in << ", received " << handler_.received << "; "
      << engine_->Counters().ToString();
  EXPECT_TRUE(WaitUntil([&] { return received_out.load() >= sent_out.load(); }))
      << "sent by it " << sent_out << ", received " << received_out << "; "
      << engine_->Counters().ToString();
  receiving.Stop();
  EXPECT_EQ(engine_->port(), port);
  const EngineStatus status = engine_->Status();
  EXPECT_EQ(status.port, port);
  EXPECT_EQ(status.rebinds, uint64_t{kRebinds});
  EXPECT_EQ(status.last_rebind, "rebind (test): 0 packets in old sockets lost");
  EXPECT_EQ(Dropped(Drop::kRxRebind), 0u);
  RecordProperty("inbound", std::to_string(sent_in.load()));
  RecordProperty("outbound", std::to_string(sent_out.load()));
}

// Packets that the kernel had no room for between a device and the sockets, of all that runs here.
uint64_t BacklogDrops() {
  std::ifstream file("/proc/net/softnet_stat");
  uint64_t sum = 0;
  for (std::string line; std::getline(file, line);) {
    uint64_t processed = 0, dropped = 0;
    std::istringstream(line) >> std::hex >> processed >> dropped;
    sum += dropped;
  }
  return sum;
}

// More comes than the sockets hold. What the kernel has dropped is counted, what was lost with old
// sockets too, and all else arrives.
TEST_P(EngineRebindTest, AccountsForEveryPacketOfAFlood) {
  constexpr int kRebinds = 10;
  options_.socket_buffer = 1 << 16;
  Start(&handler_);
  ASSERT_NE(engine_, nullptr);
  const uint64_t backlog = BacklogDrops();
  const uint16_t port = engine_->port();
  const std::string data = Message(4, std::string(196, 'x'));
  std::atomic<uint64_t> sent{0};
  RemoteHost first(GetParam().v6), second(GetParam().v6);
  ASSERT_TRUE(engine_->CreateEndpoint(KeyNumber(1), first.text()).ok());
  ASSERT_TRUE(engine_->CreateEndpoint(KeyNumber(2), second.text()).ok());
  const auto flood = [&](RemoteHost& host) {
    return [&] {
      host.Send(port, data);
      sent.fetch_add(1);
    };
  };
  Repeating one(flood(first)), two(flood(second));
  for (int i = 0; i < kRebinds; ++i) {
    const uint64_t before = handler_.received.load();
    ASSERT_TRUE(WaitUntil([&] { return handler_.received.load() > before + 500; }));
    const absl::Status status = engine_->Rebind("test");
    ASSERT_TRUE(status.ok()) << status.ToString();
  }
  one.Stop();
  two.Stop();
  const auto missing = [&] {
    return sent.load() - handler_.received.load() - Dropped(Drop::kRxKernel) -
           Dropped(Drop::kRxRebind);
  };
  // A core that had chosen the old socket for a packet may find it full after its drops were read:
  // one packet of each sender when a socket is replaced.
  constexpr uint64_t kInHand = 2 * kRebinds;
  EXPECT_TRUE(WaitUntil([&] { return missing() <= BacklogDrops() - backlog + kInHand; }))
      << "sent " << sent << ", received " << handler_.received << ", " << BacklogDrops() - backlog
      << " dropped before the sockets; " << engine_->Counters().ToString();
  RecordProperty("sent", std::to_string(sent.load()));
  RecordProperty("dropped", std::to_string(Dropped(Drop::kRxKernel)));
  RecordProperty("lost", std::to_string(Dropped(Drop::kRxRebind)));
}

TEST_P(EngineRebindTest, ManyAtOnceAndAnEndInTheMiddle) {
  Start(&handler_);
  ASSERT_NE(engine_, nullptr);
  RemoteHost host(GetParam().v6);
  const auto peer = engine_->CreateEndpoint(KeyNumber(1), host.text());
  ASSERT_TRUE(peer.ok());
  std::atomic<int> done{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      // Until the engine is closed.
      while (engine_->Rebind("test").ok()) done.fetch_add(1);
    });
  }
  EXPECT_TRUE(WaitUntil([&] { return done.load() > 40; }));
  for (uint32_t i = 0; i < 50; ++i) {
    EXPECT_TRUE(engine_->CreateEndpoint(KeyNumber(2 + i), host.text()).ok());
    engine_->LinkChanged("test");
    if (i % 10 == 9) {
      EXPECT_TRUE(engine_->UpdatePeers({}).ok());
    }
  }
  EXPECT_TRUE(WaitUntil([&] { return engine_->Status().link_changes > 0; }));
  engine_->Close();
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(engine_->Rebind("late").code(), absl::StatusCode::kFailedPrecondition);
  engine_->LinkChanged("late");
}

// It would have to wait for its own shard.
TEST_P(EngineRebindTest, NotFromAHandler) {
  std::atomic<int> code{-1};
  Start(&keeping_);
  ASSERT_NE(engine_, nullptr);
  keeping_.SetReaction([&](Shard&, const ReceivedTrain&) {
    code.store(static_cast<int>(engine_->Rebind("from a handler").code()));
    engine_->LinkChanged("from a handler");
  });
  RemoteHost host(GetParam().v6);
  host.Send(engine_->port(), Message(4, "hello"));
  keeping_.WaitFor(1);
  EXPECT_EQ(code.load(), static_cast<int>(absl::StatusCode::kFailedPrecondition));
  EXPECT_TRUE(WaitUntil([&] { return engine_->Status().link_changes == 1; }));
  engine_->Close();
}

INSTANTIATE_TEST_SUITE_P(
    All, EngineRebindTest,
    testing::Values(Param{io::Backend::kMmsg, false, 2}, Param{io::Backend::kMmsg, true, 1},
                    Param{io::Backend::kUring, false, 2}, Param{io::Backend::kUring, false, 1},
                    Param{io::Backend::kUring, true, 2}),
    [](const testing::TestParamInfo<Param>& info) {
      return absl::StrCat(info.param.backend == io::Backend::kUring ? "Uring" : "Mmsg",
                          info.param.v6 ? "V6" : "V4", "Shards", info.param.shards);
    });

}  // namespace
}  // namespace ringsock
