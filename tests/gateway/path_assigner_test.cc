// Giving out loopback addresses: stable while used, bounded, and safe from floods.
#include "gateway/path_assigner.h"

#include <map>
#include <set>
#include <vector>

#include <gtest/gtest.h>

namespace ringsock::gateway {
namespace {

using std::chrono::seconds;

constexpr char kCidr[] = "127.100.0.0/24";

Endpoint Source(uint32_t n) {
  Endpoint endpoint;
  endpoint.ip = IpAddress::V4((198u << 24) | n);
  endpoint.port = 7;
  return endpoint;
}

PathKey KeyFor(uint32_t n) { return PathKey::Of(Source(n), kNoPeer); }

class PathAssignerTest : public testing::Test {
 protected:
  PathAssignerTest() {
    peers_.resize(4);
    for (uint32_t i = 0; i < peers_.size(); ++i) {
      peers_[i].key.bytes[0] = static_cast<uint8_t>(i + 1);
      peers_[i].endpoints = {Source(1000 + i)};
    }
    addresses_ = std::move(*PathAddresses::Create(*LoopbackRange::Parse(kCidr), peers_));
  }

  PathAssigner Make(uint32_t shard = 0, uint32_t shards = 1) {
    return PathAssigner(addresses_.get(), shard, shards, limits_);
  }

  // As for a packet: the address the path has, else a new one.
  AddressOffset Get(PathAssigner& assigner, uint32_t n, PeerIndex owner, PathClass kind,
                    Instant now) {
    const AddressOffset offset = assigner.Lookup(KeyFor(n), now);
    return offset != kNoAddress ? offset : assigner.Assign(KeyFor(n), owner, kind, now);
  }
  AddressOffset Get(PathAssigner& assigner, uint32_t n, PeerIndex owner, bool known, Instant now) {
    return Get(assigner, n, owner, known ? PathClass::kLive : PathClass::kUnknown, now);
  }

  // WireGuard sends to an address.
  void Answer(AddressOffset offset) {
    ASSERT_TRUE(addresses_->MarkAnswered(addresses_->Read(offset)));
    addresses_->Touch(offset, now_);
  }

