// Runs the program for an instant: packets move, none goes astray, and the JSON says so. Speeds are
// no part of it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <array>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <string>

namespace ringsock::bench {
namespace {

using ::testing::HasSubstr;

struct Outcome {
  int code = -1;
  std::string out;
};

Outcome RunBench(const std::string& arguments) {
  Outcome outcome;
  FILE* pipe = popen(("bench/relay/ringsock-relay-bench " + arguments).c_str(), "r");
  if (pipe == nullptr) return outcome;
  std::array<char, 4096> chunk;
  while (const size_t n = fread(chunk.data(), 1, chunk.size(), pipe)) {
    outcome.out.append(chunk.data(), n);
  }
  const int status = pclose(pipe);
  if (WIFEXITED(status)) outcome.code = WEXITSTATUS(status);
  return outcome;
}

nlohmann::json Scenario(const std::string& arguments) {
  const Outcome outcome = RunBench(arguments);
  EXPECT_EQ(outcome.code, 0) << outcome.out;
  const auto json = nlohmann::json::parse(outcome.out, nullptr, false);
  EXPECT_FALSE(json.is_discarded()) << outcome.out;
  return json.is_discarded() ? nlohmann::json::object() : json["scenarios"][0]["subjects"];
}

// A busy machine may give a subject no time at all, so there is more when it is needed: runs until
// each subject without an error has delivered something. All else holds however long it runs.
nlohmann::json SubjectsThatDelivered(const std::string& arguments) {
  nlohmann::json subjects;
  for (const char* time : {" --seconds=0.2 --warmup=0.05", " --seconds=1", " --seconds=5"}) {
    subjects = Scenario(arguments + time + " --rounds=1 --json=- 2>/dev/null");
    bool all = true;
    for (const auto& subject : subjects) {
      if (!subject.contains("error")) all &= subject["rounds"][0]["delivered"] > 0;
    }
    if (all || testing::Test::HasFailure()) break;
  }
  return subjects;
}

// Beside the floor stands a program that is no relay, which must not spoil the rest.
constexpr char kNoRelay[] = " --relay-command='none=/bin/false {port}'";

TEST(RelaySmokeTest, FloorAlone) {
  const auto subjects = SubjectsThatDelivered(
      "throughput --senders=2 --receivers=2 --size=64 --rate=5k --check=1" + std::string(kNoRelay));
  ASSERT_EQ(subjects.size(), 2u);
  EXPECT_THAT(subjects[0]["error"].get<std::string>(), HasSubstr("ended with 1"));
  const auto& round = subjects[1]["rounds"][0];
  EXPECT_GT(round["delivered"], 0);
  EXPECT_GT(round["cpu_ns"], 0);
  EXPECT_EQ(round["total"]["received"], round["total"]["sent"]);
  EXPECT_EQ(round["total"]["misdelivered"], 0);
  EXPECT_EQ(round["total"]["invalid"], 0);
}

// As it is run by hand: the relay of this project, found beside the program, and the floor.
TEST(RelaySmokeTest, OwnRelay) {
  const auto subjects =
      SubjectsThatDelivered("throughput --senders=2 --receivers=4 --size=200 --rate=5k");
  EXPECT_EQ(subjects.size(), 2u);
  for (const auto& subject : subjects) {
    SCOPED_TRACE(subject["name"]);
    ASSERT_FALSE(subject.contains("error")) << subject["error"];
    const auto& round = subject["rounds"][0];
    EXPECT_GT(round["delivered"], 0);
    EXPECT_EQ(round["total"]["received"], round["total"]["sent"]);
    EXPECT_EQ(round["total"]["duplicates"], 0);
    EXPECT_EQ(round["total"]["reordered"], 0);
    EXPECT_EQ(round["total"]["misdelivered"], 0);
    EXPECT_EQ(round["total"]["closed"], 0);
  }
}

TEST(RelaySmokeTest, IdleClients) {
  const Outcome outcome =
      RunBench("memory --clients=20 --settle=0.01 --no-floor --json=- 2>/dev/null");
  ASSERT_EQ(outcome.code, 0) << outcome.out;
  const auto json = nlohmann::json::parse(outcome.out, nullptr, false);
  ASSERT_FALSE(json.is_discarded()) << outcome.out;
  EXPECT_FALSE(json["memory"][0].contains("error")) << outcome.out;
  EXPECT_EQ(json["memory"][0]["clients"], 20);
  EXPECT_GT(json["memory"][0]["after"]["rss"], 0);
}

TEST(RelaySmokeTest, BadFlagsEndWithTwo) {
  const Outcome outcome = RunBench("quick --size=1 2>&1");
  EXPECT_EQ(outcome.code, 2);
  EXPECT_THAT(outcome.out, HasSubstr("--size=1: must be"));
  EXPECT_EQ(RunBench("2>/dev/null").code, 2);
  EXPECT_EQ(RunBench("help").code, 0);
  EXPECT_EQ(
      RunBench("throughput --no-floor --rounds=1 >/dev/null 2>&1" + std::string(kNoRelay)).code, 1);
}

}  // namespace
}  // namespace ringsock::bench
