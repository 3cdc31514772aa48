// The configuration of relays: the map, the files named, and what each mistake says.
#include "gateway/relay_config.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace ringsock::gateway {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

constexpr char kPeer[] = "Cp12ZWOjLKjkJaudNvN1GFTIACpxpTFCmRgdJxVCPHk=";
constexpr char kPrivate[] = "qIvMZbdmwJ9CEzfCDlrGMcSPxnqNcSiElRqtSfIyAF0=";
constexpr char kMap[] = R"({"Regions": {
    "1": {"RegionID": 1, "Nodes": [{"Name": "1a", "HostName": "relay.example"}]},
    "7": {"RegionID": 7, "Nodes": [{"Name": "7a", "HostName": "192.0.2.1"}]}}})";

// `more` stands before the peers, of which there is one, with `peer` after its key.
std::string Text(const std::string& more, const std::string& peer = "",
                 const std::string& wireguard = "") {
  return R"({"wireguard": {"port": 51820)" + wireguard +
         R"(}, "listen_port": 41641, "local_port": 51821, )" + more +
         R"("peers": [{"public_key": ")" + kPeer + "\"" + peer + "}]}";
}

std::string WithMap(const std::string& map) {
  return R"("private_key_file": "wg.key", "derp_map": )" + map + ", ";
}

std::string ErrorOf(const absl::StatusOr<Config>& config) {
  return config.ok() ? "no error" : std::string(config.status().message());
}

// A folder with a configuration and the files it names.
class RelayConfigTest : public testing::Test {
 protected:
  RelayConfigTest() : folder_(std::string(std::getenv("TEST_TMPDIR")) + "/") {
    const auto* info = testing::UnitTest::GetInstance()->current_test_info();
    folder_ += std::string(info->name()) + "/";
    mkdir(folder_.c_str(), 0700);
    Write("wg.key", std::string(kPrivate) + "\n");
    Write("relays.json", kMap);
  }

  std::string Write(const std::string& name, const std::string& text, mode_t mode = 0600) {
    std::ofstream(folder_ + name) << text;
    EXPECT_EQ(chmod((folder_ + name).c_str(), mode), 0);
    return folder_ + name;
  }
  absl::StatusOr<Config> Load(const std::string& text) {
    return LoadConfig(Write("gw.json", text));
  }
  // What `text` gives for an error, less the name of the configuration.
  std::string LoadError(const std::string& text) {
    const std::string error = ErrorOf(Load(text));
    EXPECT_THAT(error, testing::StartsWith(folder_ + "gw.json: "));
    EXPECT_THAT(error, Not(HasSubstr("\n")));
    EXPECT_THAT(error, Not(HasSubstr(std::string(kPrivate).substr(0, 8))));
    return error.substr(std::min(error.size(), folder_.size() + 9));
  }

  std::string folder_;
};

TEST_F(RelayConfigTest, NoRelaysByDefault) {
  const auto config = Load(Text(""));
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_FALSE(config->derp_map.has_value());
  EXPECT_EQ(config->private_key, nullptr);
  EXPECT_EQ(config->relay_queue.bytes, 1u << 20);
  EXPECT_EQ(config->relay_queue.age, std::chrono::seconds(3));
  EXPECT_THAT(config->warnings, IsEmpty());
}

TEST_F(RelayConfigTest, WhereOurEndpointsAreTold) {
  const auto config =
      Load(Text(R"("endpoints_file": "own.json", "endpoints_command": ["curl", "a b", ""], )"));
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->endpoints_file, folder_ + "own.json");
  EXPECT_EQ(config->endpoints_command, (std::vector<std::string>{"curl", "a b", ""}));
  EXPECT_THAT(LoadError(Text(R"("endpoints_command": ["", "x"], )")),
              HasSubstr("endpoints_command[0]: \"\": is no program"));
  EXPECT_THAT(LoadError(Text(R"("endpoints_command": "curl x", )")),
              HasSubstr("endpoints_command: must be a list"));
  EXPECT_THAT(LoadError(Text(R"("endpoints_file": "", )")), HasSubstr("is no name of a file"));
  EXPECT_THAT(LoadError(Text(R"("endpoints_file": "./gw.json", )")),
              HasSubstr("is a file that is read"));
}

// Nor is what lies beside it and is written first.
TEST_F(RelayConfigTest, WhatIsReadIsNotWrittenOnTheWayToOurEndpoints) {
  Write("own.json.new", kMap);
  const std::string map = R"("private_key_file": "wg.key", "derp_map": "own.json.new", )";
  EXPECT_THAT(LoadError(Text(map + R"("endpoints_file": "./own.json", )")),
              testing::AllOf(testing::StartsWith("endpoints_file: "),
                             HasSubstr("./own.json.new, which is a file that is read")));
  EXPECT_EQ(ErrorOf(Load(Text(map + R"("endpoints_file": "ours.json", )"))), "no error");
  // Under another name too.
  ASSERT_EQ(link((folder_ + "wg.key").c_str(), (folder_ + "x.new").c_str()), 0);
  EXPECT_THAT(LoadError(Text(map + R"("endpoints_file": "x", )")),
              HasSubstr("x.new, which is a file that is read"));
}

