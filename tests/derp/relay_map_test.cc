// The relay map: what its fields mean, what is refused and how that is said, equality.
#include "derp/relay_map.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

namespace ringsock::derp {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr char kFull[] = R"({"Regions": {
  "1": {"RegionID": 1, "RegionCode": "nyc", "RegionName": "New York", "Avoid": true, "Nodes": [
    {"Name": "1a", "RegionID": 1, "HostName": "a.example.com", "CertName": "b.example.com",
     "IPv4": "192.0.2.1", "IPv6": "2001:db8::1", "STUNPort": 3479, "STUNOnly": true,
     "DERPPort": 8443, "InsecureForTests": true, "CanPort80": true},
    {"Name": "1b", "HostName": "c.example.com"}]},
  "900": {"RegionCode": "own", "Nodes": [{"Name": "x", "HostName": "192.0.2.9"}], "Later": [1]}},
  "OmitDefaultRegions": true, "HomeParams": {"a": 1}})";

absl::StatusOr<RelayMap> Parsed(const std::string& json) { return ParseRelayMap(json, nullptr); }

// A map of one region and one node, whose JSON object has these fields.
std::string OneNode(const std::string& fields) {
  return absl::StrCat(R"({"Regions":{"1":{"Nodes":[{)", fields, "}]}}}");
}
RelayNode Node(const std::string& fields) {
  const auto map = Parsed(OneNode(fields));
  EXPECT_TRUE(map.ok()) << map.status();
  return map.ok() ? map->regions.at(1).nodes.at(0) : RelayNode{};
}
std::string Error(const std::string& json) {
  const auto map = Parsed(json);
  EXPECT_FALSE(map.ok()) << json;
  return std::string(map.status().message());
}

// spec: derp.md, DERP map.
TEST(RelayMapTest, EveryField) {
  const auto map = Parsed(kFull);
  ASSERT_TRUE(map.ok()) << map.status();
  EXPECT_TRUE(map->omit_default_regions);
  ASSERT_EQ(map->regions.size(), 2u);
  const RelayRegion& region = map->regions.at(1);
  EXPECT_EQ(region.region_id, 1);
  EXPECT_EQ(region.region_code, "nyc");
  EXPECT_EQ(region.region_name, "New York");
  EXPECT_TRUE(region.avoid);
  ASSERT_EQ(region.nodes.size(), 2u);
  const RelayNode& node = region.nodes[0];
  EXPECT_EQ(node.name, "1a");
  EXPECT_EQ(node.host_name, "a.example.com");
  EXPECT_EQ(node.certificate_name(), "b.example.com");
  EXPECT_EQ(node.v4().address, *IpAddress::Parse("192.0.2.1"));
  EXPECT_EQ(node.v6().address, *IpAddress::Parse("2001:db8::1"));
  EXPECT_EQ(node.stun(), 3479);
  EXPECT_TRUE(node.stun_only);
  EXPECT_EQ(node.port(), 8443);
  EXPECT_TRUE(node.insecure());
  EXPECT_TRUE(node.can_port80);
  // Ids may have gaps, and may be left to the key.
  ASSERT_NE(map->Find(900), nullptr);
  EXPECT_EQ(map->Find(900)->region_id, 900);
  EXPECT_EQ(map->Find(900)->nodes[0].region_id, 900);
  EXPECT_EQ(map->Find(2), nullptr);
}

TEST(RelayMapTest, AbsentFieldsAreZeroAndMeanTheDefaults) {
  const RelayNode node = Node(R"("HostName":"relay.example.com")");
  EXPECT_EQ(node.port(), 443);
  EXPECT_EQ(node.stun(), 3478);
  EXPECT_FALSE(node.insecure());
  EXPECT_FALSE(node.stun_only);
  EXPECT_EQ(node.certificate_name(), "relay.example.com");
  EXPECT_TRUE(node.v4().enabled);
  EXPECT_FALSE(node.v4().address.has_value());
  EXPECT_TRUE(node.v6().enabled);
}

TEST(RelayMapTest, Ports) {
  EXPECT_EQ(Node(R"("HostName":"a","STUNPort":-1)").stun(), std::nullopt);
  EXPECT_EQ(Node(R"("HostName":"a","STUNPort":0)").stun(), 3478);
  EXPECT_EQ(Node(R"("HostName":"a","DERPTestPort":8080)").port(), 8080);
  EXPECT_EQ(Node(R"("HostName":"a","DERPPort":8443,"DERPTestPort":8080)").port(), 8443);
}

// spec: derp.md, Transport: the test port or InsecureForTests switches verification off, nothing
// else.
TEST(RelayMapTest, OnlyTwoFieldsSwitchVerificationOff) {
  EXPECT_TRUE(Node(R"("HostName":"a","DERPTestPort":8080)").insecure());
  EXPECT_TRUE(Node(R"("HostName":"a","InsecureForTests":true)").insecure());
  EXPECT_FALSE(
      Node(R"("HostName":"a","DERPPort":8080,"CertName":"b","CanPort80":true)").insecure());
}

