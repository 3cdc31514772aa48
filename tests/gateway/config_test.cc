// The gateway's configuration: what is read, and that every mistake gives one clear error.
#include "gateway/config.h"

#include <cstdio>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace ringsock::gateway {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

constexpr char kKeyA[] = "Cp12ZWOjLKjkJaudNvN1GFTIACpxpTFCmRgdJxVCPHk=";
constexpr char kKeyB[] = "8ea5dd5e20acd5d4d4b7f2cbdc71bbdd5ab4a5ab2ba5e7fd6ab6ff86b4b7e32f";

// A configuration of one line in which one part can be replaced.
std::string Text(std::string peers = "[]", std::string more = "",
                 std::string wireguard = R"({"port": 51820})") {
  return R"({"wireguard": )" + wireguard + R"(, "listen_port": 41641, "local_port": 51821, )" +
         more + R"("peers": )" + peers + "}";
}

std::string Peer(const std::string& key, const std::string& endpoints = "[]") {
  return R"({"public_key": ")" + key + R"(", "endpoints": )" + endpoints + "}";
}

std::string ErrorOf(const std::string& text) {
  const auto config = ParseConfig("gw.json", text);
  return config.ok() ? "no error" : std::string(config.status().message());
}

TEST(ConfigTest, Defaults) {
  const auto config = ParseConfig("gw.json", Text());
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->wireguard_port, 51820);
  EXPECT_EQ(config->wireguard_address, IpAddress::V4(127, 0, 0, 1));
  EXPECT_EQ(config->wireguard_interface, "wg0");
  EXPECT_FALSE(config->wireguard_key.has_value());
  EXPECT_EQ(config->listen_port, 41641);
  EXPECT_EQ(config->local_port, 51821);
  EXPECT_EQ(config->range.ToString(), "127.100.0.0/16");
  EXPECT_EQ(config->shards, 0u);
  EXPECT_EQ(config->io.backend, io::Backend::kAuto);
  EXPECT_TRUE(config->peers.empty());
}

TEST(ConfigTest, Everything) {
  const auto config = ParseConfig("gw.json", R"({
    "wireguard": {"port": 1, "address": "127.0.0.9", "interface": "wg-1",
                  "public_key": "Cp12ZWOjLKjkJaudNvN1GFTIACpxpTFCmRgdJxVCPHk="},
    "listen_port": 0, "local_port": 65535, "loopback_range": "127.128.0.0/9",
    "log_level": "debug",
    "engine": {"shards": 3, "pin_threads": false, "backend": "mmsg", "gso": false, "gro": false,
               "steering": "receiver_index", "zero_copy": false, "spin_us": 50,
               "rx_buffers": 1, "rx_batch": 1024, "tx_queue": 16384, "tx_slabs": 0,
               "socket_buffer": 8192, "ipv4": true, "ipv6": false,
               "bind_ipv4": "192.0.2.1", "bind_ipv6": "::1"},
    "peers": [
      {"name": "a", "public_key": "Cp12ZWOjLKjkJaudNvN1GFTIACpxpTFCmRgdJxVCPHk=",
       "endpoints": ["127.3.3.40:2", "192.0.2.7:1", "[2001:db8::1]:65535"]},
      {"public_key": "8ea5dd5e20acd5d4d4b7f2cbdc71bbdd5ab4a5ab2ba5e7fd6ab6ff86b4b7e32f",
       "endpoints": ["127.3.3.40:2"]}]})");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->wireguard_key->ToBase64(), kKeyA);
  EXPECT_EQ(config->range.base, (127u << 24) | (128u << 16));
  EXPECT_EQ(config->range.size, 1u << 23);
  EXPECT_EQ(config->log_level, "debug");
  EXPECT_EQ(config->shards, 3u);
  EXPECT_FALSE(config->pin_threads);
  EXPECT_EQ(config->steering, io::Steering::kReceiverIndex);
  EXPECT_EQ(config->io.backend, io::Backend::kMmsg);
  EXPECT_FALSE(config->io.gso || config->io.gro || config->io.zero_copy);
  EXPECT_EQ(config->io.spin, std::chrono::microseconds(50));
  EXPECT_EQ(config->io.rx_buffers, 1u);
  EXPECT_EQ(config->io.rx_batch, 1024u);
  EXPECT_EQ(config->io.tx_queue, 16384u);
  EXPECT_EQ(config->io.tx_slabs, 0u);
  EXPECT_EQ(config->socket_buffer, 8192);
  EXPECT_FALSE(config->ipv6);
  EXPECT_EQ(config->bind_v4.ToString(), "192.0.2.1");
  ASSERT_EQ(config->peers.size(), 2u);
  EXPECT_EQ(config->peers[0].Label(), "a");
  ASSERT_EQ(config->peers[0].endpoints.size(), 3u);
  EXPECT_TRUE(IsRelay(config->peers[0].endpoints[0]));
  EXPECT_EQ(config->peers[0].endpoints[2].ToString(), "[2001:db8::1]:65535");
  EXPECT_EQ(config->peers[1].key.ToHex(), kKeyB);
  EXPECT_EQ(config->peers[1].Label(), config->peers[1].key.ToShortString());
}