TEST_F(RelayConfigTest, FilesAreBesideTheConfiguration) {
  Write("roots.pem", "-----BEGIN CERTIFICATE-----\n");
  const auto config = Load(Text(
      R"("private_key_file": "wg.key", "derp_map": "relays.json", "derp_roots_file": "roots.pem",
         "derp_home": 1,
         "engine": {"relay_queue_bytes": 2000000, "relay_queue_ms": 500}, )",
      R"(, "derp_region": 7, "endpoints": ["192.0.2.1:1"])"));
  ASSERT_TRUE(config.ok()) << config.status();
  ASSERT_TRUE(config->derp_map.has_value());
  EXPECT_EQ(config->derp_map->Find(7)->nodes[0].host_name, "192.0.2.1");
  EXPECT_EQ(*config->private_key, *PrivateKey::Parse(kPrivate));
  EXPECT_EQ(config->wireguard_key, PrivateKey::Parse(kPrivate)->Public());
  EXPECT_EQ(config->derp_home, 1);
  EXPECT_EQ(config->derp_roots_file, folder_ + "roots.pem");
  EXPECT_EQ(config->relay_queue.bytes, 2'000'000u);
  EXPECT_EQ(config->relay_queue.age, std::chrono::milliseconds(500));
  ASSERT_EQ(config->peers[0].endpoints.size(), 2u);
  EXPECT_EQ(config->peers[0].endpoints[0], RelayEndpoint(7));
  EXPECT_THAT(config->warnings, IsEmpty());
  // By their whole names too.
  const auto absolute = Load(Text("\"private_key_file\": \"" + folder_ +
                                  "wg.key\", \"derp_map\": \"" + folder_ + "relays.json\", "));
  ASSERT_TRUE(absolute.ok()) << absolute.status();
  EXPECT_EQ(absolute->derp_map, config->derp_map);
}

TEST_F(RelayConfigTest, MapInTheConfiguration) {
  const auto config = Load(Text(WithMap(kMap), R"(, "derp_region": 1)"));
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->derp_map->regions.size(), 2u);
  EXPECT_THAT(config->warnings, IsEmpty());
}

TEST_F(RelayConfigTest, MistakesInTheMapNameTheirField) {
  const std::string no_nodes = R"({"Regions": {"3": {"RegionID": 3, "Nodes": []}}})";
  EXPECT_EQ(LoadError(Text(WithMap(no_nodes))), R"(derp_map: Regions["3"].Nodes: no nodes)");
  Write("relays.json", no_nodes);
  EXPECT_EQ(LoadError(Text(WithMap("\"relays.json\""))),
            "derp_map: " + folder_ + R"(relays.json: Regions["3"].Nodes: no nodes)");
  Write("relays.json", "{\"Regions\": ");
  EXPECT_THAT(LoadError(Text(WithMap("\"relays.json\""))),
              testing::StartsWith("derp_map: " + folder_ + "relays.json: "));
  EXPECT_EQ(LoadError(Text(WithMap("\"none.json\""))),
            "derp_map: " + folder_ + "none.json: cannot be read: No such file or directory");
  EXPECT_EQ(LoadError(Text(WithMap("[]"))), "derp_map: must be a string or an object, not array");
  EXPECT_EQ(LoadError(Text(WithMap("\"\""))), "derp_map: \"\": is no name of a file");
  EXPECT_EQ(LoadError(Text(R"("derp_map": "relays.json", )")),
            "private_key_file: is missing; relays want a proof that the WireGuard key is ours "
            "(derp_map)");
  const std::string deep =
      "{\"Regions\": " + std::string(100'000, '[') + std::string(100'000, ']') + "}";
  EXPECT_EQ(LoadError(Text(WithMap(deep))), "derp_map: is nested too deeply");
}

TEST_F(RelayConfigTest, MistakesAboutTheKey) {
  const std::string more = R"("private_key_file": "wg.key", )";
  Write("wg.key", kPrivate, 0644);
  EXPECT_THAT(LoadError(Text(more)),
              testing::AllOf(HasSubstr("private_key_file: " + folder_ + "wg.key: "),
                             HasSubstr("(mode 0644)"), HasSubstr("chmod 600")));
  Write("wg.key", "hello");
  EXPECT_THAT(LoadError(Text(more)), HasSubstr("wg.key: a key is 44 characters"));
  Write("wg.key", kPrivate);
  const std::string ours = PrivateKey::Parse(kPrivate)->Public().ToShortString();
  const std::string other = std::string(R"(, "public_key": ")") + kPeer + "\"";
  EXPECT_EQ(LoadError(Text(more, "", other)), "private_key_file: " + folder_ +
                                                  "wg.key: belongs to " + ours +
                                                  ", but wireguard.public_key is [Cp12Z]");
  const std::string same =
      R"(, "public_key": ")" + PrivateKey::Parse(kPrivate)->Public().ToBase64() + "\"";
  EXPECT_TRUE(Load(Text(more, "", same)).ok());
  // The key itself in place of the file's name.
  EXPECT_THAT(LoadError(Text(std::string("\"private_key_file\": \"") + kPrivate + "\", ")),
              HasSubstr("private_key_file: \"qIvM...\": is a key; write it to a file"));
}

