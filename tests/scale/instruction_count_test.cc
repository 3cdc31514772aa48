// Instructions per packet of the packet path, counted by callgrind: a guard that does not depend on
// how fast or how busy the machine is. Each thing is done N and 2N times; the difference is free of
// what starting and filling the tables takes.
//
// Counts are the same in every run of one program. They move with the compiler and, by little, with
// the C library, which picks its copies by what the CPU has; so each bound is the count with GCC 12
// at -O2, given beside it, and a third more (of lookups: the count when addresses were still made
// for each, about a third of it). Nothing of ours picks code by the CPU, and valgrind
// shows the same one, without AVX-512, on all machines that have AVX2.
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <ostream>
#include <sstream>
#include <string>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"

namespace ringsock {
namespace {

constexpr char kProgram[] = "tests/scale/packet_path_program";

struct Outcome {
  int status = -1;
  std::string output;
  uint64_t instructions = 0;
};

Outcome RunUnderCallgrind(const std::string& command) {
  const char* folder = std::getenv("TEST_TMPDIR");
  const std::string file =
      absl::StrCat(folder == nullptr ? "/tmp" : folder, "/callgrind.", getpid());
  Outcome outcome;
  FILE* pipe = popen(
      absl::StrCat("valgrind --tool=callgrind --callgrind-out-file=", file, " ", command, " 2>&1")
          .c_str(),
      "r");
  if (pipe == nullptr) return outcome;
  for (char buffer[4096]; fgets(buffer, sizeof(buffer), pipe) != nullptr;) {
    outcome.output += buffer;
  }
  outcome.status = pclose(pipe);
  std::ifstream counts(file);
  for (std::string line; std::getline(counts, line);) {
    std::istringstream words(line);
    std::string name;
    if (words >> name && name == "totals:") words >> outcome.instructions;
  }
  std::remove(file.c_str());
  return outcome;
}

struct Bound {
  const char* what;
  uint32_t times;
  double most;  // instructions each time
};
void PrintTo(const Bound& bound, std::ostream* out) { *out << bound.what; }

void SkipWithoutCallgrind() {
#if !defined(__x86_64__)
  GTEST_SKIP() << "the bounds are those of x86-64";
#endif
  const Outcome probe = RunUnderCallgrind("/bin/true");
  if (probe.status != 0 || probe.instructions == 0) {
    GTEST_SKIP() << "valgrind does not run here: " << probe.output;
  }
}

double PerTime(const std::string& what, uint32_t times) {
  uint64_t counts[2] = {};
  for (const uint32_t round : {0u, 1u}) {
    const Outcome outcome =
        RunUnderCallgrind(absl::StrCat(kProgram, " ", what, " ", times * (round + 1)));
    EXPECT_EQ(outcome.status, 0) << outcome.output;
    counts[round] = outcome.instructions;
  }
  EXPECT_GT(counts[1], counts[0]);
  return (static_cast<double>(counts[1]) - static_cast<double>(counts[0])) / times;
}

class InstructionCountTest : public testing::TestWithParam<Bound> {
  void SetUp() override { SkipWithoutCallgrind(); }
};
class UpdateCountTest : public testing::Test {
  void SetUp() override { SkipWithoutCallgrind(); }
};

TEST_P(InstructionCountTest, StaysWithinItsBound) {
  const Bound& bound = GetParam();
  const double count = PerTime(bound.what, bound.times);
  RecordProperty("instructions", absl::StrCat(count));
  std::printf("%s: %.1f instructions\n", bound.what, count);
  EXPECT_LE(count, bound.most);
  // Less would be a bound that guards nothing, or a loop that the compiler took out.
  EXPECT_GE(count, bound.most / 5);
}

INSTANTIATE_TEST_SUITE_P(PacketPath, InstructionCountTest,
                         testing::Values(Bound{"classify", 20000, 18},             // 13.0
                                         Bound{"classify-trains", 46 * 1000, 20},  // 14.3
                                         Bound{"lookup", 20000,
                                               125},  // 103 with the making of an address
                                         Bound{"lookup-unknown", 20000, 140},     // 138 likewise
                                         Bound{"lookup-batch", 32 * 1000, 135},   // 111 likewise
                                         Bound{"lookup-id", 20000, 35},           // 26.0
                                         Bound{"choose-path", 20000, 75},         // 56.0
                                         Bound{"build-trains", 46 * 1000, 270}),  // 203
                         [](const testing::TestParamInfo<Bound>& info) {
                           std::string name;
                           for (const char* c = info.param.what; *c != '\0'; ++c) {
                             if (*c != '-') name += *c;
                           }
                           return name;
                         });

// As many instructions beside 50,000 peers as beside 50, give or take the size of one segment of
// the tables, which is what an update moves at most.
TEST_F(UpdateCountTest, IsTheSameBesideManyPeersAndFew) {
  const double few = PerTime("add-remove-50", 4000);
  const double many = PerTime("add-remove-50000", 4000);
  std::printf("add and remove: %.0f instructions beside 50 peers, %.0f beside 50000\n", few, many);
  RecordProperty("beside_50", absl::StrCat(few));
  RecordProperty("beside_50000", absl::StrCat(many));
  EXPECT_LE(many, 1.5 * few);
  EXPECT_LE(few, 1.5 * many);
}

}  // namespace
}  // namespace ringsock