TEST(ConfigTest, ExampleParses) {
  const auto config = LoadConfig("gateway/example.json");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->peers.size(), 2u);
}

struct BadCase {
  const char* name;
  std::string text;
  std::string error;  // what the message must contain
};

class BadConfigTest : public testing::TestWithParam<BadCase> {};

TEST_P(BadConfigTest, OneClearError) {
  const std::string error = ErrorOf(GetParam().text);
  EXPECT_THAT(error, HasSubstr(GetParam().error));
  EXPECT_THAT(error, testing::StartsWith("gw.json: "));
  EXPECT_THAT(error, Not(HasSubstr("\n")));
}

const BadCase kSyntax[] = {
    {"Empty", "", "line 1, column 1: the JSON text ends too early"},
    {"CutOff", "{\"wireguard\":\n {\"port\": 1", "line 2, column 12: the JSON text ends too early"},
    {"Comma", "{\n  \"a\": 1,,\n}", "line 2, column 10: not valid JSON from here"},
    {"NotUtf8", "{\"\xff\": 1}", "line 1, column 3"},
    {"HugeNumber", "{\"a\": 1e999}", "number is out of range"},
    {"Array", "[]", "must be one JSON object, not array"},
    {"SameKeyTwice", "{\"local_port\": 1, \"local_port\": 2}",
     "\"local_port\": the same key twice"},
    {"SameKeyTwiceInside", R"({"wireguard": {"port": 1, "port": 2}})", "\"port\": the same key"},
    {"UnknownKey", Text("[]", R"("listen_prot": 3, )"),
     "\"listen_prot\": unknown key; known here are wireguard, listen_port"},
    {"UnknownKeyInside", Text("[]", "", R"({"port": 1, "prot": 2})"),
     "wireguard.\"prot\": unknown key"},
    {"UnknownKeyInPeer", Text(R"([{"public_key": 1}, {"key": "x"}])"), "peers["},
    {"MissingSection", R"({"listen_port": 1, "local_port": 2, "peers": []})",
     "wireguard: is missing"},
    {"MissingKey", Text(R"([{"name": "x"}])"), "peers[0].public_key: is missing"},
    {"MissingPeers", R"({"wireguard": {"port": 1}, "listen_port": 2, "local_port": 3})",
     "peers: is missing"},
};
INSTANTIATE_TEST_SUITE_P(Syntax, BadConfigTest, testing::ValuesIn(kSyntax),
                         [](const auto& info) { return std::string(info.param.name); });

