// Our endpoints in a file and in a command's input, each time they change.
#include "gateway/endpoints_publisher.h"

#include <sys/stat.h>

#include <cstdlib>
#include <fstream>
#include <functional>
#include <iterator>
#include <nlohmann/json.hpp>
#include <string>

#include <gtest/gtest.h>

namespace ringsock::gateway {
namespace {

using Json = nlohmann::json;

OwnEndpoint Stun(const std::string& text) {
  return {*Endpoint::Parse(text), EndpointSource::kStun};
}

std::string Contents(const std::string& file) {
  std::ifstream in(file);
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

bool Eventually(const std::function<bool()>& condition) {
  const Instant end = SystemClock().Now() + std::chrono::seconds(30);
  while (!condition()) {
    if (SystemClock().Now() > end) return false;
    std::this_thread::yield();
  }
  return true;
}

class EndpointsPublisherTest : public testing::Test {
 protected:
  EndpointsPublisherTest() {
    folder_ = std::string(std::getenv("TEST_TMPDIR")) + "/XXXXXX";
    EXPECT_NE(mkdtemp(folder_.data()), nullptr);
    options_.file = folder_ + "/endpoints.json";
    log_ = folder_ + "/log";
    options_.timeout = std::chrono::seconds(60);
  }
  // A command that adds its input to a file.
  std::vector<std::string> Append(const std::string& then = "") {
    return {"sh", "-c", "tr -d ' \\n' >> \"$0\"; echo >> \"$0\"; " + then, log_};
  }
  void Set(const std::string& endpoint) {
    const OwnEndpoint one = Stun(endpoint);
    publisher_.SetEndpoints({&one, 1});
  }
  bool Ran(uint64_t runs) {
    return Eventually([&] { return publisher_.runs() >= runs; });
  }
  // How often `text` is in what the command got.
  size_t Told(const std::string& text) {
    const std::string all = Contents(log_);
    size_t count = 0;
    for (size_t at = all.find(text); at != std::string::npos; at = all.find(text, at + 1)) ++count;
    return count;
  }

  std::string folder_;
  std::string log_;
  PublishOptions options_;
  EndpointsPublisher publisher_;
};

TEST(OwnStateTest, AsJson) {
  OwnState state;
  EXPECT_EQ(Json::parse(ToJson(state)),
            Json::parse(R"({"version": 1, "public_key": null, "derp_region": null,
                            "endpoints": [], "net": null})"));
  state.home = 5;  // as it is known without a look at the network
  EXPECT_EQ(Json::parse(ToJson(state))["derp_region"], 5);
  state.key = PublicKey::Parse("Cp12ZWOjLKjkJaudNvN1GFTIACpxpTFCmRgdJxVCPHk=").value();
  state.endpoints = {Stun("192.0.2.1:41641"),
                     {*Endpoint::Parse("[2001:db8::1]:41641"), EndpointSource::kLocal}};
  NetInfo& info = state.net_info.emplace();
  info.udp = true;
  info.home = 7;
  info.mapping_varies = stun::Answer::kNo;
  info.latency["7-v4"] = std::chrono::microseconds(12'500);
  EXPECT_EQ(Json::parse(ToJson(state)), Json::parse(R"({
      "version": 1, "public_key": "Cp12ZWOjLKjkJaudNvN1GFTIACpxpTFCmRgdJxVCPHk=", "derp_region": 7,
      "endpoints": [{"address": "192.0.2.1:41641", "source": "stun"},
                    {"address": "[2001:db8::1]:41641", "source": "local"}],
      "net": {"udp": true, "ipv6": false, "mapping_varies": false, "hairpin": null,
              "latency_ms": {"7-v4": 12.5}}})"));
}

TEST_F(EndpointsPublisherTest, FileAndCommandAtEachChange) {
  options_.command = Append("echo $RINGSOCK_ENDPOINTS_FILE >> \"$0\"");
  publisher_.SetOptions(options_);
  EXPECT_EQ(publisher_.runs(), 0u);  // nothing is known yet
  Set("192.0.2.1:1");
  ASSERT_TRUE(Ran(1));
  EXPECT_EQ(Json::parse(Contents(options_.file))["endpoints"][0]["address"], "192.0.2.1:1");
  EXPECT_EQ(Told("192.0.2.1:1"), 1u);
  EXPECT_EQ(Told(options_.file), 1u);
  publisher_.SetKey(*PublicKey::Parse(std::string(64, '5')));
  ASSERT_TRUE(Ran(2));
  EXPECT_EQ(Told("192.0.2.1:1"), 2u);
  publisher_.SetHome(2);
  ASSERT_TRUE(Ran(3));
  EXPECT_EQ(Json::parse(Contents(options_.file))["derp_region"], 2);
  NetInfo info;
  info.home = 3;
  publisher_.SetNetInfo(info);
  ASSERT_TRUE(Ran(4));
  EXPECT_EQ(Json::parse(Contents(options_.file))["derp_region"], 3);
  // Nothing beside it is left.
  EXPECT_EQ(Contents(options_.file + ".new"), "");
}

TEST_F(EndpointsPublisherTest, NewOptionsPublishWhatIsKnown) {
  Set("192.0.2.1:1");
  publisher_.SetOptions(options_);
  ASSERT_TRUE(Ran(1));
  options_.file += "2";
  publisher_.SetOptions(options_);
  ASSERT_TRUE(Ran(2));
  EXPECT_EQ(Contents(options_.file), Contents(folder_ + "/endpoints.json"));
  publisher_.SetOptions(options_);  // no change
  publisher_.SetOptions({});        // nothing to do
  EXPECT_EQ(publisher_.runs(), 2u);
}

// One at a time; what comes meanwhile is published once, as it is then.
TEST_F(EndpointsPublisherTest, TheLatestStateWins) {
  const std::string gate = folder_ + "/gate";
  ASSERT_EQ(mkfifo(gate.c_str(), 0600), 0);
  options_.command = Append("cat " + gate);
  publisher_.SetOptions(options_);
  Set("192.0.2.1:1");
  ASSERT_TRUE(Eventually([&] { return Told("192.0.2.1:1") == 1; }));
  Set("192.0.2.1:2");
  Set("192.0.2.1:3");
  Set("192.0.2.1:4");
  std::ofstream(gate) << "go\n";
  ASSERT_TRUE(Eventually([&] { return Told("192.0.2.1:4") == 1; }));
  std::ofstream(gate) << "go\n";
  ASSERT_TRUE(Ran(2));
  EXPECT_EQ(Told("192.0.2.1:2"), 0u);
  EXPECT_EQ(Told("192.0.2.1:3"), 0u);
  EXPECT_EQ(Told("192.0.2.1:4"), 1u);
}

TEST_F(EndpointsPublisherTest, AFailureIsTriedAgainWithTheNextChange) {
  const std::string file = options_.file;
  options_.file = folder_ + "/no/such/folder/x";
  options_.command = Append("exit 3");
  publisher_.SetOptions(options_);
  Set("192.0.2.1:1");
  ASSERT_TRUE(Ran(1));
  EXPECT_EQ(Told("192.0.2.1:1"), 1u);  // it may know another way than the file
  options_.file = file;
  options_.command = Append("sleep 1000");
  options_.timeout = std::chrono::milliseconds(100);
  publisher_.SetOptions(options_);
  ASSERT_TRUE(Ran(2));
  options_.command = Append();
  options_.timeout = std::chrono::seconds(60);
  publisher_.SetOptions(options_);
  Set("192.0.2.1:2");
  // With the next run or, if that began before, with the one after it.
  EXPECT_TRUE(Eventually([&] { return Told("192.0.2.1:2") == 1; }));
}

// The destructor does not wait for it.
TEST_F(EndpointsPublisherTest, ACommandThatHangsDoesNotHoldUpTheEnd) {
  options_.command = Append("sleep 1000");
  options_.timeout = std::chrono::hours(1);
  publisher_.SetOptions(options_);
  Set("192.0.2.1:1");
  EXPECT_TRUE(Eventually([&] { return Told("192.0.2.1:1") == 1; }));
}

}  // namespace
}  // namespace ringsock::gateway
