// Tests of the peer table: PEER-1 and PEER-2, ids that go stale, addresses that two peers list,
// random steps against a plain model, and readers beside a writer that removes peers flat out.
#include "core/peer_table.h"

#include <algorithm>
#include <map>
#include <random>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "gtest/gtest.h"

namespace ringsock {
namespace {

Endpoint Ep(const char* text) { return *Endpoint::Parse(text); }

PublicKey Key(uint32_t number) {
  PublicKey key;
  for (size_t i = 0; i < 4; ++i) key.bytes[i] = static_cast<uint8_t>(number >> (8 * i));
  key.bytes[31] = 1;
  return key;
}

// Of both families in turn, which are in tables of their own.
Endpoint Address(uint32_t number) {
  Endpoint endpoint;
  endpoint.ip = IpAddress::V4(0x0a000000u + number / 7);
  if (number % 2 == 1) endpoint.ip.bytes[0] = 0x20;
  endpoint.port = static_cast<uint16_t>(1000 + number % 7);
  return endpoint;
}

class PeerTableTest : public ::testing::Test {
 protected:
  PeerId Create(uint32_t key, const std::vector<Endpoint>& endpoints) {
    const auto id = table_.Create(Key(key), endpoints);
    EXPECT_TRUE(id.ok()) << id.status();
    return *id;
  }
  PeerId OwnerOf(const Endpoint& address) { return table_.OwnerOf(address); }