const BadCase kValues[] = {
    {"PortZero", Text("[]", "", R"({"port": 0})"),
     "wireguard.port: 0 is not a whole number from 1 to 65535"},
    {"PortLarge", Text("[]", "", R"({"port": 65536})"), "wireguard.port: 65536 is not"},
    {"PortHuge", Text("[]", "", R"({"port": 18446744073709551615})"), "18446744073709551615 is"},
    {"PortNegative", Text("[]", "", R"({"port": -1})"), "wireguard.port: -1 is not"},
    {"PortFraction", Text("[]", "", R"({"port": 1.5})"), "wireguard.port: 1.5 is not"},
    {"PortText", Text("[]", "", R"({"port": "1"})"),
     "wireguard.port: must be a whole number, not string"},
    {"PortNull", Text("[]", "", R"({"port": null})"), "must be a whole number, not null"},
    {"SectionType", Text("[]", "", "[]"), "wireguard: must be an object, not array"},
    {"PeersType", Text("{}"), "peers: must be a list of objects, not object"},
    {"PeerType", Text("[1]"), "peers[0]: must be an object, not number"},
    {"BoolType", Text("[]", R"("engine": {"gso": 1}, )"),
     "engine.gso: must be true or false, not number"},
    {"Steering", Text("[]", R"("engine": {"steering": "hash"}, )"), "engine.steering: \"hash\""},
    {"Backend", Text("[]", R"("engine": {"backend": "epoll"}, )"), "engine.backend: \"epoll\""},
    {"Shards", Text("[]", R"("engine": {"shards": 129}, )"),
     "engine.shards: 129 is not a whole number from 0 to 128"},
    {"RxBuffers", Text("[]", R"("engine": {"rx_buffers": 0}, )"),
     "engine.rx_buffers: 0 is not a whole number from 1 to 32768"},
    {"RxBatch", Text("[]", R"("engine": {"rx_batch": 1025}, )"),
     "engine.rx_batch: 1025 is not a whole number from 1 to 1024"},
    {"TxQueue", Text("[]", R"("engine": {"tx_queue": 0}, )"),
     "engine.tx_queue: 0 is not a whole number from 1 to 16384"},
    {"TxSlabs", Text("[]", R"("engine": {"tx_slabs": -1}, )"),
     "engine.tx_slabs: -1 is not a whole number from 0 to 4096"},
    {"BothFamiliesOff", Text("[]", R"("engine": {"ipv4": false, "ipv6": false}, )"), "engine.ipv6"},
    {"BindFamily", Text("[]", R"("engine": {"bind_ipv4": "::1"}, )"),
     "engine.bind_ipv4: \"::1\": must be an IPv4 address"},
    {"LogLevel", Text("[]", R"("log_level": "loud", )"), "log_level: \"loud\": must be one of"},
    {"Interface", Text("[]", "", R"({"port": 1, "interface": "a; reboot"})"),
     "wireguard.interface: \"a; reboot\""},
    {"WireGuardAddress", Text("[]", "", R"({"port": 1, "address": "192.0.2.1"})"),
     "wireguard.address: \"192.0.2.1\": must be in 127.0.0.0/8"},
    {"SamePorts", Text("[]", "", R"({"port": 51821})"), "local_port: 51821 is wireguard.port"},
    {"SamePorts2", Text("[]", "", R"({"port": 41641})"), "listen_port: 41641 is wireguard.port"},
};
INSTANTIATE_TEST_SUITE_P(Values, BadConfigTest, testing::ValuesIn(kValues),
                         [](const auto& info) { return std::string(info.param.name); });

std::string Range(const std::string& range) {
  return Text("[]", R"("loopback_range": ")" + range + "\", ");
}

const BadCase kRanges[] = {
    {"NoPrefix", Range("127.100.0.0"), "loopback_range: \"127.100.0.0\": is not of the form"},
    {"BadPrefix", Range("127.100.0.0/x"), "is not of the form"},
    {"SignedPrefix", Range("127.100.0.0/+9"), "is not of the form"},
    {"BadAddress", Range("127.100.0/16"), "is not an IP address"},
    {"Outside", Range("128.0.0.0/16"), "is not inside 127.0.0.0/8"},
    {"TooWide", Range("126.0.0.0/7"), "is not inside 127.0.0.0/8"},
    {"V6", Range("::1/16"), "is not inside 127.0.0.0/8"},
    {"HostBits", Range("127.100.3.0/16"), "the range starts at 127.100.0.0"},
    {"TooSmall", Range("127.100.0.0/29"), "the prefix length is from 9 to 28"},
    {"Whole", Range("127.0.0.0/8"), "the prefix length"},
    {"Localhost", Range("127.0.0.0/16"), "overlaps 127.0.0.0/24, used by localhost"},
    {"Resolver", Range("127.0.0.48/28"), "overlaps 127.0.0.0/24"},
    {"HostName", Range("127.0.1.0/24"), "overlaps 127.0.1.1/32"},
    {"Relay", Range("127.3.0.0/16"), "overlaps 127.3.3.40/32, used by relay endpoints"},
    {"WireGuard", Text("[]", "", R"({"port": 51820, "address": "127.100.1.1"})"),
     "loopback_range: \"127.100.0.0/16\": overlaps wireguard.address 127.100.1.1"},
    {"TooFewAddresses",
     Text("[" +
              Peer(kKeyA, R"(["192.0.2.1:1","192.0.2.1:2","192.0.2.1:3","192.0.2.1:4",)"
                          R"("192.0.2.1:5","192.0.2.1:6","192.0.2.1:7","192.0.2.1:8"])") +
              "]",
          R"("loopback_range": "127.100.0.0/28", )"),
     "has 16 addresses; these peers and endpoints need 32"},
};
INSTANTIATE_TEST_SUITE_P(Ranges, BadConfigTest, testing::ValuesIn(kRanges),
                         [](const auto& info) { return std::string(info.param.name); });

