// The table of loopback addresses: what an address means, and who may change it.
#include "gateway/path_addresses.h"

#include <algorithm>
#include <atomic>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

namespace ringsock::gateway {
namespace {

const Instant kStart{std::chrono::hours(5)};

Endpoint Source(uint32_t n) {
  Endpoint endpoint;
  endpoint.ip = IpAddress::V4((198u << 24) | n);
  endpoint.port = static_cast<uint16_t>(1000 + n % 50'000);
  return endpoint;
}

PathKey KeyFor(uint32_t n) { return PathKey::Of(Source(n), kNoPeer); }

std::vector<PeerConfig> Peers(uint32_t count, uint32_t endpoints) {
  std::vector<PeerConfig> peers(count);
  for (uint32_t i = 0; i < count; ++i) {
    peers[i].key = PrivateKey::Generate().Public();
    for (uint32_t e = 0; e < endpoints; ++e) peers[i].endpoints.push_back(Source(i * 100 + e));
  }
  return peers;
}

LoopbackRange Range(const char* cidr) { return *LoopbackRange::Parse(cidr); }

std::unique_ptr<PathAddresses> Make(const std::vector<PeerConfig>& peers,
                                    const char* cidr = "127.100.0.0/16") {
  return std::move(*PathAddresses::Create(Range(cidr), peers));
}

TEST(PathAddressesTest, HomesAndConfiguredPaths) {
  const std::vector<PeerConfig> peers = Peers(100, 2);
  const auto addresses = Make(peers);
  std::set<AddressOffset> used;
  for (PeerIndex i = 0; i < peers.size(); ++i) {
    const PathAddress home = addresses->Read(addresses->Home(i));
    EXPECT_EQ(home.kind, AddressKind::kHome);
    EXPECT_EQ(home.owner, i);
    used.insert(home.offset);
    for (const Endpoint& endpoint : peers[i].endpoints) {
      const AddressOffset offset = addresses->Configured(PathKey::Of(endpoint, i));
      ASSERT_NE(offset, kNoAddress);
      const PathAddress path = addresses->Read(offset);
      EXPECT_EQ(path.kind, AddressKind::kPath);
      EXPECT_EQ(path.owner, i);
      EXPECT_EQ(path.path, endpoint);
      EXPECT_TRUE(path.answered);
      used.insert(offset);
    }
  }
  EXPECT_EQ(used.size(), 300u);
  EXPECT_FALSE(used.contains(0));
  EXPECT_FALSE(used.contains(65535));
  EXPECT_EQ(addresses->Configured(KeyFor(77'777)), kNoAddress);
}

// A gateway that restarts, perhaps with its peers in another order, means the same by an address.
TEST(PathAddressesTest, StableOverRestarts) {
  std::vector<PeerConfig> peers = Peers(50, 2);
  const auto before = Make(peers);
  std::vector<PeerConfig> reversed(peers.rbegin(), peers.rend());
  const auto after = Make(reversed);
  for (PeerIndex i = 0; i < peers.size(); ++i) {
    EXPECT_EQ(before->Home(i), after->Home(49 - i));
  }
  // What operators have in their files: not to change with a version.
  std::vector<PeerConfig> one(1);
  one[0].key = *PublicKey::Parse("Cp12ZWOjLKjkJaudNvN1GFTIACpxpTFCmRgdJxVCPHk=");
  const auto addresses = Make(one);
  EXPECT_EQ(addresses->Address(addresses->Home(0)).ToString(), "127.100.64.245");
}

TEST(PathAddressesTest, FullSmallRange) {
  const std::vector<PeerConfig> peers = Peers(4, 1);
  const auto addresses = Make(peers, "127.100.0.16/28");
  for (PeerIndex i = 0; i < 4; ++i) {
    EXPECT_EQ(addresses->Read(addresses->Home(i)).owner, i);
    EXPECT_NE(addresses->Configured(PathKey::Of(peers[i].endpoints[0], i)), kNoAddress);
  }
  EXPECT_EQ(addresses->OffsetOf(IpAddress::V4(127, 100, 0, 15)), kNoAddress);
  EXPECT_EQ(addresses->OffsetOf(IpAddress::V4(127, 100, 0, 16)), 0u);
  EXPECT_EQ(addresses->OffsetOf(IpAddress::V4(127, 100, 0, 31)), 15u);
  EXPECT_EQ(addresses->OffsetOf(IpAddress::V4(127, 100, 0, 32)), kNoAddress);
  EXPECT_EQ(addresses->OffsetOf(IpAddress::AnyV6()), kNoAddress);
}

TEST(PathAddressesTest, RelaysAreSharedByPeers) {
  std::vector<PeerConfig> peers = Peers(2, 0);
  for (PeerConfig& peer : peers) peer.endpoints = {RelayEndpoint(3)};
  const auto addresses = Make(peers);
  const AddressOffset a = addresses->Configured(PathKey::Of(RelayEndpoint(3), 0));
  const AddressOffset b = addresses->Configured(PathKey::Of(RelayEndpoint(3), 1));
  EXPECT_NE(a, b);
  EXPECT_EQ(addresses->Read(a).owner, 0u);
  EXPECT_EQ(addresses->Read(b).owner, 1u);
}

TEST(PathAddressesTest, ClaimReuseOwner) {
  const auto addresses = Make(Peers(2, 0));
  AddressOffset offset = 5;
  while (addresses->Read(offset).kind != AddressKind::kFree) ++offset;
  ASSERT_TRUE(addresses->Claim(offset, KeyFor(1), kNoPeer, false, kStart));
  EXPECT_FALSE(addresses->Claim(offset, KeyFor(2), kNoPeer, false, kStart));
  PathAddress address = addresses->Read(offset);
  EXPECT_EQ(address.kind, AddressKind::kPath);
  EXPECT_EQ(address.path, Source(1));
  EXPECT_EQ(address.owner, kNoPeer);
  EXPECT_FALSE(address.answered);

  EXPECT_TRUE(addresses->SetOwner(&address, 1));
  EXPECT_TRUE(addresses->MarkAnswered(address));
  const PathAddress owned = addresses->Read(offset);
  EXPECT_EQ(owned.owner, 1u);
  EXPECT_TRUE(owned.answered);
  EXPECT_EQ(owned.path, Source(1));

  // What was read before somebody changed it must not be acted upon.
  EXPECT_FALSE(addresses->Reuse(address, KeyFor(2), kNoPeer, false, kStart));
  EXPECT_TRUE(addresses->Reuse(owned, KeyFor(2), kNoPeer, false, kStart));
  PathAddress late = owned;
  EXPECT_FALSE(addresses->SetOwner(&late, 0));
  EXPECT_FALSE(addresses->MarkAnswered(late));
  const PathAddress reused = addresses->Read(offset);
  EXPECT_EQ(reused.path, Source(2));
  EXPECT_EQ(reused.owner, kNoPeer);
  EXPECT_FALSE(reused.answered);
}

TEST(PathAddressesTest, Adopt) {
  const auto addresses = Make(Peers(2, 0));
  AddressOffset offset = 5;
  while (addresses->Read(offset).kind != AddressKind::kFree) ++offset;
  PathAddress address = addresses->Read(offset);
  PathAddress same = address;
  EXPECT_TRUE(addresses->Adopt(&address, 1));
  EXPECT_FALSE(addresses->Adopt(&same, 0));
  EXPECT_EQ(addresses->Read(offset).kind, AddressKind::kAdopted);
  EXPECT_EQ(addresses->Read(offset).owner, 1u);
  EXPECT_FALSE(addresses->Claim(offset, KeyFor(1), kNoPeer, false, kStart));
  // WireGuard may have moved another peer there.
  EXPECT_TRUE(addresses->SetOwner(&address, 0));
  EXPECT_EQ(addresses->Read(offset).owner, 0u);
}

TEST(PathAddressesTest, HeardOnce) {
  const auto addresses = Make({});
  EXPECT_FALSE(addresses->TakeHeard(9));
  addresses->MarkHeard(9);
  addresses->MarkHeard(9);
  EXPECT_TRUE(addresses->TakeHeard(9));
  EXPECT_FALSE(addresses->TakeHeard(9));
}

TEST(PathAddressesTest, SecondsSinceUse) {
  const auto addresses = Make({});
  addresses->Touch(9, kStart);
  EXPECT_EQ(addresses->SecondsSinceUse(9, kStart), 0u);
  EXPECT_EQ(addresses->SecondsSinceUse(9, kStart + std::chrono::seconds(7)), 7u);
  EXPECT_EQ(addresses->SecondsSinceUse(9, kStart - std::chrono::seconds(1)), 0u);
}

// One writer reuses an address flat out while others read it: every path read is one that was
// written whole, with the owner that belongs to it.
TEST(PathAddressesTest, ReadersNeverSeeAMixture) {
  const auto addresses = Make({});
  constexpr AddressOffset kOffset = 9;
  constexpr uint32_t kWrites = 200'000;
  // Differs in every word.
  const auto key_of = [](uint32_t n) {
    PathKey key;
    const uint64_t word = 0x0101010101010101u * (n % 251);
    key.from = Endpoint::FromWords({word, word, word});
    return key;
  };
  ASSERT_TRUE(addresses->Claim(kOffset, key_of(0), 0, false, kStart));
  std::atomic<bool> done{false};
  std::atomic<uint32_t> mixtures{0};
  std::vector<std::thread> readers;
  for (int t = 0; t < 2; ++t) {
    readers.emplace_back([&] {
      while (!done.load()) {
        PathAddress address = addresses->Read(kOffset);
        if (address.kind != AddressKind::kPath) continue;
        const auto words = address.path.Words();
        const bool whole = words[0] == words[1] && words[1] == words[2];
        if (!whole || words[0] != 0x0101010101010101u * address.owner) ++mixtures;
        // As a shard does that sees an answer: never lands on the next use of the address.
        addresses->MarkAnswered(address);
      }
    });
  }
  uint32_t writes = 0;
  while (writes < kWrites) {
    const PathAddress old = addresses->Read(kOffset);
    if (addresses->Reuse(old, key_of(writes + 1), (writes + 1) % 251, false, kStart)) ++writes;
  }
  done = true;
  for (std::thread& reader : readers) reader.join();
  EXPECT_EQ(mixtures.load(), 0u);
}

}  // namespace
}  // namespace ringsock::gateway
