// Relay maps made by hand are held to the rules of those that are read.
#include "core/relay_hub.h"

#include "gtest/gtest.h"

namespace ringsock {
namespace {

derp::RelayMap Map() {
  derp::RelayMap map;
  derp::RelayRegion& region = map.regions[3];
  region.region_id = 3;
  derp::RelayNode node;
  node.name = "3a";
  node.region_id = 3;
  node.host_name = "derp3.example";
  region.nodes.push_back(node);
  return map;
}

TEST(CheckRelayMapTest, TakesWhatTheReaderTakes) {
  EXPECT_TRUE(CheckRelayMap(Map()).ok()) << CheckRelayMap(Map()).ToString();
  EXPECT_TRUE(CheckRelayMap({}).ok());  // relaying is off
}

TEST(CheckRelayMapTest, NamesWhatIsWrong) {
  const auto error = [](auto change) {
    derp::RelayMap map = Map();
    change(map);
    const absl::Status status = CheckRelayMap(map);
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << status.ToString();
    return std::string(status.message());
  };
  EXPECT_NE(error([](auto& map) { map.regions[3].nodes.clear(); }).find("Nodes"),
            std::string::npos);
  EXPECT_NE(error([](auto& map) { map.regions[3].region_id = 4; }).find("Region"),
            std::string::npos);
  EXPECT_NE(error([](auto& map) { map.regions[3].nodes[0].region_id = 4; }).find("RegionID"),
            std::string::npos);
  EXPECT_NE(error([](auto& map) { map.regions[3].nodes[0].derp_port = 65536; }).find("DERPPort"),
            std::string::npos);
  EXPECT_NE(error([](auto& map) { map.regions[3].nodes[0].host_name = "a b"; }).find("HostName"),
            std::string::npos);
  EXPECT_NE(error([](auto& map) { map.regions[0] = map.regions[3]; }).find("Region"),
            std::string::npos);
}

}  // namespace
}  // namespace ringsock