TEST(RelayMapTest, PinnedCertificate) {
  const std::string hex(64, 'a');
  const RelayNode node = Node(absl::StrCat(R"("HostName":"a","CertName":"sha256-raw:)", hex, "\""));
  ASSERT_TRUE(node.certificate_pin().has_value());
  EXPECT_EQ((*node.certificate_pin())[31], 0xaa);
  EXPECT_EQ(node.certificate_name(), "");
  EXPECT_FALSE(Node(R"("HostName":"a","CertName":"b")").certificate_pin().has_value());
  for (const std::string& bad : {std::string(), hex + "a", hex.substr(1) + "g", hex.substr(2)}) {
    EXPECT_EQ(Error(OneNode(absl::StrCat(R"("HostName":"a","CertName":"sha256-raw:)", bad, "\""))),
              "Regions[\"1\"].Nodes[0].CertName: sha256-raw: wants 64 hex digits");
  }
}

// spec: derp.md, DERP map: "none" (or any non-address) disables that family.
TEST(RelayMapTest, NonAddressesDisableTheFamily) {
  std::vector<std::string> warnings;
  auto map = ParseRelayMap(OneNode(R"("HostName":"a","IPv6":"none")"), &warnings);
  EXPECT_FALSE(map->regions.at(1).nodes[0].v6().enabled);
  EXPECT_TRUE(map->regions.at(1).nodes[0].v4().enabled);
  EXPECT_THAT(warnings, IsEmpty());
  map = ParseRelayMap(OneNode(R"("HostName":"a","IPv4":"192.0.2.300")"), &warnings);
  EXPECT_FALSE(map->regions.at(1).nodes[0].v4().enabled);
  EXPECT_THAT(warnings, ElementsAre("Regions[\"1\"].Nodes[0].IPv4: \"192.0.2.300\" is no IPv4 "
                                    "address: IPv4 is off"));
  // An address of the other family is none of this one.
  EXPECT_FALSE(Node(R"("HostName":"a","IPv4":"2001:db8::1")").v4().enabled);
  EXPECT_FALSE(Node(R"("HostName":"a","IPv6":"192.0.2.1")").v6().enabled);
}

TEST(RelayMapTest, InsecureNodesAreWarnedOf) {
  std::vector<std::string> warnings;
  ASSERT_TRUE(ParseRelayMap(OneNode(R"("HostName":"a","DERPTestPort":1)"), &warnings).ok());
  EXPECT_THAT(warnings, ElementsAre("Regions[\"1\"].Nodes[0]: its certificate is not verified"));
}