TEST_F(RelayConfigTest, OurOwnKeyIsNoPeer) {
  const std::string text =
      R"({"wireguard": {"port": 1}, "listen_port": 2, "local_port": 3,
          "private_key_file": "wg.key", "peers": [{"public_key": ")" +
      PrivateKey::Parse(kPrivate)->Public().ToHex() + "\"}]}";
  EXPECT_THAT(LoadError(text), HasSubstr("peers[0].public_key: "));
  EXPECT_THAT(LoadError(text), HasSubstr("is our own"));
}

TEST_F(RelayConfigTest, MistakesAboutRoots) {
  const std::string more = R"("derp_roots_file": "roots.pem", )";
  EXPECT_THAT(LoadError(Text(more)),
              HasSubstr("derp_roots_file: " + folder_ + "roots.pem: cannot"));
  Write("roots.pem", "not PEM");
  EXPECT_THAT(LoadError(Text(more)), HasSubstr("roots.pem: has no certificate in PEM form"));
}

TEST_F(RelayConfigTest, MistakesAboutQueuesAndRegions) {
  EXPECT_THAT(LoadError(Text(R"("engine": {"relay_queue_bytes": 1}, )")),
              HasSubstr("engine.relay_queue_bytes: 1 is not a whole number from 131072"));
  EXPECT_THAT(LoadError(Text(R"("engine": {"relay_queue_ms": 0}, )")),
              HasSubstr("engine.relay_queue_ms: 0 is not"));
  for (const char* region : {"0", "-1", "65536"}) {
    EXPECT_EQ(
        LoadError(Text("", std::string(", \"derp_region\": ") + region)),
        std::string("peers[0].derp_region: ") + region + " is not a whole number from 1 to 65535");
  }
  EXPECT_EQ(LoadError(Text(WithMap(kMap) + R"("derp_home": 2, )")),
            "derp_home: region 2 is not in derp_map");
  EXPECT_EQ(LoadError(Text(R"("derp_home": 2, )")), "derp_home: needs a derp_map");
  // The position is the one in the file, where derp_region is no endpoint.
  EXPECT_THAT(
      LoadError(Text("", R"(, "derp_region": 7, "endpoints": ["192.0.2.1:1", "127.100.0.9:1"])")),
      HasSubstr("peers[0].endpoints[1]: \"127.100.0.9:1\": lies in loopback_range"));
  EXPECT_EQ(LoadError(Text("", R"(, "derp_region": 7, "endpoints": ["127.3.3.40:7"])")),
            "peers[0].endpoints[0]: \"127.3.3.40:7\": stands twice in the list");
}

TEST_F(RelayConfigTest, WhatLeadsNowhereIsAWarning) {
  const auto warnings = [this](const std::string& more, const std::string& peer) {
    const auto config = Load(Text(more, peer));
    EXPECT_TRUE(config.ok()) << config.status();
    return config.ok() ? config->warnings : std::vector<std::string>{};
  };
  EXPECT_THAT(warnings("", R"(, "derp_region": 7)"),
              ElementsAre("peers[0] ([Cp12Z]): is at a relay, but there is no derp_map"));
  EXPECT_THAT(warnings(WithMap(kMap), R"(, "endpoints": ["127.3.3.40:3"])"),
              ElementsAre("peers[0] ([Cp12Z]): region 3 is not in derp_map"));
  EXPECT_THAT(warnings(WithMap(kMap), R"(, "endpoints": ["192.0.2.1:1", "127.3.3.40:7"])"),
              ElementsAre(HasSubstr("the relay of region 7 should come first")));
  EXPECT_THAT(warnings(WithMap("{}"), ""), ElementsAre(HasSubstr("derp_map: has no regions")));
  EXPECT_THAT(warnings(WithMap(R"({"Regions": {"1": {"RegionID": 1, "Nodes": [
          {"Name": "1a", "HostName": "a.example", "InsecureForTests": true}]}}})"),
                       ""),
              ElementsAre(testing::StartsWith("derp_map: Regions[")));
}

TEST_F(RelayConfigTest, ManyWarningsAreCutShort) {
  Config config;
  for (uint8_t i = 1; i <= 30; ++i) {
    PeerConfig peer;
    peer.key.bytes[0] = i;
    peer.endpoints.push_back(RelayEndpoint(i));
    config.peers.push_back(peer);
  }
  CheckRelayRegions(&config);
  ASSERT_EQ(config.warnings.size(), 11u);
  EXPECT_EQ(config.warnings.back(), "... and 20 peers more like these");
}

}  // namespace
}  // namespace ringsock::gateway
