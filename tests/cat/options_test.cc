// The command line of ringsock-cat: what it takes, and what its errors name.
#include "cat/options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstdio>
#include <fstream>
#include <string>
#include <vector>

namespace ringsock::cat {
namespace {

using std::chrono::milliseconds;
using testing::HasSubstr;

constexpr char kKey[] = "u1D/noKldM+/gg6X9g+5wUPsdBXPUU+M/Zjv9Z4FlhQ=";
constexpr char kHex[] = "45c7c1e397281f9127fa60004895aa23089586fae0301a101aa37a6120ec0f0f";

absl::StatusOr<Options> Parse(std::vector<std::string> args) {
  args.insert(args.begin(), "ringsock-cat");
  std::vector<char*> argv;
  for (std::string& arg : args) argv.push_back(arg.data());
  return ParseOptions(argv);
}

std::string Error(std::vector<std::string> args) {
  const auto options = Parse(std::move(args));
  return options.ok() ? "no error" : std::string(options.status().message());
}

class TempFile {
 public:
  explicit TempFile(const std::string& text, mode_t mode = 0600)
      : path_(testing::TempDir() + "/cat_options_file") {
    std::ofstream(path_) << text;
    EXPECT_EQ(chmod(path_.c_str(), mode), 0);
  }
  ~TempFile() { std::remove(path_.c_str()); }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

TEST(CatOptions, EverythingGiven) {
  const auto options = Parse(
      {"--port",     "41641",     "--json", "--echo",
       "--size=100", "--count",   "7",      "--interval",
       "20ms",       "--receive", "3",      "--timeout",
       "1.5s",       "--linger",  "0",      "--backend",
       "mmsg",       "--to",      kHex,     std::string(kKey) + "@192.0.2.1:1,[2001:db8::1]:2",
       kHex});
  ASSERT_TRUE(options.ok()) << options.status();
  EXPECT_EQ(options->engine.port, 41641);
  EXPECT_TRUE(options->json);
  EXPECT_TRUE(options->echo);
  EXPECT_EQ(options->size, 100u);
  EXPECT_EQ(options->count, 7u);
  EXPECT_EQ(options->interval, milliseconds(20));
  EXPECT_EQ(options->receive, 3u);
  EXPECT_EQ(options->timeout, milliseconds(1500));
  EXPECT_EQ(options->linger, Duration());
  EXPECT_EQ(options->engine.io.backend, io::Backend::kMmsg);
  ASSERT_EQ(options->peers.size(), 2u);
  EXPECT_EQ(options->peers[0].key.ToBase64(), kKey);
  EXPECT_EQ(options->peers[0].endpoints, "192.0.2.1:1,[2001:db8::1]:2");
  EXPECT_EQ(options->peers[1].endpoints, "");
  EXPECT_EQ(options->to, options->peers[1].key);
}

TEST(CatOptions, BindChoosesTheFamily) {
  const auto options = Parse({"--bind", "::1"});
  ASSERT_TRUE(options.ok()) << options.status();
  EXPECT_FALSE(options->engine.ipv4);
  EXPECT_TRUE(options->engine.ipv6);
  EXPECT_EQ(options->engine.bind_v6.ToString(), "::1");
}

TEST(CatOptions, PeersFile) {
  const TempFile file("# ours\n\n  " + std::string(kKey) + "@192.0.2.1:1  # home\n" + kHex + "\n");
  const auto options = Parse({"--peers", file.path()});
  ASSERT_TRUE(options.ok()) << options.status();
  EXPECT_EQ(options->peers.size(), 2u);
}

TEST(CatOptions, PeersFileErrorNamesTheLine) {
  const TempFile file(std::string(kKey) + "\n\nnonsense\n");
  EXPECT_THAT(Error({"--peers", file.path()}), HasSubstr(file.path() + " line 3: "));
  EXPECT_THAT(Error({"--peers", "/no/such/file"}), HasSubstr("/no/such/file: cannot be read"));
}

TEST(CatOptions, BadInputNamesFlagAndValue) {
  EXPECT_THAT(Error({"--port", "70000"}), HasSubstr("--port \"70000\": want a number from 0"));
  EXPECT_THAT(Error({"--port", "-1"}), HasSubstr("--port \"-1\""));
  EXPECT_THAT(Error({"--size", "0"}), HasSubstr("--size \"0\": want a number from 1"));
  EXPECT_THAT(Error({"--size", "65508"}), HasSubstr("to 65507"));
  EXPECT_THAT(Error({"--interval", "soon"}), HasSubstr("--interval \"soon\": want a time"));
  EXPECT_THAT(Error({"--timeout", "-1s"}), HasSubstr("--timeout \"-1s\""));
  EXPECT_THAT(Error({"--backend", "dpdk"}), HasSubstr("auto, io_uring or mmsg"));
  EXPECT_THAT(Error({"--bind", "localhost"}), HasSubstr("--bind \"localhost\""));
  EXPECT_THAT(Error({"--to", kKey}), HasSubstr("not among the peers"));
  EXPECT_THAT(Error({"--count", "1"}), HasSubstr("need --size"));
  EXPECT_THAT(Error({"--what"}), HasSubstr("--what: no such flag"));
  EXPECT_THAT(Error({"--port"}), HasSubstr("--port: needs a value"));
  EXPECT_THAT(Error({"abc"}), HasSubstr("peer \"abc\": a key is 44 characters"));
  EXPECT_THAT(Error({std::string(kKey) + "@192.0.2.1"}), HasSubstr("is not ip:port: no port"));
  EXPECT_THAT(Error({kKey, kKey}), HasSubstr("is given twice"));
  std::string many = std::string(kKey) + "@192.0.2.1:1";
  for (int i = 2; i <= 17; ++i) many += ",192.0.2.1:" + std::to_string(i);
  EXPECT_THAT(Error({many}), HasSubstr("17 endpoints, at most 16"));
}

TEST(CatOptions, Relays) {
  const TempFile map(
      R"({"Regions": {"3": {"RegionID": 3, "Nodes": [{"HostName": "r.example"}]}}})");
  const std::string peer = std::string(kKey) + "@127.3.3.40:3,192.0.2.1:1";
  const auto options = Parse({"--derp-map", map.path(), "--derp-roots", "roots.pem", peer});
  ASSERT_TRUE(options.ok()) << options.status();
  EXPECT_EQ(options->derp_map->Find(3)->nodes[0].host_name, "r.example");
  EXPECT_EQ(options->derp_roots_file, "roots.pem");
  EXPECT_THAT(options->warnings, testing::IsEmpty());

  const auto lost = Parse({"--derp-map", map.path(), std::string(kKey) + "@127.3.3.40:4"});
  ASSERT_TRUE(lost.ok()) << lost.status();
  EXPECT_THAT(lost->warnings, testing::ElementsAre(HasSubstr("region 4 is not in the relay map")));
  const auto none = Parse({peer});
  ASSERT_TRUE(none.ok()) << none.status();
  EXPECT_THAT(none->warnings, testing::ElementsAre(HasSubstr("there is no --derp-map")));

  EXPECT_THAT(Error({"--derp-map", "/no/such"}), HasSubstr("--derp-map: /no/such: cannot be read"));
  const TempFile bad(R"({"Regions": {"3": {"Nodes": []}}})");
  EXPECT_THAT(Error({"--derp-map", bad.path()}), HasSubstr("Regions[\"3\"].Nodes: no nodes"));
}

TEST(CatOptions, PrivateKeyFileIsOurs) {
  constexpr char kPrivate[] = "qIvMZbdmwJ9CEzfCDlrGMcSPxnqNcSiElRqtSfIyAF0=\n";
  {
    const TempFile file(kPrivate);
    const auto options = Parse({"--private-key-file", file.path()});
    ASSERT_TRUE(options.ok()) << options.status();
    EXPECT_FALSE(options->private_key.IsZero());
  }
  const TempFile open(kPrivate, 0644);
  EXPECT_THAT(Error({"--private-key-file", open.path()}),
              testing::AllOf(HasSubstr("--private-key-file: "), HasSubstr("chmod 600"),
                             testing::Not(HasSubstr("qIvM"))));
}

TEST(CatOptions, PrivateKeyFromAFile) {
  constexpr char kPrivate[] = "qIvMZbdmwJ9CEzfCDlrGMcSPxnqNcSiElRqtSfIyAF0=\n";
  {
    const TempFile file(kPrivate);
    const auto options = Parse({"--private-key", file.path()});
    ASSERT_TRUE(options.ok()) << options.status();
    EXPECT_FALSE(options->private_key.IsZero());
  }
  const TempFile open(kPrivate, 0644);
  EXPECT_THAT(Error({"--private-key", open.path()}),
              testing::AllOf(HasSubstr("--private-key: "), HasSubstr("chmod 600"),
                             testing::Not(HasSubstr("qIvM"))));
}

TEST(CatOptions, PrivateKeyOnTheCommandLineIsWiped) {
  std::string args[] = {"ringsock-cat", "--private-key",
                        "qIvMZbdmwJ9CEzfCDlrGMcSPxnqNcSiElRqtSfIyAF0="};
  char* argv[] = {args[0].data(), args[1].data(), args[2].data()};
  const auto options = ParseOptions(argv);
  ASSERT_TRUE(options.ok()) << options.status();
  EXPECT_FALSE(options->private_key.IsZero());
  EXPECT_EQ(args[2], std::string(args[2].size(), '\0'));
}

TEST(CatOptions, AMistypedKeyIsNeverRepeated) {
  const std::string secret = "A" + std::string(kKey).substr(2) + "=x";
  for (const std::vector<std::string>& args : std::vector<std::vector<std::string>>{
           {"--private-key", secret}, {"--private-kye=" + secret}, {secret}, {"--to", secret}}) {
    const std::string error = Error(args);
    EXPECT_THAT(error, testing::Not(HasSubstr("no error")));
    EXPECT_THAT(error, testing::Not(HasSubstr(secret.substr(0, 8)))) << args[0];
  }
}

}  // namespace
}  // namespace ringsock::cat