TEST(RelayMapTest, BadInputNamesTheField) {
  const std::string node0 = "Regions[\"1\"].Nodes[0]";
  const std::pair<std::string, std::string> cases[] = {
      {"", "relay map: no JSON at byte"},
      {"[]", "relay map: not a JSON object"},
      {R"({"Regions":[]})", "Regions: not an object"},
      {R"({"OmitDefaultRegions":1})", "OmitDefaultRegions: not true or false"},
      // Ids.
      {R"({"Regions":{"1":{},"1":{}}})", "key \"1\" is there twice"},
      {R"({"Regions":{"-1":{}}})", "Regions[\"-1\"]: the key is no region id from 1 to 65535"},
      {R"({"Regions":{"0":{}}})", "Regions[\"0\"]: the key is no region id"},
      {R"({"Regions":{"01":{}}})", "Regions[\"01\"]: the key is no region id"},
      {R"({"Regions":{"65536":{}}})", "Regions[\"65536\"]: the key is no region id"},
      {R"({"Regions":{"x\n":{}}})", "Regions[\"x \"]: the key is no region id"},
      {R"({"Regions":{"1":{"RegionID":-1}}})", "Regions[\"1\"].RegionID: -1 is not from 1"},
      {R"({"Regions":{"1":{"RegionID":2}}})", "Regions[\"1\"].RegionID: is 2"},
      {R"({"Regions":{"1":7}})", "Regions[\"1\"]: not an object"},
      // Names, which are logged.
      {R"({"Regions":{"1":{"RegionCode":"a\nb"}}})", "Regions[\"1\"].RegionCode: has control"},
      {R"({"Regions":{"1":{"RegionCode":"\u001b[2J"}}})", ".RegionCode: has control characters"},
      {R"({"Regions":{"1":{"RegionName":"\u007f"}}})", "Regions[\"1\"].RegionName: has control"},
      {R"({"Regions":{"1":{"RegionName":"x\u009b31m"}}})", ".RegionName: has control characters"},
      {R"({"Regions":{"1":{"RegionName":"\u0000"}}})", ".RegionName: has control characters"},
      // Nodes.
      {R"({"Regions":{"1":{}}})", "Regions[\"1\"].Nodes: no nodes"},
      {R"({"Regions":{"1":{"Nodes":null}}})", "Regions[\"1\"].Nodes: no nodes"},
      {R"({"Regions":{"1":{"Nodes":[]}}})", "Regions[\"1\"].Nodes: no nodes"},
      {R"({"Regions":{"1":{"Nodes":{}}}})", "Regions[\"1\"].Nodes: not an array"},
      {R"({"Regions":{"1":{"Nodes":[3]}}})", node0 + ": not an object"},
      {R"({"Regions":{"1":{"Nodes":[{"Name":"a","HostName":"a"},{"Name":"a","HostName":"b"}]}}})",
       "Regions[\"1\"].Nodes[1].Name: \"a\" is there twice"},
      {OneNode(R"("HostName":"a","RegionID":2)"), node0 + ".RegionID: is 2 in region 1"},
      {OneNode(R"("HostName":"a","Name":"x\r\ny")"), node0 + ".Name: has characters"},
      // Addresses.
      {OneNode(""), node0 + ".HostName: empty, and no address is given"},
      {OneNode(R"("HostName":"a b")"), node0 + ".HostName: \"a b\" is no host name"},
      {OneNode(R"("HostName":"a:443")"), node0 + ".HostName: \"a:443\" is no host name"},
      {OneNode(R"("HostName":"a..b")"), node0 + ".HostName: \"a..b\" is no host name"},
      {OneNode(R"("HostName":"a","CertName":"https://a")"), node0 + ".CertName: \"https://a\""},
      {OneNode(R"("HostName":"a","IPv4":"none","IPv6":"none")"),
       node0 + ".IPv4: \"none\" and IPv6 \"none\": no address of either family"},
      {OneNode(R"("HostName":7)"), node0 + ".HostName: not a string"},
      // Ports.
      {OneNode(R"("HostName":"a","STUNPort":-2)"), node0 + ".STUNPort: -2 is not from -1 to 65535"},
      {OneNode(R"("HostName":"a","STUNPort":65536)"), node0 + ".STUNPort: 65536 is not"},
      {OneNode(R"("HostName":"a","DERPPort":-1)"), node0 + ".DERPPort: -1 is not from 0"},
      {OneNode(R"("HostName":"a","DERPPort":"443")"), node0 + ".DERPPort: not a whole number"},
      {OneNode(R"("HostName":"a","STUNOnly":"no")"), node0 + ".STUNOnly: not true or false"},
  };
  for (const auto& [json, error] : cases) EXPECT_THAT(Error(json), HasSubstr(error)) << json;
}

TEST(RelayMapTest, BombsAreBounded) {
  EXPECT_THAT(Error(R"({"x":)" + std::string(1 << 20, '[')), HasSubstr("nested deeper than"));
  EXPECT_THAT(Error(std::string((4 << 20) + 1, ' ')), HasSubstr("bytes, over"));
}

TEST(RelayMapTest, RegionsMayHaveNamesOfAnyLanguage) {
  const auto map = Parsed(
      "{\"Regions\":{\"1\":{\"RegionCode\":\"sao\",\"RegionName\":\"S\u00e3o Paulo \u00a0\","
      "\"Nodes\":[{\"HostName\":\"a\"}]}}}");
  ASSERT_TRUE(map.ok()) << map.status();
  EXPECT_EQ(map->Find(1)->region_name, "S\u00e3o Paulo \u00a0");
}

// spec: DERP-7, "if it differs".
TEST(RelayMapTest, EqualityIsOfContentNotOfText) {
  const RelayMap map = *Parsed(kFull);
  EXPECT_EQ(*Parsed(ToJson(map)), map);
  RelayMap other = map;
  other.regions.at(900).nodes[0].can_port80 = true;
  EXPECT_NE(other, map);
  EXPECT_NE(*Parsed(ToJson(other)), map);
}

TEST(RelayMapTest, AnEmptyMapHasNoRegions) {
  EXPECT_EQ(*Parsed("{}"), RelayMap{});
  EXPECT_EQ(*Parsed(R"({"Regions":null})"), RelayMap{});
  EXPECT_EQ(ToJson(RelayMap{}), R"({"Regions":{}})");
}

TEST(RelayMapTest, PrintedAsTheReferenceDoes) {
  EXPECT_EQ(ToJson(*Parsed(OneNode(R"("Name":"1a","HostName":"a","DERPPort":8443)"))),
            R"({"Regions":{"1":{"RegionID":1,"RegionCode":"","RegionName":"","Nodes":)"
            R"([{"Name":"1a","RegionID":1,"HostName":"a","DERPPort":8443}]}}})");
}

}  // namespace
}  // namespace ringsock::derp
