// Runs the program for an instant with every subject: each moves packets, none goes astray, and the
// JSON says so. Speeds are no part of it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/wait.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <fstream>
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
  FILE* pipe = popen(("bench/ringsock-bench " + arguments).c_str(), "r");
  if (pipe == nullptr) return outcome;
  std::array<char, 4096> chunk;
  while (const size_t n = fread(chunk.data(), 1, chunk.size(), pipe)) {
    outcome.out.append(chunk.data(), n);
  }
  const int status = pclose(pipe);
  if (WIFEXITED(status)) outcome.code = WEXITSTATUS(status);
  return outcome;
}

// Whether every subject has moved something. All else holds however long it runs.
bool EverySubjectMoved(const std::string& arguments) {
  const Outcome outcome = RunBench(arguments + " --rounds=1 --idle-peers=300 --json=- 2>/dev/null");
  const auto json = nlohmann::json::parse(outcome.out, nullptr, false);
  EXPECT_EQ(outcome.code, 0);
  EXPECT_FALSE(json.is_discarded()) << outcome.out;
  if (json.is_discarded()) return true;
  const auto& subjects = json["scenarios"][0]["subjects"];
  EXPECT_EQ(subjects.size(), 8u);
  bool moved = true;
  for (const auto& subject : subjects) {
    SCOPED_TRACE(subject["name"]);
    EXPECT_FALSE(subject.contains("error")) << subject["error"];
    EXPECT_EQ(subject["rounds"].size(), 1u);
    if (subject["rounds"].size() != 1) continue;
    const auto& round = subject["rounds"][0];
    moved &= round["sent"] > 0 && round["packets"] > 0;
    EXPECT_EQ(round["misdelivered"], 0);
    EXPECT_EQ(round["invalid"], 0);
    EXPECT_EQ(round["duplicates"], 0);
    EXPECT_EQ(round["reordered"], 0);
  }
  return moved;
}

// A busy machine may give one of them no time at all, so it gets more when it needs it.
void ExpectEverySubjectMoved(const std::string& arguments) {
  SCOPED_TRACE(arguments);
  for (const char* time : {" --seconds=0.2 --warmup=0.05", " --seconds=1", " --seconds=3"}) {
    if (EverySubjectMoved(arguments + time)) return;
    ASSERT_FALSE(testing::Test::HasFailure());
  }
  ADD_FAILURE() << "a subject moved nothing in three seconds";
}

TEST(SmokeTest, Forward) { ExpectEverySubjectMoved("forward --peers=16 --check=1"); }
TEST(SmokeTest, Singles) { ExpectEverySubjectMoved("forward --train=1 --size=64"); }
TEST(SmokeTest, Echo) { ExpectEverySubjectMoved("echo --train=5 --peers=3 --rate=20k"); }
TEST(SmokeTest, Receive) { ExpectEverySubjectMoved("receive --size=1000 --train=10"); }
TEST(SmokeTest, Send) { ExpectEverySubjectMoved("send --size=1000 --train=10 --peers=7"); }
TEST(SmokeTest, Mix) {
  ExpectEverySubjectMoved("forward --mix --train=16 --interleave=3 --peers=100 --check=1");
}

// Through a relay and an engine behind it, and beside them: each packet is counted once, and keeps
// its order. Loops by hand say that they know no relays.
void RunRelayed(const std::string& seconds, bool* moved) {
  const Outcome outcome = RunBench(
      "forward --relayed=50 --peers=8 --train=5 --subjects=ringsock,ringsock-mmsg,uring "
      "--rounds=1 --idle-peers=10 --warmup=0.1 --json=- --seconds=" +
      seconds + " 2>/dev/null");
  ASSERT_EQ(outcome.code, 0);
  const auto json = nlohmann::json::parse(outcome.out, nullptr, false);
  ASSERT_FALSE(json.is_discarded()) << outcome.out;
  const auto& subjects = json["scenarios"][0]["subjects"];
  ASSERT_EQ(subjects.size(), 3u);
  EXPECT_EQ(subjects[2]["error"], "it knows no relays");
  *moved = true;
  for (size_t i = 0; i < 2; ++i) {
    ASSERT_FALSE(subjects[i].contains("error")) << subjects[i]["error"];
    const auto& round = subjects[i]["rounds"][0];
    *moved &= round["sent"] > 0 && round["lost"] < round["sent"];
    EXPECT_EQ(round["misdelivered"], 0);
    EXPECT_EQ(round["invalid"], 0);
    EXPECT_EQ(round["duplicates"], 0);
    EXPECT_EQ(round["reordered"], 0);
  }
}
TEST(SmokeTest, Relayed) {
  for (const char* seconds : {"1", "3", "10"}) {
    bool moved = false;
    ASSERT_NO_FATAL_FAILURE(RunRelayed(seconds, &moved));
    if (moved || HasFailure()) return;
  }
  ADD_FAILURE() << "nothing came in ten seconds";
}

TEST(SmokeTest, ReportWritesPageFiguresAndPicture) {
  const std::string folder = std::string(std::getenv("TEST_TMPDIR")) + "/report";
  ASSERT_EQ(RunBench("report --only shards --rounds 1 --seconds 0.05 --out " + folder +
                     " >/dev/null 2>&1")
                .code,
            0);
  std::ifstream file(folder + "/report.json");
  const auto json = nlohmann::json::parse(file, nullptr, false);
  ASSERT_FALSE(json.is_discarded());
  const auto& subjects = json["charts"][0]["points"][0]["subjects"];
  ASSERT_EQ(subjects.size(), 4u);
  for (const auto& subject : subjects) EXPECT_EQ(subject["rounds"].size(), 1u) << subject;
  EXPECT_TRUE(std::ifstream(folder + "/report.html").good());
  // There is no main chart in it to draw.
  const Outcome outcome =
      RunBench("report --from " + folder + "/report.json --chart " + folder + "/main.svg 2>&1");
  EXPECT_EQ(outcome.code, 1);
  EXPECT_THAT(outcome.out, HasSubstr("no main chart"));
  EXPECT_EQ(RunBench("report --plan long --out x 2>/dev/null").code, 2);
  EXPECT_EQ(RunBench("report --help").code, 0);
}

TEST(SmokeTest, TableOnStandardOutput) {
  const Outcome outcome =
      RunBench("latency --subjects=recvfrom --rounds=1 --seconds=0.1 2>/dev/null");
  EXPECT_EQ(outcome.code, 0);
  EXPECT_THAT(outcome.out, HasSubstr("p99us"));
  EXPECT_THAT(outcome.out, HasSubstr("recvfrom"));
}

TEST(SmokeTest, BadFlagsEndWithTwo) {
  const Outcome outcome = RunBench("forward --size=1 2>&1");
  EXPECT_EQ(outcome.code, 2);
  EXPECT_THAT(outcome.out, HasSubstr("--size=1: must be"));
  EXPECT_EQ(RunBench("2>/dev/null").code, 2);
  EXPECT_EQ(RunBench("help").code, 0);
  EXPECT_EQ(RunBench("forward --rounds=1 --seconds=0.05 --subjects=recvfrom "
                     "--json=/nonexistent/file >/dev/null 2>&1")
                .code,
            1);
}

}  // namespace
}  // namespace ringsock::bench
