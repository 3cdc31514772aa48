// Measuring in lockstep: floods are what they say, every way to run works, and the table names what
// it shows.
#include "bench/lockstep/bench.h"

#include <gtest/gtest.h>

#include <set>
#include <string>

#include "base/log.h"
#include "bench/lockstep/flood.h"
#include "bench/sockets.h"

namespace ringsock::bench {
namespace {

TEST(FloodTest, PacketsAreOfTheirKind) {
  for (const char* name : {"unknown", "stun", "handshake", "garbage"}) {
    const auto kind = ParseFlood(name);
    ASSERT_TRUE(kind.ok()) << name;
    EXPECT_STREQ(FloodName(*kind), name);
    const auto packets = FloodPackets(*kind, 200, 100);
    EXPECT_EQ(std::set<std::string>(packets.begin(), packets.end()).size(), 100u) << name;
    for (const std::string& packet : packets) {
      switch (*kind) {
        case FloodKind::kStun:
          EXPECT_EQ(packet.substr(4, 4), "\x21\x12\xa4\x42");
          break;
        case FloodKind::kHandshake:
          EXPECT_EQ(packet.size(), 148u);
          break;
        case FloodKind::kUnknown:
          EXPECT_EQ(packet.substr(0, 4), std::string("\4\0\0\0", 4));
          break;
        default:
          EXPECT_LE(packet.size(), 200u);
      }
    }
  }
  EXPECT_FALSE(ParseFlood("none").ok());
  EXPECT_FALSE(ParseFlood("").ok());
}

LockstepOptions Few(const char* subjects) {
  Log().set_level(spdlog::level::warn);
  LockstepOptions options;
  options.subjects = ParseSubjects(subjects).value();
  options.rounds = 2;
  options.bursts = 2;
  options.burst = 8;
  options.idle_peers = 10;
  options.traffic.size = 200;
  options.traffic.train = 4;
  options.traffic.peers = 16;
  return options;
}

void RunAndCheck(const LockstepOptions& options, size_t cases_of_each) {
  const auto cases = RunLockstep(options);
  ASSERT_TRUE(cases.ok()) << cases.status();
  EXPECT_EQ(cases->size(), options.subjects.size() * cases_of_each);
  for (const LockstepCase& c : *cases) {
    ASSERT_EQ(c.rounds.size(), options.rounds);
    for (const LockstepSample& sample : c.rounds) {
      EXPECT_GT(sample.packets, 0u);
      EXPECT_GT(sample.cpu_ns, 0);
    }
  }
  const std::string text = LockstepText(options, *cases);
  for (const SubjectSpec& spec : options.subjects) {
    EXPECT_NE(text.find("\n" + spec.Label() + " "), std::string::npos) << text;
  }
}

constexpr char kAll[] = "recvmmsg+gro:4,uring,ringsock,ringsock-mmsg,ringsock:rx_batch=4";

TEST(LockstepTest, EveryModeBringsAllPacketsBack) {
  for (const Mode mode : {Mode::kForward, Mode::kReceive, Mode::kSend}) {
    LockstepOptions options = Few(kAll);
    options.traffic.mode = mode;
    RunAndCheck(options, 1);
  }
}

TEST(LockstepTest, MixedAndInterleaved) {
  LockstepOptions options = Few(kAll);
  options.traffic.mix = true;
  RunAndCheck(options, 1);
  options.traffic.mix = false;
  options.traffic.interleave = 4;
  RunAndCheck(options, 1);
}

TEST(LockstepTest, AFloodHasItsPriceInTheTable) {
  LockstepOptions options = Few("recvmmsg+gro:4,ringsock");
  options.flood = FloodKind::kStun;
  options.strangers = 5;
  RunAndCheck(options, 2);
  const auto cases = RunLockstep(options);
  ASSERT_TRUE(cases.ok());
  EXPECT_NE(LockstepText(options, *cases).find("ns/stun"), std::string::npos);
  for (const LockstepCase& c : *cases) {
    const uint64_t expected = c.layout == LockstepCase::Layout::kFlooded ? 5 * options.bursts : 0;
    for (const LockstepSample& sample : c.rounds) EXPECT_EQ(sample.strangers, expected);
  }
}

TEST(LockstepTest, TwoShards) {
  if (AllowedCores().size() < 2) GTEST_SKIP() << "needs two cores";
  LockstepOptions options = Few("recvmmsg+gro:4,uring,ringsock,ringsock-mmsg");
  options.shards = 2;
  RunAndCheck(options, 3);
}

TEST(LockstepTest, WhatCannotBeRunSaysSo) {
  EXPECT_FALSE(RunLockstep(Few("recvfrom")).ok());
  LockstepOptions options = Few("ringsock");
  options.shards = 3;
  EXPECT_FALSE(RunLockstep(options).ok());
}

}  // namespace
}  // namespace ringsock::bench
