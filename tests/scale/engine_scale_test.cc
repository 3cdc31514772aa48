// What many peers cost an engine, counted: bytes per peer, and the work of adding and removing one
// beside few and beside many others. Through core/engine.h, on one thread and in virtual time.
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "core/engine_internal.h"
#include "gtest/gtest.h"
#include "io/sim_network.h"
#include "tests/core/allocation_counter.h"
#include "tests/core/engine_fixture.h"

namespace ringsock {
namespace {

using internal::EngineImpl;

std::string Address(uint32_t net, uint32_t number) {
  return absl::StrCat(net, ".", (number >> 16) & 0xff, ".", (number >> 8) & 0xff, ".",
                      number & 0xff, ":41641");
}

class EngineScaleTest : public testing::Test {
 protected:
  EngineScaleTest() {
    const io::HostId host = net_.AddHost("gateway", {IpAddress::V4(198, 51, 100, 1)});
    EngineOptions options;
    options.port = 41641;
    internal::EngineLoops loops;
    loops.shards.push_back(net_.CreateLoop(host, options.io));
    loops.control = net_.CreateLoop(host, options.io);
    auto created = EngineImpl::Create(options, &handler_, std::move(loops),
                                      EngineImpl::Threads::kCaller, {.peers = state_});
    EXPECT_TRUE(created.ok()) << created.status().ToString();
    engine_ = *std::move(created);
  }

  // Adds peers `first` to `first + count` of two addresses each.
  void Add(uint32_t first, uint32_t count, bool relay = false) {
    std::vector<std::string> lists;
    std::vector<PeerEndpoints> peers;
    lists.reserve(count);
    for (uint32_t i = first; i < first + count; ++i) {
      lists.push_back(absl::StrCat(relay ? "127.3.3.40:1" : Address(10, i), ",", Address(11, i)));
      peers.push_back({KeyNumber(i), lists.back()});
    }
    const auto ids = engine_->CreateEndpoints(peers);
    ASSERT_TRUE(ids.ok()) << ids.status().ToString();
    ASSERT_EQ(ids->size(), count);
  }
  void Remove(uint32_t first, uint32_t count) {
    std::vector<PublicKey> keys;
    for (uint32_t i = first; i < first + count; ++i) keys.push_back(KeyNumber(i));
    ASSERT_TRUE(engine_->RemovePeers(keys).ok());
  }
  // The shard sleeps and control frees what was taken out.
  void Settle() { engine_->Step(); }
  // Allocated and not freed. The arena's own rests are not among them.
  int64_t Bytes() {
    Settle();
    return LiveBytes() + static_cast<int64_t>(state_->quiescence.memory().used());
  }
  // Taken from the system, the rests too.
  int64_t BytesTaken() const {
    return LiveBytes() + static_cast<int64_t>(state_->quiescence.memory().reserved());
  }

  io::SimNetwork net_{20260101};
  KeepingHandler handler_;
  std::shared_ptr<internal::PeerState> state_ = std::make_shared<internal::PeerState>(1u << 20);
  std::unique_ptr<EngineImpl> engine_;
};

// A peer is 192 bytes with its two addresses; its entries in the table of IPv4 addresses are 16
// each and the one by key is 9, in slots that are two to four fifths full; an id is a word.
TEST_F(EngineScaleTest, APeerOfTwoEndpointsTakesAtMost320Bytes) {
  constexpr int64_t kPeers = 100000;
  constexpr int64_t kBytesPerPeer = 320;
  const int64_t before = Bytes();
  for (uint32_t first = 0; first < kPeers; first += 1000) {
    Add(first, 1000);
    const int64_t peers = first + 1000;
    if (peers < 10000) continue;  // ids come by the 4096
    ASSERT_LE(Bytes() - before, kBytesPerPeer * peers) << "with " << peers;
    if (peers < 65536) continue;  // memory comes in pages of 2 MiB
    ASSERT_LE(BytesTaken() - before, kBytesPerPeer * peers) << "with " << peers;
  }
  const int64_t after = Bytes();
  RecordProperty("bytes_per_peer", absl::StrCat((after - before) / kPeers));
  std::printf("%lld bytes per peer, %lld with what waits for others\n",
              static_cast<long long>((after - before) / kPeers),
              static_cast<long long>((BytesTaken() - before) / kPeers));
  // And they come back, but for the places of ids and the tables' directories.
  Remove(0, kPeers);
  EXPECT_LE(Bytes() - before, 16 * kPeers);
  EXPECT_TRUE(engine_->Status().peers.empty());
}

TEST_F(EngineScaleTest, ARelayedPeerTakesNoMore) {
  constexpr int64_t kPeers = 20000;
  const int64_t before = Bytes();
  Add(0, kPeers, /*relay=*/true);
  EXPECT_LE(Bytes() - before, 320 * kPeers);
}

// Adding and removing one peer many times allocates as much and as often beside 50,000 others as
// beside 50. (That it takes no more instructions: instruction_count_test.)
TEST_F(EngineScaleTest, OnePeerMoreCostsTheSameBesideManyOthers) {
  constexpr uint32_t kTimes = 2000;
  const auto allocations = [this](uint32_t others) {
    const std::vector<PublicKey> key = {KeyNumber(others)};
    const std::string list = absl::StrCat(Address(10, others), ",", Address(11, others));
    CountAllocations(true);
    const uint64_t before = Allocations();
    for (uint32_t i = 0; i < kTimes; ++i) {
      EXPECT_TRUE(engine_->CreateEndpoint(key[0], list).ok());
      EXPECT_TRUE(engine_->RemovePeers(key).ok());
      Settle();
    }
    CountAllocations(false);
    return Allocations() - before;
  };
  Add(0, 50);
  const uint64_t few = allocations(50);
  Add(50, 49950);
  const uint64_t many = allocations(50000);
  EXPECT_LE(many, few + kTimes / 10);
  EXPECT_GT(few, kTimes);  // the peer itself
}

// Also those of one call that is refused half way leave nothing behind.
TEST_F(EngineScaleTest, AListWithAFaultCreatesThePeersBeforeIt) {
  const std::string good = Address(10, 1), bad = "10.0.0.1:0";
  const std::vector<PeerEndpoints> peers = {
      {KeyNumber(1), good}, {KeyNumber(2), ""}, {KeyNumber(3), bad}, {KeyNumber(4), ""}};
  const auto ids = engine_->CreateEndpoints(peers);
  EXPECT_EQ(ids.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(std::string(ids.status().message()).find("peer 2 of the list"), std::string::npos)
      << ids.status().ToString();
  EXPECT_EQ(engine_->Status().peers.size(), 2u);

  const std::vector<PeerEndpoints> zero = {{KeyNumber(5), ""}, {PublicKey{}, ""}};
  EXPECT_FALSE(engine_->CreateEndpoints(zero).ok());
  EXPECT_EQ(engine_->Status().peers.size(), 3u);
  EXPECT_TRUE(engine_->CreateEndpoints({})->empty());
}

}  // namespace
}  // namespace ringsock
