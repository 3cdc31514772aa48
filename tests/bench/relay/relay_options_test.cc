// The command line: what it means, and that each mistake is named.
#include "bench/relay/relay_options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <initializer_list>

namespace ringsock::bench {
namespace {

using ::testing::HasSubstr;

absl::StatusOr<RelayOptions> Parse(std::initializer_list<const char*> arguments) {
  return ParseRelayOptions(std::span(arguments.begin(), arguments.size()), "/opt/bin/bench");
}

std::string Error(std::initializer_list<const char*> arguments) {
  const auto options = Parse(arguments);
  return options.ok() ? "no error" : std::string(options.status().message());
}

TEST(RelayOptionsTest, OwnRelayAndTheFloor) {
  const auto options = Parse({"throughput"});
  ASSERT_TRUE(options.ok()) << options.status();
  ASSERT_EQ(options->subjects.size(), 2u);
  EXPECT_EQ(options->subjects[0].name, "ringsock-relay");
  EXPECT_THAT(options->subjects[0].command, HasSubstr("/opt/bin/../../relay/ringsock-relay --"));
  EXPECT_TRUE(options->subjects[0].target.tls);
  EXPECT_TRUE(options->subjects[1].is_floor());
  EXPECT_EQ(options->traffic.rate, 0);
  EXPECT_FALSE(options->shape_given);
}

TEST(RelayOptionsTest, Shape) {
  const auto options = Parse({"throughput", "--senders=20", "--receivers", "40", "--size=64",
                              "--rate=1.5M", "--tick-us=500", "--check=1"});
  ASSERT_TRUE(options.ok()) << options.status();
  EXPECT_EQ(options->traffic.senders, 20u);
  EXPECT_EQ(options->traffic.receivers, 40u);
  EXPECT_EQ(options->traffic.size, 64u);
  EXPECT_EQ(options->traffic.rate, 1.5e6);
  EXPECT_EQ(options->traffic.tick, std::chrono::microseconds(500));
  EXPECT_EQ(options->check, 1u);
  EXPECT_TRUE(options->shape_given);
}

TEST(RelayOptionsTest, Commands) {
  const auto options = Parse({"all", "--relay-command=derper=/bin/derper -a :{port} -x=1",
                              "--relay-command", "/bin/other -p {port} -d={dir}", "--no-floor"});
  ASSERT_TRUE(options.ok()) << options.status();
  ASSERT_EQ(options->subjects.size(), 2u);
  EXPECT_EQ(options->subjects[0].name, "derper");
  EXPECT_EQ(options->subjects[0].command, "/bin/derper -a :{port} -x=1");
  EXPECT_EQ(options->subjects[1].name, "relay");
  EXPECT_EQ(options->subjects[1].command, "/bin/other -p {port} -d={dir}");
}

TEST(RelayOptionsTest, OneThatRuns) {
  const std::string pin = "--pin=sha256-raw:" + std::string(64, 'a');
  const auto options = Parse({"latency", "--relay=192.0.2.1:443", "--pid=12", pin.c_str(),
                              "--metrics=127.0.0.1:9478", "--host=derp.example"});
  ASSERT_TRUE(options.ok()) << options.status();
  const RelaySubjectSpec& spec = options->subjects[0];
  EXPECT_EQ(spec.target.address.ToString(), "192.0.2.1:443");
  EXPECT_EQ(spec.target.host, "derp.example");
  EXPECT_EQ(spec.pid, 12);
  ASSERT_TRUE(spec.target.pin.has_value());
  EXPECT_EQ(spec.target.pin->front(), 0xaa);
  ASSERT_TRUE(spec.metrics.has_value());
  EXPECT_FALSE(
      Parse({"quick", "--relay=192.0.2.1:80", "--insecure-plain"})->subjects[0].target.tls);
}

TEST(RelayOptionsTest, MistakesAreNamed) {
  EXPECT_THAT(Error({}), HasSubstr("no command"));
  EXPECT_THAT(Error({"fly"}), HasSubstr("fly: no such command"));
  EXPECT_THAT(Error({"quick", "--speed=1"}), HasSubstr("--speed=1: no such flag"));
  EXPECT_THAT(Error({"quick", "--no-floor=1"}), HasSubstr("--no-floor=1"));
  EXPECT_THAT(Error({"quick", "--size"}), HasSubstr("--size: needs a value"));
  EXPECT_THAT(Error({"quick", "--size=31"}), HasSubstr("--size=31"));
  EXPECT_THAT(Error({"quick", "--size=16348"}), HasSubstr("--size=16348"));
  EXPECT_THAT(Error({"quick", "--senders=2", "--receivers=3"}), HasSubstr("a multiple"));
  EXPECT_THAT(Error({"quick", "--relay=192.0.2.1:443"}), HasSubstr("--pin"));
  EXPECT_THAT(Error({"quick", "--relay=here", "--insecure"}), HasSubstr("IP:PORT"));
  EXPECT_THAT(Error({"quick", "--pin=sha256-raw:12"}), HasSubstr("64 hex digits"));
  EXPECT_THAT(Error({"quick", "--relay-command=/bin/derper"}), HasSubstr("{port}"));
  EXPECT_THAT(Error({"quick", "--tick-us=0"}), HasSubstr("--tick-us=0"));
}

TEST(RelayOptionsTest, HelpFitsTheScreen) {
  EXPECT_EQ(Parse({"quick", "-h"})->command, "help");
  EXPECT_EQ(Parse({"--help"})->command, "help");
  size_t column = 0;
  for (const char c : RelayHelpText()) {
    column = c == '\n' ? 0 : column + 1;
    EXPECT_LE(column, 100u);
  }
}

}  // namespace
}  // namespace ringsock::bench
