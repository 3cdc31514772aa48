// The map that the relay prints: JSON that a client reads as what was meant.
#include "relay/map_entry.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace ringsock::relay {
namespace {

MapEntry Entry() {
  MapEntry entry;
  entry.region_id = 901;
  entry.region_code = "own";
  entry.region_name = "own \"relay\" \\ Zürich";
  entry.host_name = "relay.example.com";
  entry.stun_port = derp::kDefaultStunPort;
  return entry;
}

// As a client reads what was printed.
derp::RelayNode Read(const MapEntry& entry) {
  const derp::RelayMap made = MakeRelayMap(entry);
  std::vector<std::string> warnings;
  const auto read = derp::ParseRelayMap(derp::ToJson(made), &warnings);
  EXPECT_TRUE(read.ok()) << read.status();
  EXPECT_TRUE(warnings.empty()) << warnings.front();
  if (!read.ok()) return {};
  EXPECT_EQ(*read, made);
  const derp::RelayRegion* region = read->Find(entry.region_id);
  EXPECT_NE(region, nullptr);
  EXPECT_EQ(region->region_name, entry.region_name);
  return region->nodes.at(0);
}

TEST(MapEntryTest, NameWithDefaultPorts) {
  const derp::RelayNode node = Read(Entry());
  EXPECT_EQ(node.host_name, "relay.example.com");
  EXPECT_EQ(node.certificate_name(), "relay.example.com");
  EXPECT_EQ(node.port(), 443);
  EXPECT_EQ(node.stun(), 3478);
  EXPECT_FALSE(node.insecure());
  EXPECT_TRUE(node.v4().enabled && node.v6().enabled);
  EXPECT_FALSE(node.v4().address.has_value()) << "asks DNS";
}

TEST(MapEntryTest, PinOfASelfSignedCertificate) {
  MapEntry entry = Entry();
  entry.pin.emplace();
  for (size_t i = 0; i < entry.pin->size(); ++i) (*entry.pin)[i] = static_cast<uint8_t>(i * 9);
  const derp::RelayNode node = Read(entry);
  EXPECT_EQ(node.certificate_pin(), entry.pin);
  EXPECT_EQ(node.certificate_name(), "");
  EXPECT_FALSE(node.insecure());
}

TEST(MapEntryTest, PortsOfItsOwnAndNoStun) {
  MapEntry entry = Entry();
  entry.derp_port = 8443;
  entry.stun_port = 3479;
  EXPECT_EQ(Read(entry).port(), 8443);
  EXPECT_EQ(Read(entry).stun(), 3479);
  entry.stun_port.reset();
  EXPECT_EQ(Read(entry).stun(), std::nullopt);
}

TEST(MapEntryTest, AddressesSaveDns) {
  MapEntry entry = Entry();
  entry.ipv4 = *IpAddress::Parse("192.0.2.7");
  entry.ipv6 = *IpAddress::Parse("2001:db8::7");
  EXPECT_EQ(Read(entry).v4().address, entry.ipv4);
  EXPECT_EQ(Read(entry).v6().address, entry.ipv6);
}

TEST(MapEntryTest, AnAddressAsNameSwitchesTheOtherFamilyOff) {
  MapEntry entry = Entry();
  entry.host_name = "192.0.2.7";
  EXPECT_EQ(Read(entry).v4().address, IpAddress::V4(192, 0, 2, 7));
  EXPECT_FALSE(Read(entry).v6().enabled);
  entry.ipv6 = *IpAddress::Parse("2001:db8::7");
  EXPECT_EQ(Read(entry).v6().address, entry.ipv6);
  entry.ipv6.reset();
  entry.host_name = "2001:db8::7";
  EXPECT_FALSE(Read(entry).v4().enabled);
  EXPECT_EQ(Read(entry).v6().address, *IpAddress::Parse("2001:db8::7"));
}

}  // namespace
}  // namespace ringsock::relay
