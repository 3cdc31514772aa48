// After the first packets, shards allocate nothing: every operator new on their threads is counted.
#include <atomic>
#include <cstdlib>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include "core/engine.h"
#include "gtest/gtest.h"
#include "tests/core/engine_fixture.h"

namespace {

thread_local bool counting = false;
std::atomic<uint64_t> allocations{0};

void* Allocate(size_t size, size_t alignment = alignof(std::max_align_t)) {
  if (counting) allocations.fetch_add(1, std::memory_order_relaxed);
  const size_t rounded = (std::max<size_t>(size, 1) + alignment - 1) / alignment * alignment;
  if (void* memory = std::aligned_alloc(alignment, rounded)) return memory;
  std::abort();
}

}  // namespace

void* operator new(size_t size) { return Allocate(size); }
void* operator new[](size_t size) { return Allocate(size); }
void* operator new(size_t size, std::align_val_t alignment) {
  return Allocate(size, static_cast<size_t>(alignment));
}
void* operator new[](size_t size, std::align_val_t alignment) {
  return Allocate(size, static_cast<size_t>(alignment));
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete[](void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, size_t) noexcept { std::free(memory); }
void operator delete[](void* memory, size_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { std::free(memory); }
void operator delete[](void* memory, std::align_val_t) noexcept { std::free(memory); }
void operator delete(void* memory, size_t, std::align_val_t) noexcept { std::free(memory); }
void operator delete[](void* memory, size_t, std::align_val_t) noexcept { std::free(memory); }

namespace ringsock {
namespace {

class Echo final : public Handler {
 public:
  absl::Status OnShardStart(Shard&) override {
    counting = true;
    return absl::OkStatus();
  }
  void OnShardStop(Shard&) override { counting = false; }
  void OnReceive(Shard& shard, std::span<const ReceivedTrain> trains) override {
    for (const ReceivedTrain& train : trains) {
      if (train.peer == PeerId::kNone) {
        shard.SendTo(train.from, train.packets);
      } else {
        shard.ConfirmPath(train.peer, train.from);
        shard.Send(train.peer, train.packets);
      }
    }
  }
};

class AllocationTest : public testing::TestWithParam<io::Backend> {};

TEST_P(AllocationTest, NoneOnThePacketPath) {
  EngineOptions options;
  options.shards = 1;
  options.pin_threads = false;
  options.io.backend = GetParam();
  if (const auto loop = io::CreateLoop(options.io); !loop.ok()) {
    GTEST_SKIP() << loop.status().ToString();
  }
  Echo handler;
  auto engine = Engine::Start(options, &handler);
  ASSERT_TRUE(engine.ok()) << engine.status().ToString();
  RemoteHost known, other, stranger;
  const PeerId peer = *(*engine)->CreateEndpoint(
      KeyNumber(1), absl::StrCat("127.3.3.40:1,", other.text(), ",", known.text()));
  const PeerId second = *(*engine)->CreateEndpoint(KeyNumber(2), other.text());
  // A relay that nobody runs: packets for it go as far as control.
  derp::RelayMap map;
  map.regions[1] = {.region_id = 1, .region_code = "none", .region_name = "", .nodes = {}};
  derp::RelayNode node;
  node.region_id = 1;
  node.host_name = "127.0.0.1";
  node.ipv4 = "127.0.0.1";
  node.derp_port = 1;
  map.regions[1].nodes.push_back(node);
  ASSERT_TRUE((*engine)->SetRelayMap(map).ok());
  ASSERT_TRUE((*engine)->SetPrivateKey(PrivateKey::Generate()).ok());
  const PeerId relayed = *(*engine)->CreateEndpoint(KeyNumber(3), "127.3.3.40:1");
  auto sender = *(*engine)->NewSender();
  std::string stun("\0\1\0\0\x21\x12\xa4\x42", 8);
  stun.resize(20, 'i');

  // Everything the packet path can be asked: echoes of both kinds, STUN, nothing, sprays, senders'
  // packets for two peers in turn (which are gathered), a roaming peer and one that is not there.
  const auto exercise = [&] {
    for (int i = 0; i < 20; ++i) known.Send((*engine)->port(), Message(4, "echo"));
    for (int i = 0; i < 20; ++i) known.Receive();
    stranger.Send((*engine)->port(), Message(4, "stranger"));
    stranger.Receive();
    stranger.Send((*engine)->port(), stun);
    stranger.Send((*engine)->port(), "");
    (*engine)->ConfirmPath(second, stranger.endpoint());
    for (int i = 0; i < 10; ++i) {
      sender->Send(peer, TrainOf(Message(i == 5 ? 1 : 4, "out")));
      sender->Send(second, TrainOf(Message(4, "roaming")));
      sender->Send(relayed, TrainOf(Message(4, "relay")));
      sender->Send(PeerId{999}, TrainOf(Message(4, "nobody")));
    }
    sender->Flush();
    for (int i = 0; i < 10; ++i) stranger.Receive();
    known.Receive();
    known.Drain();
    other.Drain();
  };
  for (int i = 0; i < 20; ++i) exercise();
  const uint64_t before = allocations.load();
  for (int i = 0; i < 200; ++i) exercise();
  EXPECT_EQ(allocations.load() - before, 0u);
  const CounterSnapshot counters = (*engine)->Counters();
  EXPECT_EQ(counters.drops[static_cast<size_t>(Drop::kTxUnknownPeer)], 2200u);
  // All of them were taken by the ring.
  EXPECT_EQ(counters.drops[static_cast<size_t>(Drop::kTxQueueFull)], 0u);
}

INSTANTIATE_TEST_SUITE_P(All, AllocationTest,
                         testing::Values(io::Backend::kMmsg, io::Backend::kUring),
                         [](const testing::TestParamInfo<io::Backend>& info) {
                           return info.param == io::Backend::kUring ? "Uring" : "Mmsg";
                         });

}  // namespace
}  // namespace ringsock
