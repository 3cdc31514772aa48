// Relay routes with fake connections, a clock and peers, for relay_routes_test.cc and
// relay_home_test.cc.
#ifndef RINGSOCK_TESTS_CORE_RELAY_ROUTES_FIXTURE_H_
#define RINGSOCK_TESTS_CORE_RELAY_ROUTES_FIXTURE_H_

#include <optional>
#include <string>
#include <vector>

#include "core/relay_routes.h"
#include "gtest/gtest.h"
#include "tests/core/engine_fixture.h"
#include "tests/core/fake_relays.h"

namespace ringsock {
using Texts = std::vector<std::string>;
using Regions = std::vector<RegionId>;

// Every key but those of numbers from 100 on is a peer's.
class KeepingReceiver final : public RelayReceiver {
 public:
  bool OnRelayed(RegionId region, const PublicKey& source,
                 std::span<const std::byte> packet) override {
    got.push_back(absl::StrCat(
        region, ":", std::string(reinterpret_cast<const char*>(packet.data()), packet.size())));
    return source < KeyNumber(100);
  }
  void OnRelayedEnd() override { ++ends; }
  Texts got;
  int ends = 0;
};

class RelayRoutesTest : public testing::Test {
 protected:
  RelayRoutes& Start(const RelayRoutesOptions& options = {}) {
    routes_.emplace(
        options, &clock_,
        [this](const derp::RelayRegion& region, const PrivateKey& key, derp::RegionEvents* events) {
          return relays_.Connect(region, key, events);
        },
        &receiver_, &counters_);
    return *routes_;
  }
  // With these regions and a key; the home is up.
  RelayRoutes& StartWith(const Regions& regions, const RelayRoutesOptions& options = {}) {
    Start(options);
    routes_->SetMap(RelayMapOf(regions));
    routes_->SetPrivateKey(PrivateKey::Generate());
    EXPECT_NE(relays_.at(routes_->home()), nullptr);
    relays_.at(routes_->home())->Up();
    return *routes_;
  }
  void Send(RegionId region, uint32_t peer, const std::string& bytes, size_t segment = 0) {
    const PacketTrain train = TrainOf(bytes, segment);
    counters_.AddTx(PathKind::kRelay, (train.size - 1) / train.segment_size + 1, train.size);
    routes_->Send(region, KeyNumber(peer), train);
    routes_->Flush();
  }
  void Wait(Duration time) {
    clock_.Advance(time);
    if (routes_->NextDeadline() <= clock_.Now()) routes_->Advance();
  }
  uint64_t Dropped(Drop drop) {
    routes_->CountDrops();
    return counters_.Snapshot().drops[static_cast<size_t>(drop)];
  }
  CounterSnapshot::Path Relayed() {
    routes_->CountDrops();
    return counters_.Snapshot().paths[static_cast<size_t>(PathKind::kRelay)];
  }

  ManualClock clock_;
  FakeRelays relays_;
  KeepingReceiver receiver_;
  ShardCounters counters_;
  std::optional<RelayRoutes> routes_;
};

}  // namespace ringsock

#endif  // RINGSOCK_TESTS_CORE_RELAY_ROUTES_FIXTURE_H_
