// The load's peers: over how many ports, and how much is under way.
#include "bench/load.h"

#include <gtest/gtest.h>

#include <set>

namespace ringsock::bench {
namespace {

LoadConfig Config(uint32_t peers) {
  LoadConfig config;
  config.peers = peers;
  config.socket_buffer = 1 << 16;
  return config;
}

std::set<uint16_t> Ports(const LoadGenerator& load, uint32_t peers) {
  std::set<uint16_t> ports;
  for (uint32_t n = 0; n < peers; ++n) ports.insert(load.port(n));
  return ports;
}

TEST(LoadGeneratorTest, PeersAreDealtOverPorts) {
  const auto many = LoadGenerator::Create(Config(64));
  ASSERT_TRUE(many.ok()) << many.status();
  EXPECT_EQ(Ports(**many, 64).size(), 8u);
  EXPECT_NE((*many)->port(0), (*many)->port(1));
  EXPECT_EQ((*many)->port(0), (*many)->port(8));
  const auto few = LoadGenerator::Create(Config(2));
  ASSERT_TRUE(few.ok()) << few.status();
  EXPECT_EQ(Ports(**few, 2).size(), 2u);
}

TEST(LoadGeneratorTest, OnlyFlatOutHasAWindow) {
  LoadConfig config = Config(4);
  EXPECT_GE((*LoadGenerator::Create(config))->window(), 2u);
  config.traffic.window = 7;
  EXPECT_EQ((*LoadGenerator::Create(config))->window(), 7u);
  config.traffic.rate = 1000;
  EXPECT_EQ((*LoadGenerator::Create(config))->window(), 0u);
}

}  // namespace
}  // namespace ringsock::bench