std::string Endpoints(int count) {
  std::string list;
  for (int i = 1; i <= count; ++i) {
    list += (i == 1 ? "\"192.0.2.1:" : ",\"192.0.2.1:") + std::to_string(i) + "\"";
  }
  return "[" + list + "]";
}

const BadCase kPeers[] = {
    {"KeyShort", Text("[" + Peer("Cp12") + "]"), "peers[0].public_key: \"Cp12\": a key is 44"},
    {"KeyZero", Text("[" + Peer(std::string(64, '0')) + "]"), "the all-zero key"},
    {"KeyTwice", Text("[" + Peer(kKeyA) + "," + Peer(kKeyB) + "," + Peer(kKeyA) + "]"),
     "peers[2].public_key: [Cp12Z]: the same key as peers[0]"},
    {"NameLine", Text(R"([{"public_key": ")" + std::string(kKeyA) + R"(", "name": "a\nb"}])"),
     "peers[0].name: \"a\\nb\": a name has"},
    {"EndpointNoPort", Text("[" + Peer(kKeyA, R"(["192.0.2.1"])") + "]"),
     "peers[0].endpoints[0]: \"192.0.2.1\": "},
    {"EndpointName", Text("[" + Peer(kKeyA, R"(["a.example:1"])") + "]"), "endpoints[0]"},
    {"EndpointType", Text("[" + Peer(kKeyA, "[7]") + "]"),
     "peers[0].endpoints[0]: must be a string, not number"},
    {"EndpointAny", Text("[" + Peer(kKeyA, R"(["0.0.0.0:1"])") + "]"), "no address of one host"},
    {"EndpointMulticast", Text("[" + Peer(kKeyA, R"(["[ff02::1]:1"])") + "]"), "no address of one"},
    {"EndpointTwice", Text("[" + Peer(kKeyA, R"(["192.0.2.1:1","[::ffff:192.0.2.1]:1"])") + "]"),
     "peers[0].endpoints[1]: \"[::ffff:192.0.2.1]:1\": stands twice"},
    {"EndpointOfAnother",
     Text("[" + Peer(kKeyA, R"(["192.0.2.1:1"])") + "," + Peer(kKeyB, R"(["192.0.2.1:1"])") + "]"),
     "peers[1].endpoints[0]: \"192.0.2.1:1\": belongs to peers[0]"},
    {"TooManyEndpoints", Text("[" + Peer(kKeyA, Endpoints(17)) + "]"),
     "peers[0].endpoints: has 17 items, at most 16 can be"},
    {"EndpointIsWireGuard", Text("[" + Peer(kKeyA, R"(["127.0.0.1:51820"])") + "]"),
     "peers[0].endpoints[0]: \"127.0.0.1:51820\": leads back to this host's wireguard.port"},
    {"EndpointIsOurs", Text("[" + Peer(kKeyA, R"(["127.0.0.2:51821"])") + "]"),
     "leads back to this host's local_port"},
    {"EndpointIsOurPublicPort", Text("[" + Peer(kKeyA, R"(["[::1]:41641"])") + "]"),
     "leads back to this host's listen_port"},
    {"EndpointIsWhatWeBind",
     Text("[" + Peer(kKeyA, R"(["192.0.2.1:41641"])") + "]",
          R"("engine": {"bind_ipv4": "192.0.2.1"}, )"),
     "leads back to this host's listen_port"},
    {"EndpointOfLines", Text("[" + Peer(kKeyA, R"(["192.0.2.1\n:x"])") + "]"),
     "endpoints[0]: \"192.0.2.1\\n:x\": "},
    {"NameIsAKey",
     Text(R"([{"public_key": ")" + std::string(kKeyA) + R"(", "name": "a )" + kKeyA + "\"}]"),
     "peers[0].name: \"a Cp12...\": looks like a key"},
    {"EndpointInRange", Text("[" + Peer(kKeyA, R"(["127.100.0.1:1"])") + "]"),
     "peers[0].endpoints[0]: \"127.100.0.1:1\": lies in loopback_range 127.100.0.0/16"},
};
INSTANTIATE_TEST_SUITE_P(Peers, BadConfigTest, testing::ValuesIn(kPeers),
                         [](const auto& info) { return std::string(info.param.name); });

