// The command line: what it means, and that each mistake is named.
#include "bench/options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <initializer_list>

namespace ringsock::bench {
namespace {

using ::testing::HasSubstr;

absl::StatusOr<Options> Parse(std::initializer_list<const char*> arguments) {
  return ParseOptions(std::span(arguments.begin(), arguments.size()));
}

std::string Error(std::initializer_list<const char*> arguments) {
  const auto options = Parse(arguments);
  return options.ok() ? "no error" : std::string(options.status().message());
}

TEST(OptionsTest, Defaults) {
  const auto options = Parse({"forward"});
  ASSERT_TRUE(options.ok()) << options.status();
  EXPECT_EQ(options->traffic.mode, Mode::kForward);
  EXPECT_EQ(options->traffic.size, 1400u);
  EXPECT_EQ(options->traffic.train, 46u);
  EXPECT_EQ(options->traffic.rate, 0);
  EXPECT_EQ(options->topology, TopologyKind::kLoopback);
  EXPECT_EQ(options->subjects.size(), 8u);  // with three batch sizes of recvmmsg+gro
  EXPECT_TRUE(options->json.empty());
}

TEST(OptionsTest, BothSpellingsOfAFlag) {
  const auto options = Parse({"echo", "--size", "64", "--train=8", "--peers=2", "--rate=1.5M",
                              "--topology", "niclike", "--json=-", "--seconds=0.25"});
  ASSERT_TRUE(options.ok()) << options.status();
  EXPECT_EQ(options->traffic.mode, Mode::kEcho);
  EXPECT_EQ(options->traffic.size, 64u);
  EXPECT_EQ(options->traffic.train, 8u);
  EXPECT_EQ(options->traffic.peers, 2u);
  EXPECT_EQ(options->traffic.rate, 1.5e6);
  EXPECT_EQ(options->topology, TopologyKind::kNicLike);
  EXPECT_EQ(options->json, "-");
  EXPECT_EQ(options->seconds, 0.25);
}

TEST(OptionsTest, LatencyIsPaced) {
  const auto options = Parse({"latency"});
  ASSERT_TRUE(options.ok());
  EXPECT_GT(options->traffic.rate, 0);
  EXPECT_EQ(options->traffic.train, 1u);
}

TEST(OptionsTest, HelpWinsOverTheRest) {
  EXPECT_EQ(Parse({"--help"})->command, "help");
  EXPECT_EQ(Parse({"forward", "-h", "--nonsense"})->command, "help");
  EXPECT_THAT(HelpText(), HasSubstr("--engine-options"));
}

TEST(OptionsTest, MistakesAreNamed) {
  EXPECT_THAT(Error({}), HasSubstr("no command"));
  EXPECT_THAT(Error({"fly"}), HasSubstr("fly: no such command"));
  EXPECT_THAT(Error({"forward", "--speed=1"}), HasSubstr("--speed=1: no such flag"));
  EXPECT_THAT(Error({"forward", "stray"}), HasSubstr("stray: no such flag"));
  EXPECT_THAT(Error({"forward", "--size"}), HasSubstr("--size: needs a value"));
  EXPECT_THAT(Error({"forward", "--size=31"}), HasSubstr("--size=31: must be"));
  EXPECT_THAT(Error({"forward", "--size=1400x"}), HasSubstr("from 32 to 65507"));
  EXPECT_THAT(Error({"forward", "--size=-1"}), HasSubstr("--size=-1"));
  EXPECT_THAT(Error({"forward", "--rounds=0"}), HasSubstr("--rounds=0"));
  EXPECT_THAT(Error({"forward", "--seconds=nan"}), HasSubstr("--seconds=nan"));
  EXPECT_THAT(Error({"forward", "--rate=-5"}), HasSubstr("--rate=-5"));
  EXPECT_THAT(Error({"forward", "--rate=fast"}), HasSubstr("250k"));
  EXPECT_THAT(Error({"forward", "--rate=k"}), HasSubstr("--rate=k"));
  EXPECT_THAT(Error({"forward", "--topology=moon"}), HasSubstr("loopback, veth or niclike"));
  EXPECT_THAT(Error({"forward", "--json="}), HasSubstr("--json"));
}

TEST(OptionsTest, RulesBetweenFlags) {
  EXPECT_THAT(Error({"forward", "--size=1500", "--train=64"}), HasSubstr("--train=43"));
  EXPECT_THAT(Error({"forward", "--peers=3"}), HasSubstr("must be even"));
  EXPECT_TRUE(Parse({"echo", "--peers=3"}).ok());
  EXPECT_THAT(Error({"forward", "--flood", "--rate=1k"}), HasSubstr("exclude"));
  EXPECT_THAT(Error({"forward", "--flood", "--window=4"}), HasSubstr("exclude"));
  EXPECT_THAT(Error({"forward", "--mix", "--rate=1k"}), HasSubstr("exclude"));
  EXPECT_THAT(Error({"send", "--rate=1k"}), HasSubstr("send:"));
  EXPECT_THAT(Error({"send", "--mix"}), HasSubstr("send:"));
}

TEST(OptionsTest, Shapes) {
  const auto options =
      Parse({"forward", "--mix", "--interleave=4", "--idle-peers=0", "--size=1000"});
  ASSERT_TRUE(options.ok()) << options.status();
  EXPECT_TRUE(options->traffic.mix);
  EXPECT_EQ(options->traffic.interleave, 4u);
  EXPECT_EQ(options->idle_peers, 0u);
  EXPECT_THAT(options->traffic.mixed_sizes(), ::testing::ElementsAre(64, 576, 1000));
  EXPECT_NEAR(options->traffic.mean_size(), 546.7, 0.1);
  const auto plain = Parse({"send", "--size=40", "--train=3"});
  ASSERT_TRUE(plain.ok()) << plain.status();
  EXPECT_EQ(plain->traffic.mode, Mode::kSend);
  EXPECT_EQ(plain->idle_peers, 10'000u);
  EXPECT_EQ(plain->traffic.mean_size(), 40);
}

TEST(OptionsTest, Subjects) {
  const auto subjects = ParseSubjects("uring,recvmmsg+gro:5");
  ASSERT_TRUE(subjects.ok());
  ASSERT_EQ(subjects->size(), 2u);
  EXPECT_EQ((*subjects)[0].Label(), "uring");
  EXPECT_EQ((*subjects)[1].Label(), "recvmmsg+gro:5");
  EXPECT_EQ((*subjects)[1].batch, 5u);
  EXPECT_EQ(ParseSubjects("recvmmsg+gro")->size(), 3u);
  EXPECT_TRUE((*subjects)[0].is_bare());
  EXPECT_FALSE(ParseSubjects("ringsock")->front().is_bare());
  for (const char* bad : {"", "uring,", "nothing", "uring:4", "recvmmsg:0", "recvmmsg:x"}) {
    EXPECT_FALSE(ParseSubjects(bad).ok()) << bad;
  }
}

TEST(OptionsTest, VariantsOfTheEngine) {
  const auto subjects = ParseSubjects("ringsock,ringsock:gso=0/rx_batch=4,ringsock-mmsg:gro=0");
  ASSERT_TRUE(subjects.ok()) << subjects.status();
  ASSERT_EQ(subjects->size(), 3u);
  EXPECT_EQ((*subjects)[0].variant, "");
  EXPECT_EQ((*subjects)[1].variant, "gso=0,rx_batch=4");
  EXPECT_EQ((*subjects)[1].Label(), "ringsock:gso=0/rx_batch=4");
  EXPECT_EQ((*subjects)[1].kind, SubjectKind::kRingsockUring);
  EXPECT_EQ((*subjects)[2].Label(), "ringsock-mmsg:gro=0");
  for (const char* bad : {"ringsock:", "ringsock:4", "ringsock:gso", "ringsock:gso=0/",
                          "ringsock:gso=2", "uring:gso=0"}) {
    EXPECT_FALSE(ParseSubjects(bad).ok()) << bad;
  }
}

TEST(OptionsTest, RelayedShareAndBuffer) {
  const auto options = Parse({"forward", "--relayed=40", "--subject-buffer=212992"});
  ASSERT_TRUE(options.ok()) << options.status();
  EXPECT_EQ(options->traffic.relayed, 40u);
  EXPECT_EQ(options->subject_buffer, 212'992u);
  EXPECT_FALSE(Parse({"forward", "--gro-flush-us=20"}).ok());
  EXPECT_EQ(Parse({"forward", "--gro-flush-us=20", "--topology=niclike"})->gro_flush_us, 20u);
  EXPECT_FALSE(Parse({"forward", "--relayed=101"}).ok());
  EXPECT_FALSE(Parse({"echo", "--relayed=1"}).ok());
  EXPECT_FALSE(Parse({"forward", "--relayed=1", "--topology=veth"}).ok());
}

TEST(OptionsTest, EngineOptions) {
  io::LoopOptions options;
  ASSERT_TRUE(ParseEngineOptions("gso=0,rx_buffers=32,spin_us=20", &options).ok());
  EXPECT_FALSE(options.gso);
  EXPECT_TRUE(options.gro);
  EXPECT_EQ(options.rx_buffers, 32u);
  EXPECT_EQ(options.spin, std::chrono::microseconds(20));
  EXPECT_TRUE(ParseEngineOptions("tx_queue=16384,rx_buffers=32768,tx_slabs=0", &options).ok());
  EXPECT_TRUE(ParseEngineOptions("rx_buffers=32", &options).ok());
  EXPECT_THAT(EngineOptionsText(options), HasSubstr("rx_buffers=32"));
  for (const char* bad : {"", "gso", "gso=2", "gso=", "turbo=1", "rx_batch=0", "tx_slabs=many",
                          "tx_slabs=4097", "tx_queue=16385"}) {
    EXPECT_FALSE(ParseEngineOptions(bad, &options).ok()) << bad;
  }
}

}  // namespace
}  // namespace ringsock::bench