  Quiescence quiescence_;
  PeerTable table_{{.max_peers = 100, .seed = 1}, &quiescence_};
  const Endpoint a_ = Ep("192.0.2.1:1"), b_ = Ep("192.0.2.2:2"), c_ = Ep("[2001:db8::3]:3");
};

// spec: PEER-1
TEST_F(PeerTableTest, APeerIsFoundByAddressKeyAndId) {
  const PeerId id = Create(1, {a_, c_});
  EXPECT_NE(id, PeerId::kNone);
  Peer* peer = table_.FindById(id);
  ASSERT_NE(peer, nullptr);
  EXPECT_EQ(peer->id(), id);
  EXPECT_EQ(peer->key(), Key(1));
  EXPECT_EQ(table_.FindByAddress(a_), peer);
  EXPECT_EQ(table_.FindByAddress(c_), peer);
  EXPECT_EQ(table_.FindByKey(Key(1)), peer);
  EXPECT_EQ(table_.FindByAddress(b_), nullptr);
  EXPECT_EQ(table_.FindByKey(Key(2)), nullptr);
  EXPECT_EQ(table_.size(), 1u);
}

TEST_F(PeerTableTest, NothingIsFoundByIdsNeverGiven) {
  EXPECT_EQ(table_.FindById(PeerId::kNone), nullptr);
  const PeerId id = Create(1, {a_});
  EXPECT_EQ(table_.FindById(PeerId::kNone), nullptr);
  for (uint64_t bit = 0; bit < 64; ++bit) {
    const auto other = static_cast<PeerId>(static_cast<uint64_t>(id) ^ (uint64_t{1} << bit));
    EXPECT_EQ(table_.FindById(other), nullptr) << bit;
  }
  EXPECT_EQ(table_.FindById(static_cast<PeerId>(UINT64_MAX)), nullptr);
}

// spec: RECV-2. v4-mapped v6 is v4.
TEST_F(PeerTableTest, BothSpellingsOfAnIpv4AddressFindThePeer) {
  const PeerId id = Create(1, {Ep("[::ffff:192.0.2.1]:1")});
  EXPECT_EQ(OwnerOf(Ep("192.0.2.1:1")), id);
  EXPECT_EQ(OwnerOf(Ep("192.0.2.1:2")), PeerId::kNone);
}

// spec: PEER-1
TEST_F(PeerTableTest, RelayAddressesAreListedButNotRegistered) {
  const PeerId id = Create(1, {RelayEndpoint(3), a_});
  EXPECT_EQ(OwnerOf(RelayEndpoint(3)), PeerId::kNone);
  EXPECT_EQ(table_.FindById(id)->addresses().endpoints().size(), 2u);
  EXPECT_EQ(OwnerOf(a_), id);
  table_.Remove(id);
  EXPECT_EQ(OwnerOf(a_), PeerId::kNone);
}

// spec: PEER-1
TEST_F(PeerTableTest, ReplacingKeepsTheIdAndDropsOldAddresses) {
  const PeerId id = Create(1, {a_, b_});
  table_.FindById(id)->addresses().Confirm(b_);
  EXPECT_EQ(Create(1, {b_, c_}), id);
  EXPECT_EQ(OwnerOf(a_), PeerId::kNone);
  EXPECT_EQ(OwnerOf(b_), id);
  EXPECT_EQ(OwnerOf(c_), id);
  EXPECT_EQ(table_.size(), 1u);
  EXPECT_EQ(table_.FindByKey(Key(1)), table_.FindById(id));
  EXPECT_EQ(table_.FindById(id)->addresses().Snapshot().current, -1);  // a new set
  EXPECT_EQ(Create(1, {}), id);
  EXPECT_EQ(OwnerOf(b_), PeerId::kNone);
  EXPECT_NE(table_.FindById(id), nullptr);
}

TEST_F(PeerTableTest, ARepeatedAddressCountsOnce) {
  const PeerId id = Create(1, {a_, b_, a_});
  EXPECT_EQ(table_.FindById(id)->addresses().endpoints().size(), 2u);
  table_.Remove(id);
  EXPECT_EQ(OwnerOf(a_), PeerId::kNone);
}

// spec: PEER-1. An error changes nothing.
TEST_F(PeerTableTest, BadInputIsAnErrorThatChangesNothing) {
  const PeerId id = Create(1, {a_});
  const std::vector<Endpoint> many(kMaxEndpoints + 1, b_);
  Endpoint no_port = b_;
  no_port.port = 0;
  for (const auto& bad : {many,
                          {b_, no_port},
                          {b_, Ep("0.0.0.0:5")},
                          {b_, Ep("[::]:5")},
                          {b_, Endpoint()},
                          {b_, RelayEndpoint(0)}}) {
    const auto status = table_.Create(Key(1), bad).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    EXPECT_EQ(table_.Create(Key(2), bad).status().code(), absl::StatusCode::kInvalidArgument);
  }
  EXPECT_EQ(table_.Create(PublicKey(), {}).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(OwnerOf(a_), id);
  EXPECT_EQ(OwnerOf(b_), PeerId::kNone);
  EXPECT_EQ(table_.size(), 1u);
  EXPECT_EQ(quiescence_.pending(), 0u);
}

TEST_F(PeerTableTest, PeersAreBoundedAndReplacingStillWorksAtTheBound) {
  for (uint32_t i = 0; i < 100; ++i) Create(i, {Address(i)});
  const auto status = table_.Create(Key(100), {}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_NE(status.ToString().find("max_peers"), std::string::npos);
  Create(5, {a_});
  EXPECT_TRUE(table_.Remove(table_.FindByKey(Key(7))->id()));
  Create(100, {b_});
}

TEST_F(PeerTableTest, AStaleIdFindsNothingWhoeverHasItsPlace) {
  std::set<PeerId> ids;
  for (uint32_t i = 0; i < 50; ++i) {
    const PeerId id = Create(i, {a_});
    EXPECT_TRUE(ids.insert(id).second);
    for (const PeerId old : ids) EXPECT_EQ(table_.FindById(old) != nullptr, old == id);
    EXPECT_TRUE(table_.Remove(id));
    EXPECT_FALSE(table_.Remove(id));
    EXPECT_EQ(table_.FindById(id), nullptr);
  }
  // The same key gets a new id too: it is another peer to whoever held the old one.
  const PeerId before = Create(1, {});
  table_.Remove(before);
  EXPECT_NE(Create(1, {}), before);
}

TEST_F(PeerTableTest, TheLatestOwnerOfAnAddressWinsAndItGoesBack) {
  const PeerId first = Create(1, {a_, b_});
  const PeerId second = Create(2, {a_});
  const PeerId third = Create(3, {c_, a_});
  EXPECT_EQ(OwnerOf(a_), third);
  table_.Remove(second);  // an earlier owner in the middle
  EXPECT_EQ(OwnerOf(a_), third);
  Create(3, {c_});  // lets go of it
  EXPECT_EQ(OwnerOf(a_), first);
  EXPECT_EQ(OwnerOf(b_), first);
  table_.Remove(first);
  EXPECT_EQ(OwnerOf(a_), PeerId::kNone);
}

TEST_F(PeerTableTest, AReplacedPeerTakesItsAddressBack) {
  const PeerId first = Create(1, {a_});
  const PeerId second = Create(2, {a_});
  EXPECT_EQ(Create(1, {b_, a_}), first);
  EXPECT_EQ(OwnerOf(a_), first);
  table_.Remove(first);
  EXPECT_EQ(OwnerOf(a_), second);
  table_.Remove(second);
  EXPECT_EQ(OwnerOf(a_), PeerId::kNone);
}

// spec: PEER-2
TEST_F(PeerTableTest, UpdateKeepsExactlyTheGivenPeers) {
  for (uint32_t i = 0; i < 10; ++i) Create(i, {Address(i)});
  const std::vector<PublicKey> keys = {Key(3), Key(4), Key(3), Key(77)};
  EXPECT_EQ(table_.Update(keys), 8u);
  EXPECT_EQ(table_.size(), 2u);
  for (uint32_t i = 0; i < 10; ++i) {
    const bool kept = i == 3 || i == 4;
    EXPECT_EQ(table_.FindByKey(Key(i)) != nullptr, kept);
    EXPECT_EQ(OwnerOf(Address(i)) != PeerId::kNone, kept);
  }
  EXPECT_EQ(table_.FindByKey(Key(77)), nullptr);  // creates nobody
  EXPECT_EQ(table_.Update({}), 2u);
  EXPECT_EQ(table_.size(), 0u);
}

// spec: PATH-6
TEST_F(PeerTableTest, ResetPathsReachesEveryPeer) {
  const PeerId first = Create(1, {a_});
  const PeerId second = Create(2, {b_});
  table_.FindById(first)->addresses().Confirm(a_);
  table_.FindById(second)->addresses().Confirm(b_);
  table_.ResetPaths(ManualClock().Now());
  size_t seen = 0;
  table_.ForEach([&seen](const Peer& peer) {
    EXPECT_EQ(peer.addresses().Snapshot().current, -1);
    ++seen;
  });
  EXPECT_EQ(seen, 2u);
}

TEST_F(PeerTableTest, BatchesFindTheSame) {
  for (uint32_t i = 0; i < 90; ++i) Create(i, {Address(2 * i)});
  std::vector<Endpoint> from(180);
  std::vector<const Endpoint*> pointers;
  for (uint32_t i = 0; i < from.size(); ++i) {
    from[i] = Address(i);
    pointers.push_back(&from[i]);
  }
  std::vector<PeerId> out(from.size());
  table_.OwnersOf(pointers, out.data());
  for (size_t i = 0; i < from.size(); ++i) EXPECT_EQ(out[i], table_.OwnerOf(from[i]));
}

// The IPv4 addresses that are not 48 bits are others, and found too.
TEST_F(PeerTableTest, AnIPv4AddressWithAZoneIsAnotherAddress) {
  Endpoint zone = a_, reserved = a_;
  zone.ip.zone = 3;
  reserved.reserved = 1;
  const PeerId first = Create(1, {a_}), second = Create(2, {zone, reserved});
  EXPECT_EQ(OwnerOf(a_), first);
  EXPECT_EQ(OwnerOf(zone), second);
  EXPECT_EQ(OwnerOf(reserved), second);
  table_.Remove(second);
  EXPECT_EQ(OwnerOf(a_), first);
  EXPECT_EQ(OwnerOf(zone), PeerId::kNone);
}

TEST_F(PeerTableTest, PrefetchingChangesNothing) {
  const PeerId id = Create(1, {a_, c_}), gone = Create(2, {b_});
  table_.Remove(gone);
  table_.PrefetchPeers({});
  table_.PrefetchPeers(
      std::vector<PeerId>{id, gone, PeerId::kNone, static_cast<PeerId>(UINT64_MAX), PeerId{99}});
  EXPECT_EQ(OwnerOf(a_), id);
  EXPECT_EQ(OwnerOf(c_), id);
}

// A removed peer stays whole for a reader that has not passed, and nobody finds it any more.
TEST_F(PeerTableTest, AReaderMayFinishWithAPeerThatWasRemoved) {
  auto reader = *quiescence_.Register();
  reader.Online();
  const PeerId id = Create(1, {a_});
  Peer* peer = table_.FindByAddress(a_);
  table_.Remove(id);
  EXPECT_EQ(table_.FindByAddress(a_), nullptr);
  EXPECT_EQ(quiescence_.Reclaim(), 1u);
  EXPECT_EQ(peer->key(), Key(1));
  EXPECT_EQ(peer->addresses().Confirm(a_), PathChange::kCurrentSet);
  reader.Announce();
  EXPECT_EQ(quiescence_.Reclaim(), 0u);
}

TEST(PeerLayoutTest, WhatPacketsReadSharesACacheLine) {
  Quiescence quiescence;
  PeerTable table({.max_peers = 10, .seed = 1}, &quiescence);
  const std::vector<Endpoint> list = {Address(1), Address(2)};
  const Peer* peer = table.FindById(*table.Create(Key(1), list));
  const auto line = [](const void* at) { return reinterpret_cast<uintptr_t>(at) / 64; };
  EXPECT_EQ(line(peer->hot_line()), line(&peer->addresses().endpoint(0)));
  const auto* last = reinterpret_cast<const std::byte*>(&peer->addresses().endpoint(1) + 1) - 1;
  EXPECT_EQ(line(peer->hot_line()), line(last));
  EXPECT_EQ(Peer::SizeFor(2), 192u);
}

TEST(PeerTableMemoryTest, APeerWithTwoAddressesTakesLessThan320Bytes) {
  constexpr uint32_t kPeers = 20000;
  // Both addresses IPv4, both IPv6, one of each: which have the rests of tables of their own.
  for (const auto& [first, second] : {std::pair{0u, 2u}, {1u, 3u}, {0u, 1u}}) {
    Quiescence quiescence;
    PeerTable table({.max_peers = 1u << 20, .seed = 1}, &quiescence);
    for (uint32_t i = 0; i < kPeers; ++i) {
      const std::vector<Endpoint> list = {Address(4 * i + first), Address(4 * i + second)};
      ASSERT_TRUE(table.Create(Key(i), list).ok());
      quiescence.Reclaim();
      if (i >= 4096) {
        ASSERT_LT(table.MemoryUsed() / (i + 1), 320u) << i;
      }
    }
    EXPECT_EQ(table.Update({}), kPeers);
    quiescence.Reclaim();
    EXPECT_LT(table.MemoryUsed(), 400000u);
  }
}

// The hash of the table of IPv4 addresses: it tells all addresses apart, and spreads those that
// follow one another over segments (the top bits) and lines (from bit 2 up).
TEST(V4TraitsTest, AddressesInOrderAreSpreadAndToldApart) {
  constexpr uint32_t kBuckets = 1024;
  constexpr uint32_t kCount = 64 * kBuckets;
  const auto address = [](uint32_t ip, uint32_t port) {
    return Endpoint{IpAddress::V4(ip), static_cast<uint16_t>(port), 0};
  };
  for (const uint64_t seed : {uint64_t{0}, uint64_t{4}, uint64_t{0xfedcba9876543210}}) {
    for (int kind = 0; kind < 3; ++kind) {
      std::vector<uint64_t> hashes;
      std::array<std::vector<double>, 2> count{std::vector<double>(kBuckets),
                                               std::vector<double>(kBuckets)};
      for (uint32_t i = 0; i < kCount; ++i) {
        const Endpoint endpoint = kind == 0   ? address(0x0a000000u + i, 41641)
                                  : kind == 1 ? address(i << 16, 41641)
                                              : address(0xc0000201u, i);
        ASSERT_TRUE(internal::V4Traits::Fits(endpoint));
        hashes.push_back(internal::V4Traits::Hash(endpoint, seed) >> 2);
        ++count[0][hashes.back() >> 52];
        ++count[1][hashes.back() % kBuckets];
      }
      std::sort(hashes.begin(), hashes.end());
      EXPECT_EQ(std::adjacent_find(hashes.begin(), hashes.end()), hashes.end());
      for (const auto& buckets : count) {
        double chi = 0;
        for (const double n : buckets) chi += (n - 64) * (n - 64) / 64;
        // By chance it is about kBuckets; lines overflow hardly more often at twice that.
        EXPECT_LT(chi, 2.0 * kBuckets) << kind << ", seed " << seed;
      }
    }
  }
}

// The rules once more: peers by key, and who listed an address in which order.
struct Model {
  struct Entry {
    PeerId id;
    std::vector<Endpoint> list;
    uint64_t since;
  };
  std::map<uint32_t, Entry> peers;
  uint64_t now = 0;

  // The latest owner: the peer created or replaced last of those that list it.
  PeerId OwnerOf(const Endpoint& address) const {
    PeerId owner = PeerId::kNone;
    uint64_t latest = 0;
    for (const auto& [key, entry] : peers) {
      if (std::find(entry.list.begin(), entry.list.end(), address) == entry.list.end()) continue;
      if (entry.since <= latest) continue;
      latest = entry.since;
      owner = entry.id;
    }
    return owner;
  }
};

// spec: PEER-1, PEER-2
TEST(PeerTableModelTest, RandomStepsMatchTheModel) {
  for (uint32_t seed = 0; seed < 30; ++seed) {
    std::mt19937 random(seed);
    Quiescence quiescence;
    PeerTable table({.max_peers = 30, .seed = seed + 1}, &quiescence);
    Model model;
    std::set<PeerId> gone;
    for (int step = 0; step < 400; ++step) {
      const uint32_t key = random() % 40;
      const auto known = model.peers.find(key);
      const auto action = random() % 10;
      if (action < 6) {
        std::vector<Endpoint> list;
        for (uint32_t n = random() % 5; n > 0; --n) {
          const Endpoint address = Address(random() % 25);  // few, so that peers share them
          if (std::find(list.begin(), list.end(), address) == list.end()) list.push_back(address);
        }
        const auto id = table.Create(Key(key), list);
        if (known == model.peers.end() && model.peers.size() == 30) {
          ASSERT_FALSE(id.ok());
          continue;
        }
        ASSERT_TRUE(id.ok());
        if (known != model.peers.end()) {
          ASSERT_EQ(*id, known->second.id);
        }
        model.peers[key] = {*id, list, ++model.now};
      } else if (action < 9) {
        if (known == model.peers.end()) continue;
        ASSERT_TRUE(table.Remove(known->second.id));
        gone.insert(known->second.id);
        model.peers.erase(known);
      } else if (step % 5 == 0) {
        std::vector<PublicKey> keep;
        for (auto at = model.peers.begin(); at != model.peers.end();) {
          if (random() % 4 != 0) {
            keep.push_back(Key(at->first));
            ++at;
          } else {
            gone.insert(at->second.id);
            at = model.peers.erase(at);
          }
        }
        table.Update(keep);
      }
      if (random() % 8 == 0) quiescence.Reclaim();
      ASSERT_EQ(table.size(), model.peers.size());
      for (uint32_t address = 0; address < 25; ++address) {
        const Peer* peer = table.FindByAddress(Address(address));
        ASSERT_EQ(peer == nullptr ? PeerId::kNone : peer->id(), model.OwnerOf(Address(address)));
      }
      for (const auto& [number, entry] : model.peers) {
        const Peer* peer = table.FindByKey(Key(number));
        ASSERT_NE(peer, nullptr);
        ASSERT_EQ(peer, table.FindById(entry.id));
        ASSERT_TRUE(std::ranges::equal(peer->addresses().endpoints(), entry.list));
      }
      for (const PeerId id : gone) ASSERT_EQ(table.FindById(id), nullptr);
    }
  }
}

// Packets arrive and leave on three threads while a writer creates, replaces and removes their
// peers flat out. A peer that never changes is always found; what is found is always whole.
TEST(PeerTableThreadTest, PeersAreRemovedWhileInUse) {
  constexpr uint32_t kPeers = 600;
  Quiescence quiescence;
  PeerTable table({.max_peers = kPeers, .seed = 3}, &quiescence);
  const PeerId fixed = *table.Create(Key(0), std::vector<Endpoint>{Address(0)});
  std::array<std::atomic<uint64_t>, kPeers> ids{};
  std::atomic<bool> stop{false};
  std::atomic<uint64_t> wrong{0}, lost{0}, used{0};
  std::vector<std::thread> readers;
  for (uint32_t r = 0; r < 3; ++r) {
    readers.emplace_back([&, r] {
      auto reader = *quiescence.Register();
      reader.Online();
      std::mt19937 random(r);
      Destinations out;
      ManualClock clock;
      while (!stop) {
        for (int k = 0; k < 8; ++k) {
          const uint32_t n = 1 + random() % (kPeers - 1);
          const Endpoint from = Address(2 * n + random() % 2);
          const auto id = static_cast<PeerId>(ids[n].load(std::memory_order_relaxed));
          for (Peer* peer :
               {table.FindByAddress(from), table.FindByKey(Key(n)), table.FindById(id)}) {
            if (peer == nullptr) continue;
            ++used;
            wrong += peer->key() != Key(n);
            if (!peer->addresses().IsCurrent(from)) peer->addresses().Confirm(from);
            peer->addresses().Choose(random() % 16 == 0, clock.Now(), &out);
            clock.Advance(std::chrono::milliseconds(1));
          }
          lost += table.FindByAddress(Address(0)) == nullptr || table.FindById(fixed) == nullptr ||
                  table.FindByKey(Key(0)) == nullptr;
        }
        reader.Announce();
      }
    });
  }
  std::mt19937 random(77);
  for (int i = 0; i < 40000 || used == 0; ++i) {  // until the readers have run too
    const uint32_t n = 1 + random() % (kPeers - 1);
    const auto id = static_cast<PeerId>(ids[n].load(std::memory_order_relaxed));
    if (id != PeerId::kNone && random() % 2 == 0) {
      ASSERT_TRUE(table.Remove(id));
      ids[n].store(0, std::memory_order_relaxed);
    } else {
      std::vector<Endpoint> list = {Address(2 * n)};
      if (random() % 2 == 0) list.push_back(Address(2 * n + 1));
      const auto created = table.Create(Key(n), list);
      ASSERT_TRUE(created.ok());
      ids[n].store(static_cast<uint64_t>(*created), std::memory_order_relaxed);
    }
    quiescence.Reclaim();
  }
  // After all readers have passed, nobody uses a peer that went.
  table.Update(std::vector<PublicKey>{Key(0)});
  const uint64_t epoch = quiescence.Advance();
  while (!quiescence.Passed(epoch)) std::this_thread::yield();
  stop = true;
  for (std::thread& reader : readers) reader.join();
  EXPECT_EQ(wrong, 0u);
  EXPECT_EQ(lost, 0u);
  EXPECT_EQ(table.size(), 1u);
  EXPECT_EQ(quiescence.Reclaim(), 0u);
}

}  // namespace
}  // namespace ringsock