  std::vector<PeerConfig> peers_;
  std::unique_ptr<PathAddresses> addresses_;
  AssignerLimits limits_ = {.pending = 10, .live = 20, .quarantine_s = 3, .idle_s = 180};
  Instant now_{std::chrono::hours(1)};
};

TEST_F(PathAssignerTest, OneAddressPerPathAndStable) {
  PathAssigner assigner = Make();
  std::set<AddressOffset> offsets;
  for (uint32_t n = 0; n < 10; ++n) offsets.insert(Get(assigner, n, kNoPeer, false, now_));
  EXPECT_EQ(offsets.size(), 10u);
  EXPECT_FALSE(offsets.contains(kNoAddress));
  for (uint32_t n = 0; n < 10; ++n) {
    const AddressOffset offset = Get(assigner, n, kNoPeer, false, now_);
    EXPECT_TRUE(offsets.contains(offset));
    EXPECT_EQ(addresses_->Read(offset).path, Source(n));
  }
  EXPECT_EQ(assigner.pending(), 10u);
}

TEST_F(PathAssignerTest, ConfiguredPathsHaveTheirs) {
  PathAssigner assigner = Make();
  const AddressOffset offset = Get(assigner, 1002, 2, true, now_);
  EXPECT_EQ(offset, addresses_->Configured(KeyFor(1002)));
  EXPECT_EQ(assigner.live() + assigner.pending(), 0u);
}

// A flood of unknown sources: bounded, and nobody's live address changes.
TEST_F(PathAssignerTest, FloodTakesNothingFromTheLive) {
  PathAssigner assigner = Make();
  std::map<uint32_t, AddressOffset> live;
  for (uint32_t n = 0; n < 5; ++n) live[n] = Get(assigner, n, 1, true, now_);
  for (uint32_t n = 5; n < 9; ++n) {
    live[n] = Get(assigner, n, kNoPeer, false, now_);
    Answer(live[n]);
  }
  uint32_t refused = 0;
  for (uint32_t n = 100; n < 10'000; ++n) {
    if (n % 100 == 0) now_ += seconds(1);
    if (Get(assigner, n, kNoPeer, false, now_) == kNoAddress) ++refused;
  }
  EXPECT_GT(refused, 9000u);
  EXPECT_LT(refused, 9900u);
  for (const auto& [n, offset] : live) {
    EXPECT_EQ(Get(assigner, n, kNoPeer, false, now_), offset);
    EXPECT_EQ(addresses_->Read(offset).path, Source(n));
  }
  EXPECT_LE(assigner.pending(), assigner.limit(PathClass::kUnknown));
}

// A flood of one kind of source takes no address that another kind could have.
TEST_F(PathAssignerTest, FloodTakesNothingFromOtherClasses) {
  limits_.pending = limits_.live = 1000;
  for (const PathClass flood :
       {PathClass::kUnknown, PathClass::kHandshake, PathClass::kRecognised}) {
    PathAssigner assigner = Make();
    uint32_t n = 0;
    while (Get(assigner, n, kNoPeer, flood, now_) != kNoAddress) ++n;
    EXPECT_EQ(assigner.size(flood), assigner.limit(flood));
    for (const PathClass other :
         {PathClass::kUnknown, PathClass::kHandshake, PathClass::kRecognised, PathClass::kLive}) {
      if (other == flood) continue;
      EXPECT_GT(assigner.limit(other), 10u);
      for (uint32_t i = 0; i < assigner.limit(other); ++i) {
        ASSERT_NE(Get(assigner, ++n, kNoPeer, other, now_), kNoAddress) << i;
      }
    }
    addresses_ = std::move(*PathAddresses::Create(*LoopbackRange::Parse(kCidr), peers_));
  }
}

// WireGuard still uses an address of a former life: no source gets it.
TEST_F(PathAssignerTest, WhatWireGuardUsesIsNotGivenOut) {
  limits_.pending = limits_.live = 1000;
  std::set<AddressOffset> used;
  for (AddressOffset offset = 1; offset < 100; ++offset) {
    if (addresses_->Read(offset).kind != AddressKind::kFree) continue;
    addresses_->MarkHeard(offset);
    used.insert(offset);
  }
  PathAssigner assigner = Make();
  uint32_t given = 0;
  for (uint32_t n = 0; n < 500; ++n) {
    const AddressOffset offset = Get(assigner, n, 1, n % 2 == 0, now_);
    given += offset != kNoAddress ? 1 : 0;
    EXPECT_FALSE(used.contains(offset));
  }
  EXPECT_GT(given, 80u);
}

// An answer that is on its way must not meet another source.
TEST_F(PathAssignerTest, QuarantineBeforeReuse) {
  PathAssigner assigner = Make();
  std::vector<AddressOffset> first;
  for (uint32_t n = 0; n < 10; ++n) {
    first.push_back(Get(assigner, n, kNoPeer, false, now_));
  }
  EXPECT_EQ(Get(assigner, 50, kNoPeer, false, now_ + seconds(2)), kNoAddress);
  // The oldest unused goes first; the very oldest is still in use.
  Get(assigner, 0, kNoPeer, false, now_ + seconds(2));
  const AddressOffset reused = Get(assigner, 50, kNoPeer, false, now_ + seconds(3));
  EXPECT_EQ(reused, first[1]);
  EXPECT_EQ(addresses_->Read(reused).path, Source(50));
  EXPECT_EQ(Get(assigner, 0, kNoPeer, false, now_ + seconds(3)), first[0]);
}

TEST_F(PathAssignerTest, LiveAreReusedOnlyWhenIdleAndNotCurrent) {
  PathAssigner assigner = Make();
  std::vector<AddressOffset> first;
  for (uint32_t n = 0; n < 20; ++n) first.push_back(Get(assigner, n, 1, true, now_));
  addresses_->SetCurrent(1, first[0]);
  EXPECT_EQ(Get(assigner, 50, 1, true, now_ + seconds(179)), kNoAddress);
  const AddressOffset reused = Get(assigner, 51, 1, true, now_ + seconds(180));
  EXPECT_EQ(addresses_->Read(reused).path, Source(51));
  EXPECT_NE(reused, first[0]);
  EXPECT_EQ(Get(assigner, 0, 1, true, now_ + seconds(180)), first[0]);
  EXPECT_EQ(assigner.live(), 20u);
}

// Many answered ones, more than the live may be: the idle of the live make room.
TEST_F(PathAssignerTest, AnsweredBecomeLive) {
  PathAssigner assigner = Make();
  for (uint32_t n = 0; n < 200; ++n) {
    now_ += seconds(200);
    const AddressOffset offset = Get(assigner, n, kNoPeer, false, now_);
    ASSERT_NE(offset, kNoAddress) << n;
    EXPECT_EQ(addresses_->Read(offset).path, Source(n));
    EXPECT_FALSE(addresses_->Read(offset).answered);
    Answer(offset);
  }
  EXPECT_LE(assigner.live(), 20u);
  EXPECT_LE(assigner.pending(), 10u);
}

TEST_F(PathAssignerTest, ShardsNeverShareAnAddress) {
  limits_.pending = limits_.live = 1000;
  std::set<AddressOffset> offsets;
  uint32_t given = 0;
  for (uint32_t shard = 0; shard < 3; ++shard) {
    PathAssigner assigner = Make(shard, 3);
    for (uint32_t n = 0; n < 300; ++n) {
      const AddressOffset offset = Get(assigner, n, 1, n % 4 != 0, now_);
      if (offset == kNoAddress) continue;
      ++given;
      offsets.insert(offset);
      EXPECT_NE(offset, 0u);
      EXPECT_NE(offset, addresses_->size() - 1);
    }
  }
  EXPECT_EQ(offsets.size(), given);
  EXPECT_GT(given, 150u);
}

// The map stays whole over many insertions and removals: every path that has an address keeps it.
TEST_F(PathAssignerTest, ManyReuses) {
  PathAssigner assigner = Make();
  std::map<AddressOffset, uint32_t> meaning;
  for (uint32_t n = 0; n < 5000; ++n) {
    now_ += seconds(n % 7 == 0 ? 200 : 1);
    const bool known = n % 3 == 0;
    const AddressOffset offset = Get(assigner, n, known ? 1 : kNoPeer, known, now_);
    if (offset == kNoAddress) continue;
    meaning[offset] = n;
    if (n % 10 != 0) continue;
    for (const auto& [where, source] : meaning) {
      ASSERT_EQ(Get(assigner, source, kNoPeer, false, now_), where);
    }
  }
}

}  // namespace
}  // namespace ringsock::gateway