TEST(ConfigTest, AsManyEndpointsAsTheEngineTakes) {
  const auto config = ParseConfig("gw.json", Text("[" + Peer(kKeyA, Endpoints(16)) + "]"));
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->peers[0].endpoints.size(), 16u);
}

// Our ports, but of other hosts or of addresses that we do not bind.
TEST(ConfigTest, EndpointsWithOurPortsElsewhere) {
  for (const char* endpoint : {"192.0.2.1:51820", "192.0.2.1:41641", "192.0.2.1:51821"}) {
    const std::string text = Text("[" + Peer(kKeyA, "[\"" + std::string(endpoint) + "\"]") + "]");
    EXPECT_EQ(ErrorOf(text), "no error") << endpoint;
  }
  EXPECT_EQ(ErrorOf(Text("[" + Peer(kKeyA, R"(["127.0.0.9:41641"])") + "]",
                         R"("engine": {"bind_ipv4": "192.0.2.1"}, )")),
            "no error");
}

// People paste private keys into the wrong place: an error must not carry them to a log.
TEST(ConfigTest, ErrorsShowNoSecret) {
  const std::string secret = "qIvMZbdmwJ9CEzfCDlrGMcSPxnqNcSiElRqtSfIyAF0=";
  const std::string texts[] = {
      Text("[" + Peer(secret + "=") + "]"),
      Text("[]", R"("private_key": ")" + secret + "\", "),
      Text("[]", "\"log_level\": \"info\", \"engine\": " + secret + ", "),
      Text("[]", "\"log_level\": \"" + secret),
      Text("[" + Peer(secret) + "," + Peer(secret) + "]"),
      Text("[" + Peer(kKeyA, "[\"" + secret + "\"]") + "]"),
      Text("[" + Peer(kKeyA, "[\"192.0.2.1:1 " + secret + " x:1\"]") + "]"),
      Text("[" + Peer(kKeyA, "[\"[" + secret + "]:1\"]") + "]"),
      Text(R"([{"public_key": ")" + std::string(kKeyA) + R"(", "name": ")" + secret + "\"}]"),
      Text(R"([{"public_key": ")" + std::string(kKeyA) + R"(", "name": "\n)" + secret + "\"}]"),
      Text("[]", "\"" + secret + "\": 1, "),
      Text("[]", "\"PrivateKey = " + secret + "\": 1, "),
      Text("[]", "\"" + secret + "\": 1, \"" + secret + "\": 1, "),
      Text("[]", "\"log_level\": \"" + secret + "\", "),
      Text("[]", R"("private_key_file": ")" + secret + "\", "),
      Text("[]",
           R"("private_key_file": "x", "derp_map": {"Regions": {")" + secret + R"(": {}}}, )"),
      Text("[]", "\"loopback_range\": \"" + secret + "\", "),
      Text("[]", "", R"({"port": 1, "interface": ")" + secret + "\"}"),
      Text("[]", "", R"({"port": 1, "address": ")" + secret + "\"}"),
      Text("[]", R"("engine": {"backend": ")" + secret + "\"}, "),
  };
  for (const std::string& text : texts) {
    const std::string error = ErrorOf(text);
    EXPECT_THAT(error, testing::StartsWith("gw.json: "));
    EXPECT_THAT(error, Not(HasSubstr(secret.substr(0, 8)))) << text;
  }
}

TEST(ConfigTest, DeepNestingIsAnError) {
  EXPECT_THAT(ErrorOf(std::string(200'000, '[')), HasSubstr("ends too early"));
}

TEST(ConfigTest, FileErrors) {
  const auto missing = LoadConfig("no/such/file.json");
  ASSERT_FALSE(missing.ok());
  EXPECT_EQ(missing.status().message(),
            "no/such/file.json: cannot be read: No such file or directory");
  const auto directory = LoadConfig("gateway");
  ASSERT_FALSE(directory.ok());
  EXPECT_EQ(directory.status().message(), "gateway: cannot be read: Is a directory");
}

}  // namespace
}  // namespace ringsock::gateway
