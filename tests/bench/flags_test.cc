// Flags with and without values, and what is said of each mistake.
#include "bench/flags.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <utility>
#include <vector>

namespace ringsock::bench {
namespace {

using ::testing::HasSubstr;

struct Values {
  uint32_t count = 0;
  double share = 0;
  double rate = 0;
  std::string text;
  bool on = false;

  FlagTable Table() {
    return {{"--count", {UintFlag(1, 9, &count)}},
            {"--share", {NumberFlag(0, 1, &share)}},
            {"--rate", {RateFlag(&rate)}},
            {"--text", {TextFlag("must be some text", &text)}},
            {"--on", SwitchFlag(&on)}};
  }
};

absl::Status Parse(const std::vector<const char*>& arguments, Values* values) {
  return ParseFlags(arguments, values->Table());
}

TEST(FlagsTest, BothSpellingsAndSwitches) {
  Values values;
  const absl::Status status =
      Parse({"--count=9", "--share", "0.5", "--on", "--rate=1.5M", "--text=a=b"}, &values);
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_EQ(values.count, 9u);
  EXPECT_EQ(values.share, 0.5);
  EXPECT_EQ(values.rate, 1.5e6);
  EXPECT_EQ(values.text, "a=b");
  EXPECT_TRUE(values.on);
}

TEST(FlagsTest, HelpEndsIt) {
  Values values;
  EXPECT_TRUE(absl::IsCancelled(Parse({"--count=3", "-h", "--nonsense"}, &values)));
  EXPECT_EQ(values.count, 3u);
}

TEST(FlagsTest, MistakesAreNamed) {
  const std::pair<std::vector<const char*>, const char*> mistakes[] = {
      {{"--count=0"}, "--count=0: must be a whole number from 1 to 9"},
      {{"--count=1x"}, "--count=1x"},
      {{"--share=nan"}, "--share=nan"},
      {{"--rate=-1"}, "--rate=-1"},
      {{"--text="}, "--text=: must be some text"},
      {{"--on=1"}, "--on=1: no such flag"},
      {{"--off"}, "--off: no such flag"},
      {{"stray"}, "stray: no such flag"},
      {{"--count"}, "--count: needs a value"},
  };
  for (const auto& [arguments, message] : mistakes) {
    Values values;
    EXPECT_THAT(std::string(Parse(arguments, &values).message()), HasSubstr(message));
  }
}

}  // namespace
}  // namespace ringsock::bench
