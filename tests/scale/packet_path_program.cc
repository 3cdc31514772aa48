// Does one thing of the packet path a given number of times: what instruction_count_test counts the
// instructions of. Usage: packet_path_program WHAT TIMES.
#include <array>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/endpoint.h"
#include "base/key.h"
#include "bench/null_loop.h"
#include "core/address_set.h"
#include "core/peer_table.h"
#include "core/quiescence.h"
#include "core/train_builder.h"
#include "core/wireguard.h"

namespace ringsock {
namespace {

constexpr uint32_t kPeers = 10000;
constexpr uint32_t kSegment = 1400;

// The compiler must have the value.
template <typename T>
void Use(const T& value) {
  asm volatile("" : : "r,m"(value) : "memory");
}

PublicKey Key(uint32_t number) {
  PublicKey key;
  for (size_t i = 0; i < key.bytes.size(); ++i) {
    key.bytes[i] = static_cast<uint8_t>((number + 1) * 2654435761u >> (i % 4 * 8));
  }
  return key;
}

Endpoint Address(uint32_t number) {
  Endpoint endpoint;
  endpoint.ip = IpAddress::V4(0x0a000000u + number);
  endpoint.port = 41641;
  return endpoint;
}

// Made beforehand, so that what making them takes is not counted: addresses of as many peers, in no
// order, from `first` on.
std::vector<Endpoint> Addresses(uint32_t first) {
  std::vector<Endpoint> all(1024);
  for (uint32_t i = 0; i < all.size(); ++i) all[i] = Address(first + i * 7919 % (2 * kPeers));
  return all;
}

// Peers of two addresses each. The seed is fixed: the counts are the same in every run.
struct World {
  explicit World(uint32_t peers = kPeers)
      : table({.max_peers = peers + 1, .seed = 7}, &quiescence) {
    for (uint32_t i = 0; i < peers; ++i) {
      const std::array<Endpoint, 2> list = {Address(2 * i), Address(2 * i + 1)};
      ids.push_back(*table.Create(Key(i), list));
      quiescence.Reclaim();
    }
    reader = *quiescence.Register();
    reader.Online();
  }
  Quiescence quiescence;
  PeerTable table;
  Quiescence::Reader reader;
  std::vector<PeerId> ids;
};

// One packet at a time, as received and as sent.
void Classify(uint32_t times) {
  std::vector<std::byte> packet(kSegment, std::byte{4});
  for (uint32_t i = 0; i < times; ++i) {
    packet[4] = static_cast<std::byte>(i);
    Use(packet.data());
    Use(FindStun(packet.data(), packet.size(), kSegment));
    Use(FindHandshake(packet.data(), packet.size(), kSegment));
  }
}

// `times` packets, in trains of 46.
void ClassifyTrains(uint32_t times) {
  std::vector<std::byte> train(46 * kSegment, std::byte{4});
  for (uint32_t i = 0; i < times; i += 46) {
    train[4] = static_cast<std::byte>(i);
    Use(train.data());
    Use(FindStun(train.data(), train.size(), kSegment));
    Use(FindHandshake(train.data(), train.size(), kSegment));
  }
}

void Lookup(uint32_t times) {
  const World world;
  const std::vector<Endpoint> from = Addresses(0);
  for (uint32_t i = 0; i < times; ++i) Use(world.table.OwnerOf(from[i % from.size()]));
}

void LookupUnknown(uint32_t times) {
  const World world;
  const std::vector<Endpoint> from = Addresses(2 * kPeers);
  for (uint32_t i = 0; i < times; ++i) Use(world.table.OwnerOf(from[i % from.size()]));
}

void LookupBatch(uint32_t times) {
  const World world;
  constexpr uint32_t kBatch = 32;
  const std::vector<Endpoint> from = Addresses(0);
  std::vector<const Endpoint*> keys;
  for (const Endpoint& endpoint : from) keys.push_back(&endpoint);
  std::array<PeerId, kBatch> out;
  for (uint32_t i = 0; i < times; i += kBatch) {
    world.table.OwnersOf({&keys[i % keys.size()], kBatch}, out.data());
    Use(out.data());
  }
}

void LookupById(uint32_t times) {
  const World world;
  for (uint32_t i = 0; i < times; ++i) {
    Use(world.table.FindById(world.ids[i * 7919 % kPeers]));
  }
}

// Where one packet goes, and whether one that came says something new.
void ChoosePath(uint32_t times) {
  const std::array<Endpoint, 3> list = {RelayEndpoint(1), Address(1), Address(2)};
  const auto set = AddressSet::New(list);
  set->Confirm(list[1]);
  Destinations out;
  for (uint32_t i = 0; i < times; ++i) {
    set->Choose(false, Instant{}, &out);
    Use(&out);
    Use(set->IsCurrent(list[1]));
  }
}

// Packets of one peer that lie behind one another.
void BuildTrains(uint32_t times) {
  const std::vector<std::byte> memory(46 * kSegment);
  bench::NullLoop loop;
  TrainBuilder builder(&loop);
  const Endpoint to = Address(1);
  for (uint32_t i = 0; i < times; ++i) {
    builder.Add(0, to, {memory.data() + i % 46 * kSegment, kSegment, kSegment});
    if (i % 46 == 45) builder.Flush();
  }
}

// One peer added and removed again beside `others`.
void AddAndRemove(uint32_t others, uint32_t times) {
  World world(others);
  world.reader.Offline();
  const std::array<Endpoint, 2> list = {Address(2 * others), Address(2 * others + 1)};
  for (uint32_t i = 0; i < times; ++i) {
    world.table.Remove(*world.table.Create(Key(others), list));
    world.quiescence.Reclaim();
  }
}

int Run(const std::string& what, uint32_t times) {
  const std::map<std::string, std::function<void(uint32_t)>> all = {
      {"classify", Classify},
      {"classify-trains", ClassifyTrains},
      {"lookup", Lookup},
      {"lookup-unknown", LookupUnknown},
      {"lookup-batch", LookupBatch},
      {"lookup-id", LookupById},
      {"choose-path", ChoosePath},
      {"build-trains", BuildTrains},
      {"add-remove-50", [](uint32_t n) { AddAndRemove(50, n); }},
      {"add-remove-50000", [](uint32_t n) { AddAndRemove(50000, n); }},
  };
  const auto found = all.find(what);
  if (found == all.end()) {
    std::fprintf(stderr, "unknown: %s\n", what.c_str());
    return 2;
  }
  found->second(times);
  return 0;
}

}  // namespace
}  // namespace ringsock

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: %s WHAT TIMES\n", argv[0]);
    return 2;
  }
  return ringsock::Run(argv[1], static_cast<uint32_t>(std::strtoul(argv[2], nullptr, 10)));
}
