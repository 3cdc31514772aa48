// The command line of ringsock-netcheck: what it takes, and what its errors name.
#include "netcheck/options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <fstream>
#include <string>
#include <vector>

namespace ringsock::netcheck {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::HasSubstr;

class OptionsTest : public testing::Test {
 protected:
  ~OptionsTest() override { std::remove(path.c_str()); }
  absl::StatusOr<Options> Parse(std::vector<std::string> args, const std::string& map = kMap) {
    std::ofstream(path) << map;
    args.insert(args.begin(), "ringsock-netcheck");
    std::vector<char*> argv;
    for (std::string& arg : args) argv.push_back(arg.data());
    return ParseOptions(argv);
  }
  std::string Error(std::vector<std::string> args, const std::string& map = kMap) {
    const auto options = Parse(std::move(args), map);
    return options.ok() ? "no error" : std::string(options.status().message());
  }
  static constexpr char kMap[] =
      R"({"Regions": {"1": {"RegionID": 1, "Nodes": [{"HostName": "a.test", "IPv6": "nope"}]}}})";
  const std::string path = testing::TempDir() + "/netcheck_options_map";
};

TEST_F(OptionsTest, DefaultsAndEverythingGiven) {
  const auto few = Parse({"--derp-map", path});
  ASSERT_TRUE(few.ok()) << few.status();
  EXPECT_EQ(few->map.regions.size(), 1u);
  EXPECT_EQ(few->timeout, seconds(3));
  EXPECT_TRUE(few->port_mapping);
  EXPECT_FALSE(few->json || few->full || few->verbose || few->watch.has_value());
  ASSERT_EQ(few->warnings.size(), 1u);
  EXPECT_THAT(few->warnings[0], HasSubstr("IPv6"));

  const auto all =
      Parse({"--derp-map=" + path, "--derp-roots", "r.pem", "--port", "41641", "--timeout=500ms",
             "--no-port-mapping", "--full", "--watch", "20s", "--json", "--verbose"});
  ASSERT_TRUE(all.ok()) << all.status();
  EXPECT_EQ(all->roots_file, "r.pem");
  EXPECT_EQ(all->port, 41641);
  EXPECT_EQ(all->timeout, milliseconds(500));
  EXPECT_FALSE(all->port_mapping);
  EXPECT_EQ(all->watch, Duration(seconds(20)));
  EXPECT_TRUE(all->json && all->full && all->verbose);
}

TEST_F(OptionsTest, HelpNeedsNoMapAndNamesAllFlags) {
  const auto help = Parse({"--help"});
  ASSERT_TRUE(help.ok()) << help.status();
  EXPECT_TRUE(help->help);
  for (const char* flag : {"--derp-map", "--derp-roots", "--port", "--timeout", "--no-port-mapping",
                           "--full", "--watch", "--json", "--verbose", "Exit status"}) {
    EXPECT_THAT(Usage(), HasSubstr(flag));
  }
}

TEST_F(OptionsTest, ErrorsNameTheFlagAndTheValue) {
  EXPECT_THAT(Error({}), HasSubstr("--derp-map is needed"));
  EXPECT_THAT(Error({"--derp-map", path, "extra"}), HasSubstr("\"extra\""));
  EXPECT_THAT(Error({"--derp-map"}), HasSubstr("--derp-map: needs a value"));
  EXPECT_THAT(Error({"--nonsense"}), HasSubstr("--nonsense: no such flag"));
  EXPECT_THAT(Error({"--port", "65536"}), HasSubstr("--port \"65536\""));
  EXPECT_THAT(Error({"--port", "x"}), HasSubstr("--port \"x\""));
  EXPECT_THAT(Error({"--timeout", "31s"}), HasSubstr("--timeout \"31s\": want a time from"));
  EXPECT_THAT(Error({"--timeout", "0"}), HasSubstr("--timeout"));
  EXPECT_THAT(Error({"--watch", "1ms"}), HasSubstr("--watch \"1ms\""));
}

TEST_F(OptionsTest, BadMapsAreSaidWithTheirPlace) {
  EXPECT_THAT(Error({"--derp-map", "/nowhere/map"}), HasSubstr("/nowhere/map"));
  EXPECT_THAT(Error({"--derp-map", path}, "{"), HasSubstr(path));
  EXPECT_THAT(Error({"--derp-map", path}, "{}"), HasSubstr("has no regions"));
  EXPECT_THAT(Error({"--derp-map", path}, R"({"Regions": {"x": {}}})"),
              HasSubstr("Regions[\"x\"]"));
}

}  // namespace
}  // namespace ringsock::netcheck
